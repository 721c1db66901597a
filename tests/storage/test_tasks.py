"""Tasks end, even those that lose a cancellation."""

from __future__ import annotations

import asyncio

import pytest

from storage import tasks
from storage.tasks import end


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
