"""What the ledger allows, and each way in which what is found may be otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from survival.elsewhere import ELSEWHERE
from survival.judge import judge
from survival.ledger import Copy, Disturbance, Ledger
from survival.reading import Found
from survival.row import Row

ALICE, BOB = "alice@example.test", "bob@example.test"
SEEN = frozenset({"\\Seen"})

Copies = dict[tuple[int, str], list[tuple[Copy, bool]]]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.jsonl", seed=1)


def arrived(ledger: Ledger, outcome: str, *accounts: str, uids: dict[int, int] | None = None) -> int:
    attempt = ledger.begin_arrival("mx", "s@example.org", [(account, "INBOX") for account in accounts])
    ledger.end(attempt, outcome, uids=uids)  # type: ignore[arg-type]
    return attempt


def faults(ledger: Ledger, copies: Copies) -> list[str]:
    return [fault.split(":")[0] for fault in judge(ledger, Found(copies=copies)).faults]


def inbox(*uids: int, exact: bool = True) -> list[tuple[Copy, bool]]:
    return [(Copy("INBOX", uid=uid), exact) for uid in uids]


@pytest.mark.parametrize(
    ("outcome", "found", "verdict"),
    [
        ("acknowledged", inbox(1), []),
        ("acknowledged", [], ["lost"]),
        ("acknowledged", inbox(1, 2), ["doubled"]),
        ("acknowledged", inbox(1, exact=False), ["wrong"]),
        ("acknowledged", [(Copy("Work", uid=1), True)], ["wrong"]),
        ("unknown", [], []),
        ("unknown", inbox(1), []),
        ("unknown", inbox(1, 2), ["doubled"]),
        ("refused", [], []),
        ("refused", inbox(1), ["wrong"]),
    ],
)
def test_an_arrival(ledger: Ledger, outcome: str, found: list[tuple[Copy, bool]], verdict: list[str]) -> None:
    attempt = arrived(ledger, outcome, ALICE)
    assert faults(ledger, {(attempt, ALICE): found} if found else {}) == verdict


def test_each_recipient_counts(ledger: Ledger) -> None:
    attempt = arrived(ledger, "acknowledged", ALICE, BOB)
    assert faults(ledger, {(attempt, ALICE): inbox(1)}) == ["lost"]
    assert faults(ledger, {(attempt, ALICE): inbox(1), (attempt, BOB): inbox(1)}) == []


def test_an_answer_that_never_came(ledger: Ledger) -> None:
    attempt = ledger.begin_arrival("mx", "s@example.org", [(ALICE, "INBOX")])
    assert faults(ledger, {}) == faults(ledger, {(attempt, ALICE): inbox(1)}) == []


OUT = "reader@remote.test"


def departed(ledger: Ledger, outcome: str, *times: float, exact: bool = True, absent: tuple[str, ...] = ()) -> Row:
    """What is counted of one message by way of an alias; times: when it arrived elsewhere."""
    attempt = ledger.begin_arrival("mx", "s@example.org", [(ALICE, "INBOX")], outside=[("team@example.test", OUT)])
    ledger.end(attempt, outcome, absent=absent)  # type: ignore[arg-type]
    ledger.departures[attempt, OUT].arrivals = [(at, exact) for at in times]
    stored = {} if outcome == "refused" else {(attempt, ALICE): inbox(1)}
    return judge(ledger, Found(copies=stored)).rows[ELSEWHERE]


@pytest.mark.parametrize(
    ("outcome", "times", "verdict"),
    [
        ("acknowledged", [100.0], ""),
        ("acknowledged", [], "lost"),
        ("acknowledged", [100.0, 101.0], "doubled"),
        ("acknowledged", [49.0, 101.0], "sent_twice"),
        ("acknowledged", [60.0, 101.0, 102.0], "sent_twice"),
        ("acknowledged", [47.0, 49.0], "doubled"),
        ("unknown", [], ""),
        ("unknown", [100.0], ""),
        ("refused", [], ""),
        ("refused", [100.0], "wrong"),
    ],
)
def test_a_departure(ledger: Ledger, outcome: str, times: list[float], verdict: str) -> None:
    ledger.disturbances.append(Disturbance("kill worker", 50.0, 51.0))
    row = departed(ledger, outcome, *times)
    assert [name for name in ("lost", "doubled", "wrong", "sent_twice") if getattr(row, name)] == [verdict] * bool(
        verdict
    )
    assert (row.attempted, getattr(row, outcome)) == (1, 1)


def test_a_departure_with_other_octets(ledger: Ledger) -> None:
    assert departed(ledger, "acknowledged", 1.0, exact=False).wrong == 1


@pytest.mark.parametrize(("times", "wrong"), [((), 0), ((1.0,), 1)])
def test_who_was_refused_gets_nothing(ledger: Ledger, times: tuple[float, ...], wrong: int) -> None:
    row = departed(ledger, "acknowledged", *times, absent=("team@example.test",))
    assert (row.refused, row.wrong) == (1, wrong)


def test_what_arrives_elsewhere_was_sent_there(ledger: Ledger) -> None:
    attempt = ledger.begin_arrival("mx", "s@example.org", [], outside=[(OUT, OUT)])
    ledger.arrived_elsewhere(attempt, [OUT], True)
    assert faults(ledger, {}) == []
    ledger.arrived_elsewhere(attempt, [ALICE], True)
    assert len(faults(ledger, {})) == 1


EDITS = [
    ("store", {"how": "+FLAGS", "flags": ["\\Seen"]}, [Copy("INBOX", SEEN, 5)]),
    ("copy", {"to": "Work"}, [Copy("INBOX", uid=5), Copy("Work", uid=9)]),
    ("move", {"to": "Work"}, [Copy("Work", uid=9)]),
    ("expunge", {}, []),
]


@pytest.mark.parametrize(("kind", "more", "after"), EDITS)
@pytest.mark.parametrize("outcome", ["acknowledged", "refused", "unknown"])
def test_an_edit(ledger: Ledger, kind: str, more: dict[str, object], after: list[Copy], outcome: str) -> None:
    message = arrived(ledger, "acknowledged", ALICE)
    edit = ledger.begin_edit(kind, ALICE, "INBOX", {message: 5}, **more)
    ledger.end(edit, outcome)  # type: ignore[arg-type]
    done = {(message, ALICE): [(copy, True) for copy in after]} if after else {}
    undone = {(message, ALICE): inbox(5)}
    assert bool(faults(ledger, done)) == (outcome == "refused")
    assert bool(faults(ledger, undone)) == (outcome == "acknowledged")


def test_a_told_uid_must_be_the_one(ledger: Ledger) -> None:
    attempt = arrived(ledger, "acknowledged", ALICE, uids={1: 7})
    assert faults(ledger, {(attempt, ALICE): inbox(8)}) == ["wrong"]
    assert faults(ledger, {(attempt, ALICE): inbox(7)}) == []


def test_uids_rise(ledger: Ledger) -> None:
    first, second = arrived(ledger, "acknowledged", ALICE), arrived(ledger, "acknowledged", ALICE)
    ended = ledger.attempts[first].ended_at
    ledger.attempts[second].began_at, ledger.attempts[second].ended_at = ended + 1, ended + 2
    assert faults(ledger, {(first, ALICE): inbox(1), (second, ALICE): inbox(2)}) == []
    assert len(faults(ledger, {(first, ALICE): inbox(2), (second, ALICE): inbox(1)})) == 1


@pytest.mark.parametrize(
    ("name", "falls"), [("UIDNEXT", True), ("HIGHESTMODSEQ", True), ("UIDVALIDITY", True), ("MESSAGES", False)]
)
def test_what_never_falls(ledger: Ledger, name: str, falls: bool) -> None:
    values = {"UIDNEXT": 5, "HIGHESTMODSEQ": 5, "UIDVALIDITY": 5, "MESSAGES": 5}
    ledger.observe(ALICE, "INBOX", 0, values)
    ledger.observe(ALICE, "INBOX", 1, {**values, name: 4})
    assert bool(faults(ledger, {})) == falls


def test_the_file_says_it_all(ledger: Ledger, tmp_path: Path) -> None:
    message = arrived(ledger, "acknowledged", ALICE, BOB)
    ledger.begin_edit("move", ALICE, "INBOX", {message: 5}, to="Work")
    out = ledger.begin_arrival("submission", ALICE, [], outside=[(OUT, OUT)])
    ledger.arrived_elsewhere(out, [OUT], True)
    ledger.disturb("kill worker", 0.5)
    ledger.surprise("NO [SERVERBUG]")
    ledger.close()
    again = Ledger(tmp_path / "ledger.jsonl", seed=1)
    for what in ("items", "departures", "disturbances", "surprises"):
        assert getattr(again, what) == getattr(ledger, what) != ()
    again.close()
