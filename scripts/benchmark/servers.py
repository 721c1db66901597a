"""A server under measurement, and the yardstick, which needs no installation."""

from __future__ import annotations

import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmark.errors import BenchError
from benchmark.ports import free_port, wait_for_port
from benchmark.usage import Meter

DOMAIN = "example.test"
REMOTE = "remote.test"
"""Elsewhere: what is sent there arrives at the run's sink."""
DEAD = "dead.test"
"""Elsewhere: nobody answers."""
PASSWORD = "pw"
USERS = tuple(f"user{number}" for number in range(10))
ADDRESSES = tuple(f"{user}@{DOMAIN}" for user in USERS)


class Server(ABC):
    """Started in a directory of its own; `label` names it in the report.

    submission_port, submission_password: where its users submit mail, and their password, "" where none is asked for;
    sink_port: where what they send to REMOTE goes. relays, has_queue: can mail be sent, a queue be filled?
    """

    label: str
    title: str
    relays = False
    has_queue = False

    def __init__(self, directory: Path, sink_port: int = 0) -> None:
        self.directory = directory / self.label
        self.meter = Meter(self.label)
        self.smtp_port = 0
        self.submission_port = 0
        self.submission_password = ""
        self.sink_port = sink_port
        self.imap_port: int | None = None

    @abstractmethod
    def start(self) -> None:
        """Return when it serves; raise NotAvailable when it cannot be measured here."""

    @abstractmethod
    def version(self) -> str:
        """What is measured, for the report."""

    def fill_queue(self, count: int) -> None:
        """So many messages wait for DEAD, which has been tried already."""
        raise NotImplementedError

    def empty_queue(self) -> None:
        """They are gone again."""
        raise NotImplementedError

    def stop(self) -> None:
        """End all its processes."""
        self.meter.end()


class StockAiosmtpd(Server):
    """aiosmtpd with a null handler: takes SMTP, stores nothing, has no IMAP."""

    label = "aiosmtpd"
    title = "stock aiosmtpd (null)"

    def start(self) -> None:
        self.directory.mkdir(mode=0o755)
        self.smtp_port = free_port()
        command = [sys.executable, "-m", "benchmark.stock_server", str(self.smtp_port)]
        scripts = str(Path(__file__).resolve().parent.parent)
        self.meter.launch(command, log=self.directory / "log", env={"PYTHONPATH": scripts})
        wait_for_port(self.smtp_port, 15)

    def version(self) -> str:
        import aiosmtpd

        return f"aiosmtpd {aiosmtpd.__version__}, uvloop, Python {sys.version.split()[0]}"


def output_of(command: Sequence[str], seconds: float = 60, env: Mapping[str, str] | None = None) -> str:
    """Run a helper command; its failure is the server's."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds, env=env, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BenchError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout.strip()
