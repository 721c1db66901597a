"""Peers that want to break the connection layer: TLS with an octet more or less, TLS without end, floods."""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
import logging
import random
import resource
import socket
import ssl
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from mailserver.net import connection as module
from mailserver.net.connection import Connection
from mailserver.net.deadlines import Deadlines
from mailserver.net.limits import Limits
from tests.net.tools import Server, Tls, run


class Echo(Connection):
    """Says what it hears; STARTTLS begins TLS."""

    def __init__(self, deadlines: Deadlines, tls: Tls, *, at_accept: bool = False) -> None:
        super().__init__(deadlines, tls.server if at_accept else None)
        self.tls = tls
        self.heard = b""
        self.events: list[str] = []

    def opened(self) -> None:
        self.events.append("opened")
        self.allow(100)

    def received(self, data: bytes) -> None:
        if data == b"STARTTLS":
            self.start_tls(self.tls.server)
        else:
            self.heard += data
            self.write(data)

    def secured(self) -> None:
        self.events.append("secured")

    def eof(self) -> None:
        self.events.append("eof")
        self.close()

    def lost(self) -> None:
        self.events.append("lost")


class Client:
    """A TLS client whose octets can be spoilt on their way: it talks to a connection of the server by its methods."""

    def __init__(self, tls: Tls, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        context = ssl.create_default_context(cafile=str(tls.certificate))
        context.minimum_version = context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def hello(self) -> bytes:
        with pytest.raises(ssl.SSLWantReadError):
            self.session.do_handshake()
        return self.outgoing.read()

    async def finish(self, reader: asyncio.StreamReader, connection: Connection) -> None:
        while True:
            self.incoming.write(await reader.read(65536))
            try:
                self.session.do_handshake()
            except ssl.SSLWantReadError:
                continue
            finally:
                connection.data_received(self.outgoing.read())
            return

    def record(self, text: bytes) -> bytes:
        self.session.write(text)
        return self.outgoing.read()


async def until(check: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.001)


async def connected(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Echo]:
    reader, writer = await server.connect()
    count = len(server.deadlines)
    await until(lambda: server.made and hasattr(server.made[-1], "transport") and count <= len(server.deadlines))
    return reader, writer, server.made[-1]


async def end_of(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.parametrize("at_accept", [True, False])
def test_a_client_hello_with_an_octet_more_or_less(tls: Tls, at_accept: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Removed, put in or changed at any place, cut off there: the peer gets TLS's alert or nothing, never a reply."""

    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls, at_accept=at_accept)) as server:
            hello = Client(tls).hello()
            chance = random.Random(1)
            for at in [*range(48), *range(48, len(hello), 11)]:
                other = bytes([hello[at] ^ (1 << chance.randrange(8))])
                for spoilt in (
                    hello[:at] + hello[at + 1 :],
                    hello[:at] + b"\0" + hello[at:],
                    hello[:at] + other + hello[at + 1 :],
                    hello[:at],
                ):
                    reader, writer, connection = await connected(server)
                    if not at_accept:
                        connection.data_received(b"STARTTLS")
                    size = chance.choice((1, 7, 10_000))
                    for begin in range(0, len(spoilt), size):
                        connection.data_received(spoilt[begin : begin + size])
                    connection.eof_received()
                    answer = await end_of(reader)
                    assert answer[:1] in (b"", b"\x15", b"\x16"), answer  # an alert, a ServerHello
                    writer.close()
                    await until(lambda connection=connection: "lost" in connection.events)
                    assert connection.heard == b"" and "secured" not in connection.events
            assert not len(server.deadlines)

    caplog.set_level(logging.ERROR)
    run("uvloop", main)
    assert not caplog.records


def test_a_record_with_a_changed_octet_is_not_heard(tls: Tls) -> None:
    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls, at_accept=True)) as server:
            for at in range(5, 40, 2):
                reader, writer, connection = await connected(server)
                client = Client(tls)
                connection.data_received(client.hello())
                await client.finish(reader, connection)
                connection.data_received(client.record(b"first"))
                record = bytearray(client.record(b"QUIT\r\n"))
                record[min(at, len(record) - 1)] ^= 0x80
                connection.data_received(bytes(record) + client.record(b"third"))
                assert connection.heard == b"first"
                await end_of(reader)
                await until(lambda connection=connection: connection.events == ["opened", "lost"])
                writer.close()

    run("uvloop", main)


def test_nothing_is_heard_behind_close_notify(tls: Tls) -> None:
    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls, at_accept=True)) as server:
            reader, writer, connection = await connected(server)
            client = Client(tls)
            connection.data_received(client.hello())
            await client.finish(reader, connection)
            last = client.record(b"last")
            with pytest.raises(ssl.SSLWantReadError):
                client.session.unwrap()
            connection.data_received(last + client.outgoing.read() + b"\x17\x03\x03\x00\x05QUIT\r")
            assert connection.heard == b"last"
            await end_of(reader)
            await until(lambda: connection.events == ["opened", "eof", "lost"])
            writer.close()

    run("uvloop", main)


def test_an_end_without_close_notify_is_an_end(tls: Tls) -> None:
    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls, at_accept=True)) as server:
            reader, writer, connection = await connected(server)
            client = Client(tls)
            connection.data_received(client.hello())
            await client.finish(reader, connection)
            record = client.record(b"half of a record")
            connection.data_received(record[:-3])
            writer.write_eof()
            await end_of(reader)
            await until(lambda: connection.events == ["opened", "eof", "lost"])
            assert connection.heard == b""
            writer.close()

    run("uvloop", main)


# Clients that talk to TLS only ----------------------------------------------------------------------------------------


class OpenSsl:
    """A client made of libssl's own functions, for what Python's ssl module does not offer."""

    def __init__(self, method: bytes = b"TLS_client_method") -> None:
        ssl_name, crypto_name = ctypes.util.find_library("ssl"), ctypes.util.find_library("crypto")
        if ssl_name is None or crypto_name is None:
            pytest.skip("libssl is not installed")
        self.ssl, crypto = ctypes.CDLL(ssl_name), ctypes.CDLL(crypto_name)
        if not hasattr(self.ssl, "SSL_key_update"):
            pytest.skip("this libssl has no TLS 1.3")
        pointer = ctypes.c_void_p
        for function in (self.ssl.SSL_CTX_new, self.ssl.SSL_new, self.ssl.TLS_client_method):
            function.restype = pointer
        for function in (crypto.BIO_new, crypto.BIO_s_mem):
            function.restype = pointer
        self._crypto = crypto
        self._incoming, self._outgoing = (pointer(crypto.BIO_new(pointer(crypto.BIO_s_mem()))) for _ in range(2))
        self.context = pointer(self.ssl.SSL_CTX_new(pointer(self.ssl.TLS_client_method())))
        self.session = pointer(self.ssl.SSL_new(self.context))
        self.ssl.SSL_set_bio(self.session, self._incoming, self._outgoing)
        self.ssl.SSL_set_connect_state(self.session)

    def take(self) -> bytes:
        buffer = ctypes.create_string_buffer(65536)
        size = self._crypto.BIO_read(self._outgoing, buffer, len(buffer))
        return buffer.raw[:size] if size > 0 else b""

    def handshake(self, answers: bytes = b"") -> bytes:
        self._crypto.BIO_write(self._incoming, answers, len(answers))
        self.ssl.SSL_do_handshake(self.session)
        return self.take()

    @property
    def done(self) -> bool:
        return bool(self.ssl.SSL_is_init_finished(self.session))

    def key_update(self) -> bytes:
        """Asks for one in return (RFC 8446 §4.6.3)."""
        self.ssl.SSL_key_update(self.session, 1)
        return self.handshake()

    def say(self, text: bytes) -> bytes:
        self.ssl.SSL_write(self.session, text, len(text))
        return self.take()


async def openssl_connected(server: Server) -> tuple[OpenSsl, asyncio.StreamReader, asyncio.StreamWriter, Echo]:
    reader, writer, connection = await connected(server)
    client = OpenSsl()
    connection.data_received(client.handshake())
    while not client.done:
        connection.data_received(client.handshake(await reader.read(65536)))
    return client, reader, writer, connection


def test_key_updates_without_end(tls: Tls) -> None:
    """Each makes TLS answer; whoever sends nothing else is dropped before that costs memory or others' time."""

    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls, at_accept=True)) as server:
            client, _, writer, connection = await openssl_connected(server)
            flood = b"".join(client.key_update() for _ in range(9000))
            begin = time.process_time()
            connection.data_received(flood)
            assert time.process_time() - begin < 0.25
            assert connection.is_closing
            await until(lambda: connection.events == ["opened", "lost"])
            writer.close()

    run("uvloop", main)


def test_key_updates_of_a_client_that_talks(tls: Tls) -> None:
    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls, at_accept=True)) as server:
            client, _, writer, connection = await openssl_connected(server)
            for _ in range(1000):
                connection.data_received(client.key_update())
                connection.data_received(client.say(b"x"))
            assert connection.heard == b"x" * 1000
            writer.close()

    run("uvloop", main)


def test_no_renegotiation(tls: Tls) -> None:
    """RFC 9325 §3.5."""

    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls, at_accept=True)) as server:
            reader, writer, connection = await connected(server)
            client = OpenSsl()
            assert client.ssl.SSL_ctrl(client.session, 124, 0x0303, None)  # at most TLS 1.2
            connection.data_received(client.handshake())
            while not client.done:
                connection.data_received(client.handshake(await reader.read(65536)))
            connection.data_received(client.say(b"before"))
            assert client.ssl.SSL_renegotiate(client.session)
            hello = client.handshake()
            assert hello
            for _ in range(3):
                connection.data_received(hello)
            connection.data_received(client.say(b"after"))
            assert connection.heard in (b"before", b"beforeafter")
            assert connection.tls_version == "TLSv1.2" or connection.is_closing
            writer.transport.abort()
            await until(lambda: "lost" in connection.events)

    run("uvloop", main)


# Floods ---------------------------------------------------------------------------------------------------------------


def test_a_handshake_that_comes_octet_by_octet_costs_no_memory(tls: Tls) -> None:
    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls, at_accept=True)) as server:
            _, writer, connection = await connected(server)
            tracemalloc.start()
            connection.data_received(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03\x03")  # a hello of 16 KiB
            for _ in range(20_000):
                connection.data_received(b"\0")
            assert tracemalloc.get_traced_memory()[0] < 100_000
            tracemalloc.stop()
            assert connection.events in ([], ["lost"])
            server.deadlines.sweep(time.monotonic() + module.HANDSHAKE_SECONDS + 1)
            await until(lambda: connection.events == ["lost"])
            writer.close()

    run("uvloop", main)


class Limited(Echo):
    def __init__(self, deadlines: Deadlines, tls: Tls, counter: Any) -> None:
        super().__init__(deadlines, tls)
        self.counter = counter

    def admit(self) -> bytes | None:
        return None if self.counter.admit(self.peer[0]) else b"421 full\r\n"

    def opened(self) -> None:
        super().opened()
        self.write(b"220 hello\r\n")

    def lost(self) -> None:
        super().lost()
        self.counter.release(self.peer[0])


def test_hundreds_of_connections_at_once(loop: str, tls: Tls) -> None:
    """All are answered, those within the bound served, and what was turned away leaves nothing behind."""

    async def main() -> None:
        counter = Limits().connections(1000, 50)
        async with Server(lambda deadlines: Limited(deadlines, tls, counter)) as server:
            pairs = await asyncio.gather(*[server.connect() for _ in range(300)])
            greetings = [await reader.readline() for reader, _ in pairs]
            assert sorted(set(greetings)) == [b"220 hello\r\n", b"421 full\r\n"]
            assert greetings.count(b"220 hello\r\n") == 50 == counter.open == len(server.deadlines)
            assert {
                await reader.read() for (reader, _), got in zip(pairs, greetings, strict=True) if got[:1] == b"4"
            } == {b""}
            for _, writer in pairs:
                writer.close()
            await until(lambda: counter.open == 0)

    run(loop, main)


FEW_DESCRIPTORS = """
import asyncio, resource, socket, sys, uvloop
from mailserver.net.connection import Connection
from mailserver.net.deadlines import Deadlines
from mailserver.net.limits import Limits
from mailserver.net.listener import Listener

resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
deadlines, counter = Deadlines(), Limits(["127.0.0.0/8"]).connections(10**6, 10**6)

class Greeter(Connection):
    __slots__ = ()
    def admit(self): return None if counter.admit(self.peer[0]) else b"421 full\\r\\n"
    def opened(self): self.write(b"220 hello\\r\\n"); self.allow(100)
    def received(self, data): self.write(data)
    def lost(self): counter.release(self.peer[0])

async def main():
    await Listener([socket.socket(fileno=int(sys.argv[2]))], lambda: Greeter(deadlines)).start()
    print("ready", flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


def test_when_descriptors_run_out_clients_are_turned_away_clearly() -> None:
    """Half of so few are kept back: refusals need one too. Who was let in is served, and others are again, later."""
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 256
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        command = [sys.executable, "-c", FEW_DESCRIPTORS, "80", str(listening.fileno())]
        process = subprocess.Popen(command, pass_fds=[listening.fileno()], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            clients = [socket.create_connection(listening.getsockname(), timeout=20) for _ in range(100)]
            greetings = [client.recv(100) for client in clients]
            assert greetings == [b"220 hello\r\n"] * 40 + [b"421 full\r\n"] * 60
            clients[0].sendall(b"still here")
            assert clients[0].recv(100) == b"still here"
            for client in clients:
                client.close()
            deadline = time.monotonic() + 20
            while True:
                with socket.create_connection(listening.getsockname(), timeout=20) as client:
                    if client.recv(100) == b"220 hello\r\n":
                        break
                assert time.monotonic() < deadline
        finally:
            process.kill()
            process.wait()
