"""A real PostgreSQL of our own: made at first use, reached by a unix socket that only we can open.

    FOLDER/data            the cluster; made as data.new and renamed when it is whole, database included
    FOLDER/.s.PGSQL.5432   the socket; the folder is 0700, which is what protects it
    FOLDER/postgres.log

Its settings are written to data/postgresql.conf at each start; what an administrator sets by ALTER SYSTEM goes before.

The server is started in its data folder and told to look for its data in /proc/self/cwd, so that it works below folders
that the account may not pass through, such as root's home. Nothing here weakens durability: fsync, synchronous_commit
and full_page_writes keep their defaults.

Whoever calls launch() holds the lock of the data directory, so a server found running is a leftover and is stopped.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from mailserver.embedded import process, programs
from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.process import ServiceError
from mailserver.embedded.programs import PostgresPrograms, Say

DATABASE = "pillarbox"
USER = "pillarbox"
SOCKET = ".s.PGSQL.5432"
START_SECONDS = 60.0
MAX_CONNECTIONS = 200

MIB = 1024 * 1024
_HERE = "/proc/self/cwd"
_MAX_SOCKET_PATH = 100
_STOP = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0))
_INITDB_SECONDS = 120
_ORPHAN_SECONDS = 5.0
# Backends of a killed postmaster end by themselves as soon as they notice.
_PASSING = ("pre-existing shared memory block", 'postmaster.pid" already exists')


class EmbeddedPostgres:
    """One cluster in one folder. Make it with `prepare`; start it from the main thread."""

    def __init__(
        self, folder: Path, found: PostgresPrograms, account: ServiceAccount | None, options: dict[str, str]
    ) -> None:
        self.folder = folder
        self.programs = found
        self._account = account
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def dsn(self) -> str:
        return dsn(self.folder)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    @property
    def _log(self) -> Path:
        return self.folder / "postgres.log"

    def start(self, seconds: float = START_SECONDS) -> None:
        """Makes the cluster if there is none, starts the server and waits until it answers. ServiceError."""
        if not (self._data / "PG_VERSION").exists():
            self._make()
        self.launch()
        self.wait(seconds)

    def launch(self) -> None:
        """Starts the server without waiting for it."""
        self._stop_leftover()
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        command = [str(self.programs.bin / "postgres"), "-D", _HERE, "-k", ".."]
        try:
            self._write_settings()
            self._process = process.spawn(
                command, folder=self._data, account=self._account, death_signal=signal.SIGINT, log=self._log
            )
        except OSError as error:
            raise ServiceError(f"PostgreSQL could not be started: {error}") from error

    def _write_settings(self) -> None:
        lines = ["# Written by Pillarbox at each start. Other settings: ALTER SYSTEM SET …"]
        lines += [_setting(name, value) for name, value in self._options.items()]
        path = self._data / "postgresql.conf"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        process.own(path, self._account, 0o600)

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Waits until the server answers; one that stumbles over what a killed server left is started again."""
        deadline = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > deadline:
                raise ServiceError(f"PostgreSQL does not answer after {seconds:.0f} s; see {self._log}")
            if not self.is_running():
                said = self._said()
                if not any(text in said for text in _PASSING):
                    raise ServiceError(f"PostgreSQL did not start; {self._log} says:\n{said}")
                time.sleep(0.1)
                self.launch()
            time.sleep(0.02)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        """Does the server take connections?"""
        return answers(self.folder)

    def stop(self) -> None:
        """Ends the server in good order, and by force where it takes too long."""
        if self._process is not None:
            process.stop(self._process, _STOP)
            self._process = None

    def _said(self) -> str:
        size = self._log.stat().st_size if self._log.exists() else 0
        return process.tail(self._log, min(3000, max(0, size - self._log_start)))

    def _stop_leftover(self) -> None:
        """After this nobody works on the cluster, and no lock file speaks of a process that is not its own."""
        locks = (self._data / "postmaster.pid", self.folder / f"{SOCKET}.lock")
        holders = {lock: _holder(lock) for lock in locks}
        for pid in filter(None, set(holders.values())):
            process.stop_stranger(pid, self._data, _STOP)
        if not process.end_all_in(self._data, "postgres", _ORPHAN_SECONDS):
            raise ServiceError(f"processes of an earlier PostgreSQL still work in {self._data} and cannot be ended")
        for lock, holder in holders.items():
            # The pid belongs to somebody else by now, or to a dead process that nobody has waited for yet. PostgreSQL
            # would take it for a running server and refuse; a lock of a pid that is free it removes by itself.
            if holder and Path(f"/proc/{holder}").exists():
                lock.unlink(missing_ok=True)

    # The first start ---------------------------------------------------------------------------------------------

    def _make(self) -> None:
        new = self.folder / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        if self._data.exists() and any(self._data.iterdir()):
            raise ServiceError(f"{self._data} is neither empty nor a PostgreSQL cluster; move it away")
        process.own_folder(new, self._account)
        initdb = [str(self.programs.bin / "initdb"), "-D", _HERE, "-U", USER, "-A", "trust", "-E", "UTF8"]
        if self.programs.major >= 17:
            initdb += ["--locale-provider=builtin", "--locale=C.UTF-8"]  # stable order, Unicode lower(), no libc in it
        else:
            initdb += ["--locale=C.UTF-8"]
        self._run([*initdb, "--data-checksums"], new, "")
        single = [str(self.programs.bin / "postgres"), "--single", "-D", _HERE, "postgres"]
        self._run(single, new, f"CREATE DATABASE {DATABASE}\n")
        if self._data.exists():
            self._data.rmdir()
        new.rename(self._data)

    def _run(self, command: list[str], folder: Path, text: str) -> None:
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=process.environment("/"),
                input=text,
                capture_output=True,
                text=True,
                timeout=_INITDB_SECONDS,
                check=False,
                preexec_fn=functools.partial(process.die_with_parent, os.getpid(), signal.SIGKILL),
                umask=0o077,
                **process.as_account(self._account),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ServiceError(f"the database cannot be made: {error}") from error
        if done.returncode:
            raise ServiceError(f"the database cannot be made: {(done.stderr or done.stdout).strip()[-1500:]}")


def prepare(
    folder: Path, account: ServiceAccount | None, say: Say, options: dict[str, str] | None = None
) -> EmbeddedPostgres:
    """Finds the programs and makes the folder; to be called while still root. ServiceError."""
    found = programs.find_postgres(_major(folder / "data"))
    found = programs.runnable_postgres(found, folder.parent, account, say)
    process.own_folder(folder, account)
    return EmbeddedPostgres(folder, found, account, {**tuning(_memory(), folder), **(options or {})})


def _major(data: Path) -> int | None:
    try:
        return int((data / "PG_VERSION").read_text().strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ServiceError(f"{data / 'PG_VERSION'} cannot be used: {error}") from error


def _holder(lock: Path) -> int | None:
    try:
        return int(lock.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def dsn(folder: Path) -> str:
    """How this process reaches the server of this folder."""
    return plain_dsn(short(folder))


def plain_dsn(folder: Path) -> str:
    """The same by the folder's own path, which may be too long for a socket address."""
    return f"postgresql:///{DATABASE}?host={quote(str(folder))}&user={USER}"


@functools.cache
def short(folder: Path) -> Path:
    """The folder by a path that fits into a socket address (108 octets); the way to it is kept open."""
    if len(os.fsencode(folder / SOCKET)) <= _MAX_SOCKET_PATH:
        return folder
    return Path(f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY)}")


def answers(folder: Path) -> bool:
    """Asks for a session and looks at the first octet: R, authentication, comes only from a server that serves."""
    parameters = f"user\0{USER}\0database\0{DATABASE}\0\0".encode()
    startup = struct.pack("!II", 8 + len(parameters), 196608) + parameters
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        try:
            client.connect(str(short(folder) / SOCKET))
            client.sendall(startup)
            return client.recv(1) == b"R"
        except OSError:
            return False


def tuning(memory: int, folder: Path) -> dict[str, str]:
    """Settings of the server for a machine with so many octets of memory."""
    buffers = min(max(memory // 8, 128 * MIB), 1024 * MIB)
    return {
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "cluster_name": _printable(str(folder))[-60:],
        "max_connections": str(MAX_CONNECTIONS),
        "shared_buffers": f"{buffers // MIB}MB",
        "effective_cache_size": f"{memory // 2 // MIB}MB",
        "maintenance_work_mem": f"{min(max(memory // 64, 64 * MIB), 512 * MIB) // MIB}MB",
        "max_wal_size": "2GB",
        "min_wal_size": "128MB",
        "wal_compression": "lz4",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "jit": "off",
        "log_checkpoints": "off",
        "log_min_messages": "warning",
        "log_line_prefix": "%m [%p] ",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }


def _setting(name: str, value: str) -> str:
    quoted = value.replace("'", "''")
    return f"{name} = '{quoted}'"


def _printable(text: str) -> str:
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)


def _memory() -> int:
    """Memory of this machine, or of this container where that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total
