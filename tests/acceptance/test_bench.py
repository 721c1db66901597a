"""The project's own measurements run, on this server and on the yardstick, and fail nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


@pytest.mark.slow
@pytest.mark.usefixtures("program")
def test_quick_run(tmp_path: Path) -> None:
    figures = (
        "smtp_4k$|smtp_1m_text|relay_4k$|imap_login|imap_fetch|imap_store|imap_copy|imap_move|imap_expunge|imap_append"
    )
    command = [str(BENCH), "--quick", "--servers", "pillarbox,aiosmtpd", "--figures", figures]
    done = subprocess.run([*command, "--json", str(tmp_path / "run.json")], capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "run.json").read_text())
    assert not found["left_out"]
    assert not {figure["name"]: figure["failures"] for figure in found["figures"] if figure["failures"]}
    medians = {figure["name"]: figure["median"]["pillarbox"] for figure in found["figures"]}
    assert medians["smtp_4k"] > 0 and None not in medians.values()


def test_help_and_list() -> None:
    for option, word in (("--help", "--quick"), ("--list", "smtp_4k")):
        done = subprocess.run([str(BENCH), option], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0
        assert word in done.stdout
