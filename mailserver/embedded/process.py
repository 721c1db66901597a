"""Starting a service so that it cannot outlive us, and stopping it.

The kernel is asked to send a signal to the child when the thread that started it dies (PR_SET_PDEATHSIG), so a kill -9
of ours leaves nothing running. Start services from the main thread. The request is made after the change of user, which
would clear it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from mailserver.embedded.account import ServiceAccount

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

MAX_LOG_OCTETS = 10 * 1024 * 1024


class ServiceError(Exception):
    """A service could not be started or used; the text says why and what to do."""


def die_with_parent(parent: int, death_signal: int) -> None:
    """Run by a fresh child: asks for the signal when the parent dies, and ends where it is dead already."""
    _libc.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def environment(home: Path | str) -> dict[str, str]:
    """A service sees nothing of our environment."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def spawn(
    command: Sequence[str], *, folder: Path, account: ServiceAccount | None, death_signal: int, log: Path
) -> subprocess.Popen[bytes]:
    """Starts a service in its folder, as the account, writing to the log. OSError where the program does not start."""
    parent = os.getpid()

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        die_with_parent(parent, death_signal)

    with open_log(log, account) as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment("/"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=prepare,
            umask=0o077,
            **as_account(account),
        )


def as_account(account: ServiceAccount | None) -> dict[str, Any]:
    """Arguments of Popen that make the child run as the account; none for a plain user, or once root is dropped."""
    if account is None or os.geteuid() != 0:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def open_log(path: Path, account: ServiceAccount | None) -> IO[bytes]:
    """Opens a service's log to append; one that has grown large becomes `.old` first."""
    try:
        if path.stat().st_size > MAX_LOG_OCTETS:
            path.replace(path.with_name(path.name + ".old"))
    except FileNotFoundError:
        pass
    file = path.open("ab", buffering=0)
    own(path, account, 0o600)
    return file


def own(path: Path, account: ServiceAccount | None, mode: int) -> None:
    """Gives the path to the account (root only) and sets its mode."""
    if account is not None and os.geteuid() == 0:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
    path.chmod(mode)


def own_folder(path: Path, account: ServiceAccount | None, mode: int = 0o700) -> None:
    """Makes a folder that belongs to the account; one that exists stays as it is, if it is usable."""
    if not path.exists():
        path.mkdir(mode=0o700)
        own(path, account, mode)


def tail(path: Path, octets: int = 1500) -> str:
    """The end of a log, for error messages."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - octets))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def stop(process: subprocess.Popen[bytes], steps: Sequence[tuple[int, float]]) -> None:
    """Sends the signals one after the other, each with so many seconds to end; the last resort is SIGKILL."""
    for number, seconds in (*steps, (signal.SIGKILL, 10.0)):
        if process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(seconds)
            return
        except subprocess.TimeoutExpired:
            continue


def stop_stranger(pid: int, folder: Path, steps: Sequence[tuple[int, float]]) -> bool:
    """Ends a process that an earlier run of ours left in this folder; False where the pid is no such process."""
    if not works_in(pid, folder):
        return False
    for number, seconds in (*steps, (signal.SIGKILL, 10.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not works_in(pid, folder):
                return True
            time.sleep(0.02)
    return True


def end_all_in(folder: Path, program: str, seconds: float) -> bool:
    """Waits until no process of this program works in the folder; who still does after so many seconds is killed.

    False where even that does not help.
    """
    patient = time.monotonic() + seconds
    while busy := [pid for pid in _pids_of(program) if works_in(pid, folder)]:
        late = time.monotonic() - patient
        if late > seconds:
            return False
        for pid in busy if late > 0 else ():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    return True


def _pids_of(program: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text() == f"{program}\n":
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def works_in(pid: int, folder: Path) -> bool:
    """Is the process alive with this working directory? A pid alone may have been given to somebody else since."""
    try:
        return os.path.samestat(Path(f"/proc/{pid}/cwd").stat(), folder.stat())
    except OSError:
        return False
