"""The server elsewhere that relayed mail goes to: counts messages and drops them. Its CPU counts for nobody.

It says yes to everything, so a client may pipeline; DATA is found by its end, and nothing is kept. One process serves
all servers of a run.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import time
from collections.abc import Callable
from typing import cast

import uvloop

from benchmark.errors import BenchError
from benchmark.ports import LOOPBACK

_FORK = multiprocessing.get_context("fork")
_END = b"\r\n.\r\n"
_POLL_SECONDS = 0.02
_EHLO = b"250-sink.remote.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250 8BITMIME\r\n"
_REPLIES = {b"EHLO": _EHLO, b"DATA": b"354 Go on\r\n", b"QUIT": b"221 Bye\r\n"}


class Sink:
    """port: where it listens."""

    def __init__(self) -> None:
        listening = socket.create_server((LOOPBACK, 0), backlog=1024)
        self.port: int = listening.getsockname()[1]
        self._count = _FORK.RawValue("Q", 0)
        self._process = _FORK.Process(target=self._serve, args=(listening,), daemon=True)
        self._process.start()
        listening.close()

    @property
    def count(self) -> int:
        """Messages that it has taken so far."""
        return int(self._count.value)

    def wait(self, count: int, seconds: float) -> None:
        """Until it has taken so many in all; BenchError where it does not come to that."""
        deadline = time.monotonic() + seconds
        while self.count < count:
            if time.monotonic() > deadline:
                raise BenchError(f"{count - self.count} messages did not arrive at the sink in {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        self._process.terminate()
        self._process.join(10)

    def _serve(self, listening: socket.socket) -> None:
        uvloop.run(self._run(listening))

    async def _run(self, listening: socket.socket) -> None:
        server = await asyncio.get_running_loop().create_server(lambda: _Dialogue(self._took_one), sock=listening)
        await server.serve_forever()

    def _took_one(self) -> None:
        self._count.value += 1


class _Dialogue(asyncio.Protocol):
    """One connection. in_data: between DATA and the line with the dot."""

    def __init__(self, took_one: Callable[[], None]) -> None:
        self._took_one = took_one
        self._buffer = b""
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"220 sink.remote.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies = []
        while True:
            if self._in_data:
                found = self._buffer.find(_END)
                if found < 0:
                    break
                self._buffer = self._buffer[found + len(_END) :]
                self._in_data = False
                self._took_one()
                replies.append(b"250 Taken\r\n")
            else:
                line, end, rest = self._buffer.partition(b"\r\n")
                if not end:
                    break
                # The line end before the first octet of a message belongs to its end where that is a dot at once.
                self._in_data = line == b"DATA"
                self._buffer = b"\r\n" + rest if self._in_data else rest
                replies.append(_REPLIES.get(line[:4], b"250 Yes\r\n"))
        if replies:
            self._transport.write(b"".join(replies))
