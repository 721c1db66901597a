"""The proof itself, in short: kills, stops and a full disk under load, on both kinds of blob stores."""

from __future__ import annotations

from pathlib import Path

import pytest
from survival import report, run
from survival.site import Kind


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kind", "seed"), [("directory", 1), ("s3", 2)])
def test_nothing_is_lost(tmp_path: Path, kind: Kind, seed: int) -> None:
    said: list[str] = []
    (one,) = run.run(run.Plan([kind], 10, 180, seed, tmp_path), said.append)
    assert one.all_failures == [], f"{report.table(one)}\n" + "\n".join(said)
    assert one.faults.total() == 10
    assert one.judgement is not None
    assert all(row.acknowledged for row in one.judgement.rows.values()), report.table(one)
