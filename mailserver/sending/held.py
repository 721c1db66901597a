"""What this process has a lease of: how long it may still be attempted, and the memory that it takes.

Octets are counted while they are held. A message that comes with its octets may have to wait for a connection; where
another, which is to be sent now, has to be read and there is no room, those that wait give theirs up, and are read when
it is their turn. So nobody waits for what only goes on behind him.
"""

from __future__ import annotations

import asyncio
import logging
import time

from storage import StorageError, Store, queue
from storage.queue import Taken
from storage.records import Lease

log = logging.getLogger(__name__)

MARGIN_SECONDS = 5.0
"""What must be left of a lease at the end of a message."""


class Held:
    """Jobs by identity. limit: octets in memory; one message fits in any case."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._jobs: dict[int, Taken] = {}
        self._waiting: dict[int, Taken] = {}  # those that hold octets, and are not being sent
        self._freed = asyncio.Event()
        self._turn = asyncio.Lock()
        self.octets = 0

    def __len__(self) -> int:
        return len(self._jobs)

    # Memory -----------------------------------------------------------------------------------------------------------

    def reserve(self, octets: int) -> bool:
        """Takes so much, unless that is too much, or somebody waits for room."""
        if self._turn.locked() or not self._has_room(octets):
            return False
        self.octets += octets
        return True

    def _has_room(self, octets: int) -> bool:
        return not self.octets or self.octets + octets <= self._limit

    def give(self, octets: int) -> None:
        self.octets -= octets
        self._freed.set()

    async def load(self, job: Taken) -> bytes:
        """What is to be sent, as soon as there is room for it; NotFound, Damaged, Unavailable."""
        self._waiting.pop(id(job), None)
        if job.octets is None:
            async with self._turn:  # or one that is large would wait for ever while small ones go by
                await self._make_room(job.size)
                self.octets += job.size
            try:
                job.octets = await queue.load(self._store, job)
            finally:
                self.give(job.size - len(job.octets or b""))
        return job.octets

    async def _make_room(self, octets: int) -> None:
        while not self._has_room(octets):
            if self._waiting:
                _, job = self._waiting.popitem()
                self.give(len(job.octets or b""))
                job.octets = None
            else:
                self._freed.clear()
                await self._freed.wait()

    # Leases -----------------------------------------------------------------------------------------------------------

    def add(self, job: Taken) -> None:
        """A job that waits for its turn."""
        self._jobs[id(job)] = job
        if job.octets is not None:
            self.octets += len(job.octets)
            self._waiting[id(job)] = job

    def drop(self, job: Taken) -> None:
        """It is done with, or somebody else's."""
        if self._jobs.pop(id(job), None) is not None:
            self._waiting.pop(id(job), None)
            self.give(len(job.octets or b""))

    async def renew(self, seconds: float) -> None:
        """Leases of which half is over get so long again. One that is lost leaves no time for anything."""
        soon = time.monotonic() + seconds / 2
        jobs = [job for job in self._jobs.values() if job.lease.until < soon]
        if not jobs:
            return
        leases = [(key, job.lease.token) for job in jobs for key in job.keys]
        try:
            kept, until = await queue.renew(self._store, leases, seconds)
        except StorageError as error:
            log.warning("leases of %d messages are not renewed: %s", len(jobs), error)
            return
        for job in jobs:
            job.lease = Lease(job.lease.token, until if kept.issuperset(job.keys) else 0.0)


def has_margin(job: Taken) -> bool:
    """May the message be brought to its end?"""
    return time.monotonic() < job.lease.until - MARGIN_SECONDS
