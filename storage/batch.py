"""The rows of a group commit, written by single statements that each name one account: it runs on any PostgreSQL, a
distributed one included.

A batch reads what it needs under the accounts' locks, works out UIDs, counters, flags, quotas and threads here, and
writes plain rows. storage/committer.py says when, and what a failure means.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage import codec, content, mailboxes, membership, queue
from storage.account_state import State
from storage.blobs import generation
from storage.content import Message
from storage.errors import NotFound, OutcomeUnknown, OverQuota, StorageError, Unavailable
from storage.membership import Change, Effect, Stretch
from storage.packed import INT8, UINT4, unpack
from storage.records import AccountId, Mailbox, MailboxId, MessageId, ModSeq, Notice, Outgoing, Placed, Placement, Uid

if TYPE_CHECKING:
    from storage.keys import Keys
    from storage.store import Store

log = logging.getLogger(__name__)

WAIT_MILLISECONDS = 100
"""How long a batch waits for an account; one that is held longer is not held by another batch."""

_LOCK_COLUMNS = """account_id, modseq, quota_octets, quota_messages, used_octets, used_messages, next_mailbox,
    next_uidvalidity, extract(epoch FROM now())::bigint AS now"""
_TRY_LOCK = f"SELECT {_LOCK_COLUMNS} FROM account_state WHERE account_id = $1 FOR UPDATE SKIP LOCKED"
_WAIT_LOCK = f"SELECT {_LOCK_COLUMNS} FROM account_state WHERE account_id = $1 FOR UPDATE"
_MAILBOX = f"""
SELECT account_id, {mailboxes.COLUMNS} FROM mailboxes
WHERE account_id = $1 AND mailbox_id = $2 AND deleted_at IS NULL
"""
_THREADS = "SELECT account_id, msgid_hash, thread_id FROM thread_refs WHERE account_id = $1 AND msgid_hash = ANY($2)"
_STATE = "UPDATE account_state SET modseq = $2, used_octets = $3, used_messages = $4 WHERE account_id = $1"
_MESSAGE = """
INSERT INTO messages (account_id, message_id, trace_id, header_prefix, size, header_octets, envelope, bodystructure,
    parts, thread_id, sent, preview, created)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""
_CONTENT = "INSERT INTO message_contents (account_id, message_id, codec, layout, octets) VALUES ($1, $2, $3, $4, $5)"
_BLOB_REF = "INSERT INTO blob_refs (account_id, message_id, blob) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
_THREAD_REF = """
INSERT INTO thread_refs (account_id, msgid_hash, thread_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""
_FIND_ATTEMPT = "SELECT trace_id FROM messages WHERE account_id = $1 AND message_id = $2"
# Rows that may hold the message: its octets may also stand across two others.
_FIND_PLACES = """
SELECT p.message_ids, p.uids, p.modseqs, m.uidvalidity
FROM mailbox_pages p JOIN mailboxes m ON m.account_id = p.account_id AND m.mailbox_id = p.mailbox_id
WHERE p.account_id = $1 AND position(int8send($2) IN p.message_ids) > 0 AND p.mailbox_id = $3
"""
_FIND_EXPUNGED = """
SELECT v.message_ids, v.uids, v.modseq, m.uidvalidity
FROM vanished v JOIN mailboxes m ON m.account_id = v.account_id AND m.mailbox_id = v.mailbox_id
WHERE v.account_id = $1 AND position(int8send($2) IN v.message_ids) > 0 AND v.mailbox_id = $3
"""


@dataclass(slots=True, eq=False)
class Pending:
    """One message waiting to be written."""

    message: Message
    placements: Sequence[Placement]
    trace_id: UUID
    share: bool
    message_id: int
    deadline: float
    accounts: tuple[AccountId, ...]
    ciphers: dict[AccountId, AESGCM]
    answer: asyncio.Future[list[Placed]]
    outgoing: Outgoing | None = None
    repeated: bool = False
    """The message id was chosen before: a message that has it is this one, written by an earlier call."""
    skipped: int = 0

    def thread_hashes(self, keys: Keys, account: int) -> list[int]:
        """None where the message is in no mailbox: what nobody reads belongs to no thread."""
        if not any(placement.account_id == account for placement in self.placements):
            return []
        return [keys.msgid_hash(account, msgid) for msgid in self.message.summary.msgids if msgid]

    def resolve(self, placed: list[Placed]) -> None:
        if not self.answer.done():
            self.answer.set_result(placed)

    def refuse(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


def new_message_id() -> int:
    """63 bits, roughly in the order of time; no rule relies on the order."""
    return (time.time_ns() // 1_000_000) << 20 & (2**63 - 1) | int.from_bytes(os.urandom(3), "big") & 0xFFFFF


@dataclass(slots=True)
class _Account:
    """An account during one batch: its locked state and what the batch makes of it."""

    state: State
    octets: int = 0
    messages: int = 0
    boxes: dict[int, _Box] = field(default_factory=dict)


@dataclass(slots=True)
class _Box:
    """A mailbox during one batch."""

    before: Mailbox
    now: Mailbox
    new: Stretch | None = None
    bits: int = 0
    """Flag bits of keywords that the batch gives to messages, which the database does not know yet."""


class StatementBatch:
    """One transaction's reading, planning and writing."""

    def __init__(self, store: Store, conn: Any, statements: dict[str, Any]) -> None:
        self._store = store
        self._conn = conn
        self._statements = statements
        self._accounts: dict[int, _Account] = {}
        self._threads: dict[tuple[int, int], int] = {}
        self._new_refs: list[tuple[int, int, int]] = []
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        self._settling = False
        self._answers: list[tuple[Pending, list[Placed]]] = []
        self._refusals: list[tuple[Pending, Exception]] = []
        self._notices: list[Notice] = []

    async def _prepared(self, sql: str) -> Any:
        statement = self._statements.get(sql)
        if statement is None:
            statement = self._statements[sql] = await self._conn.prepare(sql)
        return statement

    async def _many(self, sql: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        statement = await self._prepared(sql)
        return list(await statement.fetchmany(arguments))

    async def lock(self, accounts: Sequence[int], *, wait: bool) -> dict[int, _Account]:
        """The accounts that could be locked; waiting, one that is missing is gone: NotFound."""
        rows = await self._many(_WAIT_LOCK if wait else _TRY_LOCK, [(account,) for account in accounts])
        self._accounts = {row[0]: _Account(State(*row)) for row in rows}
        if wait and len(rows) < len(accounts):
            raise NotFound("an account is gone")
        return self._accounts

    async def find(self, pending: Pending) -> bool:
        """Was this attempt committed? Then `publish` answers it, and tells of it, which nobody has done yet.

        Not found does not prove that it never will be: the lost call may still be on its way. Writing it again is safe,
        since the key is the same; a refusal would be more than we know.
        """
        self._settling = True
        placed: list[Placed] = []
        for account in pending.accounts:
            if await self._conn.fetchval(_FIND_ATTEMPT, account, pending.message_id) != pending.trace_id:
                return False
        for placement in pending.placements:
            key = (placement.account_id, pending.message_id, placement.mailbox_id)
            rows = await self._conn.fetch(_FIND_PLACES, *key)
            found = _place_in(rows, pending.message_id)
            if found is None:
                found = _place_in(await self._conn.fetch(_FIND_EXPUNGED, *key), pending.message_id)
            uid, modseq, uidvalidity = found or (0, 0, 0)
            placed.append(placed_at(placement, uidvalidity, uid, modseq, pending.message_id))
        self._answers.append((pending, placed))
        for account in pending.accounts:
            boxes: dict[MailboxId, tuple[int, ...]] = {
                p.mailbox_id: () for p in pending.placements if p.account_id == account
            }
            self._notices.append(Notice("mail", account, self._accounts[account].state.modseq, boxes))
        return True

    async def write(self, batch: Sequence[Pending], accounts: dict[int, _Account]) -> None:
        """Plans and writes the whole batch; refused messages are left out and hear it after the commit."""
        await self._read_boxes(batch)
        await self._read_threads(batch)
        for pending in batch:
            try:
                await self._plan(pending)
            except StorageError as error:
                self._refusals.append((pending, error))
        await self._write_rows()

    async def _read_boxes(self, batch: Sequence[Pending]) -> None:
        keys = sorted({(p.account_id, p.mailbox_id) for pending in batch for p in pending.placements})
        for row in await self._many(_MAILBOX, keys):
            mailbox = mailboxes.record(row[0], list(row)[1:])
            self._accounts[row[0]].boxes[mailbox.mailbox_id] = _Box(mailbox, mailbox)

    async def _read_threads(self, batch: Sequence[Pending]) -> None:
        wanted: dict[int, set[int]] = {}
        for pending in batch:
            for account in pending.accounts:
                hashes = pending.thread_hashes(self._store.keys, account)
                if hashes:
                    wanted.setdefault(account, set()).update(hashes)
        if wanted:
            keys = [(account, list(hashes)) for account, hashes in sorted(wanted.items())]
            for account, msgid_hash, thread_id in await self._many(_THREADS, keys):
                self._threads[account, msgid_hash] = thread_id

    async def _plan(self, pending: Pending) -> None:
        """Works out one message's rows; a StorageError leaves nothing of it in the batch."""
        boxes = [self._box(placement) for placement in pending.placements]
        self._check_generation(pending)
        self._check_quota(pending)
        for box in boxes:
            membership.take_uids(box.now, 1)
        bits = [await self._flags(box, p) for box, p in zip(boxes, pending.placements, strict=True)]
        placed = []
        for placement, flags in zip(pending.placements, bits, strict=True):
            placed.append(self._place(pending, placement, flags))
        prefixes = {int(p.account_id): p.header_prefix for p in reversed(pending.placements)}
        for account in pending.accounts:
            self._message_rows(pending, account, prefixes.get(account, b""), self._thread(account, pending))
        if pending.outgoing is not None:
            self._queue_rows(pending, pending.outgoing)
        self._answers.append((pending, placed))

    def _box(self, placement: Placement) -> _Box:
        box = self._accounts[placement.account_id].boxes.get(placement.mailbox_id)
        if box is None:
            raise NotFound(f"mailbox {placement.mailbox_id}")
        return box

    def _check_generation(self, pending: Pending) -> None:
        """By the database's clock, under the lock: the sweeper may take what is older."""
        oldest = pending.message.oldest_generation
        now = max(self._accounts[account].state.now for account in pending.accounts)
        if oldest is not None and oldest < generation(now) - 1:
            raise Unavailable("a blob is too old to be referred to; is this machine's clock right?")

    def _check_quota(self, pending: Pending) -> None:
        refused: OverQuota | None = None
        room = 0
        for placement in pending.placements:
            account = self._accounts[placement.account_id]
            size = pending.message.size + len(placement.header_prefix)
            try:
                account.state.check_room(account.octets + size, account.messages + 1)
                room += 1
            except OverQuota as error:
                limit = account.state.quota_octets
                never = bool(limit and size > limit)
                if refused is None or refused.never:
                    refused = OverQuota(str(error), never=never)
        if refused is not None and (not pending.share or not room):
            raise refused

    async def _flags(self, box: _Box, placement: Placement) -> int:
        if not placement.keywords:
            return int(placement.flags)
        state = self._accounts[placement.account_id].state
        bits, box.now = await membership.keyword_bits(
            self._conn, state, box.now, placement.keywords, allot=True, reserved=box.bits
        )
        box.bits |= bits
        return int(placement.flags) | bits

    def _place(self, pending: Pending, placement: Placement, flags: int) -> Placed:
        account = self._accounts[placement.account_id]
        box = account.boxes[placement.mailbox_id]
        modseq = account.state.modseq + 1
        size = pending.message.size + len(placement.header_prefix)
        uid = box.now.uidnext
        columns = ([pending.message_id], [flags], [size], [placement.received])
        new = membership.stretch(uid, modseq, account.state.now, columns)
        if box.new is None:
            box.new = new
        else:
            box.new.extend(new)
        box.now = membership.grown(box.now, modseq, membership.tally(new.flags, new.sizes))
        account.octets += size
        account.messages += 1
        return placed_at(placement, box.now.uidvalidity, uid, modseq, pending.message_id)

    def _thread(self, account: int, pending: Pending) -> int:
        """The thread of the first id that is known, else a new one; all its ids belong to it from now on."""
        hashes = pending.thread_hashes(self._store.keys, account)
        known = (self._threads.get((account, h)) for h in hashes)
        thread_id = next((thread for thread in known if thread is not None), pending.message_id)
        for msgid_hash in hashes:
            if (account, msgid_hash) not in self._threads:
                self._threads[account, msgid_hash] = thread_id
                self._new_refs.append((account, msgid_hash, thread_id))
        return thread_id

    def _message_rows(self, pending: Pending, account: AccountId, prefix: bytes, thread_id: int) -> None:
        message, message_id, summary = pending.message, pending.message_id, pending.message.summary
        key = (account, message_id)
        self._add(
            _MESSAGE,
            *key,
            pending.trace_id,
            prefix,
            message.size,
            summary.header_octets,
            summary.envelope,
            summary.bodystructure,
            summary.parts,
            thread_id,
            summary.sent,
            summary.preview,
            self._accounts[account].state.now,
        )
        form, octets = message.codec, message.octets
        if self._store.config.seal_content:
            form, octets = (
                form | codec.SEALED,
                codec.seal(pending.ciphers[account], octets, content.label(message_id)),
            )
        self._add(_CONTENT, *key, form, message.layout, octets)
        for ref in message.refs:
            self._add(_BLOB_REF, *key, ref)

    def _queue_rows(self, pending: Pending, outgoing: Outgoing) -> None:
        now = self._accounts[outgoing.owner].state.now
        for sql, row in queue.rows(outgoing, pending.message_id, pending.trace_id, now):
            self._add(sql, *row)
        if outgoing.lease is None:
            self._notices.append(Notice("queue", outgoing.owner))

    def _add(self, sql: str, *row: Any) -> None:
        self._rows.setdefault(sql, []).append(row)

    async def _write_rows(self) -> None:
        for account_id, account in sorted(self._accounts.items()):
            if not account.messages:
                continue
            state = account.state
            self._add(
                _STATE,
                account_id,
                state.modseq + 1,
                state.used_octets + account.octets,
                state.used_messages + account.messages,
            )
            for _, box in sorted(account.boxes.items()):
                if box.new is not None:
                    self._add(membership.COUNTERS, *membership.counters(box.now, added=len(box.new)))
                    for row in membership.append_arguments(box.now, box.new, state.modseq + 1):
                        self._add(membership.APPEND, *row)
        for ref in self._new_refs:
            self._add(_THREAD_REF, *ref)
        for sql, rows in self._rows.items():
            await (await self._prepared(sql)).executemany(rows)

    async def publish(self) -> None:
        """After COMMIT: views first, then notices, then the answers, which nothing on the way may change."""
        try:
            await self._store.changes.publish([*self._notices, *self._changes()])
        except Exception:
            log.exception("a committed change could not be told")
        for pending, placed in self._answers:
            pending.resolve(placed)
        for pending, error in self._refusals:
            pending.refuse(OutcomeUnknown(str(error)) if self._settling else error)

    def _changes(self) -> list[Notice]:
        notices = []
        for account_id, account in self._accounts.items():
            effects = [
                Effect(box.before, box.now, box.new.pages(account.state.modseq + 1), appended=True)
                for box in account.boxes.values()
                if box.new is not None
            ]
            if effects:
                change = Change(AccountId(account_id), account.state.modseq + 1, effects)
                notices.append(change.publish(self._store))
        return notices


def _place_in(rows: Sequence[Any], message_id: int) -> tuple[int, int, int] | None:
    """UID, modseq and UIDVALIDITY of the message; a copy of it has a higher UID."""
    found = []
    for ids, uids, modseqs, uidvalidity in rows:
        column = unpack(INT8, ids)
        if message_id in column:
            place = column.index(message_id)
            modseq = modseqs if isinstance(modseqs, int) else unpack(INT8, modseqs)[place]
            found.append((unpack(UINT4, uids)[place], modseq, uidvalidity))
    return min(found, default=None)


def placed_at(placement: Placement, uidvalidity: int, uid: int, modseq: int, message_id: int) -> Placed:
    return Placed(
        AccountId(placement.account_id),
        MailboxId(placement.mailbox_id),
        uidvalidity,
        Uid(uid),
        ModSeq(modseq),
        MessageId(message_id),
    )
