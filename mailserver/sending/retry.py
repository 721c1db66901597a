"""When a recipient is tried again, when its sender is told of the delay, and when it is given up.

Pure: times are epoch seconds and come in as arguments, chance comes in as a number. Two things are counted apart. A
recipient has a schedule of its own (`decide`), whatever the reason of the delay. A destination that cannot be reached
backs off as a whole (`Backoff`), so that it is dialled seldom however many messages wait for it (RFC 5321 §4.5.4.1).
"""

from __future__ import annotations

from dataclasses import dataclass

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR

SPREAD = 0.2
"""A pause gets longer by up to this part of it, so that what was deferred together does not come back together."""

_MAX_DOUBLINGS = 30


@dataclass(frozen=True, slots=True)
class Policy:
    """The parameters, which must be settings (RFC 5321 §4.5.4.1). ValueError for those that make no sense.

    pauses_seconds: after the first attempt, the second, …, and after every further one the last of them.
    give_up_seconds: age of a message from which on a failed attempt is the last; RFC 5321 wants 4 to 5 days at least.
    notice_seconds: age from which on its sender is told that it is delayed.
    first_backoff_seconds, longest_backoff_seconds: how long a destination is left alone that could not be reached.
    """

    pauses_seconds: tuple[float, ...] = (
        *(1 * MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE),
        *(1 * HOUR, 2 * HOUR, 4 * HOUR),
    )
    give_up_seconds: float = 5 * DAY
    notice_seconds: float = 4 * HOUR
    first_backoff_seconds: float = 30.0
    longest_backoff_seconds: float = 1 * HOUR

    def __post_init__(self) -> None:
        if not self.pauses_seconds or min(self.pauses_seconds) <= 0:
            raise ValueError("there must be pauses between attempts, all longer than 0 seconds")
        if not 0 < self.first_backoff_seconds <= self.longest_backoff_seconds:
            raise ValueError("the first back-off must be longer than 0 seconds, and no longer than the longest")


@dataclass(frozen=True, slots=True)
class Retry:
    """The next attempt is at that moment. notice: the sender is told of the delay now."""

    at: float
    notice: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """No further attempt: what was deferred so far has failed."""


Decision = Retry | GiveUp


def decide(
    policy: Policy, *, queued_at: float, attempts: int, now: float, jitter: float, may_notice: bool = True
) -> Decision:
    """What follows from an attempt that was deferred.

    attempts: with this one, so 1 at least; jitter: 0 to 1; may_notice: False where the sender was told already, or
    does not want to be (RFC 3461 §4.1).
    """
    age = now - queued_at
    if age >= policy.give_up_seconds:
        return GiveUp()
    at = next_attempt(policy, queued_at=queued_at, attempts=attempts, now=now, jitter=jitter)
    return Retry(at, notice=may_notice and age >= policy.notice_seconds)


def next_attempt(policy: Policy, *, queued_at: float, attempts: int, now: float, jitter: float) -> float:
    """The moment of the attempt after so many.

    One attempt is made just when a notice of delay is due, and one just before giving up, so that neither is late by a
    pause of hours, and neither is said without having tried.
    """
    pause = policy.pauses_seconds[min(max(attempts, 1), len(policy.pauses_seconds)) - 1]
    at = now + pause * (1 + SPREAD * jitter)
    soonest = now + min(policy.pauses_seconds)
    for age in (policy.notice_seconds, policy.give_up_seconds):
        if now < queued_at + age:
            at = min(at, max(queued_at + age, soonest))
    return at


@dataclass(frozen=True, slots=True)
class Backoff:
    """How a destination fares: failures to reach it in a row, and the moment before which it is not dialled again."""

    failures: int = 0
    not_before: float = 0.0

    def failed(self, policy: Policy, *, dialled_at: float, now: float) -> Backoff:
        """After a connection that did not come about.

        Connections dialled side by side fail together and count once: one that was dialled before the pause came to
        its end says nothing new.
        """
        if dialled_at < self.not_before:
            return self
        pause = policy.first_backoff_seconds * 2.0 ** min(self.failures, _MAX_DOUBLINGS)
        return Backoff(self.failures + 1, now + min(pause, policy.longest_backoff_seconds))

    def succeeded(self) -> Backoff:
        """After any connection that did."""
        return REACHABLE

    def hastened(self) -> Backoff:
        """Somebody wants to know now whether it can be reached. How often it could not be is not forgotten."""
        return Backoff(self.failures, 0.0)

    def allows(self, now: float) -> bool:
        return now >= self.not_before


REACHABLE = Backoff()
"""A destination of which nothing bad is known."""
