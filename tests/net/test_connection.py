"""Connections on real sockets: clear, TLS at accept, STARTTLS; both event loops."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable

import pytest

from mailserver.net import connection as module
from mailserver.net.connection import Connection
from mailserver.net.deadlines import Deadlines
from tests.net.tools import Server, Tls, run


class Echo(Connection):
    """Lines are answered by themselves; a few words do something else."""

    def __init__(self, deadlines: Deadlines, context: ssl.SSLContext | None = None) -> None:
        super().__init__(deadlines, context)
        self.context: ssl.SSLContext | None = None
        self.input = b""
        self.events: list[str] = []

    def opened(self) -> None:
        self.events.append("opened")
        self.allow(100)
        self.write(b"hello\r\n")

    def received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.input += data
        while b"\n" in self.input:
            line, _, self.input = self.input.partition(b"\n")
            self.command(line.strip())

    def command(self, line: bytes) -> None:
        match line:
            case b"STARTTLS":
                self.input = b""
                self.write(b"go ahead\r\n")
                assert self.context is not None
                self.start_tls(self.context)
            case b"QUIT":
                self.write(b"bye\r\n")
                self.close()
            case b"LINGER":
                self.write(b"enough\r\n")
                self.close(linger=True)
            case b"BUG":
                raise RuntimeError("a bug in a hook")
            case b"VERSION":
                self.write(f"{self.secure} {self.tls_version}\r\n".encode())
            case _:
                self.write(line + b"\r\n")

    def secured(self) -> None:
        self.events.append("secured")

    def eof(self) -> None:
        self.events.append("eof")
        self.write(b"eof seen\r\n")
        self.close()

    def writable(self) -> None:
        self.events.append("writable")

    def timed_out(self) -> None:
        self.events.append("timed out")
        self.write(b"too slow\r\n")
        self.close()

    def lost(self) -> None:
        self.events.append("lost")


def starttls(tls: Tls) -> Callable[[Deadlines], Echo]:
    def make(deadlines: Deadlines) -> Echo:
        echo = Echo(deadlines)
        echo.context = tls.server
        return echo

    return make


async def until(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.005)


def test_clear_dialogue(loop: str) -> None:
    async def main() -> None:
        async with Server(Echo) as server:
            reader, writer = await server.connect()
            assert await reader.readline() == b"hello\r\n"
            writer.write(b"one\r\ntwo\r\nQUIT\r\nnot answered\r\n")
            assert await reader.read() == b"one\r\ntwo\r\nbye\r\n"
            connection = server.made[0]
            await until(lambda: connection.events == ["opened", "lost"])
            assert connection.peer == writer.get_extra_info("sockname")
            assert not len(server.deadlines)
            writer.close()

    run(loop, main)


def test_addresses_of_both_families(loop: str) -> None:
    async def main(host: str) -> None:
        async with Server(Echo, host) as server:
            reader, writer = await server.connect()
            await reader.readline()
            assert server.made[0].peer == writer.get_extra_info("sockname")[:2]
            assert server.made[0].local == (host, server.port)
            writer.close()

    run(loop, lambda: main("127.0.0.1"))
    run(loop, lambda: main("::1"))


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("192.0.2.1", 25), ("192.0.2.1", 25)),
        (("::ffff:192.0.2.1", 25, 0, 0), ("192.0.2.1", 25)),
        (("fe80::1%eth0", 25, 0, 2), ("fe80::1", 25)),
        (("2001:db8::ffff:1", 25, 0, 0), ("2001:db8::ffff:1", 25)),
        ("/run/socket", ("", 0)),
        (None, ("", 0)),
    ],
)
def test_address_forms(name: object, address: tuple[str, int]) -> None:
    assert module._address(name) == address


def test_half_closed_client_gets_its_answers(loop: str) -> None:
    async def main() -> None:
        async with Server(Echo) as server:
            reader, writer = await server.connect()
            writer.write(b"one\r\ntwo\r\n")
            writer.write_eof()
            assert await reader.read() == b"hello\r\none\r\ntwo\r\neof seen\r\n"
            await until(lambda: server.made[0].events == ["opened", "eof", "lost"])
            writer.close()

    run(loop, main)


def test_bug_in_a_hook_ends_only_its_connection(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Server(Echo) as server:
            other_reader, other_writer = await server.connect()
            reader, writer = await server.connect()
            await reader.readline()
            await other_reader.readline()
            writer.write(b"BUG\r\n")
            with pytest.raises(ConnectionResetError):
                assert await reader.read() == b""
                raise ConnectionResetError  # closed or reset, both are right
            await until(lambda: server.made[1].events == ["opened", "lost"])
            other_writer.write(b"still here\r\n")
            assert await other_reader.readline() == b"still here\r\n"
            other_writer.close()

    run(loop, main)
    assert "a bug in a hook" in caplog.text


def test_turned_away_at_accept(loop: str) -> None:
    class Full(Echo):
        def admit(self) -> bytes | None:
            return b"full\r\n"

    async def main() -> None:
        async with Server(Full) as server:
            reader, _writer = await server.connect()
            assert await reader.read() == b"full\r\n"
            await asyncio.sleep(0.05)
            assert server.made[0].events == []
            assert not len(server.deadlines)

    run(loop, main)


def test_turned_away_before_tls_says_nothing_in_clear(loop: str, tls: Tls) -> None:
    class Full(Echo):
        def admit(self) -> bytes | None:
            return b"full\r\n"

    async def main() -> None:
        async with Server(lambda deadlines: Full(deadlines, tls.server)) as server:
            reader, _writer = await server.connect()
            assert await reader.read() == b""

    run(loop, main)


def test_last_reply_survives_unread_input(loop: str) -> None:
    async def main() -> None:
        async with Server(Echo) as server:
            client = socket.create_connection(("127.0.0.1", server.port))
            client.setblocking(False)
            inner = asyncio.get_running_loop()
            await inner.sock_sendall(client, b"LINGER\r\n" + b"x" * 300_000)
            got = b""
            while chunk := await inner.sock_recv(client, 1000):
                got += chunk
                await asyncio.sleep(0.02)
                try:
                    await inner.sock_sendall(client, b"more\r\n")
                except BrokenPipeError:
                    break
            assert got == b"hello\r\nenough\r\n"
            client.close()
            await until(lambda: server.made[0].events == ["opened", "lost"])

    run(loop, main)


def test_lingering_ends_by_itself(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.0)

    async def main() -> None:
        async with Server(Echo) as server:
            reader, writer = await server.connect()
            writer.write(b"LINGER\r\n")
            assert await reader.read() == b"hello\r\nenough\r\n"
            server.deadlines.sweep(time.monotonic() + 1)
            await until(lambda: server.made[0].events == ["opened", "lost"])
            writer.close()

    run(loop, main)


def test_tls_at_accept(loop: str, tls: Tls) -> None:
    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls.server)) as server:
            reader, writer = await server.connect(tls.client)
            assert await reader.readline() == b"hello\r\n"
            writer.write(b"VERSION\r\n")
            assert await reader.readline() == b"True TLSv1.3\r\n"
            big = os.urandom(150_000).hex().encode()
            writer.write(big + b"\r\nQUIT\r\n")
            assert await reader.readexactly(len(big) + 2) == big + b"\r\n"
            assert await reader.read() == b"bye\r\n"  # ends by close_notify, else an SSLError is raised
            writer.close()
            await until(lambda: server.made[0].events == ["opened", "lost"])

    run(loop, main)


def blocking_dialogue(port: int, client: ssl.SSLContext, piece: int) -> list[bytes]:
    """STARTTLS by the ssl module's own memory BIOs, so that each write to the socket can be cut into pieces."""
    answers = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers.append(sock.recv(100))
        sock.sendall(b"STARTTLS\r\n")
        answers.append(sock.recv(100))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost")

        def pump(step: Callable[[], object]) -> object:
            while True:
                try:
                    result = step()
                except ssl.SSLWantReadError:
                    result = None
                data = outgoing.read()
                for at in range(0, len(data), piece):
                    sock.sendall(data[at : at + piece])
                if result is not None:
                    return result
                incoming.write(sock.recv(65536))

        pump(lambda: tls.do_handshake() or True)
        pump(lambda: tls.write(b"VERSION\r\n"))
        answers.append(pump(lambda: tls.read(100)))
        pump(lambda: tls.write(b"QUIT\r\n"))
        answers.append(pump(lambda: tls.read(100)))
    return answers


@pytest.mark.parametrize("piece", [1, 7, 100_000])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_starttls_in_pieces(loop: str, tls: Tls, piece: int, version: ssl.TLSVersion) -> None:
    client = ssl.create_default_context(cafile=str(tls.certificate))
    client.minimum_version = client.maximum_version = version

    async def main() -> None:
        async with Server(starttls(tls)) as server:
            answers = await asyncio.to_thread(blocking_dialogue, server.port, client, piece)
            expected = b"True TLSv1.3\r\n" if version is ssl.TLSVersion.TLSv1_3 else b"True TLSv1.2\r\n"
            assert answers == [b"hello\r\n", b"go ahead\r\n", expected, b"bye\r\n"]
            await until(lambda: server.made[0].events == ["opened", "secured", "lost"])

    run(loop, main)


def test_clear_text_behind_starttls_is_not_taken_for_a_handshake(loop: str, tls: Tls) -> None:
    async def main() -> None:
        async with Server(starttls(tls)) as server:
            reader, writer = await server.connect()
            writer.write(b"STARTTLS\r\n")
            assert await reader.readline() == b"hello\r\n"
            assert await reader.readline() == b"go ahead\r\n"
            writer.write(b"injected\r\n" * 3)
            rest = await reader.read()
            assert b"injected" not in rest
            await until(lambda: server.made[0].events == ["opened", "lost"])
            writer.close()

    run(loop, main)


def test_clear_text_in_the_same_packet_as_starttls_is_dropped(loop: str, tls: Tls) -> None:
    async def main() -> None:
        async with Server(starttls(tls)) as server:
            reader, writer = await server.connect()
            writer.write(b"STARTTLS\r\ninjected\r\n")
            assert await reader.readline() == b"hello\r\n"
            assert await reader.readline() == b"go ahead\r\n"
            await writer.start_tls(tls.client, server_hostname="localhost")
            writer.write(b"VERSION\r\n")
            assert await reader.readline() == b"True TLSv1.3\r\n"
            writer.close()

    run("asyncio" if loop == "uvloop" else loop, main)  # the client's own start_tls is asyncio's here


@pytest.mark.parametrize("form", [["-starttls", "smtp"], []])
def test_openssl_client(loop: str, tls: Tls, form: list[str]) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    class Smtp(Echo):
        def opened(self) -> None:
            self.write(b"220 hello\r\n")
            self.allow(100)

        def command(self, line: bytes) -> None:
            if line.startswith(b"EHLO"):
                self.write(b"250-here\r\n250 STARTTLS\r\n")
            elif line == b"STARTTLS":
                self.write(b"220 go\r\n")
                self.start_tls(tls.server)
            else:
                super().command(line)

    def ask(port: int) -> str:
        # One command a write: openssl takes a leading Q for itself.
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(tls.certificate)]
        command += [
            "-verify_return_error",
            "-verify_hostname",
            "mail.example.org",
            "-crlf",
            "-ign_eof",
            "-brief",
            *form,
        ]
        return subprocess.run(command, input="VERSION\nQUIT\n", capture_output=True, text=True, timeout=20).stdout

    async def main() -> None:
        context = None if form else tls.server
        async with Server(lambda deadlines: Smtp(deadlines, context)) as server:
            answer = await asyncio.to_thread(ask, server.port)
            assert "True TLSv1.3" in answer
            assert "bye" in answer

    run(loop, main)


def test_close_notify_of_the_client_is_end_of_input(loop: str, tls: Tls) -> None:
    def ask(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = tls.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    incoming.write(sock.recv(65536))
            client.write(b"one\r\n")
            try:
                client.unwrap()
            except ssl.SSLWantReadError:
                pass
            sock.sendall(outgoing.read())
            got = b""
            while chunk := sock.recv(65536):
                got += chunk
            return got

    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls.server)) as server:
            assert await asyncio.to_thread(ask, server.port)
            await until(lambda: server.made[0].events == ["opened", "eof", "lost"])

    run(loop, main)


def test_rubbish_instead_of_a_handshake(loop: str, tls: Tls) -> None:
    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls.server)) as server:
            for rubbish in (b"EHLO client\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\0"):
                reader, writer = await server.connect()
                writer.write(rubbish)
                writer.write_eof()
                await reader.read()
                writer.close()
            await until(lambda: all(made.events == ["lost"] for made in server.made))

    run(loop, main)


class Producer(Echo):
    """Sends as much as it may without waiting, then the rest with drain()."""

    total = 40 * 1024 * 1024  # more than kernel and client take in unread
    most = 0

    def opened(self) -> None:
        self.allow(100)
        self.task = asyncio.ensure_future(self.produce())

    async def produce(self) -> None:
        piece = b"p" * 32768
        for _ in range(self.total // len(piece)):
            self.write(piece)
            self.most = max(self.most, self.transport.get_write_buffer_size())
            await self.drain()
        self.close()


@pytest.mark.parametrize("secure", [False, True])
def test_back_pressure(loop: str, tls: Tls, secure: bool) -> None:
    def read_late(port: int) -> int:
        total = 0
        with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
            stream = tls.client.wrap_socket(sock, server_hostname="localhost") if secure else sock
            time.sleep(0.3)
            while data := stream.recv(100_000):
                total += len(data)
            stream.close()
        return total

    async def main() -> None:
        async with Server(lambda deadlines: Producer(deadlines, tls.server if secure else None)) as server:
            assert await asyncio.to_thread(read_late, server.port) == Producer.total
            producer = server.made[0]
            await producer.task
            assert module.HIGH_WATER <= producer.most < module.HIGH_WATER + 2 * 32768 + 1000
            assert "writable" in producer.events

    run(loop, main)


def test_who_waits_in_drain_hears_of_the_loss(loop: str) -> None:
    async def main() -> None:
        async with Server(Producer) as server:
            _, writer = await server.connect()
            await until(lambda: bool(server.made) and server.made[0].blocked)
            writer.transport.abort()
            with pytest.raises(ConnectionResetError):
                await server.made[0].task
            with pytest.raises(ConnectionResetError):
                await server.made[0].drain()

    run(loop, main)


def test_who_ignores_back_pressure_is_dropped(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BACKLOG", 1_000_000)

    class Careless(Echo):
        sent = 0

        def opened(self) -> None:
            while not self.is_closing:
                self.write(b"c" * 50_000)
                self.sent += 50_000

    async def main() -> None:
        async with Server(Careless) as server:
            _, writer = await server.connect()
            await until(lambda: bool(server.made) and "lost" in server.made[0].events)
            assert server.made[0].sent < 10_000_000  # the kernel's buffers and ours
            writer.close()

    run(loop, main)


def test_pause_stops_reading(loop: str) -> None:
    class Counter(Echo):
        count = 0

        def received(self, data: bytes) -> None:
            self.count += len(data)
            self.pause()

    async def main() -> None:
        async with Server(Counter) as server:
            reader, writer = await server.connect()
            await reader.readline()
            counter = server.made[0]
            writer.write(b"a" * 1_000_000)
            await until(lambda: counter.count > 0)
            seen = counter.count
            await asyncio.sleep(0.05)
            assert counter.count == seen < 1_000_000
            while counter.count < 1_000_000:
                counter.resume()
                await asyncio.sleep(0.001)
            writer.close()

    run(loop, main)


def test_deadline(loop: str) -> None:
    async def main() -> None:
        async with Server(Echo) as server:
            reader, writer = await server.connect()
            await reader.readline()
            server.deadlines.sweep(time.monotonic())
            assert server.made[0].events == ["opened"]
            server.made[0].allow(0)
            server.deadlines.sweep(time.monotonic() + 0.001)
            assert await reader.read() == b"too slow\r\n"
            await until(lambda: server.made[0].events == ["opened", "timed out", "lost"])
            writer.close()

    run(loop, main)


def test_sweep_runs_by_itself(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mailserver.net.deadlines.SWEEP_SECONDS", 0.05)

    async def main() -> None:
        async with Server(Echo) as server:
            server.deadlines.start()
            reader, writer = await server.connect()
            await reader.readline()
            server.made[0].allow(0.1)
            assert await reader.read() == b"too slow\r\n"
            server.deadlines.stop()
            writer.close()

    run(loop, main)


def test_handshake_has_a_deadline(loop: str, tls: Tls) -> None:
    async def main() -> None:
        async with Server(lambda deadlines: Echo(deadlines, tls.server)) as server:
            reader, writer = await server.connect()
            await until(lambda: len(server.deadlines) == 1)
            server.deadlines.sweep(time.monotonic() + module.HANDSHAKE_SECONDS + 1)
            try:
                assert await reader.read() == b""
            except ConnectionResetError:
                pass
            await until(lambda: server.made[0].events == ["lost"])
            writer.close()

    run(loop, main)


def test_closing_has_a_deadline(loop: str) -> None:
    class Stubborn(Echo):
        def opened(self) -> None:
            self.write(b"s" * 20_000_000)  # more than kernel and client take in unread
            self.close()

    async def main() -> None:
        async with Server(Stubborn) as server:
            _, writer = await server.connect()
            await until(lambda: len(server.deadlines) == 1)
            server.deadlines.sweep(time.monotonic())
            await asyncio.sleep(0.05)
            assert server.made[0].events == []
            server.deadlines.sweep(time.monotonic() + module.CLOSE_SECONDS + 1)
            await until(lambda: server.made[0].events == ["lost"])
            writer.close()

    run(loop, main)


def test_idle_connections_own_little(tls: Tls) -> None:
    """An object without a dict, and without a buffer."""

    async def main() -> None:
        async with Server(Connection) as server:
            _, writer = await server.connect()
            await until(lambda: len(server.deadlines) == 1)
            connection = server.made[0]
            assert not hasattr(connection, "__dict__")
            slots = [getattr(connection, name, None) for name in Connection.__slots__]
            assert not any(isinstance(value, bytes | bytearray | memoryview) for value in slots)
            writer.close()

    run("uvloop", main)
