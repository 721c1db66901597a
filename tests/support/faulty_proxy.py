"""An HTTP proxy between a client and a real server that does to requests what networks and servers do on bad days."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from tests.support.s3 import HOST

Fault = Literal["503", "reset", "silence", "half answer", "lost answer"] | bytes
"""half answer: carried out, and the connection breaks in the middle of what is said of it; lost answer: before it.
Octets are said in the server's place."""

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your rate</Message></Error>"
Applies = Callable[[str], bool]


def answer(status: str, body: bytes) -> bytes:
    fields = ("Content-Type: application/xml", f"Content-Length: {len(body)}", "Connection: close")
    return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode() + body


@dataclass
class FaultyProxy:
    """faults are used up one a request; `always` is done to all that `applies` (given method and path) to."""

    server_port: int
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    always: Fault | None = None
    applies: Applies = lambda request: True
    requests: list[str] = field(default_factory=list)
    open: int = 0
    most_open: int = 0

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def next_fault(self, request: str) -> Fault | None:
        if not self.applies(request):
            return None
        return self.faults.pop(0) if self.faults else self.always

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._one(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        if re.search(rb"(?i)\r\nExpect:", head):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = re.search(rb"(?i)\r\nContent-Length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        request = head.partition(b" HTTP/")[0].decode()
        self.requests.append(request)
        fault = self.next_fault(request)
        if fault == "silence":
            await reader.read()
        elif fault == "reset":
            writer.transport.abort()
        elif fault == "503":
            writer.write(answer("503 Slow Down", SLOW_DOWN))
        elif isinstance(fault, bytes):
            writer.write(fault)
        else:
            said = await self._ask(head, body)
            if fault is not None:
                writer.write(b"" if fault == "lost answer" else said[: len(said) - 10])
                await writer.drain()
                writer.transport.close() if fault == "half answer" else writer.transport.abort()
            else:
                writer.write(said)
        await writer.drain()

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(HOST, self.server_port)
        head = re.sub(rb"(?i)\r\n(Expect|Connection):[^\r]*", b"", head)
        writer.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
        try:
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def faulty_proxy(server_port: int) -> AsyncIterator[FaultyProxy]:
    proxy = FaultyProxy(server_port)
    server = await asyncio.start_server(proxy.serve, HOST, 0, limit=1 << 20)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
