"""The end of tasks that run for as long as a store is open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

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
