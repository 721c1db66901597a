"""Open views give up their pages where memory is short, and sessions know again what they knew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from storage import folding, mailboxes, messages
from storage.pages import Snapshot
from storage.records import INBOX, Flag, FlagChange, MailboxId
from storage.store import Store
from storage.views import MailboxView
from tests.storage.conftest import ALICE, OpenStore, deliver, place
from tests.storage.test_messages import fill, held

MIB = 1 << 20


class Session:
    """What a view asks of one."""

    def __init__(self, view: MailboxView) -> None:
        self.view, self.snapshot, self.is_busy, self.rested = view, view.snapshot, False, 0
        view.holders.add(self)

    def rest(self) -> None:
        self.rested += 1

    def known(self) -> list[tuple[int, int]]:
        return [(entry.uid, entry.flags) for entry in self.snapshot.entries()]


async def session(store: Store, mailbox_id: int = INBOX) -> Session:
    return Session(await store.views.open(ALICE, MailboxId(mailbox_id)))


Change = Callable[[Store], Awaitable[object]]


async def _nothing(store: Store) -> None:
    return


async def _arrival(store: Store) -> None:
    await fill(store, 70)


async def _flags(store: Store) -> None:
    await messages.store_flags(store, ALICE, INBOX, [3, 100], FlagChange("+", Flag.FLAGGED, ("Work",)))


async def _expunge(store: Store) -> None:
    uids = [1, 2, *range(64, 128), 130]
    await messages.store_flags(store, ALICE, INBOX, uids, FlagChange("+", Flag.DELETED))
    await messages.expunge(store, ALICE, INBOX, None)


async def _move(store: Store) -> None:
    await messages.move(store, ALICE, INBOX, list(range(60, 70)), INBOX)


async def _all(store: Store) -> None:
    for change in (_arrival, _flags, _expunge, _move, _arrival):
        await change(store)


@pytest.mark.parametrize("change", [_nothing, _arrival, _flags, _expunge, _move, _all])
async def test_what_was_known_is_known_again(store: Store, open_store: OpenStore, change: Change) -> None:
    """Of a message that changed meanwhile, mod-sequence and flags are known to be others."""
    other: Store = await open_store()
    await fill(store, 140)
    one = await session(store)
    known, highest = one.snapshot.uids(), one.snapshot.mailbox.highestmodseq
    assert one.view.fold()
    assert one.view.folded and one.snapshot.folded and one.rested == 1 and one.snapshot.count == 0
    await change(other)
    await one.view.unfold()
    assert not one.view.folded and not one.snapshot.folded
    assert one.snapshot.uids() == known
    now = await held(other)
    assert list(one.view.snapshot.entries()) == list(now.entries())
    for entry in one.snapshot.entries():
        there = now.entry(entry.uid)
        if there is None or there.modseq > highest:
            assert entry.modseq == 0
        else:
            assert entry[1:] == there[1:]


async def test_sessions_that_lag_behind_know_again_what_each_knew(store: Store) -> None:
    await fill(store, 10)
    early = await session(store)
    await messages.store_flags(store, ALICE, INBOX, [2, 3], FlagChange("+", Flag.DELETED))
    await early.view.refresh()
    middle = await session(store)
    await messages.expunge(store, ALICE, INBOX, None)
    await fill(store, 5)
    late = await session(store)
    sessions = (early, middle, late)
    before = [one.snapshot.uids() for one in sessions]
    assert late.view.fold()
    assert all(one.snapshot.folded for one in sessions)
    await late.view.unfold()
    assert [one.snapshot.uids() for one in sessions] == before
    assert [entry.modseq for entry in early.snapshot.entries()].count(0) == 2
    assert late.snapshot.pages == late.view.snapshot.pages


async def test_what_cannot_be_known_any_more_stays_folded(store: Store) -> None:
    await fill(store, 5)
    one = await session(store)
    assert one.view.fold()
    await messages.store_flags(store, ALICE, INBOX, [2], FlagChange("+", Flag.DELETED))
    await messages.expunge(store, ALICE, INBOX, None)
    async with store.acquire() as conn:
        await conn.execute("DELETE FROM vanished")
    await one.view.unfold()
    assert one.snapshot.folded and not one.view.folded
    assert one.view.snapshot.count == 4


async def test_nobody_who_needs_its_numbers_loses_them(store: Store) -> None:
    await fill(store, 5)
    one = await session(store)
    one.is_busy = True
    assert not one.view.fold()
    one.is_busy = False
    stranger = await store.views.open(ALICE, INBOX)
    assert not one.view.fold()
    stranger.close()
    assert one.view.fold()
    assert not one.view.fold()
    assert (await store.views.open(ALICE, INBOX)).snapshot.count == 5


async def test_a_snapshot_with_ghosts_is_not_folded(store: Store) -> None:
    await fill(store, 5)
    snapshot = await held(store)
    assert folding.is_foldable(snapshot)
    ghosts = snapshot.pages
    await messages.store_flags(store, ALICE, INBOX, [2], FlagChange("+", Flag.DELETED))
    await messages.expunge(store, ALICE, INBOX, None)
    now = await held(store)
    assert not folding.is_foldable(Snapshot(now.mailbox, ghosts))


async def quiet(store: Store) -> None:
    """From now on views are read by their sessions only: one that is being read is not folded."""
    async with asyncio.timeout(10):
        while not store.changes.healthy:
            await asyncio.sleep(0.01)
    store.views._unlisten()


async def test_open_views_keep_within_the_memory_for_them(open_store: OpenStore, store: Store) -> None:
    small: Store = await open_store(view_memory_mib=1)
    await quiet(small)
    boxes = [INBOX]
    await fill(store, 64)
    for _ in range(6):
        await messages.copy(store, ALICE, INBOX, (await held(store)).uids(), INBOX)
    for number in range(3):
        boxes.append((await mailboxes.create(store, ALICE, (f"box {number}",))).mailbox_id)
        await messages.copy(store, ALICE, INBOX, (await held(store)).uids(), boxes[-1])
    sessions = [await session(small, box) for box in boxes]
    counts = [one.snapshot.mailbox.messages for one in sessions]
    assert counts == [4096] * 4
    assert small.views.octets <= MIB
    assert [one.view.folded for one in sessions] == [True, False, False, False]
    await sessions[0].view.unfold()
    assert small.views.octets <= MIB
    assert [one.view.folded for one in sessions] == [False, True, False, False]
    assert [one.snapshot.count for one in sessions] == [4096, 0, 4096, 4096]
    for one in sessions:
        one.view.holders.discard(one)
        one.view.close()
    assert small.views.octets <= MIB


async def test_what_sessions_know_that_lag_behind_is_counted(store: Store) -> None:
    """Pages that are in no other snapshot count; those that are shared count once."""
    await fill(store, 130)
    early = await session(store)
    same = await session(store)
    alone = early.view.weight
    await messages.store_flags(store, ALICE, INBOX, [1, 2, 100], FlagChange("+", Flag.SEEN))
    await early.view.refresh()
    late = await session(store)
    kept = [page for page in early.snapshot.pages if page not in late.snapshot.pages]
    assert [page.number for page in kept] == [0, 1]
    both = early.view.weight
    assert both - alone > sum(map(len, kept)) * 48
    same.view.holders.discard(same)
    assert early.view.weight == both
    early.view.holders.discard(early)
    assert early.view.weight == alone


async def test_reading_in_the_background_is_no_use(open_store: OpenStore, store: Store) -> None:
    small: Store = await open_store()
    other = await mailboxes.create(store, ALICE, ("other",))
    await quiet(small)
    sessions = [await session(small, box) for box in (INBOX, other.mailbox_id)]
    order = list(small.views._open)
    small.views.read_soon(sessions[0].view)
    await asyncio.gather(*small.views._reading)
    assert list(small.views._open) == order
    await sessions[0].view.refresh()
    assert list(small.views._open) == order[::-1]


async def test_what_is_lost_is_known_to_be_lost(store: Store) -> None:
    await fill(store, 3)
    one = await session(store)
    assert one.view.fold()
    await one.view.unfold()
    assert not one.snapshot.vague
    assert one.view.fold()
    await messages.store_flags(store, ALICE, INBOX, [2], FlagChange("+", Flag.SEEN))
    await one.view.unfold()
    assert one.snapshot.vague and not one.view.snapshot.vague


async def test_many_folded_views_are_read_at_once(open_store: OpenStore, store: Store) -> None:
    """Unfolding takes no second connection while it holds one: the pool has few."""
    small: Store = await open_store(pool_size=2, lock_timeout_seconds=5)
    await quiet(small)
    boxes = [INBOX, *[(await mailboxes.create(store, ALICE, (f"b{n}",))).mailbox_id for n in range(5)]]
    sessions = [await session(small, box) for box in boxes]
    assert all(one.view.fold() for one in sessions)
    for box in boxes:
        await deliver(store, [place(ALICE, mailbox=box)])
    async with asyncio.timeout(4):
        await asyncio.gather(*[one.view.refresh() for one in sessions])
    assert [one.view.snapshot.count for one in sessions] == [1] * 6


async def test_a_view_that_is_read_after_its_last_session_left_weighs_nothing(
    open_store: OpenStore, store: Store
) -> None:
    small: Store = await open_store()
    await quiet(small)
    one = await session(small)
    assert one.view.fold()
    small.views.weigh(one.view)
    one.view.holders.discard(one)
    one.view.close()
    assert small.views.octets == 0
    small.views.weigh(one.view)
    assert small.views.octets == 0
