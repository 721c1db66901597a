"""SeaweedFS, an S3 server, with one bucket, in a folder of its own."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError

from mailserver.embedded.process import die_with_parent
from survival.errors import ChaosError

HOST = "127.0.0.1"
BUCKET = "mail"
KEY_ID, SECRET = "pillarbox", "pillarbox-secret"
PROGRAM = Path(sys.executable).parent / "weed"
_START_SECONDS = 60.0
_NAMES = ("master", "volume", "filer", "s3")


class ObjectStore:
    """Started from the main thread; it ends with it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._ports = _free_ports(2 * len(_NAMES))
        self.url = f"http://{HOST}:{self._ports[3]}"
        self._process: subprocess.Popen[bytes] | None = None
        right = {"name": "mail", "credentials": [{"accessKey": KEY_ID, "secretKey": SECRET}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [right]}))

    def start(self, *, wait: bool = False) -> None:
        """wait: until the bucket takes objects. ChaosError."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(self._folder), "TMPDIR": str(self._folder)}
                | {"GOMEMLIMIT": "256MiB", "GOMAXPROCS": "2"},
                preexec_fn=functools.partial(die_with_parent, os.getpid(), signal.SIGKILL),
                start_new_session=True,
            )
        if wait:
            asyncio.run(self._wait())

    @property
    def pids(self) -> list[int]:
        return [self._process.pid] if self._process is not None and self._process.poll() is None else []

    def kill(self) -> None:
        """Asked politely it takes a quarter of a minute."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None

    def remove_sockets(self) -> None:
        """It leaves some beside its folder."""
        for port in self._ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()

    def _command(self) -> list[str]:
        """Sockets by names within its folder: their addresses are short."""
        folder = self._folder
        listening = [f"-{name}.port={port}" for name, port in zip(_NAMES, self._ports, strict=False)]
        grpc = self._ports[len(_NAMES) :]
        listening += [f"-{name}.port.grpc={port}" for name, port in zip(_NAMES, grpc, strict=True)]
        return [
            str(PROGRAM), "server", f"-ip={HOST}", f"-ip.bind={HOST}", f"-dir={folder}", "-filer", "-s3",
            f"-s3.config={folder}/s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false",
            "-volume.max=32", "-master.volumeSizeLimitMB=64", "-master.telemetry=false", "-master.electionTimeout=1s",
            "-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock", *listening,
        ]  # fmt: skip

    async def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while (error := await self._try_out()) is not None:
            if time.monotonic() > deadline:
                raise ChaosError(f"SeaweedFS does not serve: {error}; its log is {self._folder / 'log'}")
            await asyncio.sleep(0.1)

    async def _try_out(self) -> str | None:
        config = AioConfig(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1, "mode": "standard"})
        known = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
        async with AioSession().create_client("s3", endpoint_url=self.url, config=config, **known) as client:
            try:
                await client.create_bucket(Bucket=BUCKET)
            except ClientError as error:
                if not error.response["Error"]["Code"].startswith("BucketAlready"):
                    return str(error)
            except BotoCoreError as error:
                return str(error)
            try:
                await client.put_object(Bucket=BUCKET, Key="up", Body=b"x")
                await client.delete_object(Bucket=BUCKET, Key="up")
            except (BotoCoreError, ClientError) as error:
                return str(error)
        return None


def _free_ports(count: int) -> list[int]:
    """Below those that the kernel gives to clients, so that a server that is down keeps its port."""
    sockets: list[socket.socket] = []
    try:
        while len(sockets) < count:
            probe = socket.socket()
            sockets.append(probe)
            try:
                probe.bind((HOST, 4_000 + int.from_bytes(os.urandom(2), "big") % 7_900))
            except OSError:
                sockets.pop().close()
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()
