"""What clients tried and what they were told, in a file that is only appended to; what may be there at the end.

A line is written before an attempt is made, with a number of its own, and another one after its answer:

    {"attempt": 7, "kind": "mx", "at": 1.5, "sender": …, "to": [[account, mailbox], …], "outside": [[said, address], …]}
    {"attempt": 9, "kind": "move", "at": 2.0, "account": …, "mailbox": "INBOX", "to": "Work", "of": {"7": 12}}
    {"attempt": 7, "end": "acknowledged", "at": 1.6, "said": "250 …", "uids": {…}, "absent": [addresses]}
    {"elsewhere": 7, "to": [address, …], "exact": true, "at": 1.9}
    {"fault": "kill worker", "began_at": 2.5, "at": 2.7}

"of" names the edited messages by the attempt that brought them, with their UIDs. Between its two lines, and for ever
where the second says "unknown", a message has two states that it may be in: before and after. `items` holds them, and
reading the file again gives the same.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["acknowledged", "refused", "unknown"]
Uids = dict[int, int]
Line = dict[str, Any]

ARRIVALS = ("mx", "submission", "append")
EDITS = ("store", "copy", "move", "expunge")


@dataclass(frozen=True, slots=True)
class Copy:
    """One message in one mailbox; uid: where the server has told it."""

    mailbox: str
    flags: frozenset[str] = frozenset()
    uid: int | None = None


State = tuple[Copy, ...]
"""All copies of one message in one account."""


@dataclass(slots=True)
class Item:
    """One message for one account. edits: attempts after the one that brought it."""

    attempt: int
    account: str
    kind: str
    sender: str
    states: list[State]
    settled_at: float = 0.0
    edits: list[int] = field(default_factory=list)

    @property
    def is_certain(self) -> bool:
        return len(self.states) == 1


@dataclass(slots=True)
class Departure:
    """One message for one recipient elsewhere. said: the address in RCPT. arrivals: when, and with its exact octets?"""

    attempt: int
    said: str
    address: str
    refused: bool = False
    arrivals: list[tuple[float, bool]] = field(default_factory=list)


@dataclass(slots=True)
class Attempt:
    """What was tried. ended_at: 0 while there is no answer."""

    number: int
    kind: str
    began_at: float
    sender: str
    mailbox: str
    said_of: list[Item]
    departures: list[Departure] = field(default_factory=list)
    outcome: Outcome = "unknown"
    ended_at: float = 0.0
    said: str = ""


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A time in which something was broken."""

    fault: str
    began_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Observation:
    """What STATUS said of a mailbox."""

    account: str
    mailbox: str
    began_at: float
    values: Mapping[str, int]


class Ledger:
    """May be used by several threads. Where there is a file already, it is read and continued."""

    def __init__(self, path: Path, seed: int) -> None:
        self.seed = seed
        self.attempts: dict[int, Attempt] = {}
        self.items: dict[tuple[int, str], Item] = {}
        self.departures: dict[tuple[int, str], Departure] = {}
        self.disturbances: list[Disturbance] = []
        self.observations: list[Observation] = []
        self.surprises: Counter[str] = Counter()
        self.acknowledged = 0
        self._began = time.monotonic()
        self._lock = threading.RLock()
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                self._apply(json.loads(line))
        self._file = path.open("a", encoding="utf-8")

    def close(self) -> None:
        self._file.close()

    # Writing ----------------------------------------------------------------------------------------------------------

    def begin_arrival(
        self,
        kind: str,
        sender: str,
        to: Sequence[tuple[str, str]],
        flags: Sequence[str] = (),
        outside: Sequence[tuple[str, str]] = (),
    ) -> int:
        """to: accounts, each with the mailbox that the message shall be in. outside: addresses in RCPT, each with the
        one elsewhere that it leads to."""
        return self._begin({"kind": kind, "sender": sender, "to": to, "flags": flags, "outside": outside})

    def begin_edit(self, kind: str, account: str, mailbox: str, of: Uids, **more: Any) -> int:
        """of: attempts that brought the messages, with their UIDs."""
        return self._begin({"kind": kind, "account": account, "mailbox": mailbox, "of": of, **more})

    def end(
        self, attempt: int, outcome: Outcome, said: str = "", uids: Uids | None = None, absent: Sequence[str] = ()
    ) -> None:
        """uids: of new copies, by the attempt that brought the message; absent: addresses that were refused."""
        self._write({"attempt": attempt, "end": outcome, "said": said, "uids": uids or {}, "absent": list(absent)})

    def observe(self, account: str, mailbox: str, began_at: float, values: Mapping[str, int]) -> None:
        self._write({"account": account, "mailbox": mailbox, "began_at": began_at, "status": values})

    def arrived_elsewhere(self, attempt: int, to: Sequence[str], exact: bool) -> None:
        """exact: with its octets."""
        self._write({"elsewhere": attempt, "to": to, "exact": exact})

    def disturb(self, fault: str, began_at: float) -> None:
        """From then until now something was broken."""
        self._write({"fault": fault, "began_at": began_at})

    def surprise(self, text: str) -> None:
        """Something that no fault excuses."""
        self._write({"surprise": text})

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def editable(self, account: str, before: float) -> dict[int, State]:
        """Messages of which the state has been known since then, by attempt."""
        with self._lock:
            return {
                item.attempt: item.states[0]
                for item in self.items.values()
                if item.account == account and item.is_certain and item.settled_at < before
            }

    def _begin(self, line: Line) -> int:
        with self._lock:
            number = len(self.attempts) + 1
            self._write({"attempt": number, **line})
        return number

    def _write(self, line: Line) -> None:
        with self._lock:
            line = json.loads(json.dumps({**line, "at": round(self.now(), 4)}))
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            self._apply(line)

    # What it means ----------------------------------------------------------------------------------------------------

    def _apply(self, line: Line) -> None:
        if "surprise" in line:
            self.surprises[line["surprise"]] += 1
        elif "status" in line:
            seen = Observation(line["account"], line["mailbox"], line["began_at"], line["status"])
            self.observations.append(seen)
        elif "fault" in line:
            self.disturbances.append(Disturbance(line["fault"], line["began_at"], line["at"]))
        elif "elsewhere" in line:
            self._apply_elsewhere(line)
        elif "end" in line:
            self._apply_end(line)
        elif line["kind"] in ARRIVALS:
            self._apply_arrival(line)
        else:
            self._apply_edit(line)

    def _apply_arrival(self, line: Line) -> None:
        items = []
        for account, mailbox in line["to"]:
            flags = frozenset(line["flags"])
            item = Item(line["attempt"], account, line["kind"], line["sender"], [(), (Copy(mailbox, flags),)])
            items.append(self.items.setdefault((item.attempt, account), item))
        departures = [Departure(line["attempt"], said, address) for said, address in line["outside"]]
        self.departures.update({(one.attempt, one.address): one for one in departures})
        self._note(line, line["to"][0][1] if line["to"] else "", items).departures = departures

    def _apply_elsewhere(self, line: Line) -> None:
        for address in line["to"]:
            departure = self.departures.get((line["elsewhere"], address))
            if departure is None:
                self.surprises[f"attempt {line['elsewhere']} came to {address}, to whom it was not sent"] += 1
            else:
                departure.arrivals.append((line["at"], line["exact"]))

    def _apply_edit(self, line: Line) -> None:
        items = [self.items[int(number), line["account"]] for number in line["of"]]
        for item, uid in zip(items, line["of"].values(), strict=True):
            (before,) = item.states
            item.states = [before, edited(before, line, uid)]
            item.edits.append(line["attempt"])
        self._note(line, line["to"] if "to" in line else line["mailbox"], items)

    def _note(self, line: Line, mailbox: str, items: list[Item]) -> Attempt:
        number, sender = line["attempt"], line.get("sender", "")
        attempt = self.attempts[number] = Attempt(number, line["kind"], line["at"], sender, mailbox, items)
        return attempt

    def _apply_end(self, line: Line) -> None:
        attempt = self.attempts[line["attempt"]]
        attempt.outcome, attempt.ended_at, attempt.said = line["end"], line["at"], line["said"]
        self.acknowledged += attempt.outcome == "acknowledged"
        for departure in attempt.departures:
            departure.refused = attempt.outcome == "refused" or departure.said in line["absent"]
        for item in attempt.said_of:
            before, after = item.states
            if attempt.outcome == "refused" or item.account in line["absent"]:
                item.states = [before]
            elif attempt.outcome == "acknowledged":
                item.states = [with_uid(after, attempt.mailbox, line["uids"].get(str(item.attempt)))]
            item.settled_at = line["at"]


def edited(state: State, line: Line, uid: int) -> State:
    """A message's state after an edit of its copy with this UID."""
    here = [index for index, copy in enumerate(state) if copy.mailbox == line["mailbox"]]
    index = min((i for i in here if state[i].uid in (uid, None)), key=lambda i: state[i].uid is None)
    copy, others = replace(state[index], uid=uid), state[:index] + state[index + 1 :]
    match line["kind"]:
        case "store":
            return (*others, replace(copy, flags=stored(copy.flags, line["how"], frozenset(line["flags"]))))
        case "copy":
            return (*others, copy, replace(copy, mailbox=line["to"], uid=None))
        case "move":
            return (*others, replace(copy, mailbox=line["to"], uid=None))
        case _:
            return others


def stored(flags: frozenset[str], how: str, given: frozenset[str]) -> frozenset[str]:
    """What STORE makes of flags; how: +FLAGS, -FLAGS or FLAGS."""
    return flags | given if how == "+FLAGS" else flags - given if how == "-FLAGS" else given


def with_uid(state: State, mailbox: str, uid: int | None) -> State:
    """The new copy has this UID."""
    if uid is None:
        return state
    index = max(i for i, copy in enumerate(state) if copy.mailbox == mailbox and copy.uid is None)
    return (*state[:index], replace(state[index], uid=uid), *state[index + 1 :])
