"""What an outcome means for a recipient."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from mailserver.sending.moves import move
from mailserver.sending.outcome import Deferred, Delivered, Failed, Outcome
from mailserver.sending.retry import Policy
from storage import AccountId, MessageId
from storage.queue import Again, Ended, Gone, Move, Said, Taken, TakenRecipient
from storage.records import Lease

POLICY = Policy(pauses_seconds=(60.0, 300.0), give_up_seconds=1000.0, notice_seconds=500.0)
ZERO = UUID(int=0)
X = TakenRecipient("x@remote.test", "remote.test", None, "", 1, False)
JOB = Taken(
    *(AccountId(1), MessageId(2), ZERO, "me@example.org", "", "", "7BIT", False, b""),
    born=10_000.0,
    size=1,
    recipients=[X],
    lease=Lease(ZERO, 0.0),
)
OK = Delivered(250, "2.0.0", "taken", "mx")
LATER = Deferred(451, "4.3.0", "later", "mx")
NEVER = Failed(550, "5.1.1", "who?", "mx")
SAID = {"ok": Said(250, "2.0.0", "taken", "mx"), "later": Said(451, "4.3.0", "later", "mx")}
NO = Said(550, "5.1.1", "who?", "mx")


def asks(notify: str | None, **more: object) -> TakenRecipient:
    return replace(X, notify=notify, **more)  # type: ignore[arg-type]


TABLE: dict[str, tuple[Outcome, TakenRecipient, float, Move]] = {
    "delivered": (OK, X, 0, Gone()),
    "delivered, and success was asked for": (OK, asks("SUCCESS"), 0, Ended("relayed", SAID["ok"])),
    "delivered, and only failure was": (OK, asks("FAILURE,DELAY"), 0, Gone()),
    "failed": (NEVER, X, 0, Ended("failed", NO)),
    "failed, and nobody wants to know": (NEVER, asks("NEVER"), 0, Gone()),
    "failed, and only success was asked for": (NEVER, asks("SUCCESS"), 0, Gone()),
    "deferred": (LATER, X, 0, Again(SAID["later"], 10_060.0, 10_500.0)),
    "deferred again": (LATER, asks(None, attempts=2), 100, Again(SAID["later"], 10_400.0, 10_500.0)),
    "so late that it is told of": (
        LATER,
        asks(None, attempts=2),
        500,
        Again(SAID["later"], 10_800.0, 11_000.0, notice=True),
    ),
    "told of already": (LATER, asks(None, attempts=2, told=True), 600, Again(SAID["later"], 10_900.0, 11_000.0)),
    "nobody wants to hear of a delay": (
        LATER,
        asks("FAILURE", attempts=2),
        600,
        Again(SAID["later"], 10_900.0, 11_000.0),
    ),
    "so late that it is given up": (LATER, asks(None, attempts=9, told=True), 1000, Ended("failed", SAID["later"])),
    "given up without a word": (LATER, asks("DELAY", attempts=9), 1000, Gone()),
}


@pytest.mark.parametrize(("outcome", "recipient", "age", "expected"), TABLE.values(), ids=TABLE)
def test_moves(outcome: Outcome, recipient: TakenRecipient, age: float, expected: Move) -> None:
    assert move(POLICY, JOB, recipient, outcome, now=10_000 + age, jitter=0.0) == expected


def test_success_is_left_to_a_server_that_was_told_of_it() -> None:
    assert move(POLICY, JOB, asks("SUCCESS"), OK, now=10_000, jitter=0.0, reports_itself=True) == Gone()


@pytest.mark.parametrize("outcome", [OK, NEVER])
@pytest.mark.parametrize("notify", [None, "SUCCESS,FAILURE,DELAY"])
def test_the_null_reverse_path_hears_nothing(outcome: Outcome, notify: str | None) -> None:
    job = replace(JOB, reverse_path="")
    assert move(POLICY, job, asks(notify), outcome, now=10_000, jitter=0.0) == Gone()
    again = move(POLICY, job, asks(notify, attempts=2), LATER, now=10_600, jitter=0.0)
    assert isinstance(again, Again) and not again.notice
