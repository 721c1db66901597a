"""The ledger against what is there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from survival import elsewhere
from survival.elsewhere import ELSEWHERE
from survival.ledger import ARRIVALS, EDITS, Attempt, Copy, Item, Ledger, State
from survival.reading import Found
from survival.row import Row

Verdict = Literal["right", "lost", "doubled", "wrong"]


@dataclass(slots=True)
class Judgement:
    """faults: a line for each thing that must not be."""

    rows: dict[str, Row] = field(default_factory=lambda: {kind: Row() for kind in (*ARRIVALS, ELSEWHERE, *EDITS)})
    uids: int = 0
    observations: int = 0
    faults: list[str] = field(default_factory=list)


def judge(ledger: Ledger, found: Found) -> Judgement:
    """Everything that follows from the two."""
    judgement = Judgement()
    for item in ledger.items.values():
        _judge_item(item, ledger, found.copies.get((item.attempt, item.account), []), judgement)
    judgement.faults += elsewhere.judge(ledger, judgement.rows[ELSEWHERE])
    judgement.faults += found.strangers + found.miscounted
    judgement.faults += _falling_uids(ledger, found, judgement)
    judgement.faults += _falling_values(ledger)
    judgement.faults += [f"{text} ({times} times)" for text, times in ledger.surprises.items()]
    judgement.observations = len(ledger.observations)
    return judgement


# Messages -------------------------------------------------------------------------------------------------------------


def _judge_item(item: Item, ledger: Ledger, copies: list[tuple[Copy, bool]], judgement: Judgement) -> None:
    """A fault counts against the last thing that was done to the message."""
    state = tuple(copy for copy, _ in copies)
    verdict = _verdict(item.states, state)
    if verdict == "right" and not all(exact for _, exact in copies):
        verdict = "wrong"
    if verdict != "right":
        judgement.faults.append(_described(verdict, item, copies))
    history = [ledger.attempts[number] for number in (item.attempt, *item.edits)]
    for attempt in history:
        row = judgement.rows[attempt.kind]
        is_last = attempt is history[-1]
        outcome = _outcome(attempt, item)
        row.attempted += 1
        setattr(row, outcome, getattr(row, outcome) + 1)
        if is_last and verdict != "right":
            setattr(row, verdict, getattr(row, verdict) + 1)
        elif outcome == "acknowledged" or (outcome == "unknown" and not _matches(item.states[0], state)):
            row.found += 1


def _outcome(attempt: Attempt, item: Item) -> str:
    """For this account: a recipient may have been refused where others were not."""
    return "refused" if attempt.number == item.attempt and item.states == [()] and not item.edits else attempt.outcome


def _verdict(allowed: Sequence[State], found: State) -> Verdict:
    if any(_matches(state, found) for state in allowed):
        return "right"
    if len(found) < min(map(len, allowed)):
        return "lost"
    if len(found) > max(map(len, allowed)):
        return "doubled" if max(map(len, allowed)) else "wrong"
    return "wrong"


def _matches(state: State, found: State) -> bool:
    """The same copies; a UID that was told must be the one."""
    if Counter((copy.mailbox, copy.flags) for copy in state) != Counter((copy.mailbox, copy.flags) for copy in found):
        return False
    told = {(copy.mailbox, copy.flags, copy.uid) for copy in state if copy.uid is not None}
    return told <= {(copy.mailbox, copy.flags, copy.uid) for copy in found}


def _described(verdict: Verdict, item: Item, copies: list[tuple[Copy, bool]]) -> str:
    allowed = " or ".join(_shown(state) for state in item.states)
    there = _shown(tuple(copy for copy, _ in copies))
    damaged = "" if all(exact for _, exact in copies) else ", octets differ"
    tried = ", ".join(str(number) for number in (item.attempt, *item.edits))
    return f"{verdict}: {item.kind} {item.attempt} for {item.account} (attempts {tried}): {there}{damaged}; {allowed}"


def _shown(state: State) -> str:
    copies = (f"{copy.mailbox}[{' '.join(sorted(copy.flags))}]#{copy.uid or '?'}" for copy in state)
    return " + ".join(copies) or "nothing"


# UIDs and counters ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Placing:
    """A message came into a mailbox, at an unknown moment between two."""

    began_at: float
    ended_at: float
    uid: int
    attempt: int


def _falling_uids(ledger: Ledger, found: Found, judgement: Judgement) -> Iterator[str]:
    """What was acknowledged before an attempt began has a lower UID than what that attempt brought."""
    for place, placings in _placings(ledger, found).items():
        judgement.uids += len(placings)
        ended = sorted(placings, key=lambda placing: placing.ended_at)
        highest, passed = 0, 0
        for placing in sorted(placings, key=lambda placing: placing.began_at):
            while passed < len(ended) and ended[passed].ended_at < placing.began_at:
                highest = max(highest, ended[passed].uid)
                passed += 1
            if placing.uid <= highest:
                yield f"UID {placing.uid} of attempt {placing.attempt} in {' '.join(place)} is not above {highest}"


def _placings(ledger: Ledger, found: Found) -> Mapping[tuple[str, str], list[_Placing]]:
    """Of acknowledged arrivals whose UID is known, by account and mailbox."""
    places: dict[tuple[str, str], list[_Placing]] = {}
    for (number, account), copies in found.copies.items():
        attempt, item = ledger.attempts[number], ledger.items[number, account]
        if attempt.outcome != "acknowledged" or item.edits:
            continue
        for copy, _ in copies:
            placing = _Placing(attempt.began_at, attempt.ended_at, copy.uid or 0, number)
            places.setdefault((account, copy.mailbox), []).append(placing)
    return places


def _falling_values(ledger: Ledger) -> Iterator[str]:
    """STATUS was asked by one client after the other, so nothing may be less than it was."""
    last: dict[tuple[str, str], Mapping[str, int]] = {}
    for seen in ledger.observations:
        before, now = last.get((seen.account, seen.mailbox), {}), seen.values
        for name in ("UIDNEXT", "HIGHESTMODSEQ"):
            if now.get(name, 0) < before.get(name, 0):
                yield f"{name} of {seen.account} {seen.mailbox} fell from {before[name]} to {now.get(name)}"
        if before and now.get("UIDVALIDITY") != before.get("UIDVALIDITY"):
            yield f"UIDVALIDITY of {seen.account} {seen.mailbox} was {before}, is {now}"
        last[seen.account, seen.mailbox] = now
