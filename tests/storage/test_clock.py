"""Stamps that processes share, what stands under them, and stores that ask the database only when they must."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from storage import clock, mailboxes, messages
from storage.clock import STANDS_SECONDS, Clock, Recent, Stamps
from storage.errors import NotFound
from storage.records import INBOX, AccountId, Flag, FlagChange
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, OpenStore, deliver


class Time:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time()
    monkeypatch.setattr(clock, "time", time)
    return time


def whole() -> bool:
    return True


@pytest.mark.parametrize(
    ("change", "stands"),
    [
        (lambda one, two: None, True),
        (lambda one, two: one.touch(BOB), True),
        (lambda one, two: one.touch(ALICE), False),
        (lambda one, two: two.touch(ALICE), False),
        (lambda one, two: (one.touch(ALICE), two.touch(ALICE)), False),
        (lambda one, two: two.touch(0), False),
        (lambda one, two: two.touch(ALICE + 65_536), False),
        (lambda one, two: two.touch(65_536), True),
    ],
)
def test_what_stands(change: Callable[[Clock, Clock], object], stands: bool) -> None:
    stamps = Stamps()
    one, two = Clock(stamps, whole), Clock(stamps, whole)
    mark = one.mark(ALICE)
    change(one, two)
    assert one.stands(ALICE, mark) is stands


@pytest.mark.parametrize(
    ("change", "stands"),
    [
        (lambda clock: clock.touch(ALICE, names=False), True),
        (lambda clock: clock.touch(BOB), True),
        (lambda clock: clock.touch(ALICE), False),
        (lambda clock: clock.touch(0, names=False), False),
    ],
)
def test_names_stand_while_mail_comes(change: Callable[[Clock], None], stands: bool) -> None:
    one = Clock(Stamps(), whole)
    mark = one.mark(ALICE)
    change(one)
    assert one.names_stand(ALICE, mark) is stands


def test_nothing_stands_for_long(time: Time) -> None:
    one = Clock(Stamps(), whole)
    mark = one.mark(ALICE)
    time.now = STANDS_SECONDS - 0.01
    assert one.stands(ALICE, mark)
    time.now = STANDS_SECONDS
    assert not one.stands(ALICE, mark)


def test_nothing_stands_while_notices_may_be_missing() -> None:
    healthy = True
    one = Clock(Stamps(), lambda: healthy)
    mark = one.mark(ALICE)
    assert one.stands(ALICE, mark)
    healthy = False
    assert not one.stands(ALICE, mark)


def test_nothing_stands_where_writers_do_not_share() -> None:
    one = Clock(None, whole)
    one.touch(ALICE)
    assert not one.stands(ALICE, one.mark(ALICE))
    assert not Clock(Stamps(), whole).stands(ALICE, clock.NEVER)


def test_a_stamp_of_a_forked_process_is_seen() -> None:
    stamps = Stamps()
    one = Clock(stamps, whole)
    mark = one.mark(ALICE)
    pid = os.fork()
    if pid == 0:
        Clock(stamps, whole).touch(ALICE)
        os._exit(0)
    os.waitpid(pid, 0)
    assert not one.stands(ALICE, mark)


def test_what_was_read_is_kept_within_its_bound(time: Time) -> None:
    one = Clock(Stamps(), whole)
    recent: Recent[str, int] = Recent(one.stands, 2)
    for number, key in enumerate("ab"):
        recent.keep(ALICE, key, one.mark(ALICE), number)
    assert recent.get(ALICE, "a") == 0
    recent.keep(ALICE, "c", one.mark(ALICE), 2)
    assert [recent.get(ALICE, key) for key in "abc"] == [0, None, 2]
    assert recent.get(BOB, "a") is None
    one.touch(ALICE)
    assert [recent.get(ALICE, key) for key in "abc"] == [None, None, None]


# Stores ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def pair(open_store: OpenStore, store: Store) -> tuple[Store, Store]:
    """Two workers of a node, whose feeds are whole."""
    stamps = Stamps()
    one, two = [await open_store(stamps=stamps) for _ in range(2)]
    async with asyncio.timeout(10):
        while not (one.changes.healthy and two.changes.healthy):
            await asyncio.sleep(0.01)
    return one, two


def counting(store: Store) -> list[str]:
    """One entry for each connection that is taken from now on."""
    taken: list[str] = []
    original = store.acquire

    def acquire() -> Any:
        taken.append("")
        return original()

    store.acquire = acquire  # type: ignore[method-assign]
    return taken


async def test_what_stands_is_not_read_again(pair: tuple[Store, Store], time: Time) -> None:
    one, _ = pair
    view = await one.views.open(ALICE, INBOX)
    await mailboxes.find(one, ALICE, ("INBOX",))
    taken = counting(one)
    for _ in range(10):
        await view.refresh()
        assert await one.views.open(ALICE, INBOX) is view
        assert (await mailboxes.find(one, ALICE, ("INBOX",))).mailbox_id == INBOX
    assert taken == []
    time.now += STANDS_SECONDS
    await view.refresh()
    assert (await mailboxes.find(one, ALICE, ("INBOX",))).mailbox_id == INBOX
    assert len(taken) == 2


async def test_what_another_worker_has_answered_is_seen_at_once(pair: tuple[Store, Store], time: Time) -> None:
    """By the stamps alone: no notice is heard here, and no time passes."""
    one, two = pair
    one.changes._receive = lambda payload: None  # type: ignore[method-assign]
    view = await one.views.open(ALICE, INBOX)
    for count in range(1, 20):
        await view.refresh()
        await deliver(two)
        await view.refresh()
        assert view.snapshot.count == count
        assert (await mailboxes.find(one, ALICE, ("INBOX",))).messages == count
    await messages.store_flags(two, ALICE, INBOX, [1], FlagChange("+", Flag.SEEN, ()))
    await view.refresh()
    assert view.snapshot.mailbox.unseen == 18
    assert (await mailboxes.find(one, ALICE, ("INBOX",))).unseen == 18
    await messages.store_flags(two, ALICE, INBOX, [3], FlagChange("+", Flag.DELETED, ()))
    await messages.expunge(two, ALICE, INBOX, [3])
    await view.refresh()
    assert view.snapshot.count == 18
    await mailboxes.claim_recent(two, (await mailboxes.find(two, ALICE, ("INBOX",))))
    assert (await mailboxes.find(one, ALICE, ("INBOX",))).recent == 0


async def test_names_of_another_worker_are_seen_at_once(pair: tuple[Store, Store], time: Time) -> None:
    one, two = pair
    one.changes._receive = lambda payload: None  # type: ignore[method-assign]
    made = await mailboxes.create(two, ALICE, ("Work",))
    assert (await mailboxes.find(one, ALICE, ("Work",))).mailbox_id == made.mailbox_id
    assert await mailboxes.locate(one, ALICE, ("Work",)) == made.mailbox_id
    await mailboxes.rename(two, ALICE, ("Work",), ("Old",))
    for look in (mailboxes.find, mailboxes.locate):
        with pytest.raises(NotFound):
            await look(one, ALICE, ("Work",))
    assert await mailboxes.locate(one, ALICE, ("Old",)) == made.mailbox_id
    view = await one.views.open(ALICE, made.mailbox_id)
    await mailboxes.delete(two, ALICE, made.mailbox_id)
    await view.refresh()
    assert view.deleted
    for look in (mailboxes.find, mailboxes.locate):
        with pytest.raises(NotFound):
            await look(one, ALICE, ("Old",))


async def test_a_mailbox_is_located_once_while_mail_comes(pair: tuple[Store, Store], time: Time) -> None:
    one, two = pair
    await mailboxes.locate(one, ALICE, ("INBOX",))
    await deliver(two)
    taken = counting(one)
    assert await mailboxes.locate(one, ALICE, ("INBOX",)) == INBOX
    assert taken == []


async def test_a_notice_of_another_node_counts(pair: tuple[Store, Store], open_store: OpenStore, time: Time) -> None:
    one, _ = pair
    elsewhere = await open_store(stamps=Stamps())
    view = await one.views.open(ALICE, INBOX)
    await view.refresh()
    mark = one.clock.mark(ALICE)
    await deliver(elsewhere)
    async with asyncio.timeout(10):
        while one.clock.stands(ALICE, mark):
            await asyncio.sleep(0.01)
    await view.refresh()
    assert view.snapshot.count == 1


async def test_without_shared_stamps_the_database_is_asked(store: Store) -> None:
    view = await store.views.open(AccountId(ALICE), INBOX)
    taken = counting(store)
    await view.refresh()
    await mailboxes.find(store, ALICE, ("INBOX",))
    assert len(taken) == 2
