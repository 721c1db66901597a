"""What waits for one destination, and the connections that take it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import UUID

from mailserver.sending.lane import MAX_RECIPIENTS, Lane
from mailserver.sending.retry import Backoff
from storage.queue import Taken
from tests.sending.test_moves import JOB, X


def job(number: int, recipients: int = 1) -> Taken:
    return replace(JOB, trace_id=UUID(int=number), recipients=[replace(X, address=f"{n}@x") for n in range(recipients)])


async def test_messages_come_in_their_order() -> None:
    lane = Lane("remote.test")
    for number in range(3):
        lane.add(job(number))
    assert [(await lane.next(0)).trace_id.int for _ in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
    assert await lane.next(0) is None


async def test_many_recipients_are_several_jobs() -> None:
    lane = Lane("remote.test")
    parts = lane.add(job(1, 2 * MAX_RECIPIENTS + 1))
    assert list(lane.jobs) == parts and [len(part.recipients) for part in parts] == [100, 100, 1]
    assert len({recipient.address for part in parts for recipient in part.recipients}) == 201


async def test_addresses_that_are_not_ascii_go_apart() -> None:
    lane = Lane("remote.test")
    mixed = replace(JOB, recipients=[replace(X, address=address) for address in ("a@x", "ä@x", "b@x")])
    assert [[r.address for r in part.recipients] for part in lane.add(mixed)] == [["a@x", "b@x"], ["ä@x"]]


async def test_who_waits_gets_what_comes_and_needs_no_other_connection() -> None:
    lane = Lane("remote.test")
    waiting = [asyncio.create_task(lane.next(10)) for _ in range(2)]
    await asyncio.sleep(0)
    first, second = job(1), job(2)
    lane.add(first)
    assert not lane.needs_connection
    lane.add(second)
    assert await asyncio.gather(*waiting) == [first, second]


async def test_a_job_more_than_connections_wait_for_needs_one() -> None:
    lane = Lane("remote.test")
    waiting = asyncio.create_task(lane.next(10))
    await asyncio.sleep(0)
    lane.add(job(1))
    lane.add(job(2))
    assert lane.needs_connection
    await waiting
    assert lane.needs_connection
    await lane.next(0)
    assert not lane.needs_connection


async def test_waiting_comes_to_an_end() -> None:
    lane = Lane("remote.test")
    assert await lane.next(0.01) is None
    waiting = asyncio.create_task(lane.next(100))
    await asyncio.sleep(0)
    lane.retire()
    assert await waiting is None


def test_a_lane_is_kept_while_something_is_known_of_it() -> None:
    lane = Lane("remote.test")
    assert lane.is_over(5.0)
    lane.backoff = Backoff(1, 10.0)
    assert not lane.is_over(5.0) and lane.is_over(50.0)
    lane.more.add("remote.test")
    assert not lane.is_over(50.0)
