"""Processes below one of ours, found in /proc, and signals for them."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path


def children(parent: int) -> list[int]:
    return _by_parent().get(parent, [])


def descendants(root: int) -> list[int]:
    below = _by_parent()
    found, todo = [], list(below.get(root, ()))
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += below.get(pid, ())
    return found


def program(pid: int) -> str:
    """The name of its executable file; nothing for one that has ended."""
    try:
        return Path(os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0])).name
    except OSError:
        return ""


def send(pids: Iterable[int], number: int) -> None:
    """To those that have not ended yet."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def end(pids: Iterable[int], seconds: float) -> list[int]:
    """Kills them; those that are still there after so many seconds."""
    left = list(pids)
    send(left, signal.SIGKILL)
    wait_until(lambda: not any(map(_lives, left)), seconds)
    return [pid for pid in left if _lives(pid)]


def wait_until(holds: Callable[[], object], seconds: float) -> bool:
    """Does it hold within so many seconds?"""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _lives(pid: int) -> bool:
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _by_parent() -> dict[int, list[int]]:
    """Living processes by their parents."""
    found: dict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = _stat(int(entry.name))
            except OSError:
                continue
            if state != "Z":
                found[parent].append(int(entry.name))
    return found


def _stat(pid: int) -> tuple[str, int]:
    """State and parent, see proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[1])
