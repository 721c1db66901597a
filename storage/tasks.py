"""Tasks that end together: those that run for as long as a store is open, and those that make up one piece of work."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

AGAIN_SECONDS = 1.0


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks until all have ended.

    One cancellation may get lost: where a library's own clean-up ends in another error, a loop that lives through
    outages takes it for one.
    """
    late = set(tasks)
    while late:
        for task in late:
            task.cancel()
        ended, late = await asyncio.wait(late, timeout=AGAIN_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()  # nobody else will ask for it


async def together(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What works that run at once have come to, in order.

    Where one fails, its error is raised after the others were cancelled and have ended: nothing goes on behind it.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]
