"""The system account that services and workers run as when root starts us.

PostgreSQL refuses to run as root, and nothing that talks to the network should. The account is an ordinary system
account without a shell; where it is missing, root makes it. A plain user runs everything as itself: then there is no
account (None).
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HOME = Path("/var/lib")


class AccountError(Exception):
    """There is no account to run as; the text says what to do."""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Who services run as."""

    name: str
    uid: int
    gid: int
    home: Path

    def owns(self, path: Path) -> bool:
        """Does the path exist and belong to this account?"""
        try:
            return path.stat().st_uid == self.uid
        except OSError:
            return False

    def reaches(self, path: Path) -> bool:
        """May this account pass through all folders above the path, by owner, group and other bits?"""
        return all(self._may(folder, 0o1) for folder in path.absolute().parents)

    def executes(self, program: Path) -> bool:
        """May this account run the program?"""
        real = program.resolve()
        return real.is_file() and self.reaches(real) and self._may(real, 0o5)

    def _may(self, path: Path, wanted: int) -> bool:
        try:
            about = path.stat()
        except OSError:
            return False
        if about.st_uid == self.uid:
            bits = about.st_mode >> 6
        elif about.st_gid == self.gid:
            bits = about.st_mode >> 3
        else:
            bits = about.st_mode
        return bits & wanted == wanted


def running_as_root() -> bool:
    return os.geteuid() == 0


def find_or_make(name: str, say: Callable[[str], None]) -> ServiceAccount | None:
    """The account of this name, made where it is missing; None for a plain user, who needs none.

    AccountError where root cannot make it.
    """
    if not running_as_root():
        return None
    account = find(name)
    if account is not None:
        return account
    _make(name)
    account = find(name)
    if account is None:
        raise AccountError(f"the system account {name} was made, yet it cannot be found; see /etc/nsswitch.conf")
    say(f"made the system account {name}; workers and embedded services run as it, not as root")
    return account


def find(name: str) -> ServiceAccount | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return _checked(entry)


def owner_of(path: Path) -> ServiceAccount | None:
    """The account that a file belongs to; None where that is root or nobody known."""
    try:
        entry = pwd.getpwuid(path.stat().st_uid)
    except (OSError, KeyError):
        return None
    return _checked(entry) if entry.pw_uid != 0 else None


def drop_root(account: ServiceAccount) -> None:
    """Becomes the account, for good: no way back to root is left."""
    os.setgroups([])
    os.setresgid(account.gid, account.gid, account.gid)
    os.setresuid(account.uid, account.uid, account.uid)
    os.environ["HOME"] = str(account.home)
    for name in ("USER", "LOGNAME"):
        os.environ[name] = account.name


def _checked(entry: pwd.struct_passwd) -> ServiceAccount:
    if entry.pw_uid == 0:
        raise AccountError(f"{entry.pw_name} is root; name another account in server.system_account")
    return ServiceAccount(entry.pw_name, entry.pw_uid, entry.pw_gid, Path(entry.pw_dir))


def _make(name: str) -> None:
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise AccountError(f"there is no system account {name} and no useradd to make it; make it and start again")
    group = ["-g", name] if _has_group(name) else ["-U"]
    command = [useradd, "-r", "-M", *group, "-d", str(HOME / name), "-s", "/usr/sbin/nologin", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    # 9: the name is in use; somebody else was quicker.
    if done.returncode not in (0, 9):
        raise AccountError(f"the system account {name} could not be made: {done.stderr.strip()}; see `man useradd`")


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
