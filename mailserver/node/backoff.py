"""When something that keeps dying is started again: at once the first time, then after longer and longer pauses."""

from __future__ import annotations

from dataclasses import dataclass
from time import monotonic

STEADY_SECONDS = 10.0
"""Who lived so long begins anew in the count of failures."""

SHORTEST = 0.1
LONGEST = 10.0


@dataclass(slots=True)
class Backoff:
    """started, failures in a row, and the moment (monotonic) before which it is not started again."""

    started: float = 0.0
    failures: int = 0
    not_before: float = 0.0

    def note_start(self) -> None:
        self.started = monotonic()

    def note_death(self) -> None:
        now = monotonic()
        self.failures = 1 if now - self.started > STEADY_SECONDS else self.failures + 1
        pause = 0.0 if self.failures == 1 else min(SHORTEST * 2 ** min(self.failures - 2, 10), LONGEST)
        self.not_before = now + pause

    @property
    def pause(self) -> float:
        """Seconds that are left to wait; not positive where there are none."""
        return self.not_before - monotonic()
