"""Clients that want to break a running server by connections: floods, floods of octets, silence, halves of things.

The server of these tests trusts nobody, so that its limits hold for 127.0.0.1 too. Clients come from several addresses
of the loopback network. Meanwhile a session from another address must be answered; how long that took at worst is
printed, the bound that is asserted is for a busy machine.
"""

from __future__ import annotations

import re
import resource
import selectors
import smtplib
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.server import DOMAIN, HOST, Account, Pillarbox, eventually

PER_ADDRESS = 50  # smtp.max_connections_per_address
WANTED = 10_000
BATCH = 500
LATE = 5.0


@pytest.fixture(scope="module")
def guarded(program: Path) -> Iterator[Pillarbox]:
    running = Pillarbox("guarded", PILLARBOX_SERVER__TRUSTED_NETWORKS="[]")
    try:
        running.start("--workers", "2")
        running.run("admin", "domain", "add", DOMAIN)
        running.add_accounts([Account(f"alice@{DOMAIN}", "correct horse 1")])
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module", autouse=True)
def many_descriptors() -> Iterator[int]:
    """As many as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(server: Pillarbox, address: str, standard: int = 25, *, buffer: int = 0) -> socket.socket:
    """buffer: octets that the client's side takes in unread, where it shall be few."""
    client = socket.socket()
    client.settimeout(30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    client.bind((address, 0))
    client.connect((HOST, server.port(standard)))
    return client


def line(client: socket.socket) -> bytes:
    found = b""
    while not found.endswith(b"\r\n"):
        octet = client.recv(1)
        if not octet:
            break
        found += octet
    return found


def rest(client: socket.socket) -> bytes:
    found = b""
    while data := client.recv(65536):
        found += data
    return found


class Bystander:
    """A session from an address of its own that is answered all the while; `worst` seconds for a NOOP."""

    def __init__(self, server: Pillarbox) -> None:
        self.client = connect(server, "127.0.0.9")
        assert line(self.client).startswith(b"220 ")
        self.worst, self.count, self.fault = 0.0, 0, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Bystander:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._stop.set()
        self._thread.join(60)
        self.client.close()
        assert not self.fault
        assert self.count
        print(f"NOOP {self.count} times, at worst {self.worst * 1000:.1f} ms")
        assert self.worst < LATE

    def _ask(self) -> None:
        while self.count == 0 or (self.count < 9_000 and not self._stop.wait(0.002)):
            begin = time.monotonic()
            self.client.sendall(b"NOOP\r\n")
            answer = line(self.client)
            if answer != b"250 2.0.0 OK\r\n":
                self.fault = repr(answer)
                return
            self.worst = max(self.worst, time.monotonic() - begin)
            self.count += 1


def resident_kib(server: Pillarbox) -> int:
    """Memory of all workers."""
    pids = server.processes()["worker"]
    status = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
    return sum(int(re.search(r"VmRSS:\s+(\d+)", text)[1]) for text in status)  # type: ignore[index]


@pytest.fixture
def bounded_memory(guarded: Pillarbox) -> Iterator[None]:
    """A test leaves the workers no larger than by 32 MiB."""
    before = resident_kib(guarded)
    yield
    grown = resident_kib(guarded) - before
    print(f"workers grew by {grown} KiB")
    assert grown < 32 * 1024


def flood(server: Pillarbox, count: int) -> tuple[list[socket.socket], Counter[bytes]]:
    """So many connections from one address, all kept open; what each was told first."""
    clients: list[socket.socket] = []
    told: Counter[bytes] = Counter()
    for _ in range(0, count, BATCH):
        with selectors.DefaultSelector() as waiting:
            for _ in range(BATCH):
                client = socket.socket()
                client.setblocking(False)
                client.bind(("127.0.0.1", 0))
                client.connect_ex((HOST, server.port(25)))
                waiting.register(client, selectors.EVENT_READ)
                clients.append(client)
            deadline = time.monotonic() + 60
            while waiting.get_map():
                assert time.monotonic() < deadline, "not everybody was answered"
                for key, _ in waiting.select(1):
                    client = key.fileobj  # type: ignore[assignment]
                    told[client.recv(200)[:4]] += 1
                    waiting.unregister(client)
    return clients, told


def test_ten_thousand_connections_from_one_address(
    guarded: Pillarbox, many_descriptors: int, bounded_memory: None, record_property: Callable[[str, object], None]
) -> None:
    """Those beyond the limit are refused with 421; others are served, and this address again when it has let go."""
    count = min(WANTED, (many_descriptors - 500) // BATCH * BATCH)
    if count < WANTED:
        print(f"only {count} connections: this process may have no more than {many_descriptors} descriptors")
    record_property("connections", count)
    with Bystander(guarded) as bystander:
        clients, told = flood(guarded, count)
        other = connect(guarded, "127.0.0.2")
        assert line(other).startswith(b"220 ")
        other.close()
    record_property("worst_noop_ms", round(bystander.worst * 1000, 1))
    assert told == {b"220 ": PER_ADDRESS, b"421 ": count - PER_ADDRESS}
    for client in clients:
        client.close()

    def served() -> bool:
        with connect(guarded, "127.0.0.1") as client:
            return line(client).startswith(b"220 ")

    eventually(served, 30, "the address is served again")


ATTACKS = {
    "a line of blanks": b"NOOP" + b" " * 250_000 + b"\x01\r\n",
    "long lines": (b"MAIL FROM:<" + b"a." * 2000 + b">\r\n") * 19,
    "a chunk of 4 GB": b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.test>\r\nBDAT 4294967295\r\n"
    + b"\n" * 10_000_000,
    "commands": b"HELP\r\n" * 9_000,
    "line feeds": b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.test>\r\nDATA\r\n" + b"\n" * 10_000_000,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_octets_without_sense(guarded: Pillarbox, name: str, bounded_memory: None) -> None:
    """And then half a close: everything is answered, and the last word is 421."""
    with Bystander(guarded), connect(guarded, "127.0.0.3") as client:
        reading = threading.Thread(target=lambda: answers.append(rest(client)))
        answers: list[bytes] = []
        reading.start()
        client.sendall(ATTACKS[name])
        client.shutdown(socket.SHUT_WR)
        reading.join(60)
    lines = answers[0].split(b"\r\n")
    assert lines.pop() == b""
    assert all(re.fullmatch(rb"[2-5]\d\d[ -][ -~]*", each) for each in lines)
    assert lines[-1].startswith(b"421 ")


def test_clients_that_never_read(guarded: Pillarbox, bounded_memory: None) -> None:
    """Their replies wait with them; no more is read from them than fits into a buffer."""
    clients = [connect(guarded, "127.0.0.4", buffer=4096) for _ in range(40)]
    with Bystander(guarded):
        for client in clients:
            client.settimeout(0.02)
            try:
                client.sendall(b"EHLO x\r\n" * 2_000_000)
            except TimeoutError:
                pass
    for client in clients:
        client.close()


def test_silence_of_every_kind(guarded: Pillarbox, bounded_memory: None) -> None:
    """Nothing at all, half a command, a chunk that does not come, half a handshake: all wait beside each other."""
    kinds = [
        b"",
        b"NO",
        b"HELO x\r\nBDAT 100000 LAST\r\n",
        b"EHLO x\r\nSTARTTLS\r\n",
        b"EHLO x\r\nSTARTTLS\r\n\x16\x03",
    ]
    clients = [connect(guarded, "127.0.0.5") for _ in range(40)]
    with Bystander(guarded):
        for number, client in enumerate(clients):
            client.sendall(kinds[number % len(kinds)])
        tls = [connect(guarded, "127.0.0.6", 465) for _ in range(40)]
        for client in tls[::2]:
            client.sendall(b"\x16\x03\x01\x02\x00\x01")
        with smtplib.SMTP_SSL(
            "localhost", guarded.port(465), context=guarded.tls(), timeout=30, local_hostname="x"
        ) as working:
            working.login("alice", "correct horse 1")
    for client in clients + tls:
        client.close()


def test_a_handshake_octet_by_octet(guarded: Pillarbox) -> None:
    with connect(guarded, "127.0.0.7", 465) as client:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = guarded.tls().wrap_bio(incoming, outgoing, server_hostname="localhost")

        def pump(step: Callable[[], object]) -> object:
            while True:
                try:
                    done = step() or True
                except ssl.SSLWantReadError:
                    done = None
                for octet in outgoing.read():
                    client.sendall(bytes([octet]))
                if done is not None:
                    return done
                incoming.write(client.recv(65536))

        pump(session.do_handshake)
        assert str(pump(lambda: session.read(1000))).startswith("b'220 ")
        pump(lambda: session.write(b"QUIT\r\n"))
        assert pump(lambda: session.read(1000)) == b"221 2.0.0 Bye\r\n"
