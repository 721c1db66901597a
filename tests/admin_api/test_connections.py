"""HTTP clients that want to break the listener: too many, too slow, too long."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from admin_api import connections, listener
from admin_api.listener import HttpListener
from admin_api.routes.health import Health
from config.schema import Config
from mailserver.net.limits import ConnectionLimit, Limits
from mailserver.net.tls import make_self_signed

PATIENCE = 20
PER_ADDRESS = 5


@asynccontextmanager
async def listening(certificate: tuple[Path, Path] | None = None) -> AsyncIterator[tuple[int, ConnectionLimit]]:
    """A port for HTTP, for HTTPS where there is a certificate, and the counter of its connections."""

    async def no_problems() -> dict[str, str]:
        return {}

    sock = socket.create_server(("127.0.0.1", 0))
    counter = Limits().connections(100, PER_ADDRESS)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None:
        tls.load_cert_chain(*certificate)
    made = HttpListener(Config(), Health(no_problems), tls=tls, connections=counter)
    await made.start(clear=[] if certificate else [sock], secure=[sock] if certificate else [])
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


# HTTPS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("https")
    make_self_signed(folder / "crt", folder / "key", ["localhost"])
    return folder / "crt", folder / "key"


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Coroutine[Any, Any, None]], None]]:
    """Runs on a loop of its kind; workers have uvloop."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


def test_silent_handshakes_are_counted(
    certificate: tuple[Path, Path], run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def test() -> None:
        context = ssl.create_default_context(cafile=str(certificate[0]))
        async with listening(certificate) as (port, counter):
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(PER_ADDRESS)]
            while counter.open < PER_ADDRESS:
                await asyncio.sleep(0.005)
            assert await ask(port, b"") == b"", "one too many is closed"
            silent.pop()[1].close()
            while counter.open == PER_ADDRESS:
                await asyncio.sleep(0.005)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
            writer.write(GET)
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
            for _, other in silent:
                other.write(b"GET / HTTP/1.1\r\n\r\n" * 20)  # no handshake
                other.write_eof()
            while counter.open:
                await asyncio.sleep(0.005)

    run(test())


def test_a_handshake_has_its_time(
    certificate: tuple[Path, Path],
    run: Callable[[Coroutine[Any, Any, None]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_SECONDS", 0.1)

    async def test() -> None:
        async with listening(certificate) as (port, counter):
            assert await ask(port, b"\x16\x03\x01") == b""
            assert not counter.open

    run(test())


def test_a_request_right_behind_the_handshake(
    certificate: tuple[Path, Path], run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """Octets of the request come in one piece with the end of the handshake."""

    async def test() -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(certificate[0]))
        client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        async with listening(certificate) as (port, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))
            client.write(GET)
            writer.write(outgoing.read())
            answer = b""
            while not answer.startswith(b"HTTP/1.1 200 "):
                incoming.write(await reader.read(65536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    answer += client.read(65536)
            writer.close()

    run(test())
