"""A run: for each installation start, load with faults, read back, compare, sweep, stop."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from survival import leftovers, load, reading
from survival.disk import MIB
from survival.errors import ChaosError, Incident
from survival.faults import Fault, deck
from survival.judge import judge
from survival.ledger import Ledger
from survival.load import Load
from survival.processes import wait_until
from survival.report import Report
from survival.sink import Sink
from survival.site import Kind, Say, Site
from survival.sweep import sweep

_HEAL_SECONDS = 90.0
"""So soon after a fault attempts must be acknowledged again."""
_PROGRESS = 4
"""So many attempts acknowledged between two faults."""
_WITHIN = 0.3
"""How often a second fault happens within the first."""
_QUIET_SECONDS = 5.0
"""At the beginning nothing is broken: whatever goes wrong then has no excuse."""
_SETTLE_SECONDS = 2.0
_DRAIN_SECONDS = 120.0
_DISK = 768 * MIB
_DISK_EACH = 8 * MIB


@dataclass(frozen=True, slots=True)
class Plan:
    """seconds: no fault begins later than that after the first; kept: report and data stay even where all is well."""

    kinds: Sequence[Kind]
    faults: int
    seconds: float
    seed: int
    directory: Path | None
    keep: bool = False


def run(plan: Plan, say: Say) -> list[Report]:
    """One report an installation; whatever happens, everything that was started is stopped."""
    home = Path(tempfile.mkdtemp(prefix="pillarbox-chaos-", dir=plan.directory))
    home.chmod(0o755)  # services that give up root must reach their folders below
    reports = []
    try:
        for number, kind in enumerate(plan.kinds):
            share = plan.faults // len(plan.kinds) + (number < plan.faults % len(plan.kinds))
            reports.append(_Run(plan, kind, share, home / kind, say).whole())
    finally:
        failed = len(reports) < len(plan.kinds) or any(report.all_failures for report in reports)
        if failed or plan.keep:
            say(f"kept: {home} (ledgers, logs, data); seed {plan.seed}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    return reports


class _Run:
    """One installation."""

    def __init__(self, plan: Plan, kind: Kind, faults: int, home: Path, say: Say) -> None:
        home.mkdir(mode=0o755)
        self.plan, self.faults, self.home = plan, faults, home
        self.say = _with_time(say, kind)
        self.chance = random.Random(f"{plan.seed}.{kind}")
        self.ledger = Ledger(home / "ledger.jsonl", plan.seed)
        self.sink = Sink(self.ledger)
        self.site = Site(home, kind, _DISK + _DISK_EACH * faults, self.sink.port, self.say)
        self.report = Report(f"{kind}, seed {plan.seed}")

    def whole(self) -> Report:
        try:
            self._load_and_compare()
        except (ChaosError, Incident) as error:
            self.report.failures.append(str(error))
        finally:
            self.site.end()
            self.sink.stop()
            self.ledger.close()
            if self.plan.keep or self.report.all_failures:
                self.site.keep()
            self.site.remove()
        return self.report

    def _load_and_compare(self) -> None:
        self.say("starting")
        self.site.start()
        self.sink.start()
        began = time.monotonic()
        with load.running(self.site.place, self.ledger) as clients:
            try:
                self._do_all(clients)
            except Incident as incident:
                self.report.failures.append(str(incident))
        self.report.seconds = time.monotonic() - began
        self.report.failures += clients.failures
        self._look_after_site()
        self.site.wait_ready()
        time.sleep(_SETTLE_SECONDS)  # what was stopped may still be carrying something out
        self.say("waiting for the queue")
        self.report.failures += asyncio.run(leftovers.await_empty(self.site.data, self.site.settings, _DRAIN_SECONDS))
        self._compare()

    # Faults -----------------------------------------------------------------------------------------------------------

    def _do_all(self, clients: Load) -> None:
        cards = deck(self.site, self.chance)
        self._await_progress("the start", clients)
        time.sleep(_QUIET_SECONDS)
        deadline = time.monotonic() + self.plan.seconds
        while (done := self.report.faults.total()) < self.faults and time.monotonic() < deadline:
            time.sleep(self.chance.expovariate(4))
            began_at = self.ledger.now()
            names = self._happen(next(cards), cards, self.faults - done)
            self._look_after_site()
            self.ledger.disturb(names, began_at)
            self._await_progress(names, clients)
            self.say(f"{self.report.faults.total()}/{self.faults} {names}: {self.ledger.acknowledged} acknowledged")

    def _happen(self, fault: Fault, cards: Iterator[Fault], left: int) -> str:
        """A fault from its beginning to its end, perhaps with another one within; their names."""
        self.report.faults[fault.name] += 1
        course = fault.course(self.site, self.chance)
        names = fault.name
        try:
            seconds = next(course, 0.0)
            if left > 1 and self.chance.random() < _WITHIN:
                time.sleep(seconds * self.chance.random())
                names += f" ({self._happen(next(cards), cards, 1)})"
            else:
                time.sleep(seconds)
            next(course, None)
        finally:
            course.close()
        return names

    def _look_after_site(self) -> None:
        """A server that could not start while something was broken is started again, as a service manager would."""
        self.site.serve_again()

    def _await_progress(self, what: str, clients: Load) -> None:
        goal = self.ledger.acknowledged + _PROGRESS

        def is_over() -> bool:
            self._look_after_site()
            return self.ledger.acknowledged >= goal or bool(clients.failures)

        if not wait_until(is_over, _HEAL_SECONDS):
            raise Incident(f"{_HEAL_SECONDS:.0f} s after {what} nothing is acknowledged")
        if clients.failures:
            raise Incident(f"after {what}: {clients.failures[0]}")

    # The end ----------------------------------------------------------------------------------------------------------

    def _compare(self) -> None:
        report = self.report
        self.say("reading everything back")
        report.found = reading.read(self.site.place, self.ledger)
        report.judgement = judge(self.ledger, report.found)
        report.fsck = self.site.fsck()
        report.failures += _fsck_faults(report.fsck)
        self.say("sweeping")
        report.swept = asyncio.run(sweep(self.site.data, self.site.settings))
        if report.swept.missing or report.swept.left:
            report.failures.append("blobs: see above")
        after = self.site.fsck()
        report.failures += [f"after the sweep: {fault}" for fault in _fsck_faults(after)]
        status = self.site.stop()
        if status != 0:
            report.failures.append(f"the server ended with {status} instead of 0")


def _fsck_faults(found: dict[str, object]) -> list[str]:
    faults = found.get("faults")
    return [f"fsck: {fault}" for fault in faults] if isinstance(faults, list) else ["fsck: no answer"]


def _with_time(say: Callable[[str], None], kind: Kind) -> Say:
    began = time.monotonic()
    return lambda text: say(f"{time.monotonic() - began:6.1f} s  {kind}: {text}")
