from __future__ import annotations

import asyncio
import socket

import pytest

from mailserver.net.connection import Connection
from mailserver.net.deadlines import Deadlines
from mailserver.net.listener import Listener, stop_connections
from tests.net.tools import Server, run


class Greeter(Connection):
    def opened(self) -> None:
        self.allow(100)
        self.write(b"hello\r\n")


class Polite(Greeter):
    def stopping(self) -> None:
        self.write(b"server stops\r\n")
        self.close()


class Busy(Greeter):
    def stopping(self) -> None: ...


def test_orderly_stop(loop: str) -> None:
    async def main() -> None:
        made = iter((Polite, Busy))
        async with Server(lambda deadlines: next(made)(deadlines)) as server:
            polite, polite_writer = await server.connect()
            assert await polite.readline() == b"hello\r\n"
            busy, busy_writer = await server.connect()
            assert await busy.readline() == b"hello\r\n"
            server.listener.close()
            with pytest.raises(OSError):
                await server.connect()
            await stop_connections(server.deadlines, 0.1)
            assert await polite.read() == b"server stops\r\n"
            try:
                assert await busy.read() == b""
            except ConnectionResetError:
                pass
            assert not len(server.deadlines)
            polite_writer.close()
            busy_writer.close()

    run(loop, main)


def test_stop_waits_no_longer_than_needed(loop: str) -> None:
    async def main() -> None:
        await stop_connections(Deadlines(), 60)
        async with Server(Polite) as server:
            reader, writer = await server.connect()
            await reader.readline()
            await stop_connections(server.deadlines, 60)
            assert not len(server.deadlines)
            writer.close()

    run(loop, main)


def test_several_sockets(loop: str) -> None:
    async def main() -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6)]
        ports = [sock.getsockname()[:2] for sock in sockets]
        deadlines = Deadlines()
        listener = Listener(sockets, lambda: Greeter(deadlines))
        await listener.start()
        for host, port in ports:
            reader, writer = await asyncio.open_connection(host, port)
            assert await reader.readline() == b"hello\r\n"
            writer.close()
        listener.close()
        await stop_connections(deadlines, 0.1)

    run(loop, main)
