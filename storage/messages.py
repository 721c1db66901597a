"""Flags, copies, moves and expunges of the messages of an account.

Each change is one transaction: account_state first, then the pages it touches, then the mailbox's counters. After a
lost COMMIT nothing here is run again: the caller hears OutcomeUnknown and reads the mailbox anew.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from storage import account_state, mailboxes, membership, moving, vanished
from storage.membership import Change, Effect, Places, Stretch
from storage.packed import INT8
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
    uids = sorted(uids)
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        before = await mailboxes.get_in(conn, account_id, mailbox_id)
        bits, named = await membership.keyword_bits(conn, state, before, change.keywords, allot=change.op != "-")
        held = await membership.read(conn, before, uids)
        edit = _FlagEdit(change.op, bits | int(change.flags), state.modseq, since)
        changed = edit.apply(held, held.places(uids))
        if not changed:
            return StoreResult(0, (), tuple(edit.failed))
        touched = set(membership.numbers_of(changed))
        parts = [cut for cut in membership.cuts(held.uids) if cut[0] in touched]
        await membership.write_flags(conn, before, state.modseq, parts, held.flags, held.modseqs)
        after = membership.counted(named, state.modseq, edit.more, edit.less)
        await membership.write_counters(conn, after)
    effect = Effect(before, after, held.pages(state.modseq, parts))
    await store.changes.publish([Change(account_id, state.modseq, [effect]).publish(store)])
    return StoreResult(state.modseq, membership.as_uids(changed), tuple(edit.failed))


class _FlagEdit:
    """Applies one STORE to messages. more and less: what they add to the mailbox's counters afterwards and before."""

    def __init__(self, op: str, bits: int, modseq: int, since: Since | None) -> None:
        self.op, self.bits, self.modseq, self.since = op, bits, modseq, since
        self.failed: list[Uid] = []
        self.more = self.less = membership.NOTHING

    def apply(self, held: Stretch, places: Places) -> array[int]:
        """Edits these messages in place; the UIDs of those that it changed."""
        if self.since is not None:
            places = self._unchanged(held, places, self.since)
        old = membership.pick(held.flags, places)
        edited = {kind: self._edited(kind) for kind in set(old)}
        if any(before == after for before, after in edited.items()):
            places = [place for place in places if edited[held.flags[place]] != held.flags[place]]
            old = membership.pick(held.flags, places)
        new = array(INT8, map(edited.__getitem__, old))
        if any((before ^ after) & (Flag.SEEN | Flag.DELETED) for before, after in edited.items()):
            sizes = membership.pick(held.sizes, places)
            self.less, self.more = membership.tally(old, sizes), membership.tally(new, sizes)
        membership.put(held.flags, places, new)
        membership.put(held.modseqs, places, array(INT8, [self.modseq]) * len(new))
        return membership.pick(held.uids, places)

    def _unchanged(self, held: Stretch, places: Places, since: Since) -> Places:
        """The messages that the condition allows to be changed; the others have failed."""
        newer = [place for place in places if held.modseqs[place] > since.modseq]
        refused = {place for place in newer if self._differs(held.uids[place], held.flags[place], since)}
        self.failed = [Uid(held.uids[place]) for place in newer if place in refused]
        return [place for place in places if place not in refused] if refused else places

    def _differs(self, uid: int, flags: int, since: Since) -> bool:
        """Are the flags that the change names, for all that is known, not what they were?

        RFC 7162 §3.1.12: a change of others is no reason to refuse one that adds or removes these.
        """
        before, modseq = since.known.get(uid, (0, 0))
        if self.op == "=" or not modseq or modseq > since.modseq:
            return True
        return bool((before ^ flags) & self.bits)

    def _edited(self, flags: int) -> int:
        if self.op == "+":
            return flags | self.bits
        return flags & ~self.bits if self.op == "-" else self.bits


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
    uids = sorted(uids)
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        source = await mailboxes.get_in(conn, account_id, source_id)
        target = await mailboxes.get_in(conn, account_id, target_id)
        change = await moving.transfer(conn, state, source, target, uids, keep_source=keep_source)
    if change.effects:
        await store.changes.publish([change.publish(store)])
    return CopyResult(target.uidvalidity, change.source, change.uids)


async def expunge(
    store: Store, account_id: AccountId, mailbox_id: MailboxId, uids: Sequence[int] | None
) -> Sequence[Uid]:
    """Removes messages with \\Deleted, of `uids` (None: all); returns the UIDs that went. They stay for undelete."""
    uids = None if uids is None else sorted(uids)
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        before = await mailboxes.get_in(conn, account_id, mailbox_id)
        if not before.deleted:
            return ()
        held = await membership.read(conn, before, uids)
        left = held.at(_deleted(held, held.places(uids)))
        if not left:
            return ()
        effect = await _expunge(conn, state, before, held, left)
    await store.changes.publish([Change(account_id, state.modseq, [effect]).publish(store)])
    return membership.as_uids(left.uids)


def _deleted(held: Stretch, places: Places) -> Places:
    """Those of the messages that have \\Deleted."""
    kinds = set(membership.pick(held.flags, places))
    if all(kind & Flag.DELETED for kind in kinds):
        return places
    return [place for place in places if held.flags[place] & Flag.DELETED]


async def _expunge(conn: Any, state: account_state.State, before: Mailbox, held: Stretch, left: Stretch) -> Effect:
    rest, gone = await membership.remove(conn, before, held, left, state.modseq)
    tally, lost = membership.tally(left.flags, left.sizes), membership.recent_of(before, left.uids)
    after = membership.shrunk(before, state.modseq, tally, lost)
    await membership.write_counters(conn, after, lost=lost)
    await vanished.expunged(conn, state, before, left)
    await account_state.set_use(conn, state, -tally.octets, -tally.messages, undelete_octets=tally.octets)
    return Effect(before, after, rest.pages(state.modseq), gone)
