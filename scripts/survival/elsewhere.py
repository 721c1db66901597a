"""The ledger against what has arrived elsewhere: acknowledged means at least once, refused never, anything else any
number of times. More than once only where something was broken when the first copy arrived."""

from __future__ import annotations

from collections.abc import Iterator

from survival.ledger import Departure, Disturbance, Ledger
from survival.row import Row

ELSEWHERE = "elsewhere"

_BEFORE_SECONDS = 2.0
"""What arrived so long before a fault may not have been written down yet."""
_AFTER_SECONDS = 15.0
"""So long after a fault its effects may last: what waits for a database that hung gets its answer, or none, by then."""


def judge(ledger: Ledger, row: Row) -> Iterator[str]:
    """Counts each recipient of each message; a line for each thing that must not be."""
    for departure in ledger.departures.values():
        outcome = "refused" if departure.refused else ledger.attempts[departure.attempt].outcome
        row.attempted += 1
        setattr(row, outcome, getattr(row, outcome) + 1)
        verdict = _verdict(departure, outcome, ledger.disturbances)
        if verdict:
            setattr(row, verdict, getattr(row, verdict) + 1)
            yield _described(verdict, departure, outcome)
        elif departure.arrivals:
            row.found += 1
            row.sent_twice += len(departure.arrivals) > 1


def _verdict(departure: Departure, outcome: str, disturbances: list[Disturbance]) -> str:
    """Empty where all is right."""
    arrivals = departure.arrivals
    if not arrivals:
        return "lost" if outcome == "acknowledged" else ""
    if outcome == "refused" or not all(exact for _, exact in arrivals):
        return "wrong"
    return "doubled" if len(arrivals) > 1 and not _is_excused(arrivals[0][0], disturbances) else ""


def _is_excused(at: float, disturbances: list[Disturbance]) -> bool:
    return any(one.began_at - _BEFORE_SECONDS <= at <= one.ended_at + _AFTER_SECONDS for one in disturbances)


def _described(verdict: str, departure: Departure, outcome: str) -> str:
    times = ", ".join(f"{at:.1f} s{'' if exact else ' with other octets'}" for at, exact in departure.arrivals)
    arrived = f"arrived at {times}" if times else "never arrived"
    return f"{verdict}: attempt {departure.attempt} for {departure.address}: {outcome}; {arrived}"
