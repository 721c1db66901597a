"""A real Redis of our own on a unix socket. It holds nothing that cannot be rebuilt, so it may be lost at any moment.

    FOLDER/redis.sock      the folder is 0700, which is what protects it
    FOLDER/redis.log, FOLDER/redis.pid

Memory is bounded; what was used least goes first.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from mailserver.embedded import process, programs
from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.postgres import short
from mailserver.embedded.process import ServiceError
from mailserver.embedded.programs import Say

SOCKET = "redis.sock"
START_SECONDS = 20.0
MAX_MEMORY = "256mb"
_STOP = ((signal.SIGTERM, 10.0),)


class EmbeddedRedis:
    """One server in one folder. Make it with `prepare`; start it from the main thread."""

    def __init__(self, folder: Path, program: Path, account: ServiceAccount | None) -> None:
        self.folder = folder
        self.program = program
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return url(self.folder)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def _log(self) -> Path:
        return self.folder / "redis.log"

    def start(self, seconds: float = START_SECONDS) -> None:
        """Starts the server and waits until it answers. ServiceError."""
        self.launch()
        self.wait(seconds)

    def launch(self) -> None:
        """Starts the server without waiting for it."""
        self._stop_leftover()
        command = [str(self.program), *_arguments()]
        try:
            self._process = process.spawn(
                command, folder=self.folder, account=self._account, death_signal=signal.SIGTERM, log=self._log
            )
        except OSError as error:
            raise ServiceError(f"Redis could not be started: {error}") from error

    def wait(self, seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not self.answers():
            if not self.is_running():
                raise ServiceError(f"Redis did not start; {self._log} says:\n{process.tail(self._log)}")
            if time.monotonic() > deadline:
                raise ServiceError(f"Redis does not answer after {seconds:.0f} s; see {self._log}")
            time.sleep(0.01)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def answers(self) -> bool:
        return answers(self.folder)

    def stop(self) -> None:
        if self._process is not None:
            process.stop(self._process, _STOP)
            self._process = None

    def _stop_leftover(self) -> None:
        try:
            pid = int((self.folder / "redis.pid").read_text())
        except (OSError, ValueError):
            return
        process.stop_stranger(pid, self.folder, _STOP)


def _arguments() -> list[str]:
    """Paths are relative to the folder, which is the working directory."""
    settings = {
        "port": "0",
        "unixsocket": SOCKET,
        "unixsocketperm": "700",
        "pidfile": "redis.pid",
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory": MAX_MEMORY,
        "maxmemory-policy": "allkeys-lru",
        "loglevel": "warning",
        "protected-mode": "yes",
    }
    return [text for name, value in settings.items() for text in (f"--{name}", value)]


def prepare(folder: Path, account: ServiceAccount | None, say: Say) -> EmbeddedRedis | None:
    """Finds the program and makes the folder; to be called while still root. None where there is no Redis."""
    program = programs.find_redis()
    if program is None:
        return None
    process.own_folder(folder, account)
    return EmbeddedRedis(folder, programs.runnable_redis(program, folder.parent, account, say), account)


def url(folder: Path) -> str:
    """How this process reaches the server of this folder."""
    return plain_url(short(folder))


def plain_url(folder: Path) -> str:
    """The same by the folder's own path, which may be too long for a socket address."""
    return f"unix://{quote(str(folder / SOCKET))}"


def answers(folder: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(2)
        try:
            client.connect(str(short(folder) / SOCKET))
            client.sendall(b"PING\r\n")
            return client.recv(5) == b"+PONG"
        except OSError:
            return False
