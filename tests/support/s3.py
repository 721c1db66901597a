"""S3 servers for tests: SeaweedFS, which is real, and ministack, an emulator with other habits.

They are wheels of the extra `dev`, listen on free loopback ports, keep what they have in a folder that goes with them
(ministack in memory), and are bounded in memory. They may be killed and started again on the same port.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from config.schema import StorageConfig
from config.secret import Secret
from tests.support.services import run_apart, short_folder

HOST = "127.0.0.1"
BUCKET = "mail"
KEY_ID = "pillarbox"
SECRET = "pillarbox-secret"
START_SECONDS = 60
_PROGRAMS = Path(sys.executable).parent
_IDENTITY = {"name": "mail", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}], "actions": ["Admin"]}


def free_ports(count: int) -> list[int]:
    """Below those that the kernel gives to clients, so that a server that is down keeps its port."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        return [_bind(sock) for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


def _bind(sock: socket.socket) -> int:
    while True:
        port = 4_000 + int.from_bytes(os.urandom(2), "big") % 7_900
        try:
            sock.bind((HOST, port))
        except OSError:
            continue
        return port


class S3Server:
    """A server with one empty bucket."""

    def __init__(self, port: int, command: list[str], environment: dict[str, str], folder: Path) -> None:
        self.port = port
        self.url = f"http://{HOST}:{port}"
        self._command = command
        self._environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), **environment}
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the bucket takes objects."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        run_apart(self._wait())

    @property
    def runs(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """At once: asked politely, SeaweedFS takes a quarter of a minute."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None

    def pause(self) -> None:
        """It stays connected and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def config(self, **settings: Any) -> StorageConfig:
        """Settings that reach it."""
        given = {"s3_endpoint_url": self.url, "s3_access_key_id": KEY_ID, "s3_secret_access_key": Secret(SECRET)}
        return StorageConfig(**{**given, **settings})

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """The client library, without retries."""
        async with AioSession().create_client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            config=AioConfig(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1, "mode": "standard"}),
        ) as client:
            yield client

    async def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        async with self.client() as client:
            while (error := await _try_out(client)) is not None:
                assert time.monotonic() < deadline, f"{self._command[0]} does not serve: {error}\n{self._log()}"
                await asyncio.sleep(0.1)

    def _log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-4000:]


async def _try_out(client: Any) -> Exception | None:
    try:
        try:
            await client.create_bucket(Bucket=BUCKET)
        except ClientError as error:
            if not error.response["Error"]["Code"].startswith("BucketAlready"):
                raise
        await client.put_object(Bucket=BUCKET, Key="up", Body=b"x")
        await client.delete_object(Bucket=BUCKET, Key="up")
    except (BotoCoreError, ClientError) as error:
        return error
    return None


@contextmanager
def _running(server: S3Server) -> Iterator[S3Server]:
    try:
        server.start()
        yield server
    finally:
        server.kill()


@contextmanager
def running_seaweedfs() -> Iterator[S3Server]:
    with short_folder() as folder:
        (folder / "s3.json").write_text(json.dumps({"identities": [_IDENTITY]}))
        names = ("master", "volume", "filer", "s3")
        ports = free_ports(2 * len(names))
        listening = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
        listening += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[len(names) :], strict=True)]
        command = [
            str(_PROGRAMS / "weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-filer", "-s3",
            f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false",
            "-volume.max=8", "-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-master.electionTimeout=1s",
            f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock", *listening,
        ]  # fmt: skip
        limits = {"GOMEMLIMIT": "256MiB", "GOMAXPROCS": "2"}
        try:
            with _running(S3Server(ports[3], command, limits, folder)) as server:
                yield server
        finally:
            for port in ports:
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink()


@contextmanager
def running_ministack() -> Iterator[S3Server]:
    with short_folder() as folder:
        (port,) = free_ports(1)
        settings = {"GATEWAY_PORT": str(port), "BIND_HOST": HOST, "SERVICES": "s3", "LOG_LEVEL": "WARNING"}
        with _running(S3Server(port, [sys.executable, "-m", "ministack"], settings, folder)) as server:
            yield server
