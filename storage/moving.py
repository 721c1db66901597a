"""COPY and MOVE inside one account: membership changes, octets stay where they are."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from storage import account_state, membership, vanished
from storage.account_state import State
from storage.membership import Change, Effect, Stretch, Tally
from storage.packed import INT8
from storage.records import KEYWORDS_AT, Mailbox


async def transfer(
    conn: Any, state: State, source: Mailbox, target: Mailbox, uids: Sequence[int] | None, *, keep_source: bool
) -> Change:
    """Appends the messages `uids` (ascending; None: all) to target; without keep_source they leave the source.

    Runs under the account's lock. A copy counts towards the quota (OverQuota), a move does not change it.
    """
    held = await membership.read(conn, source, uids)
    taken = held.at(held.places(uids))
    if not taken:
        return Change(source.account_id, state.modseq, [])
    tally = membership.tally(taken.flags, taken.sizes)
    if keep_source:
        state.check_room(tally.octets, tally.messages)
        await account_state.set_use(conn, state, tally.octets, tally.messages)
    flags_there, target = await _translated(conn, state, source, target, taken.flags)
    first = membership.take_uids(target, len(taken))
    columns = (taken.message_ids, flags_there, taken.sizes, taken.received)
    new = membership.stretch(first, state.modseq, state.now, columns)
    after = membership.grown(target, state.modseq, tally)
    effects = []
    if not keep_source:
        effects.append(await _leave(conn, state, source, held, taken, tally))
    await membership.append(conn, target, new, state.modseq)
    if keep_source or source.mailbox_id != target.mailbox_id:
        effects.append(Effect(target, after, new.pages(state.modseq), appended=True))
    else:
        after = _same_counts(after, source)
        effects = [Effect(source, after, (), stale=True)]
    await membership.write_counters(conn, after, added=len(new))
    return Change(
        source.account_id, state.modseq, effects, membership.as_uids(taken.uids), membership.as_uids(new.uids)
    )


async def _translated(
    conn: Any, state: State, source: Mailbox, target: Mailbox, flags: array[int]
) -> tuple[array[int], Mailbox]:
    """The flags as the target's bits; keywords that the target lacks are allotted there."""
    if not source.keywords or source.mailbox_id == target.mailbox_id:
        return flags, target
    kinds = set(flags)
    used = 0
    for kind in kinds:
        used |= kind
    names = [name for i, name in enumerate(source.keywords) if used >> (KEYWORDS_AT + i) & 1]
    if not names:
        return flags, target
    _, target = await membership.keyword_bits(conn, state, target, names, allot=True)
    bits = {name.lower(): 1 << (KEYWORDS_AT + i) for i, name in enumerate(target.keywords) if name}
    there = {kind: membership.translate_keywords(kind, source, bits) for kind in kinds}
    return array(INT8, map(there.__getitem__, flags)), target


async def _leave(conn: Any, state: State, source: Mailbox, held: Stretch, taken: Stretch, tally: Tally) -> Effect:
    """Takes messages out of the source; a moved message holds nothing for undelete."""
    rest, gone = await membership.remove(conn, source, held, taken, state.modseq)
    lost = membership.recent_of(source, taken.uids)
    after = membership.shrunk(source, state.modseq, tally, lost)
    await membership.write_counters(conn, after, lost=lost)
    await vanished.moved(conn, state, source, taken)
    return Effect(source, after, rest.pages(state.modseq), gone)


def _same_counts(after: Mailbox, source: Mailbox) -> Mailbox:
    """A move within one mailbox grew and shrank it by the same messages."""
    return replace(
        after,
        messages=source.messages,
        unseen=source.unseen,
        deleted=source.deleted,
        octets=source.octets,
        deleted_octets=source.deleted_octets,
    )
