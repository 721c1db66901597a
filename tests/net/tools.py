"""A loopback server for connections under test, on both event loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from mailserver.net.connection import Connection
from mailserver.net.deadlines import Deadlines
from mailserver.net.listener import Listener
from mailserver.net.tls import make_self_signed

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run(loop: str, main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        faults: list[dict] = []
        runner.get_loop().set_exception_handler(lambda loop, context: faults.append(context))
        runner.run(bounded())
    assert not faults


class Server:
    """Listens on a port of 127.0.0.1 (or ::1) and keeps what it made."""

    def __init__(self, make: Callable[[Deadlines], Connection], host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, 0))
        self.host = host
        self.port: int = self.socket.getsockname()[1]
        self.deadlines = Deadlines()
        self.made: list = []
        self._make = make
        self.listener = Listener([self.socket], self._factory)

    def _factory(self) -> Connection:
        connection = self._make(self.deadlines)
        self.made.append(connection)
        return connection

    async def __aenter__(self) -> Server:
        await self.listener.start()
        return self

    async def __aexit__(self, *args: object) -> None:
        self.listener.close()
        for member in self.deadlines:
            member.abort()
        await asyncio.sleep(0.01)

    async def connect(self, context: ssl.SSLContext | None = None):
        return await asyncio.open_connection(
            self.host, self.port, ssl=context, server_hostname="localhost" if context else None
        )


class Tls:
    """A self-signed certificate, and contexts for its server and a client that trusts just it."""

    def __init__(self, folder: Path) -> None:
        self.certificate = folder / "tls" / "server.crt"
        self.key = folder / "tls" / "server.key"
        make_self_signed(self.certificate, self.key, ["localhost", "mail.example.org", "127.0.0.1", "::1"])
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self.certificate, self.key)
        self.client = ssl.create_default_context(cafile=str(self.certificate))
