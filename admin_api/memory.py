"""Octets that a request holds, counted against the worker's memory for messages."""

from __future__ import annotations

from types import TracebackType

from admin_api.problems import later
from admin_api.service import Memory


class Held:
    """What one request holds; all of it is given back at the end."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.octets = 0

    def __enter__(self) -> Held:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._memory.give(self.octets)

    def take(self, octets: int) -> None:
        """Problem: 503 where there is no room."""
        if not self._memory.take(octets):
            raise later("the server is busy with other messages; try again later")
        self.octets += octets
