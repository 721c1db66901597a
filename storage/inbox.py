"""A mailbox as lists show it, newest message first, a page at a time; and where a message is.

A page of a list reads the few mailbox pages that it needs, in one statement with the mailbox's row, and then the
summaries of its messages in a second one: the thousandth page costs what the first one does. Where to go on is a UID,
so that messages which come or go meanwhile neither repeat nor hide others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from storage import membership
from storage.errors import NotFound
from storage.pages import PAGE_BITS, Entry, Page
from storage.records import KEYWORDS_AT, AccountId, MailboxId, MessageId
from storage.store import Store

SHOWN_OCTETS = 8 * 1024
"""Of an ENVELOPE or BODYSTRUCTURE, what a list looks at."""
_PAGES_AT_FIRST = 2
_MOST_PAGES = 256

_SYSTEM_FLAGS = ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft")
_COLUMNS = ", ".join(f"p.{name}" for name in ("page", "modseq", *membership.NAMES))
_PAGES = f"""
SELECT m.uidvalidity, m.messages, m.unseen, m.keywords, {_COLUMNS}
FROM mailboxes m LEFT JOIN LATERAL (
    SELECT * FROM mailbox_pages g WHERE g.account_id = $1 AND g.mailbox_id = $2 AND g.page <= $3
    ORDER BY g.page DESC LIMIT $4
) p ON true
WHERE m.account_id = $1 AND m.mailbox_id = $2 AND m.deleted_at IS NULL ORDER BY p.page DESC
"""
_OVERVIEWS = """
SELECT message_id, substr(envelope, 1, $3), substr(bodystructure, 1, $3), size + octet_length(header_prefix), sent,
    preview, thread_id
FROM messages WHERE account_id = $1 AND message_id = ANY($2)
"""
_DETAIL = """
SELECT message_id, trace_id, header_prefix, size, header_octets, parts, envelope, bodystructure, sent, preview,
    thread_id
FROM messages WHERE account_id = $1 AND message_id = $2
"""
# Rows that may hold the message: its octets may also stand across two others.
_PLACES = f"""
SELECT m.mailbox_id, m.name, m.uidvalidity, m.keywords, {_COLUMNS}
FROM mailbox_pages p JOIN mailboxes m ON m.account_id = $1 AND m.mailbox_id = p.mailbox_id AND m.deleted_at IS NULL
WHERE p.account_id = $1 AND position(int8send($2) IN p.message_ids) > 0
ORDER BY m.mailbox_id, p.page
"""


@dataclass(frozen=True, slots=True)
class Listed:
    """A page of a list: entries newest first; more: are there older ones?"""

    uidvalidity: int
    messages: int
    unseen: int
    keywords: tuple[str, ...]
    entries: Sequence[Entry]
    more: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """What a list shows of a message. envelope and bodystructure: IMAP text, cut after SHOWN_OCTETS."""

    message_id: MessageId
    envelope: bytes
    bodystructure: bytes
    size: int
    sent: int
    preview: str
    thread_id: int


@dataclass(frozen=True, slots=True)
class Detail:
    """All that is known of a message without its octets; see the table `messages`."""

    message_id: MessageId
    trace_id: Any
    header_prefix: bytes
    size: int
    header_octets: int
    parts: bytes | None
    envelope: bytes
    bodystructure: bytes
    sent: int
    preview: str
    thread_id: int


@dataclass(frozen=True, slots=True)
class Membership:
    """A message in one mailbox; flags are names."""

    mailbox_id: MailboxId
    name: tuple[str, ...]
    uid: int
    flags: tuple[str, ...]
    modseq: int
    received: int


async def page(store: Store, account_id: AccountId, mailbox_id: MailboxId, before_uid: int, limit: int) -> Listed:
    """The newest `limit` messages with UIDs below `before_uid`; NotFound (mailbox)."""
    wanted = _PAGES_AT_FIRST
    entries: list[Entry] = []
    number = (before_uid - 1) >> PAGE_BITS
    async with store.acquire() as conn:
        while True:
            rows = await conn.fetch(_PAGES, account_id, mailbox_id, number, wanted)
            if not rows:
                raise NotFound(f"mailbox {mailbox_id}")
            pages = membership.pages_of([list(row)[4:] for row in rows if row["page"] is not None])
            for held in pages:
                entries += islice(_newest_first(held, before_uid), limit + 1 - len(entries))
            if len(entries) > limit or len(pages) < wanted:
                break
            number = pages[-1].number - 1
            wanted = min(4 * wanted, _MOST_PAGES)
    uidvalidity, messages, unseen, keywords = list(rows[0])[:4]
    return Listed(uidvalidity, messages, unseen, tuple(keywords), entries[:limit], len(entries) > limit)


def _newest_first(held: Page, before_uid: int) -> Iterator[Entry]:
    return (held.entry(at, 0) for at in range(len(held) - 1, -1, -1) if held.uids[at] < before_uid)


async def overviews(store: Store, account_id: AccountId, message_ids: Sequence[int]) -> dict[int, Overview]:
    """By message id; one that is gone is missing."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_OVERVIEWS, account_id, message_ids, SHOWN_OCTETS)
    return {row[0]: Overview(*row) for row in rows}


async def detail(store: Store, account_id: AccountId, message_id: int) -> tuple[Detail, list[Membership]]:
    """A message and the mailboxes that it is in; NotFound where it is in none."""
    async with store.acquire() as conn:
        found = await _memberships(conn, account_id, message_id)
        row = await conn.fetchrow(_DETAIL, account_id, message_id)
    if row is None:
        raise NotFound("the message")
    return Detail(*row), found


async def memberships(store: Store, account_id: AccountId, message_id: int) -> list[Membership]:
    """The mailboxes that a message is in; NotFound where there is none."""
    async with store.acquire() as conn:
        return await _memberships(conn, account_id, message_id)


async def _memberships(conn: Any, account_id: int, message_id: int) -> list[Membership]:
    rows = await conn.fetch(_PLACES, account_id, message_id)
    found = [place for row in rows for place in _in_row(row, message_id)]
    if not found:
        raise NotFound("the message")
    return found


def _in_row(row: Any, message_id: int) -> list[Membership]:
    mailbox_id, name, _, keywords = list(row)[:4]
    (held,) = membership.pages_of([list(row)[4:]])
    return [
        Membership(
            mailbox_id,
            tuple(name),
            held.uids[at],
            flag_names(held.flags[at], keywords),
            held.modseqs[at],
            held.received[at],
        )
        for at in range(len(held))
        if held.message_ids[at] == message_id
    ]


def flag_names(flags: int, keywords: Sequence[str]) -> tuple[str, ...]:
    """System flags and keywords as IMAP writes them."""
    names = [name for bit, name in enumerate(_SYSTEM_FLAGS) if flags >> bit & 1]
    if flags >> KEYWORDS_AT:
        names += [word for bit, word in enumerate(keywords, KEYWORDS_AT) if word and flags >> bit & 1]
    return tuple(names)
