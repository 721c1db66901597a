"""What a reload did, told by the supervisor to whoever asked for it, by way of run/reload.json.

A command that asks notes the time, sends its signal, and waits for the report of a reload that began later than that;
so two who ask at once each learn of one that saw their own changes.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from config.schema import Change
from mailserver.node.data_directory import write_private


@dataclass(slots=True)
class Report:
    """pid: the supervisor's; began: time.monotonic, which all processes of a machine share.

    problems: what kept it from being done, or done whole. changed: names of settings, by what their change takes.
    certificate: the fingerprint of another one. replaced: were the workers replaced?
    """

    pid: int
    began: float
    problems: list[str] = field(default_factory=list)
    changed: dict[Change, list[str]] = field(default_factory=dict)
    certificate: str | None = None
    replaced: bool = False

    def write(self, path: Path) -> None:
        write_private(path, json.dumps(dataclasses.asdict(self)) + "\n")

    def lines(self) -> list[str]:
        """The same in words."""
        lines = list(self.problems)
        taken = [*self.changed.get("reload", ()), *(self.changed.get("workers", ()) if self.replaced else ())]
        if taken:
            lines.append(f"taken up: {', '.join(taken)}")
        if not self.replaced and self.changed.get("workers"):
            lines.append(f"changed, but needs `reload --workers`: {', '.join(self.changed['workers'])}")
        if self.changed.get("restart"):
            lines.append(f"changed, but needs a restart of the server: {', '.join(self.changed['restart'])}")
        if self.changed and not any(self.changed.values()):
            lines.append("no setting has changed")
        if self.changed:
            lines.append(f"new certificate: SHA-256 {self.certificate}" if self.certificate else "the same certificate")
        if self.replaced:
            lines.append("all workers have been replaced")
        return lines


def read(path: Path) -> Report | None:
    """The latest report; None where there is none."""
    try:
        return Report(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
