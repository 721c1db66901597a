"""Pillarbox as its users start it: the command of this checkout, embedded PostgreSQL and Redis, default
settings but for two routes."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from benchmark import backlog
from benchmark.errors import BenchError, NotAvailable
from benchmark.ports import LOOPBACK, free_offset, free_port, wait_for_port
from benchmark.servers import ADDRESSES, DEAD, DOMAIN, PASSWORD, REMOTE, Server, output_of

_START_SECONDS = 90
_SETTINGS = """
[send]
routes = ["{remote} = {host}:{sink}", "{dead} = {host}:{closed}"]
"""


class Pillarbox(Server):
    """One node with all its services."""

    label = "pillarbox"
    title = "Pillarbox"
    relays = True
    has_queue = True

    def start(self) -> None:
        if not self._program().exists():
            raise NotAvailable(f"{self._program()} is not there: scripts/run installs it")
        offset = free_offset()
        self.smtp_port, self.submission_port, self.imap_port = 25 + offset, 587 + offset, 143 + offset
        self.submission_password = PASSWORD
        values = {"remote": REMOTE, "dead": DEAD, "host": LOOPBACK, "sink": self.sink_port, "closed": free_port()}
        self._settings.write_text(_SETTINGS.format(**values))
        log = self.directory.with_suffix(".log")
        serve = ("serve", "--port-offset", str(offset), "--insecure-loopback-auth")
        process = self.meter.launch(self._command(*serve), log=log)
        try:
            output_of(self._command("ready", "--wait", str(_START_SECONDS)), _START_SECONDS + 30)
            wait_for_port(self.imap_port, 10)
            self._make_accounts()
        except BenchError as error:
            state = "ended" if process.poll() is not None else "runs"
            raise BenchError(f"{error}; the server {state}, its log ends: {_tail(log)}") from error

    def _make_accounts(self) -> None:
        listing = self.directory.with_suffix(".csv")
        listing.write_text("".join(f"{address},{PASSWORD},0\n" for address in ADDRESSES))
        output_of(self._command("admin", "domain", "add", DOMAIN))
        output_of(self._command("admin", "account", "import", str(listing)), 120)

    def _command(self, *words: str) -> list[str]:
        return [str(self._program()), "--data", str(self.directory), "--config", str(self._settings), *words]

    @property
    def _settings(self) -> Path:
        return self.directory.with_suffix(".toml")

    @staticmethod
    def _program() -> Path:
        return Path(sys.executable).parent / "pillarbox"

    def fill_queue(self, count: int) -> None:
        backlog.fill(self.directory, self._settings, ADDRESSES[0], DEAD, count)

    def empty_queue(self) -> None:
        backlog.empty(self.directory, self._settings, DEAD)

    def version(self) -> str:
        return output_of([str(self._program()), "version"]).replace("\n", ", ")

    def stop(self) -> None:
        with contextlib.suppress(BenchError):  # what is left is ended below
            output_of(self._command("stop"), 45)
        super().stop()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-800:] if log.exists() else ""
