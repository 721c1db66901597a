"""The table, and the faults below it."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, dataclass, field, fields

from survival.judge import Judgement
from survival.reading import Found
from survival.row import Row
from survival.sweep import Swept

_NAMES = {"mx": "MX", "submission": "submission", "elsewhere": "elsewhere"}
_SHOWN = 40
"""So many faults are printed; the ledger has the rest."""


@dataclass(slots=True)
class Report:
    """What one installation has gone through."""

    title: str
    faults: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    judgement: Judgement | None = None
    found: Found | None = None
    fsck: dict[str, object] = field(default_factory=dict)
    swept: Swept | None = None
    failures: list[str] = field(default_factory=list)
    """Besides those of the judgement."""

    @property
    def all_failures(self) -> list[str]:
        return self.failures + (self.judgement.faults if self.judgement is not None else [])


def table(report: Report) -> str:
    """Markdown."""
    lines = [f"{report.title}: {report.faults.total()} faults in {report.seconds:.0f} s"]
    lines.append(", ".join(f"{times} × {name}" for name, times in sorted(report.faults.items())))
    if report.judgement is not None:
        heads = ["what", *(value.name.replace("_", " ") for value in fields(Row))]
        lines += ["", _line(heads), "|" + "---|" * len(heads)]
        for kind, row in report.judgement.rows.items():
            lines.append(_line([_NAMES.get(kind, kind.upper()), *map(str, astuple(row))]))
        lines += ["", *_checks(report)]
    failures = report.all_failures
    lines += [f"FAULT: {text}" for text in failures[:_SHOWN]]
    if len(failures) > _SHOWN:
        lines.append(f"and {len(failures) - _SHOWN} more")
    return "\n".join(lines)


def _checks(report: Report) -> list[str]:
    lines = []
    if report.judgement is not None:
        observed = f"{report.judgement.observations} observations of UIDNEXT, UIDVALIDITY and HIGHESTMODSEQ"
        lines.append(f"{observed}; {report.judgement.uids} UIDs in the order of their answers")
    if report.found is not None:
        lines.append(
            f"read back: {report.found.messages} messages in {report.found.mailboxes} mailboxes, "
            f"{len(report.found.strangers)} of nobody, {len(report.found.miscounted)} mailboxes miscounted"
        )
    if report.fsck:
        lines.append(f"fsck --octets: {'clean' if report.fsck.get('clean') else 'FAULTS'}")
    if report.swept is not None:
        swept = report.swept
        lines.append(
            f"blobs: {swept.referred} referred to, {swept.missing} of them missing; {swept.removed} swept, "
            f"{swept.left} left that nothing refers to"
        )
    return lines


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
