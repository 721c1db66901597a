"""What a reload did, in words and in its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.node.report import Report, read

NOTHING = {"reload": [], "workers": [], "restart": []}


@pytest.mark.parametrize(
    ("report", "lines"),
    [
        (Report(1, 0.0, changed=NOTHING), ["no setting has changed", "the same certificate"]),
        (
            Report(
                1, 0.0, changed={"reload": ["a.b", "a.c"], "workers": ["d.e"], "restart": ["f.g"]}, certificate="AA:BB"
            ),
            [
                "taken up: a.b, a.c",
                "changed, but needs `reload --workers`: d.e",
                "changed, but needs a restart of the server: f.g",
                "new certificate: SHA-256 AA:BB",
            ],
        ),
        (
            Report(1, 0.0, changed={**NOTHING, "reload": ["a.b"], "workers": ["d.e"]}, replaced=True),
            ["taken up: a.b, d.e", "the same certificate", "all workers have been replaced"],
        ),
        (Report(1, 0.0, problems=["no good:", "a.b: is wrong"]), ["no good:", "a.b: is wrong"]),
    ],
)
def test_in_words(report: Report, lines: list[str]) -> None:
    assert report.lines() == lines


def test_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "reload.json"
    assert read(path) is None
    report = Report(7, 1.5, problems=["x"], changed={**NOTHING, "reload": ["a.b"]}, certificate="AA", replaced=True)
    report.write(path)
    assert read(path) == report
    assert path.stat().st_mode & 0o777 == 0o600
