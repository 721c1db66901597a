"""One sweep a second instead of a timer a connection.

Whoever waits for its peer sets its `deadline` (time.monotonic) and forgets about it; the sweep calls expire() on those
whose time has come, up to a second late. Setting a deadline is one assignment, where a timer is made and cancelled for
every command. The same registry lists all connections of the worker, for an orderly stop.

`now` is the time of the last sweep: who sets deadlines at every command may use it to do so once a second only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from time import monotonic
from typing import Protocol

log = logging.getLogger(__name__)

SWEEP_SECONDS = 1.0


class Timed(Protocol):
    deadline: float

    def expire(self) -> None: ...

    def stop(self) -> None: ...

    def cut_off(self) -> None: ...

    def abort(self) -> None: ...


class Deadlines:
    """The members of one worker and the sweep over them."""

    def __init__(self) -> None:
        self.now = monotonic()
        self._members: set[Timed] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Timed]:
        return iter(tuple(self._members))

    def add(self, member: Timed) -> None:
        self._members.add(member)

    def remove(self, member: Timed) -> bool:
        """False where it was no member."""
        try:
            self._members.remove(member)
        except KeyError:
            return False
        if self._emptied is not None and not self._members:
            self._emptied.set()
        return True

    async def empty(self) -> None:
        """Waits until there is no member."""
        self._emptied = asyncio.Event()
        if self._members:
            await self._emptied.wait()

    def start(self) -> None:
        """Sweeps from now on, in the running loop."""
        if self._timer is None:
            self.now = monotonic()
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._tick)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def sweep(self, now: float) -> None:
        self.now = now
        for member in [m for m in self._members if m.deadline <= now]:
            try:
                member.expire()
            except Exception:
                log.exception("fault in a deadline")

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._tick)
        self.sweep(monotonic())
