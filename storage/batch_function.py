"""The group commit as one call of a function in the database: the body for a plain PostgreSQL.

It does what storage/batch.py does by a dozen statements, in one round trip; at two messages a batch that is half of
the CPU. The same tests run on both. What it leaves to the statements: messages with keywords, which may have to be
allotted.

The call is its own transaction. An answer means committed; an ERROR means surely absent; anything else is unknown.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from storage import codec, content, mailboxes, membership
from storage.batch import WAIT_MILLISECONDS, Pending, placed_at
from storage.errors import LimitReached, NotFound, OverQuota, Unavailable
from storage.membership import Effect
from storage.packed import listed
from storage.records import AccountId, Notice, Outgoing, OutgoingRecipient, Placed, Placement
from storage.store import NEVER, finish

if TYPE_CHECKING:
    from storage.store import Store

log = logging.getLogger(__name__)

_MESSAGE = ("bigint", "uuid", "bigint", "int", "bytea", "bytea", "bytea", "bigint", "text", "boolean", "bigint")
_COPY = ("int", "bigint", "bytea", "smallint", "bytea", "bytea")
_PLACEMENT = ("int", "bigint", "bigint", "bigint", "bigint", "int")
_THREAD = ("int", "bigint", "bigint")
_BLOB = ("int", "bigint", "bytea")
_QUEUED = (
    *("int", "bigint", "text", "text", "text", "text", "boolean", "bytea", "int", "float8", "float8", "float8"),
    "text",
)
_RECIPIENT = ("int", "text", "text", "text", "text", "text")
_TYPES = ("bigint", *_MESSAGE, *_COPY, *_PLACEMENT, *_THREAD, *_BLOB, *_QUEUED, *_RECIPIENT)
_AS_THEY_ARE = ("bytea", "text")

# Numbers travel as text, which the server turns into arrays.
CALL = "SELECT * FROM deliver_batch($1, {})".format(
    ", ".join(f"${n}" if kind in _AS_THEY_ARE else f"${n}::text::{kind}[]" for n, kind in enumerate(_TYPES, 2))
)


def can_write(pending: Pending) -> bool:
    """Is this a message for the function?"""
    return not any(placement.keywords for placement in pending.placements)


class FunctionBatch:
    """One batch: its arguments, its call, and what came back. `done`: written or refused, not skipped."""

    def __init__(self, store: Store, batch: Sequence[Pending], *, wait: bool) -> None:
        self._store = store
        self._batch = batch
        self._wait = wait
        self.done: set[Pending] = set()
        self._rows: list[Any] = []

    async def write(self, conn: Any, statement: Any, timeout: float) -> None:
        """Calls the function; OutcomeUnknown where its answer was lost, any other exception: surely absent."""
        work = statement.fetch(*self._arguments(), timeout=NEVER)
        self._rows = await finish(conn, work, timeout)
        self.done = {self._batch[row["message"] - 1] for row in self._rows if row["status"] != "skipped"}

    def _arguments(self) -> list[Any]:
        messages: list[tuple[Any, ...]] = []
        copies: list[tuple[Any, ...]] = []
        placements: list[tuple[Any, ...]] = []
        threads: list[tuple[Any, ...]] = []
        blobs: list[tuple[Any, ...]] = []
        queued: list[tuple[Any, ...]] = []
        recipients: list[tuple[Any, ...]] = []
        for number, pending in enumerate(self._batch, 1):
            messages.append(_message(pending))
            for placement in pending.placements:
                size = pending.message.size + len(placement.header_prefix)
                key = (number, placement.account_id, placement.mailbox_id)
                placements.append((*key, int(placement.flags), placement.received, size))
            prefixes = {p.account_id: p.header_prefix for p in reversed(pending.placements)}
            for account in pending.accounts:
                copies.append((number, account, prefixes.get(account, b""), *self._sealed(account, pending)))
                threads += [(number, account, h) for h in pending.thread_hashes(self._store.keys, account)]
                blobs += [(number, account, ref) for ref in pending.message.refs]
            if pending.outgoing is not None:
                queued.append((number, *_queued(pending.outgoing)))
                recipients += [(number, *_recipient(recipient)) for recipient in pending.outgoing.recipients]
        accounts = [(account,) for account in sorted({a for pending in self._batch for a in pending.accounts})]
        tables = ((accounts, ("bigint",)), (messages, _MESSAGE), (copies, _COPY), (placements, _PLACEMENT))
        rest = ((threads, _THREAD), (blobs, _BLOB), (queued, _QUEUED), (recipients, _RECIPIENT))
        wait = WAIT_MILLISECONDS if self._wait else 0
        columns = [column for table, kinds in (*tables, *rest) for column in _columns(table, kinds)]
        return [wait, *columns]

    def _sealed(self, account: AccountId, pending: Pending) -> tuple[int, bytes | None, bytes]:
        message = pending.message
        if not self._store.config.seal_content:
            return message.codec, message.layout, message.octets
        sealed = codec.seal(pending.ciphers[account], message.octets, content.label(pending.message_id))
        return message.codec | codec.SEALED, message.layout, sealed

    async def publish(self) -> None:
        """After the commit: views first, then notices, then the answers, which nothing on the way may change."""
        answers: dict[Pending, list[Placed] | Exception] = {}
        told: dict[int, Notice] = {}
        waiting: list[Notice] = []
        for row in self._rows:
            pending, status = self._batch[row["message"] - 1], row["status"]
            if status in ("placed", "queued"):
                if pending not in answers and pending.outgoing is not None and pending.outgoing.lease is None:
                    waiting.append(Notice("queue", pending.outgoing.owner))
                placed = answers.setdefault(pending, [])
                assert isinstance(placed, list)
                if status == "placed":
                    self._take(pending, row, placed, told)
            elif status != "skipped":
                answers[pending] = _refusal(status)
        try:
            await self._store.changes.publish([*waiting, *told.values()])
        except Exception:
            log.exception("a committed change could not be told")
        for pending, answer in answers.items():
            if isinstance(answer, list):
                pending.resolve(answer)
            else:
                pending.refuse(answer)

    def _take(self, pending: Pending, row: Any, placed: list[Placed], told: dict[int, Notice]) -> None:
        """One copy that was placed; they come in the order of the placements."""
        placement = pending.placements[len(placed)]
        account, mailbox = placement.account_id, placement.mailbox_id
        placed.append(placed_at(placement, row["uidvalidity"], row["uidnext"] - 1, row["modseq"], pending.message_id))
        if self._store.views.holds(account, mailbox):
            self._store.views.apply(_effect(pending, placement, row))
        notice = told.setdefault(account, Notice("mail", account, row["modseq"]))
        notice.pages[mailbox] = ()


def _effect(pending: Pending, placement: Placement, row: Any) -> Effect:
    after = mailboxes.record(placement.account_id, list(row)[5:])
    size = pending.message.size + len(placement.header_prefix)
    columns = ([pending.message_id], [int(placement.flags)], [size], [placement.received])
    new = membership.stretch(after.uidnext - 1, after.modseq, row["moment"], columns)
    return Effect(replace(after, highestmodseq=row["before"]), after, new.pages(after.modseq), appended=True)


def _refusal(status: str) -> Exception:
    match status:
        case "full" | "never":
            return OverQuota(never=status == "never")
        case "no mailbox":
            return NotFound("a mailbox is gone")
        case "no uid":
            return LimitReached("the mailbox has used up its UIDs; copy its messages to a new one")
    return Unavailable("a blob is too old to be referred to; is this machine's clock right?")


def _message(pending: Pending) -> tuple[Any, ...]:
    message, summary = pending.message, pending.message.summary
    return (
        pending.message_id,
        pending.trace_id,
        message.size,
        summary.header_octets,
        summary.envelope,
        summary.bodystructure,
        summary.parts,
        summary.sent,
        summary.preview,
        pending.share,
        message.oldest_generation or 0,
    )


def _queued(outgoing: Outgoing) -> tuple[Any, ...]:
    return (
        outgoing.owner,
        outgoing.reverse_path,
        outgoing.envid,
        outgoing.ret,
        outgoing.body,
        outgoing.smtputf8,
        outgoing.header_prefix,
        len(outgoing.recipients),
        outgoing.act_seconds,
        outgoing.pause_seconds,
        outgoing.lease_seconds,
        "" if outgoing.lease is None else str(outgoing.lease.token),
    )


def _recipient(recipient: OutgoingRecipient) -> tuple[str, ...]:
    return (
        recipient.address,
        recipient.destination,
        recipient.notify or "",
        recipient.orcpt,
        recipient.report,
    )


def _columns(rows: Sequence[tuple[Any, ...]], kinds: tuple[str, ...]) -> list[Any]:
    """The rows' columns, one argument each."""
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    return [
        list(column) if kind in _AS_THEY_ARE else listed(column) for column, kind in zip(columns, kinds, strict=True)
    ]
