"""What a server's processes cost: CPU seconds and memory of everything that was started for it.

As root on cgroup v2 each server gets a cgroup of its own, so daemons that detach and children that ended are counted
exactly. Otherwise the process tree is read from /proc (10 ms ticks): the launched and adopted processes, what is below
them, and whatever carries the marker in its environment because it detached. There the CPU of a child that ended counts
once its parent has reaped it, and is lost when the parent ended too.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

_MARKER = "PILLARBOX_BENCH"
_CGROUP_ROOTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
_TICKS = os.sysconf("SC_CLK_TCK")


class Meter:
    """Launches the processes of one server, reads their cost, and can end what is left of them."""

    def __init__(self, name: str) -> None:
        self._token = f"{name}-{uuid.uuid4().hex[:12]}"
        self._cgroup = _make_cgroup(f"pillarbox-bench-{self._token}")
        self._launched: list[subprocess.Popen[bytes]] = []
        self._adopted: set[int] = set()

    @property
    def exact(self) -> bool:
        """Is every process surely counted?"""
        return self._cgroup is not None

    def launch(
        self, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process that belongs to this server; what it prints goes to the log."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self._wrapped(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {}), _MARKER: self._token},
                cwd=cwd,
                start_new_session=True,
            )
        self._launched.append(process)
        return process

    def adopt(self, pid: int) -> None:
        """Count a daemon too that has left the tree and cleared its environment."""
        self._adopted.add(pid)

    def _wrapped(self, command: Sequence[str]) -> list[str]:
        if self._cgroup is None:
            return list(command)
        return ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._cgroup / "cgroup.procs"), *command]

    def pids(self) -> set[int]:
        """All living processes of this server."""
        if self._cgroup is not None:
            return {int(pid) for pid in (self._cgroup / "cgroup.procs").read_text().split()}
        return _descendants({process.pid for process in self._launched} | self._adopted | _marked(self._token))

    def cpu_seconds(self) -> float:
        """CPU spent so far, user and system."""
        if self._cgroup is not None:
            return _number(rb"usage_usec (\d+)", self._cgroup / "cpu.stat") / 1e6
        return sum(_process_cpu(pid) for pid in self.pids())

    def memory_octets(self) -> int:
        """Proportional set size of all processes together: shared pages are counted once."""
        return sum(_number(rb"(?m)^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup")) * 1024 for pid in self.pids())

    def end(self, seconds: float = 15) -> None:
        """End what still runs of this server: politely, then by force."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal_all(number)
            if self._gone_within(seconds):
                break
        self._remove_cgroup()

    def _remove_cgroup(self) -> None:
        """The kernel may hold it for a moment after its last process ended."""
        for _ in range(20):
            with contextlib.suppress(OSError):
                if self._cgroup is not None:
                    self._cgroup.rmdir()
                return
            time.sleep(0.1)

    def _signal_all(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for process in self._launched:
                process.poll()
            if not self.pids():
                return True
            time.sleep(0.05)
        return False


def _make_cgroup(name: str) -> Path | None:
    """A new cgroup whose CPU can be read, where that is allowed."""
    if os.geteuid() != 0:
        return None
    for root in _CGROUP_ROOTS:
        if not (root / "cgroup.controllers").exists():
            continue
        group = root / name
        try:
            group.mkdir()
        except OSError:
            continue
        if "usage_usec" in (group / "cpu.stat").read_text():
            return group
        group.rmdir()
    return None


def _descendants(roots: set[int]) -> set[int]:
    """The living ones of these processes and of all below them."""
    children: dict[int, list[int]] = {}
    living = set()
    for pid in _all_pids():
        fields = _stat_fields(pid)
        if fields and fields[0] != "Z":
            living.add(pid)
            children.setdefault(int(fields[1]), []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, [])
    return found & living


def _marked(token: str) -> set[int]:
    """Processes that inherited the marker, wherever they hang in the tree."""
    wanted = f"{_MARKER}={token}".encode()
    found = set()
    for pid in _all_pids():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat_fields(pid: int) -> list[str]:
    """/proc/PID/stat from the state on; empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return []


def _process_cpu(pid: int) -> float:
    """utime, stime, and both of the children it has reaped."""
    return sum(int(ticks) for ticks in _stat_fields(pid)[11:15]) / _TICKS


def _number(pattern: bytes, path: Path) -> int:
    try:
        found = re.search(pattern, path.read_bytes())
    except OSError:
        return 0
    return int(found[1]) if found else 0
