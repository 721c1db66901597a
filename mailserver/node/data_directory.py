"""The data directory: who owns what, which process holds it, and what a running server tells about itself.

    run/lock           held (flock) by the server, or by a command that runs the embedded database by itself
    run/server.json    0600, while a server runs: its pid, ports, database, Redis, blobs
    run/reload.json    0600, what its last reload did
    run/metrics/       counters of this run
    secrets/           install.key, master.key
    tls/               server.crt, server.key
    postgres/ redis/   the embedded services
    blobs/             large message parts
    blob-cache/        those of S3 that were used last
    programs/          programs of services that the account could not reach, see embedded/programs.py
    first-login        0600, the first administrator's password where there was no terminal

Started by root, everything belongs to the system account; a directory that a plain user began stays that user's, and
root then runs as that user. Files are reached below `root`; `as_seen_from_inside` is for processes that have the
directory as their working directory, and works below folders that the account may not pass through.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mailserver.embedded import account as accounts
from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.process import own, own_folder

INSIDE = Path("/proc/self/cwd")
_FOLDERS = ("run", "secrets", "tls", "postgres", "redis", "blobs")
_OTHERS = ("blob-cache", "programs", "first-login", "lost+found")
# Longest path of the folder that still leaves room for the names of sockets in a socket address (108 octets).
_LONGEST = 80

SERVER = "pillarbox serve"
"""What holds the lock for as long as it runs; all others are done with it soon."""

Say = Callable[[str], None]


class DataDirectoryError(Exception):
    """The folder cannot serve as a data directory; the text says why and what to do."""


class Held(Exception):
    """Another process holds the directory."""

    def __init__(self, holder: dict[str, Any]) -> None:
        super().__init__(f"process {holder.get('pid', '?')} ({holder.get('what', 'pillarbox')}) holds it")
        self.pid = holder.get("pid")
        self.what = str(holder.get("what", "pillarbox"))


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Paths below one root."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def lock(self) -> Path:
        return self.run / "lock"

    @property
    def server_json(self) -> Path:
        return self.run / "server.json"

    @property
    def reload_json(self) -> Path:
        return self.run / "reload.json"

    @property
    def metrics(self) -> Path:
        return self.run / "metrics"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def blob_cache(self) -> Path:
        return self.root / "blob-cache"

    @property
    def first_login(self) -> Path:
        return self.root / "first-login"

    def as_seen_from_inside(self, account: ServiceAccount | None) -> DataDirectory:
        """The same directory for processes that work in it: by its own path where that will do."""
        reachable = account is None or account.reaches(self.root / "x")
        if reachable and len(os.fsencode(self.root)) <= _LONGEST:
            return self
        return DataDirectory(INSIDE)


# Making it -------------------------------------------------------------------------------------------------------


def make(root: Path, account_name: str, say: Say) -> tuple[DataDirectory, ServiceAccount | None]:
    """Makes the directory, or takes one that is there; the account that services run as (None: we ourselves)."""
    root = root.absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
        _refuse_strange(root)
        account = _account_of(root, account_name, say)
        _take(root, account)
    except OSError as error:
        raise DataDirectoryError(f"the data directory {root} cannot be used: {error.strerror}{_hint(root)}") from error
    return DataDirectory(root), account


def _refuse_strange(root: Path) -> None:
    """A folder that holds other things is not ours to change."""
    names = {path.name for path in root.iterdir()}
    if "run" in names:
        return
    strange = sorted(names.difference(_FOLDERS, _OTHERS))
    if strange:
        raise DataDirectoryError(
            f"{root} is no data directory of Pillarbox and holds other things ({strange[0]}); "
            "name an empty folder, or one that does not exist"
        )


def _account_of(root: Path, name: str, say: Say) -> ServiceAccount | None:
    if not accounts.running_as_root():
        return None
    found = accounts.owner_of(root / "run")
    if found is None:
        return accounts.find_or_make(name, say)
    if found.name != name:
        say(f"{root} belongs to {found.name}; workers and embedded services run as {found.name}")
    return found


def _take(root: Path, account: ServiceAccount | None) -> None:
    """Ownership of the root and of the small folders; what services wrote is theirs already."""
    if not root.joinpath("run").exists() or (account is not None and not account.owns(root)):
        own(root, account, 0o711)
    for name in _FOLDERS:
        own_folder(root / name, account, 0o755 if name == "tls" else 0o700)
    if account is not None:
        for folder in (root / "secrets", root / "tls"):
            for path in (folder, *folder.iterdir()):
                own(path, account, stat.S_IMODE(path.stat().st_mode))
    if not os.access(root / "run", os.W_OK | os.X_OK):
        raise PermissionError(13, "Permission denied")


def _hint(root: Path) -> str:
    owner = accounts.owner_of(root / "run")
    who = owner.name if owner is not None else "root"
    if accounts.running_as_root() or os.access(root, os.W_OK):
        return ""
    return f"; run this as {who}, or name another directory (--data DIR)"


# Who holds it ------------------------------------------------------------------------------------------------------


def take_lock(directory: DataDirectory, what: str, wait_seconds: float = 0.0) -> int:
    """The descriptor that holds the lock for as long as it is open.

    Held where it cannot be had in time; at once where a server has it.
    """
    descriptor = os.open(directory.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = _holder(descriptor)
            if time.monotonic() >= deadline or _is_server(holder):
                os.close(descriptor)
                raise Held(holder) from None
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "what": what}).encode(), 0)
    if os.geteuid() == 0:
        about = directory.run.stat()
        os.fchown(descriptor, about.st_uid, about.st_gid)
    return descriptor


def _is_server(holder: dict[str, Any]) -> bool:
    """A server that lives; who has taken the lock after one that died may not have said yet who it is."""
    return holder.get("what") == SERVER and Path(f"/proc/{holder.get('pid')}").exists()


def is_held(directory: DataDirectory) -> bool:
    """Does a process hold the directory?"""
    try:
        descriptor = os.open(directory.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at the same time do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def server_pid(directory: DataDirectory) -> int | None:
    """The server that holds the directory, ready or not; None where there is none."""
    found = holder(directory) if is_held(directory) else None
    return int(found["pid"]) if found is not None and found.get("what") == SERVER else None


def holder(directory: DataDirectory) -> dict[str, Any] | None:
    """Who took the lock last: pid and what it is; it may have let go since."""
    try:
        descriptor = os.open(directory.lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _holder(descriptor) or None
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> dict[str, Any]:
    try:
        found = json.loads(os.pread(descriptor, 1000, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# What a running server tells ----------------------------------------------------------------------------------------


def write_private(path: Path, text: str) -> None:
    """Writes a file of mode 0600, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_server(directory: DataDirectory) -> dict[str, Any] | None:
    """What the running server wrote about itself; None where none runs, or it is not ready for that yet."""
    if not is_held(directory):
        return None
    try:
        found = json.loads(directory.server_json.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None
