"""The outbound queue: looking at it, trying again, holding back, letting go, dropping.

What is meant is said by `Which`, in the words of an administrator. Whoever means everything has to say so: a move for
which nothing was named is refused.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mailserver.administration import Refused, refusing
from mailserver.administration.accounts import find
from mailserver.message import decode, headers
from storage import NotFound, Store, addresses, queue_admin, summaries
from storage.errors import Damaged
from storage.queue import Said
from storage.queue_admin import STATES, Cursor, Filter, Listed, Shown, Summary, Tally
from storage.records import AccountId, MessageId

MAX_LIMIT: Final = 1_000
MAX_TEXT: Final = 500
MAX_AGE_SECONDS: Final = 1e9

DROPPED: Final = Said(0, "5.3.0", "An administrator of this server took the message out of its queue", "")
"""What senders are told of whom a message was dropped with a notice."""

Progress = Callable[[int, int], None]
"""Told how many recipients have been gone through, and of how many."""


@dataclass(frozen=True, slots=True)
class Which:
    """Recipients in the queue that fulfil all that is given.

    destination: a domain, or `*.domain` for all below it. sender, recipient: an address, or a domain likewise; the
    sender `<>` is that of bounces. account: user name or address of whoever sent it. state: one of STATES. older_than,
    younger_than: age of the message, in seconds. reply: words in the last reply. everything: nothing else has to be
    given.
    """

    queue_id: int | None = None
    destination: str | None = None
    sender: str | None = None
    recipient: str | None = None
    account: str | None = None
    state: str | None = None
    older_than: float | None = None
    younger_than: float | None = None
    due: bool = False
    reply: str | None = None
    everything: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """after: what to ask for to get the next page; None where this is the last one."""

    recipients: tuple[Listed, ...]
    after: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """subject: "" where it has none, or cannot be read any more. It and preview are harmless on a terminal."""

    shown: Shown
    subject: str
    preview: str


async def list_page(store: Store, which: Which, after: str | None = None, limit: int = 100) -> Page:
    """Recipients, those of the oldest messages first."""
    if not 1 <= limit <= MAX_LIMIT:
        raise Refused(f"a page has 1 to {MAX_LIMIT} recipients", "limit")
    wanted = await _filter(store, which)
    found = await queue_admin.listed(store, wanted, None if after is None else _cursor(after), limit + 1)
    more = len(found) > limit
    return Page(tuple(found[:limit]), _written(found[limit - 1].cursor) if more else None)


async def show(store: Store, queue_id: int) -> Message:
    """A message and all its recipients."""
    _check_id(queue_id)
    with refusing("queue_id"):
        shown = await queue_admin.show(store, queue_id)
    try:
        header = await summaries.header(store, shown.account_id, queue_id)
    except (NotFound, Damaged):
        header = b""
    subject = decode.words(headers.value(header, b"subject") or b"")
    return Message(shown, _printable(subject), _printable(shown.preview))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:MAX_TEXT])


async def top(store: Store, limit: int = 20) -> Summary:
    """What waits in all, and for the destinations for which most does."""
    if not 1 <= limit <= MAX_LIMIT:
        raise Refused(f"a summary has 1 to {MAX_LIMIT} destinations", "limit")
    return await queue_admin.summary(store, limit)


async def count(store: Store, which: Which) -> int:
    """How many recipients a move would be tried on."""
    return await queue_admin.count(store, await _named(store, which))


def _silent(done: int, total: int) -> None: ...


async def retry(store: Store, which: Which, progress: Progress = _silent) -> Tally:
    """Tries them now. Those who are being tried are left to that; held ones are released."""
    return await _move(store, which, queue_admin.retry, progress)


async def hold(store: Store, which: Which, progress: Progress = _silent) -> Tally:
    """Keeps them back until they are released; they do not grow too old meanwhile."""
    return await _move(store, which, queue_admin.hold, progress)


async def release(store: Store, which: Which, progress: Progress = _silent) -> Tally:
    """Lets those that are held go on; they are tried now."""
    return await _move(store, which, queue_admin.release, progress)


async def drop(store: Store, which: Which, *, notify: bool, progress: Progress = _silent) -> Tally:
    """Takes them out of the queue. notify: their senders get a report that it failed, unless they wanted none."""
    told = DROPPED if notify else None

    async def dropping(store: Store, wanted: Filter, tell: queue_admin.Progress) -> Tally:
        return await queue_admin.drop(store, wanted, told, tell)

    return await _move(store, which, dropping, progress)


_Move = Callable[[Store, Filter, queue_admin.Progress], Awaitable[Tally]]


async def _move(store: Store, which: Which, move: _Move, progress: Progress) -> Tally:
    wanted = await _named(store, which)
    total = await queue_admin.count(store, wanted)
    if not total and which.queue_id is not None:
        await _say_what_is_missing(store, which.queue_id)
    return await move(store, wanted, lambda done: progress(done, max(done, total)))


async def _say_what_is_missing(store: Store, queue_id: int) -> None:
    with refusing("queue_id"):
        shown = await queue_admin.show(store, queue_id)
    if not shown.recipients:
        raise Refused(f"all recipients of queue id {queue_id} have left the queue", "queue_id")
    raise Refused(f"queue id {queue_id} has no such recipient", "queue_id")


# From words to a filter -----------------------------------------------------------------------------------------------


async def _named(store: Store, which: Which) -> Filter:
    wanted = await _filter(store, which)
    if wanted == Filter() and not which.everything:
        raise Refused("say which: a queue id, a filter, or all of them", "queue_id")
    return wanted


async def _filter(store: Store, which: Which) -> Filter:
    if which.queue_id is not None:
        _check_id(which.queue_id)
    if which.state is not None and which.state not in STATES:
        raise Refused(f"a state is one of {', '.join(STATES)}", "state")
    return Filter(
        None if which.account is None else await _account(store, which.account),
        None if which.queue_id is None else MessageId(which.queue_id),
        _domain(which.destination, "destination"),
        "" if which.sender in ("", "<>") else _address(which.sender, "sender"),
        _address(which.recipient, "recipient"),
        which.state,
        _age(which.older_than, "older_than"),
        _age(which.younger_than, "younger_than"),
        which.due,
        _reply(which.reply),
    )


def _check_id(queue_id: int) -> None:
    if not 0 <= queue_id < 2**63:
        raise Refused(f"queue id {queue_id} does not exist", "queue_id")


async def _account(store: Store, name: str) -> AccountId:
    try:
        return (await find(store, name)).account_id
    except Refused as error:
        raise Refused(str(error), "account") from error


def _address(text: str | None, field: str) -> str | None:
    """An address as it goes out, or a domain."""
    if text is None or text.rpartition("@")[0] == "":
        return _domain(text if text is None else text.removeprefix("@"), field)
    with refusing(field):
        return addresses.spelled(text)


def _domain(text: str | None, field: str) -> str | None:
    if text is None:
        return None
    below = "*." if text.startswith("*.") else ""
    with refusing(field):
        return below + addresses.domain(text.removeprefix("*."))


def _age(seconds: float | None, field: str) -> float | None:
    if seconds is not None and not (math.isfinite(seconds) and 0 <= seconds <= MAX_AGE_SECONDS):
        raise Refused(f"an age is 0 to {MAX_AGE_SECONDS:.0f} seconds", field)
    return seconds


def _reply(text: str | None) -> str | None:
    if text is not None and (not text.isprintable() or not 1 <= len(text) <= MAX_TEXT):
        raise Refused(f"words of a reply are 1 to {MAX_TEXT} printable characters", "reply")
    return text


# Cursors --------------------------------------------------------------------------------------------------------------


def _written(cursor: Cursor) -> str:
    return f"{cursor.queue_id}.{cursor.account_id}.{cursor.recipient}"


def _cursor(text: str) -> Cursor:
    parts: Sequence[Any] = text.split(".", 2)
    if len(parts) == 3 and all(_is_number(part) for part in parts[:2]) and parts[2].isprintable():
        return Cursor(int(parts[0]), int(parts[1]), parts[2])
    raise Refused("this is not what a page before has said", "after")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and int(text) < 2**63
