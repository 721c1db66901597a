"""Tasks end, even those that lose a cancellation; of those that work together none goes on alone."""

from __future__ import annotations

import asyncio

import pytest

from storage import tasks
from storage.tasks import end, together


async def test_a_lost_cancellation_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.01)
    lost = 0

    async def loop() -> None:
        nonlocal lost
        while True:
            try:
                try:
                    await asyncio.sleep(3600)
                finally:
                    if lost < 3:
                        lost += 1
                        raise TimeoutError
            except TimeoutError:
                continue

    running = [asyncio.create_task(loop()), asyncio.create_task(asyncio.sleep(3600))]
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await end(running)
    assert lost == 3 and all(task.cancelled() for task in running)


async def test_nothing_to_end_and_one_that_fails() -> None:
    await end([])

    async def fail() -> None:
        raise ValueError

    failed = asyncio.create_task(fail())
    await asyncio.wait([failed])
    await end([failed])
    assert isinstance(failed.exception(), ValueError)


async def test_results_are_in_order() -> None:
    async def late(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert await together(late(turns) for turns in (3, 1, 2)) == [3, 1, 2]
    assert await together(late(turns) for turns in ()) == []


async def test_where_one_fails_the_others_have_ended() -> None:
    ended = []

    async def lasting() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("first") from KeyError("cause")

    with pytest.raises(ValueError, match="first") as failure:
        await together([lasting(), failing(), lasting()])
    assert ended == [True, True]
    assert isinstance(failure.value.__cause__, KeyError)


async def test_who_is_cancelled_leaves_nothing_behind() -> None:
    ended = []

    async def lasting() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(True)

    work = asyncio.create_task(together([lasting(), lasting()]))
    while len(asyncio.all_tasks()) < 4:
        await asyncio.sleep(0)
    await end([work])
    assert ended == [True, True]
