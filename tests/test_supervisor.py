"""What a supervisor does where no server has to run for it."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from config.schema import Config
from mailserver.net.tls import Certificates, make_self_signed
from mailserver.node import report
from mailserver.node.data_directory import DataDirectory
from mailserver.node.settings import Source
from mailserver.node.workers import Workers
from mailserver.supervisor import Supervisor

ROOT = Path(__file__).parents[1]


class FaultySource(Source):
    def load(self) -> Config:
        raise RuntimeError("a fault of ours")


def test_a_fault_in_a_reload_is_told_and_ends_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "run").mkdir()
    supervisor = Supervisor(Config(), DataDirectory(tmp_path), None, FaultySource(None, {}, tmp_path))
    make_self_signed(tmp_path / "tls" / "server.crt", tmp_path / "tls" / "server.key", ["localhost"])
    supervisor._certificates = Certificates(Config().tls, tmp_path)
    with caplog.at_level(logging.ERROR):
        assert list(supervisor._reload(Workers([], lambda _: 0, -1), replace=True)) == []
    told = report.read(tmp_path / "run" / "reload.json")
    assert told is not None and told.problems == ["broken off by a fault (RuntimeError), the log says where"]
    assert "a fault of ours" in caplog.text and "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("redirection", "encoding", "printed"),
    [("", "ascii", "B\\xfcro\n"), ("", "utf-8", "B\u00fcro\n"), (">&-", "utf-8", ""), ("> /dev/full", "utf-8", "")],
)
def test_the_banner_goes_wherever_it_can(redirection: str, encoding: str, printed: str) -> None:
    code = r"import os; from mailserver.supervisor import _print; _print('B\xfcro'); os._exit(0)"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code],
        cwd=ROOT,
        env={"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, printed, b"")
