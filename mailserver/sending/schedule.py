"""Moments at which destinations are to be looked at; what is due is found without going through all of them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping


class Schedule:
    """One moment a destination, of the monotonic clock."""

    def __init__(self) -> None:
        self._moments: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # what is not in `_moments` any more is passed over

    def __contains__(self, name: str) -> bool:
        return name in self._moments

    def replace(self, moments: Mapping[str, float]) -> None:
        """These, and no others."""
        self._moments = dict(moments)
        self._heap = [(moment, name) for name, moment in moments.items()]
        heapq.heapify(self._heap)

    def note(self, name: str, moment: float) -> bool:
        """Not later than at that moment. Is it sooner than what was known?"""
        if moment >= self._moments.get(name, math.inf):
            return False
        self._moments[name] = moment
        heapq.heappush(self._heap, (moment, name))
        return True

    def take_due(self, now: float) -> list[str]:
        """Those whose moment has come, the longest due first; they are forgotten."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            moment, name = heapq.heappop(self._heap)
            if self._moments.get(name) == moment:
                del self._moments[name]
                due.append(name)
        return due

    def next(self) -> float:
        """The next moment; infinite where there is none."""
        while self._heap and self._moments.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf
