"""Flags, copies, moves and expunges of the messages of an account.

Each change is one transaction: account_state first, then the pages it touches, then the mailbox's counters. After a
lost COMMIT nothing here is run again: the caller hears OutcomeUnknown and reads the mailbox anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from storage import account_state, mailboxes, membership, moving, vanished
from storage.membership import Change, Effect, Lists
from storage.records import (
    AccountId,
    CopyResult,
    Flag,
    FlagChange,
    Mailbox,
    MailboxId,
    StoreResult,
    Uid,
)
from storage.store import Store


class Since(NamedTuple):
    """The condition of UNCHANGEDSINCE: messages that have a greater mod-sequence are left as they are.

    known: flags and mod-sequence by UID as the client knows them, so that a change of other flags does no harm.
    """

    modseq: int
    known: Mapping[int, tuple[int, int]] = {}


async def store_flags(
    store: Store,
    account_id: AccountId,
    mailbox_id: MailboxId,
    uids: Sequence[int],
    change: FlagChange,
    since: Since | None = None,
) -> StoreResult:
    """Changes flags; a message whose flags stay as they are keeps its modseq (RFC 7162 §3.1.11).

    NotFound (mailbox), LimitReached (no room for a keyword).
    """
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        before = await mailboxes.get_in(conn, account_id, mailbox_id)
        bits, named = await membership.keyword_bits(conn, state, before, change.keywords, allot=change.op != "-")
        pages = await membership.read(conn, before, uids)
        edit = _FlagEdit(change.op, bits | int(change.flags), state.modseq, since)
        wanted = set(uids)
        touched = [page for page in pages if edit.apply(page, wanted)]
        if not touched:
            return StoreResult(0, (), tuple(edit.failed))
        await membership.write_flags(conn, before, touched)
        after = replace(
            named,
            highestmodseq=state.modseq if touched else named.highestmodseq,
            modseq=state.modseq,
            unseen=named.unseen + edit.unseen,
            deleted=named.deleted + edit.deleted,
            deleted_octets=named.deleted_octets + edit.deleted_octets,
        )
        await membership.write_counters(conn, after, 0)
    effect = Effect(before, after, [page.page() for page in touched])
    await store.changes.publish([Change(account_id, state.modseq, [effect]).publish(store)])
    return StoreResult(state.modseq, tuple(edit.changed), tuple(edit.failed))


class _FlagEdit:
    """Applies one STORE to pages and adds up what it did to the mailbox's counters."""

    def __init__(self, op: str, bits: int, modseq: int, since: Since | None) -> None:
        self.op, self.bits, self.modseq, self.since = op, bits, modseq, since
        self.changed: list[Uid] = []
        self.failed: list[Uid] = []
        self.unseen = self.deleted = self.deleted_octets = 0

    def apply(self, page: Lists, wanted: set[int]) -> bool:
        """Edits a page in place; did anything change?"""
        touched = False
        for i, uid in enumerate(page.uids):
            if uid not in wanted:
                continue
            if self.since is not None and page.modseqs[i] > self.since.modseq and self._differs(uid, page.flags[i]):
                self.failed.append(Uid(uid))
                continue
            old = page.flags[i]
            new = self._edited(old)
            if new != old:
                self._count(old, new, page.sizes[i])
                page.flags[i], page.modseqs[i] = new, self.modseq
                self.changed.append(Uid(uid))
                touched = True
        if touched:
            page.modseq = self.modseq
        return touched

    def _differs(self, uid: int, flags: int) -> bool:
        """Are the flags that the change names, for all that is known, not what they were?

        RFC 7162 §3.1.12: a change of others is no reason to refuse one that adds or removes these.
        """
        assert self.since is not None
        before, modseq = self.since.known.get(uid, (0, 0))
        if self.op == "=" or not modseq or modseq > self.since.modseq:
            return True
        return bool((before ^ flags) & self.bits)

    def _edited(self, flags: int) -> int:
        if self.op == "+":
            return flags | self.bits
        return flags & ~self.bits if self.op == "-" else self.bits

    def _count(self, old: int, new: int, size: int) -> None:
        if (old ^ new) & Flag.SEEN:
            self.unseen += -1 if new & Flag.SEEN else 1
        if (old ^ new) & Flag.DELETED:
            sign = 1 if new & Flag.DELETED else -1
            self.deleted += sign
            self.deleted_octets += sign * size


async def copy(
    store: Store, account_id: AccountId, source_id: MailboxId, uids: Sequence[int], target_id: MailboxId
) -> CopyResult:
    """All or none. NotFound (either mailbox), OverQuota, LimitReached."""
    return await _transfer(store, account_id, source_id, uids, target_id, keep_source=True)


async def move(
    store: Store, account_id: AccountId, source_id: MailboxId, uids: Sequence[int], target_id: MailboxId
) -> CopyResult:
    """COPY and expunge in one transaction (RFC 6851); the quota does not change."""
    return await _transfer(store, account_id, source_id, uids, target_id, keep_source=False)


async def _transfer(
    store: Store,
    account_id: AccountId,
    source_id: MailboxId,
    uids: Sequence[int],
    target_id: MailboxId,
    *,
    keep_source: bool,
) -> CopyResult:
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        source = await mailboxes.get_in(conn, account_id, source_id)
        target = await mailboxes.get_in(conn, account_id, target_id)
        change = await moving.transfer(conn, state, source, target, uids, keep_source=keep_source)
    if change.effects:
        await store.changes.publish([change.publish(store)])
    source_uids = tuple(Uid(uid) for uid in change.source)
    return CopyResult(target.uidvalidity, source_uids, tuple(Uid(uid) for uid in change.uids))


async def expunge(
    store: Store, account_id: AccountId, mailbox_id: MailboxId, uids: Sequence[int] | None
) -> tuple[Uid, ...]:
    """Removes messages with \\Deleted, of `uids` (None: all); returns the UIDs that went. They stay for undelete."""
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        before = await mailboxes.get_in(conn, account_id, mailbox_id)
        if not before.deleted:
            return ()
        pages = await membership.read(conn, before, uids)
        effect, went = await _expunge(conn, state, before, pages, None if uids is None else set(uids))
        if effect is None:
            return ()
    await store.changes.publish([Change(account_id, state.modseq, [effect]).publish(store)])
    return went


async def _expunge(
    conn: Any, state: account_state.State, before: Mailbox, pages: list[Lists], wanted: set[int] | None
) -> tuple[Effect | None, tuple[Uid, ...]]:
    columns: tuple[list[int], ...] = ([], [], [], [], [])
    touched = []
    for page in pages:
        places = [
            i
            for i, flags in enumerate(page.flags)
            if flags & Flag.DELETED and (wanted is None or page.uids[i] in wanted)
        ]
        if not places:
            continue
        held = (page.uids, page.message_ids, page.flags, page.sizes, page.received)
        for column, values in zip(columns, held, strict=True):
            column.extend(values[i] for i in places)
        moving.remove(page, places, state.modseq)
        touched.append(page)
    uids, _, flags, sizes, _ = columns
    if not uids:
        return None, ()
    gone = await membership.write_rest(conn, before, touched, uids)
    after = membership.shrunk(before, state.modseq, uids, flags, sizes)
    await membership.write_counters(conn, after, 0)
    await vanished.expunged(conn, state, before, columns)
    await account_state.set_use(conn, state, -sum(sizes), -len(sizes))
    effect = Effect(before, after, [page.page() for page in touched if page.uids], gone)
    return effect, tuple(Uid(uid) for uid in uids)
