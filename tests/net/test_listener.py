from __future__ import annotations

import asyncio
import socket

import pytest

from mailserver.net.connection import Connection
from mailserver.net.deadlines import Deadlines
from mailserver.net.listener import Listener, stop_connections
from tests.net.tools import Server, Tls, run


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


class Late(Busy):
    """Has a last word when it is cut off."""

    def cut_short(self) -> None:
        self.write(b"too late\r\n")
        self.close()


def test_who_takes_too_long_may_say_so(loop: str) -> None:
    async def main() -> None:
        async with Server(Late) as server:
            reader, writer = await server.connect()
            await reader.readline()
            await stop_connections(server.deadlines, 0.1)
            assert await reader.read() == b"too late\r\n"
            assert not len(server.deadlines)
            writer.close()

    run(loop, main)


def test_a_handshake_under_way_ends_with_a_goodbye(loop: str, tls: Tls) -> None:
    """Who has been accepted just before the stop learns of it in the protocol's words."""

    async def main() -> None:
        async with Server(lambda deadlines: Polite(deadlines, tls.server)) as server:
            client = socket.create_connection(("127.0.0.1", server.port))
            while not len(server.deadlines):
                await asyncio.sleep(0.01)
            server.listener.close()
            stopping = asyncio.create_task(stop_connections(server.deadlines, 20))
            await asyncio.sleep(0)

            def talk() -> bytes:
                client.settimeout(20)
                with tls.client.wrap_socket(client, server_hostname="localhost") as secure:
                    said = b""
                    while piece := secure.recv(100):
                        said += piece
                    return said

            assert await asyncio.to_thread(talk) == b"hello\r\nserver stops\r\n"
            await stopping

    run(loop, main)


def test_no_answer_waits_for_a_delayed_ack(loop: str) -> None:
    async def main() -> None:
        async with Server(Greeter) as server:
            reader, writer = await server.connect()
            assert await reader.readline() == b"hello\r\n"
            (member,) = server.deadlines
            sock = member.transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()

    run(loop, main)
