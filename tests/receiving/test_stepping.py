"""Coroutines begun by hand and finished by a task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mailserver.receiving.stepping import in_task, resume


async def begun(coroutine: Any) -> Any:
    """As dialogue.py does: one step by hand from a callback of the loop, then a task."""
    loop = asyncio.get_running_loop()
    result = loop.create_future()

    def step() -> None:
        try:
            awaited = coroutine.send(None)
        except StopIteration as stop:
            result.set_result(stop.value)
            return
        task = loop.create_task(resume(coroutine, awaited))
        task.add_done_callback(lambda done: result.set_result(done))

    loop.call_soon(step)
    return await result


async def test_runs_on_after_futures_sleeps_and_tasks() -> None:
    seen = []

    async def command() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())
        await asyncio.sleep(0.001)
        await asyncio.shield(asyncio.ensure_future(asyncio.sleep(0.001)))
        async with asyncio.timeout(5):
            await asyncio.sleep(0)
        seen.append("end")

    task = await begun(command())
    assert task.exception() is None
    assert seen == [None, task, "end"]


async def test_a_first_wait_for_a_future() -> None:
    future = asyncio.get_running_loop().create_future()
    got = []

    async def command() -> None:
        got.append(await future)
        try:
            await asyncio.wait_for(asyncio.sleep(10), 0.001)
        except TimeoutError:
            got.append("late")

    asyncio.get_running_loop().call_later(0.01, future.set_result, 7)
    await begun(command())
    assert got == [7, "late"]


async def test_errors_go_in_and_come_out() -> None:
    future = asyncio.get_running_loop().create_future()

    async def command() -> None:
        try:
            await future
        except ConnectionResetError:
            raise KeyError("out") from None

    asyncio.get_running_loop().call_later(0.01, future.set_exception, ConnectionResetError())
    task = await begun(command())
    with pytest.raises(KeyError):
        task.result()


async def test_cancelling_the_task_cancels_the_command() -> None:
    seen = []

    async def command() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    coroutine = command()
    awaited = coroutine.send(None)
    task = asyncio.ensure_future(resume(coroutine, awaited))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def test_in_task() -> None:
    seen = []

    async def command() -> None:
        await in_task()
        seen.append(asyncio.current_task())
        await in_task()
        async with asyncio.timeout(1):
            pass

    task = await begun(command())
    assert seen == [task]
