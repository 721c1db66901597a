"""HTTP clients that want to break the listener: too many, too slow, too long."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from admin_api import listener
from admin_api.listener import HttpListener
from admin_api.routes.health import Health
from config.schema import Config
from mailserver.net.limits import ConnectionLimit, Limits

PATIENCE = 20
PER_ADDRESS = 5


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[int, ConnectionLimit]]:
    async def no_problems() -> dict[str, str]:
        return {}

    sock = socket.create_server(("127.0.0.1", 0))
    counter = Limits().connections(100, PER_ADDRESS)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made = HttpListener(Config(), Health(no_problems), tls=tls, connections=counter)
    await made.start(clear=[sock], secure=[])
    try:
        async with asyncio.timeout(PATIENCE):
            yield sock.getsockname()[1], counter
    finally:
        await made.close(0)


async def ask(port: int, octets: bytes, address: str = "127.0.0.1") -> bytes:
    """What is answered up to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(octets)
    try:
        return await reader.read()
    finally:
        writer.close()


GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_one_connection_too_many() -> None:
    async with listening() as (port, counter):
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(PER_ADDRESS)]
        while counter.open < PER_ADDRESS:
            await asyncio.sleep(0.005)
        for _ in range(20):
            answer = await ask(port, b"")
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"), answer
            assert answer.endswith(b'\r\n\r\n{"error": "too many connections"}')
        assert (await ask(port, GET, "127.0.0.2")).startswith(b"HTTP/1.1 200")  # others are served
        for _, writer in idle:
            writer.close()
        while counter.open:
            await asyncio.sleep(0.005)
        assert (await ask(port, GET)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "begin", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-", GET.replace(b"close", b"keep-alive")]
)
async def test_a_head_has_its_time(monkeypatch: pytest.MonkeyPatch, begin: bytes) -> None:
    """An octet now and then buys none, of the first request or of the next."""
    monkeypatch.setattr(listener, "KEEPALIVE_SECONDS", 0.3)
    async with listening() as (port, counter):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begin)
        ended = asyncio.ensure_future(reader.read())
        drip = iter(b"GET /healthz HTTP/1.1\r\nX-" + b"x" * 10_000)
        while not ended.done():
            writer.write(bytes([next(drip)]))
            await asyncio.sleep(0.01)
        assert ended.exception() is not None or ended.result().count(b"HTTP/1.1") == begin.count(b"keep-alive")
        writer.close()
        while counter.open:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Field: x\r\n" * 5_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b" x\r\n" * 5_000 + b"\r\n",
        b"EHLO client\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"\0" * 100_000,
        b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n bad\r\n: x\r\n\r\n",
    ],
    ids=lambda octets: repr(octets[:40]),
)
async def test_rubbish_is_refused_and_closed(request_: bytes) -> None:
    async with listening() as (port, counter):
        assert (await ask(port, request_)).startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
        while counter.open:
            await asyncio.sleep(0.005)
        assert (await ask(port, GET)).startswith(b"HTTP/1.1 200")
