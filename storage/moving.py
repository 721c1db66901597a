"""COPY and MOVE inside one account: membership changes, octets stay where they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from storage import account_state, membership, vanished
from storage.account_state import State
from storage.membership import Change, Effect, Lists
from storage.records import KEYWORDS_AT, Mailbox


async def transfer(
    conn: Any, state: State, source: Mailbox, target: Mailbox, uids: Sequence[int] | None, *, keep_source: bool
) -> Change:
    """Appends the messages `uids` of source (None: all) to target; without keep_source they leave the source.

    Runs under the account's lock. A copy counts towards the quota (OverQuota), a move does not change it.
    """
    pages = await membership.read(conn, source, uids)
    wanted = None if uids is None else set(uids)
    positions = [_positions(page, wanted) for page in pages]
    columns = [_chosen(pages, positions, name) for name in ("uids", "message_ids", "flags", "sizes", "received")]
    taken, message_ids, flags, sizes, received = columns
    if not taken:
        return Change(source.account_id, state.modseq, [])
    if keep_source:
        state.check_room(sum(sizes), len(sizes))
        await account_state.set_use(conn, state, sum(sizes), len(sizes))
    flags_there, target = await _translated(conn, state, source, target, flags)
    first = membership.take_uids(target, len(taken))
    new = membership.new_pages(first, state.modseq, state.now, (message_ids, flags_there, sizes, received))
    after = membership.grown(target, state.modseq, flags_there, sizes)
    effects = []
    if not keep_source:
        effects.append(await _leave(conn, state, source, pages, positions, (taken, flags, sizes)))
    await membership.append(conn, target, new)
    if keep_source or source.mailbox_id != target.mailbox_id:
        effects.append(Effect(target, after, [page.page() for page in new], appended=True))
    else:
        after = _same_counts(after, source)
        effects = [Effect(source, after, (), stale=True)]
    await membership.write_counters(conn, after, len(taken))
    uids_there = tuple(range(first, first + len(taken)))
    return Change(source.account_id, state.modseq, effects, tuple(taken), uids_there)


def _positions(page: Lists, wanted: set[int] | None) -> list[int]:
    if wanted is None:
        return list(range(len(page.uids)))
    return [i for i, uid in enumerate(page.uids) if uid in wanted]


def _chosen(pages: list[Lists], positions: list[list[int]], column: str) -> list[int]:
    chosen: list[int] = []
    for page, places in zip(pages, positions, strict=True):
        values = getattr(page, column)
        chosen.extend(values if len(places) == len(values) else [values[i] for i in places])
    return chosen


async def _translated(
    conn: Any, state: State, source: Mailbox, target: Mailbox, flags: list[int]
) -> tuple[list[int], Mailbox]:
    """The flags as the target's bits; keywords that the target lacks are allotted there."""
    used = 0
    for value in flags:
        used |= value
    names = [name for i, name in enumerate(source.keywords) if used >> (KEYWORDS_AT + i) & 1]
    if not names or source.mailbox_id == target.mailbox_id:
        return flags, target
    _, target = await membership.keyword_bits(conn, state, target, names, allot=True)
    bits = {name.lower(): 1 << (KEYWORDS_AT + i) for i, name in enumerate(target.keywords) if name}
    return [membership.translate_keywords(value, source, bits) for value in flags], target


async def _leave(
    conn: Any,
    state: State,
    source: Mailbox,
    pages: list[Lists],
    positions: list[list[int]],
    left: tuple[list[int], list[int], list[int]],
) -> Effect:
    """Takes the chosen messages out of the source; a moved message holds nothing for undelete."""
    uids, flags, sizes = left
    touched = [page for page, places in zip(pages, positions, strict=True) if places]
    for page, places in zip(pages, positions, strict=True):
        if places:
            remove(page, places, state.modseq)
    gone = await membership.write_rest(conn, source, touched, uids)
    after = membership.shrunk(source, state.modseq, uids, flags, sizes)
    await membership.write_counters(conn, after, 0)
    await vanished.moved(conn, state, source, uids)
    return Effect(source, after, [page.page() for page in touched if page.uids], gone)


def remove(page: Lists, places: list[int], modseq: int) -> None:
    """Takes the messages at these positions out of a page."""
    leaving = set(places)
    keep = [i for i in range(len(page.uids)) if i not in leaving]
    for column in page.columns():
        column[:] = [column[i] for i in keep]
    page.modseq = modseq


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
