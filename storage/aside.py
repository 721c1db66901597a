"""Work on many octets beside the event loop, so that others are served meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

IN_LOOP_OCTETS: Final = 1 << 20
"""Compressing, sealing or encoding so many takes a few milliseconds."""


async def aside(octets: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Does the work on so many octets: at once where they are few, in a thread where they are many."""
    if octets <= IN_LOOP_OCTETS:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
