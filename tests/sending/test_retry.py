"""Attempts, notices and giving up by the clock, and destinations that are left alone."""

from __future__ import annotations

from typing import Any

import pytest

from mailserver.sending.retry import DAY, HOUR, MINUTE, REACHABLE, Backoff, GiveUp, Policy, Retry, decide, next_attempt

POLICY = Policy()
QUEUED = 1_700_000_000.0
NEVER = float("inf")

# With the default policy: attempts so far, age at the last one, and the pause until the next.
SCHEDULE = [
    (0, 0.0, 1 * MINUTE),
    (1, 0.0, 1 * MINUTE),
    (2, 1 * MINUTE, 5 * MINUTE),
    (3, 6 * MINUTE, 15 * MINUTE),
    (4, 21 * MINUTE, 30 * MINUTE),
    (5, 51 * MINUTE, 1 * HOUR),
    (6, 111 * MINUTE, 2 * HOUR),
    (7, 231 * MINUTE, 9 * MINUTE),  # just when the notice is due
    (8, 4 * HOUR, 4 * HOUR),
    (9, 8 * HOUR, 4 * HOUR),
    (100, 2 * DAY, 4 * HOUR),
    (100, 5 * DAY - 1 * HOUR, 1 * HOUR),  # once more before giving up
    (100, 5 * DAY - 10, 1 * MINUTE),  # but not at once
    (7, 4 * HOUR - 10, 1 * MINUTE),
    (7, -1 * HOUR, 4 * HOUR),  # queued by a clock that is ahead
    (100, 9 * DAY, 4 * HOUR),  # after a long standstill
]

DECISIONS = [
    # age, attempts, may_notice, decision at jitter 0; moments are ages too
    (0.0, 1, True, Retry(1 * MINUTE)),
    (231 * MINUTE, 7, True, Retry(4 * HOUR)),
    (4 * HOUR, 8, True, Retry(8 * HOUR, notice=True)),
    (4 * HOUR, 8, False, Retry(8 * HOUR)),
    (1 * DAY, 1, True, Retry(1 * DAY + 1 * MINUTE, notice=True)),
    (5 * DAY - 1, 40, False, Retry(5 * DAY - 1 + 1 * MINUTE)),
    (5 * DAY, 40, False, GiveUp()),
    (5 * DAY, 40, True, GiveUp()),
    (5 * DAY, 1, True, GiveUp()),
    (50 * DAY, 1, True, GiveUp()),
]


@pytest.mark.parametrize(("attempts", "age", "pause"), SCHEDULE)
def test_the_schedule(attempts: int, age: float, pause: float) -> None:
    now = QUEUED + age
    assert next_attempt(POLICY, queued_at=QUEUED, attempts=attempts, now=now, jitter=0.0) == now + pause


@pytest.mark.parametrize(("jitter", "pause"), [(0.0, 900.0), (0.5, 990.0), (1.0, 1080.0)])
def test_jitter_makes_a_pause_longer(jitter: float, pause: float) -> None:
    assert next_attempt(POLICY, queued_at=0, attempts=3, now=360, jitter=jitter) == pytest.approx(360 + pause)


@pytest.mark.parametrize(("age", "attempts", "may_notice", "decision"), DECISIONS)
def test_decisions(age: float, attempts: int, may_notice: bool, decision: Retry | GiveUp) -> None:
    if isinstance(decision, Retry):
        decision = Retry(QUEUED + decision.at, decision.notice)
    made = decide(POLICY, queued_at=QUEUED, attempts=attempts, now=QUEUED + age, jitter=0.0, may_notice=may_notice)
    assert made == decision


@pytest.mark.parametrize("jitter", [0.0, 0.3, 1.0])
def test_the_life_of_a_message_that_nobody_takes(jitter: float) -> None:
    now, attempts = QUEUED, 0
    ages: list[float] = []
    notices: list[float] = []
    while True:
        attempts += 1
        decision = decide(POLICY, queued_at=QUEUED, attempts=attempts, now=now, jitter=jitter, may_notice=not notices)
        ages.append(now - QUEUED)
        if isinstance(decision, GiveUp):
            break
        if decision.notice:
            notices.append(now - QUEUED)
        assert decision.at >= now + 1 * MINUTE
        now = decision.at
    assert notices == [4 * HOUR]
    assert ages[-1] == 5 * DAY
    assert 30 <= attempts <= 45


def test_another_policy() -> None:
    policy = Policy(pauses_seconds=(10.0,), give_up_seconds=25.0, notice_seconds=NEVER)
    attempts = [(1, 0.0, Retry(10.0)), (2, 10.0, Retry(20.0)), (3, 20.0, Retry(30.0)), (4, 30.0, GiveUp())]
    for count, now, decision in attempts:
        assert decide(policy, queued_at=0, attempts=count, now=now, jitter=0) == decision


@pytest.mark.parametrize(
    "wrong",
    [
        {"pauses_seconds": ()},
        {"pauses_seconds": (60.0, 0.0)},
        {"first_backoff_seconds": 0.0},
        {"first_backoff_seconds": 7200.0},
    ],
)
def test_policies_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Policy(**wrong)


def test_a_destination_is_left_alone_for_longer_and_longer() -> None:
    backoff, now, pauses = REACHABLE, QUEUED, []
    for _ in range(10):
        assert backoff.allows(now)
        backoff = backoff.failed(POLICY, dialled_at=now, now=now + 5)
        now += 5
        assert not backoff.allows(now)
        pauses.append(backoff.not_before - now)
        now = backoff.not_before
    assert pauses == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    assert backoff.failures == 10


def test_connections_that_fail_side_by_side_count_once() -> None:
    backoff = REACHABLE.failed(POLICY, dialled_at=100.0, now=130.0)
    assert backoff == Backoff(1, 160.0)
    assert backoff.failed(POLICY, dialled_at=101.0, now=131.0) == backoff
    assert backoff.failed(POLICY, dialled_at=159.9, now=500.0) == backoff
    assert backoff.failed(POLICY, dialled_at=160.0, now=500.0) == Backoff(2, 560.0)


def test_any_success_forgets_the_failures() -> None:
    assert Backoff(9, 5000.0).succeeded() == REACHABLE
    assert REACHABLE.allows(0.0)


def test_failures_without_end_stay_bounded() -> None:
    assert Backoff(10**9, 0.0).failed(POLICY, dialled_at=1.0, now=1.0).not_before == 3601.0


def test_a_destination_may_be_tried_before_its_time_and_its_failures_count_on() -> None:
    hastened = Backoff(3, 5000.0).hastened()
    assert hastened.allows(0.0) and hastened.failures == 3
    assert hastened.failed(POLICY, dialled_at=10.0, now=10.0).failures == 4
