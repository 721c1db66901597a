"""What waits in this process for one destination: a domain, or the host of a fixed route that takes several.

A lane has connections, each a task that sends one message after the other and waits a moment for the next before it
says goodbye. A lane whose destination cannot be reached backs off as a whole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mailserver.sending.outcome import Deferred
from mailserver.sending.retry import REACHABLE, Backoff
from storage.queue import Taken

MAX_RECIPIENTS = 100
"""Of one transaction: every server takes so many (RFC 5321 §4.5.3.1.8)."""


@dataclass(slots=True, eq=False)
class Lane:
    """name: of a domain, or host:port of a fixed route.

    jobs: messages to be sent, oldest first. more: destinations of which more is due in the queue. connections: tasks
    that send; retired: they take no further message. proven: a message was taken there. unreachable: what was found out
    last, where it could not be reached.
    """

    name: str
    jobs: deque[Taken] = field(default_factory=deque)
    more: set[str] = field(default_factory=set)
    connections: int = 0
    retired: bool = False
    proven: bool = False
    backoff: Backoff = REACHABLE
    unreachable: Deferred | None = None
    _idle: deque[asyncio.Future[None]] = field(default_factory=deque)

    def add(self, job: Taken) -> list[Taken]:
        """For the first connection that is free; in parts, where its recipients do not fit into one transaction."""
        parts = list(_parts(job))
        for part in parts:
            self.jobs.append(part)
            self._wake_one()
        return parts

    def is_over(self, now: float) -> bool:
        """Nothing goes on, and nothing is known that would be worth keeping."""
        return not self.jobs and not self.more and not self.connections and self.backoff.allows(now)

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
        if not self.jobs and seconds > 0 and not self.retired:
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

    def retire(self) -> list[Taken]:
        """Its connections come to their end. What waited for them."""
        self.retired = True
        waiting = list(self.jobs)
        self.jobs.clear()
        while self._idle:
            self._wake_one()
        return waiting


def _parts(job: Taken) -> Iterator[Taken]:
    """At most MAX_RECIPIENTS each. Addresses that need SMTPUTF8 go apart, so that the others do without."""
    ascii_only = [recipient for recipient in job.recipients if recipient.address.isascii()]
    others = [recipient for recipient in job.recipients if not recipient.address.isascii()]
    for group in (ascii_only, others):
        for start in range(0, len(group), MAX_RECIPIENTS):
            part = group[start : start + MAX_RECIPIENTS]
            yield job if len(part) == len(job.recipients) else replace(job, recipients=part)
