"""Running aiosmtpd's coroutines by hand.

A command is a coroutine that nearly always runs to its end without waiting. Its first step is made by hand; where it
has to wait, the rest of it becomes a task (`resume`). In that first step there is no current task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


async def in_task() -> None:
    """From here on a task runs the caller, so that it may use asyncio's time limits."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)


async def resume(coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
    """The rest of a coroutine whose first step yielded `awaited`."""
    await _Resumed(coroutine, awaited)


class _Resumed:
    __slots__ = ("_awaited", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        awaited = self._awaited
        while True:
            value, failure = None, None
            try:
                value = yield awaited
            except BaseException as error:
                failure = error
            try:
                awaited = self._coroutine.send(value) if failure is None else self._coroutine.throw(failure)
            except StopIteration:
                return
