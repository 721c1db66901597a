"""A Pillarbox of its own for the acceptance tests: real processes, a data directory, free ports, the real command line.

Nothing of the program is imported: these tests know only what a user knows, the commands, the ports and the files that
the documentation names. Every wait has a deadline, and only processes that were started here are ended.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).parent / "pillarbox"
DOMAIN = "example.test"
HOST = "127.0.0.1"
START_SECONDS = 90
_STANDARD_PORTS = (25, 80, 143, 443, 465, 587, 993)


@dataclass(frozen=True)
class Account:
    """A mail account of the running server."""

    address: str
    password: str

    @property
    def username(self) -> str:
        return self.address.partition("@")[0]


def free_offset() -> int:
    """A port offset at which every standard port is free."""
    for _ in range(1000):
        offset = random.randrange(12_000, 30_000)
        if all(_is_free(port + offset) for port in _STANDARD_PORTS):
            return offset
    raise AssertionError("no free ports found")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


class Pillarbox:
    """`pillarbox serve` on a data directory of its own."""

    def __init__(self, name: str = "data", **environment: str) -> None:
        # Not pytest's directories: those are closed to the system account that workers run as when root starts them.
        self.home = Path(tempfile.mkdtemp(prefix="pillarbox-test-"))
        self.home.chmod(0o755)
        self.data = self.home / name
        self.log = self.home / "serve.log"
        self.offset = free_offset()
        self.process: subprocess.Popen[bytes] | None = None
        # No name server: nothing leaves this host, whatever is sent.
        self._environment = {**os.environ, "PILLARBOX_SEND__RESOLVERS": "127.0.0.1:9", **environment}

    def port(self, standard: int) -> int:
        return standard + self.offset

    def serve(self, *options: str) -> None:
        """Start it; `wait_ready` returns when it serves."""
        command = [str(PROGRAM), "--data", str(self.data), "serve", "--port-offset", str(self.offset), *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=self._environment,
            )

    def wait_ready(self, seconds: int = START_SECONDS) -> None:
        done = self.run("ready", "--wait", str(seconds), check=False, seconds=seconds + 30)
        assert done.returncode == 0, f"not ready: {done.stdout}{done.stderr}\n{self.log_tail()}"

    def start(self, *options: str) -> None:
        self.serve(*options)
        self.wait_ready()

    def run(
        self, *words: str, check: bool = True, seconds: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command on this data directory."""
        return self.run_bare("--data", str(self.data), *words, check=check, seconds=seconds, stdin=stdin)

    def run_bare(
        self, *words: str, check: bool = True, seconds: float = 60, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command exactly as given."""
        done = subprocess.run(
            [str(PROGRAM), *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=self._environment,
            cwd=self.home,
        )
        if check:
            assert done.returncode == 0, f"pillarbox {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def json(self, *words: str) -> Any:
        """What a command answers with --json."""
        return json.loads(self.run(*words, "--json").stdout)

    def server_json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data / "run" / "server.json").read_text())
        return found

    def add_accounts(self, accounts: list[Account], quota_mib: int = 0) -> None:
        listing = self.home / "accounts.csv"
        listing.write_text("".join(f"{a.address},{a.password},{quota_mib}\n" for a in accounts))
        self.run("admin", "account", "import", str(listing), seconds=180)

    @property
    def certificate(self) -> Path:
        return self.data / "tls" / "server.crt"

    def tls(self) -> ssl.SSLContext:
        """A client's context that trusts exactly this server's certificate and checks its name."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def log_tail(self, octets: int = 6000) -> str:
        return self.log.read_text(errors="replace")[-octets:] if self.log.exists() else ""

    def stop(self) -> int:
        """An orderly stop; the status that `serve` ended with."""
        assert self.process is not None
        self.run("stop", check=False)
        return self.process.wait(timeout=60)

    def processes(self) -> dict[str, list[int]]:
        """What runs below the supervisor: the postmaster, redis, and the workers."""
        assert self.process is not None
        found: dict[str, list[int]] = {"postgres": [], "redis": [], "worker": []}
        for pid in children(self.process.pid):
            found[_kind(pid)].append(pid)
        return found

    def end(self) -> None:
        """Stop it however it is, and remove the directory."""
        if self.process is not None:
            below = descendants(self.process.pid)
            if self.process.poll() is None:
                self._end_politely()
            for pid in below:
                _kill(pid)
        shutil.rmtree(self.home, ignore_errors=True)

    def _end_politely(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=10)


def _kind(pid: int) -> str:
    try:
        program = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0]
    except OSError:
        return "worker"
    return next((kind for kind in ("postgres", "redis") if kind.encode() in program), "worker")


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if fields[0] != "Z":
                yield int(entry.name), int(fields[1])


def children(parent: int) -> list[int]:
    return [pid for pid, above in _parents() if above == parent]


def descendants(root: int) -> list[int]:
    below: dict[int, list[int]] = {}
    for pid, above in _parents():
        below.setdefault(above, []).append(pid)
    found: list[int] = []
    todo = list(below.get(root, []))
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += below.get(pid, [])
    return found


def eventually(condition: Callable[[], object], seconds: float, what: str, every: float = 0.05) -> None:
    """Return when the condition holds; fail after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(every)
