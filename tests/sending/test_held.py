"""Leases and memory of what is being sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from uuid import UUID

import pytest

from mailserver.sending.held import MARGIN_SECONDS, Held, has_margin
from storage import Store, Unavailable, queue
from storage.queue import Key, Taken
from storage.records import Lease
from tests.sending.test_moves import JOB

STORE: Store = None  # type: ignore[assignment]


def job(octets: bytes | None = None, size: int = 100) -> Taken:
    return replace(JOB, octets=octets, size=size)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(store: Store, taken: Taken) -> bytes:
        await asyncio.sleep(0)
        return b"x" * taken.size

    monkeypatch.setattr(queue, "load", load)


async def test_octets_are_counted_while_they_are_held(loads: None) -> None:
    held = Held(STORE, 1000)
    one = job()
    held.add(one)
    assert (len(held), held.octets) == (1, 0)
    assert len(await held.load(one)) == held.octets == 100
    held.drop(one)
    held.drop(one)
    assert (len(held), held.octets) == (0, 0)


async def test_room_is_reserved_before_a_message_is_handed_over() -> None:
    held = Held(STORE, 1000)
    assert held.reserve(600) and not held.reserve(600)
    held.give(600)
    assert held.reserve(5000), "one fits in any case"


async def test_what_waits_gives_its_memory_to_what_is_to_be_read(loads: None) -> None:
    """The one that is sent now stands before those that hold the memory."""
    held = Held(STORE, 1000)
    waiting = [job(b"y" * 500), job(b"z" * 500)]
    for one in waiting:
        held.add(one)
    first = job(size=800)
    held.add(first)
    async with asyncio.timeout(5):
        assert len(await held.load(first)) == 800
    assert held.octets <= 1000 and [one.octets for one in waiting].count(None) >= 1
    held.drop(first)
    async with asyncio.timeout(5):
        for one in waiting:
            one.size = 500
            assert len(await held.load(one)) == 500
    for one in waiting:
        held.drop(one)
    assert held.octets == 0


async def test_a_large_message_is_not_passed_by_small_ones_for_ever(loads: None) -> None:
    held = Held(STORE, 1000)
    small = [job(size=300) for _ in range(3)]
    for one in small:
        await held.load(one)
    large = asyncio.create_task(held.load(job(size=900)))
    await asyncio.sleep(0)
    late = asyncio.create_task(held.load(job(size=50)))
    await asyncio.sleep(0.01)
    assert not large.done() and not late.done() and not held.reserve(10)
    held.give(900)
    async with asyncio.timeout(5):
        await large
        await late


async def test_a_message_that_cannot_be_read_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(store: Store, taken: Taken) -> bytes:
        raise Unavailable("no")

    monkeypatch.setattr(queue, "load", load)
    held = Held(STORE, 1000)
    one = job()
    held.add(one)
    with pytest.raises(Unavailable):
        await held.load(one)
    held.drop(one)
    assert held.octets == 0


async def test_leases_are_renewed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[Key]] = []

    async def renew(store: Store, leases: Iterable[tuple[Key, UUID]], seconds: float) -> tuple[set[Key], float]:
        keys = {key for key, _ in leases}
        asked.append(keys)
        return {key for key in keys if key.queue_id != 2}, time.monotonic() + seconds

    monkeypatch.setattr(queue, "renew", renew)
    held = Held(STORE, 1000)
    now = time.monotonic()
    fresh, old, lost = (
        replace(JOB, queue_id=n, lease=Lease(UUID(int=n), now + t)) for n, t in ((1, 90), (3, 20), (2, 20))
    )
    for one in (fresh, old, lost):
        held.add(one)
    await held.renew(100.0)
    assert asked == [{*old.keys, *lost.keys}]
    assert old.lease.until > now + 90 and has_margin(old) and has_margin(fresh) and not has_margin(lost)


def test_the_margin() -> None:
    now = time.monotonic()
    assert not has_margin(replace(JOB, lease=Lease(UUID(int=1), now + MARGIN_SECONDS - 1)))
    assert has_margin(replace(JOB, lease=Lease(UUID(int=1), now + MARGIN_SECONDS + 10)))
