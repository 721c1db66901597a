"""Writes what became of recipients, many in one transaction: as in the group commit, what waits while one is written
goes with the next.

Nothing is given up: while the database does not answer it is tried again and again, for what is not written will be
attempted a second time by whoever takes the lease over. How much may wait is bounded by `room`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from storage import StorageError, Store, queue
from storage.queue import Ended, Moved
from storage.tasks import end

log = logging.getLogger(__name__)

MAX_WAITING = 2_000
BATCH = 500
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


class Recorder:
    """told: called when something was written of which a report is owed."""

    def __init__(self, store: Store, told: Callable[[], None]) -> None:
        self._store = store
        self._told = told
        self._waiting: list[Moved] = []
        self._writing = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task = asyncio.create_task(self._run())

    def put(self, moves: Sequence[Moved]) -> None:
        self._waiting.extend(moves)
        self._wake.set()
        if len(self._waiting) >= MAX_WAITING:
            self._room.clear()

    async def room(self) -> None:
        """Waits until less than MAX_WAITING wait. To be called before an attempt is made."""
        await self._room.wait()

    async def close(self, seconds: float) -> None:
        """Writes what is left, for so long; what is not written by then is attempted again by others."""
        try:
            async with asyncio.timeout(seconds):
                while self._waiting or self._writing:
                    self._wake.set()
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.error("what became of %d recipients could not be written", len(self._waiting) + self._writing)
        await end([self._task])

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                self._writing = len(batch)
                await self._write(batch)
                self._writing = 0
                self._room.set()

    async def _write(self, batch: list[Moved]) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await queue.record(self._store, batch)
            except StorageError as error:
                log.warning("what became of %d recipients is not written yet: %s", len(batch), error)
            except Exception:
                log.exception("what became of %d recipients is not written yet", len(batch))
            else:
                if any(isinstance(moved.move, Ended) or getattr(moved.move, "notice", False) for moved in batch):
                    self._told()
                return
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
