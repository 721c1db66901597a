"""Checking that stored mail agrees with itself, account by account, and mending what can be mended."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from mailserver.administration.accounts import find
from storage import Store, consistency
from storage.findings import Fault, Findings
from storage.records import AccountId

MAX_FAULTS = 10_000
"""So many faults are named in all; the rest is counted."""

Progress = Callable[[int, int], None]
"""Told how many accounts are done, and of how many."""


@dataclass(slots=True)
class Report:
    """faults: those that are there; repaired: those that were, before the repair. more_faults counts what is not named.

    looked_at and garbage count by word: messages, blobs, …; garbage is what housekeeping takes away in its time.
    """

    accounts: int = 0
    faults: list[Fault] = field(default_factory=list)
    more_faults: int = 0
    repaired: list[Fault] = field(default_factory=list)
    looked_at: Counter[str] = field(default_factory=Counter)
    garbage: Counter[str] = field(default_factory=Counter)

    @property
    def clean(self) -> bool:
        return not self.faults and not self.more_faults

    def add(self, findings: Findings, repaired: Sequence[Fault] = ()) -> None:
        room = MAX_FAULTS - len(self.faults)
        self.accounts += 1
        self.faults += findings.faults[:room]
        self.more_faults += findings.more_faults + len(findings.faults[room:])
        self.repaired += repaired
        self.looked_at += findings.looked_at
        self.garbage += findings.garbage


async def check(
    store: Store,
    name: str | None = None,
    *,
    repair: bool = False,
    octets: bool = False,
    progress: Progress = lambda done, total: None,
) -> Report:
    """Checks one account (by username or address), or all of them and the blob store; octets: message by message."""
    only = None if name is None else (await find(store, name)).account_id
    total = 1 if only is not None else await consistency.count(store)
    report = Report()
    async for account_id in _accounts(store, only):
        await _check_one(store, account_id, report, repair=repair, octets=octets)
        progress(report.accounts, max(total, report.accounts))
    if only is None:
        report.garbage["blobs"] += await consistency.unreferenced_blobs(store)
    return report


async def _accounts(store: Store, only: AccountId | None) -> AsyncIterator[AccountId]:
    if only is not None:
        yield only
        return
    last = -1
    while ids := await consistency.accounts(store, last):
        for account_id in ids:
            yield account_id
        last = ids[-1]


async def _check_one(store: Store, account_id: AccountId, report: Report, *, repair: bool, octets: bool) -> None:
    findings = await consistency.check(store, account_id, octets=octets)
    if not repair or not findings.faults:
        report.add(findings)
        return
    await consistency.repair(store, account_id)
    after = await consistency.check(store, account_id, octets=octets)
    left = {(fault.kind, fault.where) for fault in after.faults}
    report.add(after, [fault for fault in findings.faults if (fault.kind, fault.where) not in left])
