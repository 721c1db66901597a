"""What waits in this process for one destination: a domain, or the host of a fixed route that takes several.

A lane has connections, each served by a task that sends one message after the other and waits a moment for the next
before it says goodbye. A lane whose destination cannot be reached backs off as a whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, replace

from mailserver.sending.outcome import Deferred, Failed
from mailserver.sending.retry import REACHABLE, Backoff
from storage.queue import Taken

MAX_RECIPIENTS = 100
"""Of one transaction: every server takes so many (RFC 5321 §4.5.3.1.8)."""


@dataclass(slots=True)
class Lane:
    """name: of a domain, or host:port. route: of a fixed one, host and port.

    jobs: messages to be sent, oldest first. connections: tasks that send them. unreachable: what was found out last,
    where it could not be reached.
    """

    name: str
    route: tuple[str, int] | None
    jobs: deque[Taken] = field(default_factory=deque)
    connections: int = 0
    backoff: Backoff = REACHABLE
    unreachable: Deferred | Failed | None = None
    _idle: deque[asyncio.Future[None]] = field(default_factory=deque)

    def add(self, job: Taken) -> list[Taken]:
        """For the first connection that is free; in parts where it has many recipients."""
        parts = [_part(job, start) for start in range(0, len(job.recipients), MAX_RECIPIENTS)]
        for part in parts:
            self.jobs.append(part)
            self._wake_one()
        return parts

    def is_over(self, now: float) -> bool:
        """Nothing is known that would be worth keeping."""
        return not self.jobs and not self.connections and self.backoff.allows(now) and not self.backoff.failures

    def _wake_one(self) -> None:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    @property
    def needs_connection(self) -> bool:
        """Is there more to do than connections that wait for it?"""
        return len(self.jobs) > len(self._idle)

    async def next(self, seconds: float) -> Taken | None:
        """The next message; None where none comes within so many seconds."""
        if not self.jobs and seconds > 0:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            try:
                async with asyncio.timeout(seconds):
                    await waiter
            except TimeoutError:
                pass
            finally:
                if waiter in self._idle:
                    self._idle.remove(waiter)
        return self.jobs.popleft() if self.jobs else None

    def dismiss(self) -> None:
        """Connections that wait for a message wait no longer."""
        while self._idle:
            self._wake_one()


def _part(job: Taken, start: int) -> Taken:
    """The job, with at most MAX_RECIPIENTS of its recipients."""
    if len(job.recipients) <= MAX_RECIPIENTS:
        return job
    return replace(job, recipients=job.recipients[start : start + MAX_RECIPIENTS])
