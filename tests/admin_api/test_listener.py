"""The HTTP listeners: they end in good order, within their bound."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from admin_api.listener import HttpListener
from admin_api.routes.health import Health
from config.schema import Config
from mailserver.net.limits import Limits

PATIENCE = 20


class Slow:
    """A state that is told when its problems are known."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()

    async def ask(self) -> dict[str, str]:
        self.asked.set()
        await self.answer.wait()
        return {}


@pytest.fixture
async def slow() -> Slow:
    return Slow()


@pytest.fixture
async def listener(slow: Slow) -> AsyncIterator[tuple[HttpListener, int]]:
    sock = socket.create_server(("127.0.0.1", 0))
    made = HttpListener(
        Config(),
        Health(slow.ask),
        tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        connections=Limits().connections(100, 5),
    )
    await made.start(clear=[sock], secure=[])
    yield made, sock.getsockname()[1]
    await made.close(0)


async def ask(port: int, path: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
    return reader, writer


async def test_a_request_under_way_is_answered(listener: tuple[HttpListener, int], slow: Slow) -> None:
    http, port = listener
    async with asyncio.timeout(PATIENCE):
        idle, idle_writer = await ask(port, b"/healthz")
        assert (await idle.readline()).startswith(b"HTTP/1.1 200")
        reader, writer = await ask(port, b"/readyz")
        await slow.asked.wait()
        closing = asyncio.create_task(http.close(PATIENCE))
        await idle.read()  # to its end
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        assert not closing.done()
        slow.answer.set()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await closing
        idle_writer.close()
        writer.close()


async def test_the_end_is_bounded(listener: tuple[HttpListener, int], slow: Slow) -> None:
    http, port = listener
    async with asyncio.timeout(PATIENCE):
        _, writer = await ask(port, b"/readyz")
        await slow.asked.wait()
        await http.close(0.1)
        writer.close()


async def test_one_that_was_never_started() -> None:
    await HttpListener(
        Config(), Health(Slow().ask), tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), connections=Limits().connections(1)
    ).close(1)
