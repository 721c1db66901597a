"""What a check of an account has found: faults, how to mend them, and garbage, which is no fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from storage.records import AccountId

MAX_FAULTS = 1000
"""So many faults of an account are named; the rest is counted."""

Mend = Callable[[Any, int], Awaitable[None]]
"""Puts something right on a connection that holds the account's lock; the number is the modseq of the repair."""


@dataclass(frozen=True, slots=True)
class Fault:
    """kind: what is wrong, in a word; where: mailbox, page, UID or message, as far as there is one."""

    account_id: int
    kind: str
    where: str
    text: str


@dataclass(slots=True)
class Findings:
    """Of one account. looked_at counts what was checked, garbage what housekeeping has yet to take away."""

    account_id: AccountId
    faults: list[Fault] = field(default_factory=list)
    more_faults: int = 0
    mends: list[Mend] = field(default_factory=list)
    mended_mailboxes: set[int] = field(default_factory=set)
    looked_at: Counter[str] = field(default_factory=Counter)
    garbage: Counter[str] = field(default_factory=Counter)

    def fault(self, kind: str, where: str, text: str, mend: Mend | None = None) -> None:
        if mend is not None:
            self.mends.append(mend)
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(self.account_id, kind, where, text))
        else:
            self.more_faults += 1

    def add(self, others: Findings) -> None:
        """Takes in what another part of the check has found."""
        for fault in others.faults:
            self.fault(fault.kind, fault.where, fault.text)
        self.more_faults += others.more_faults
        self.looked_at += others.looked_at
        self.garbage += others.garbage
