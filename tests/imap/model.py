"""What an IMAP server must say, kept simply: a mailbox that is a list, and clients that believe what they are told.

`Truth` is the mailbox as the commands that were answered OK make it. `Client` keeps what one session was told, message
by message, and holds every untagged response against the truth and against the rules of RFC 3501 §7 and RFC 7162 §3.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LINE = re.compile(r"\* (?:(\d+) (EXISTS|EXPUNGE|RECENT|FETCH)|(OK|FLAGS|SEARCH|ESEARCH)) ?(.*)", re.DOTALL)
_UID = re.compile(r"\bUID (\d+)")
_MODSEQ = re.compile(r"\bMODSEQ \((\d+)\)")
_FLAGS = re.compile(r"\bFLAGS \(([^)]*)\)")

Flags = frozenset[str]


def flags_of(text: str) -> Flags:
    """\\Recent is left out: it is nobody's flag."""
    return frozenset(text.split()) - {"\\Recent"}


def numbers(text: str) -> list[int]:
    """A sequence set with numbers only."""
    found: list[int] = []
    for part in text.split(","):
        low, _, high = part.partition(":")
        found += range(int(low), int(high or low) + 1)
    return found


@dataclass
class Truth:
    """The mailbox: flags by UID, and every state that each message was ever in."""

    uidnext: int = 1
    messages: dict[int, Flags] = field(default_factory=dict)
    states: dict[int, list[Flags]] = field(default_factory=dict)
    modseqs: dict[int, dict[int, Flags]] = field(default_factory=dict)
    """What was told of each message: its flags by mod-sequence. Two sessions never hear different things."""

    def add(self, flags: Flags) -> int:
        uid = self.uidnext
        self.uidnext += 1
        self.messages[uid] = flags
        self.states[uid] = [flags]
        self.modseqs[uid] = {}
        return uid

    def store(self, uid: int, flags: Flags) -> None:
        if uid in self.messages and self.messages[uid] != flags:
            self.messages[uid] = flags
            self.states[uid].append(flags)

    def deleted(self) -> set[int]:
        return {uid for uid, flags in self.messages.items() if "\\Deleted" in flags}

    def remove(self, uids: set[int]) -> None:
        for uid in uids & self.messages.keys():
            del self.messages[uid]


@dataclass
class Known:
    """One message as a client knows it; None: not told yet."""

    uid: int | None = None
    flags: Flags | None = None
    modseq: int = 0


class Client:
    """What one session was told of the selected mailbox."""

    def __init__(self, name: str, truth: Truth, *, condstore: bool) -> None:
        self.name = name
        self.truth = truth
        self.condstore = condstore
        self.messages: list[Known] = []
        self.answered: list[Known] = []
        """The messages that FETCH responses were about; who cares empties it before."""
        self.highest = 0
        """The highest UID that was in the mailbox when the client was last told of new messages, at least."""

    def hear(self, line: str, *, expunge_ok: bool, asked: bool = False) -> None:
        """One untagged response; asked: the command asked for FETCH data itself."""
        match = _LINE.fullmatch(line)
        assert match is not None, f"{self.name} cannot read {line!r}"
        number, word, _, rest = match.groups()
        if word == "EXISTS":
            self._exists(int(number))
        elif word == "EXPUNGE":
            assert expunge_ok, f"{self.name} is told EXPUNGE where it is forbidden"
            self._expunge(int(number))
        elif word == "FETCH":
            self._fetch(int(number), rest, asked=asked)

    def _exists(self, count: int) -> None:
        new = count - len(self.messages)
        assert new > 0, f"{self.name}: EXISTS {count} where {len(self.messages)} were known"
        assert new <= len([uid for uid in self.truth.states if uid > self.highest])
        self.messages += [Known() for _ in range(new)]

    def _expunge(self, seq: int) -> None:
        assert 1 <= seq <= len(self.messages)
        gone = self.messages.pop(seq - 1)
        assert gone.uid not in self.truth.messages, f"{self.name}: EXPUNGE of UID {gone.uid}, which is there"

    def _fetch(self, seq: int, rest: str, *, asked: bool) -> None:
        assert 1 <= seq <= len(self.messages), f"{self.name}: FETCH {seq} of {len(self.messages)}"
        known = self.messages[seq - 1]
        self.answered.append(known)
        uid, modseq, flags = (pattern.search(rest) for pattern in (_UID, _MODSEQ, _FLAGS))
        if uid is not None:
            self._identify(seq, int(uid[1]))
        if flags is not None:
            known.flags = flags_of(flags[1])
            assert known.uid is None or known.flags in self.truth.states[known.uid], f"{self.name}: {rest}"
        assert modseq is not None or flags is None or asked or not self.condstore, f"{self.name}: no MODSEQ in {rest}"
        if modseq is not None:
            self._modseq(known, int(modseq[1]))

    def _identify(self, seq: int, uid: int) -> None:
        known = self.messages[seq - 1]
        assert known.uid in (None, uid), f"{self.name}: message {seq} was UID {known.uid}, and is {uid}"
        known.uid = uid
        self.highest = max(self.highest, uid)
        assert all(m.uid is None or m.uid < uid for m in self.messages[: seq - 1])
        assert all(m.uid is None or m.uid > uid for m in self.messages[seq:])

    def _modseq(self, known: Known, modseq: int) -> None:
        assert modseq > 0, f"{self.name}: MODSEQ 0 of UID {known.uid}"
        assert modseq >= known.modseq, f"{self.name}: MODSEQ of UID {known.uid} fell to {modseq} from {known.modseq}"
        known.modseq = modseq
        if known.uid is not None and known.flags is not None:
            said = self.truth.modseqs[known.uid].setdefault(modseq, known.flags)
            assert said == known.flags, f"{self.name}: UID {known.uid} MODSEQ {modseq} is {said} and {known.flags}"

    def in_step(self) -> None:
        """After a look at the mailbox: nothing is missing, nothing is old."""
        here = list(self.truth.messages)
        assert len(self.messages) == len(here), f"{self.name} knows {len(self.messages)} of {len(here)}"
        for known, uid in zip(self.messages, here, strict=True):
            assert known.uid in (None, uid)
            known.uid = uid
            assert known.flags in (None, self.truth.messages[uid]), f"{self.name}: UID {uid}: {known.flags}"
        self.highest = self.truth.uidnext - 1
