"""An IMAP server on a real store and socket in the test's own loop, and clients that speak from transcripts.

    C: a1 NOOP              what a client sends, with CRLF
    S: a1 OK …              what it must then read, line by line; … stands for anything
    2C: b1 NOOP             a second connection, made when it is first named

A slash stands for the separator of mailbox names, which is another one in tests marked with `both_separators`.

Whoever speaks first is greeted and logs in by the transcript itself, or by `logged_in` beforehand.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from config.schema import Config
from mailserver import passwords
from mailserver.imap.service import Service
from mailserver.imap.session import Session
from mailserver.login import Logins
from mailserver.net.deadlines import Deadlines
from mailserver.net.limits import Limits
from mailserver.net.listener import Listener
from mailserver.net.sessions import Sessions
from mailserver.net.tls import Certificates, make_self_signed
from storage import Store, accounts, domains
from storage.clock import Stamps

PATIENCE = 10.0
_LINE = re.compile(r"(\d*)([CS]): ?(.*)")


class Memory:
    """The worker's memory for messages being received."""

    def __init__(self, octets: int) -> None:
        self.left = octets

    def take(self, octets: int) -> bool:
        if octets > self.left:
            return False
        self.left -= octets
        return True

    def give(self, octets: int) -> None:
        self.left += octets


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chunk: int) -> None:
        self.reader, self.writer, self.chunk = reader, writer, chunk

    async def send(self, data: bytes) -> None:
        step = self.chunk or len(data)
        for at in range(0, len(data), step):
            self.writer.write(data[at : at + step])
            if self.chunk:
                await asyncio.sleep(0)
        await self.writer.drain()

    async def line(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return (await self.reader.readline()).decode("latin-1").removesuffix("\r\n")

    async def ask(self, command: str) -> list[str]:
        """Sends a command with a tag of its own; the lines up to the tagged one, which must be OK."""
        await self.send(f"x {command}\r\n".encode("latin-1"))
        lines = [await self.line()]
        while not lines[-1].startswith("x "):
            assert lines[-1], lines
            lines.append(await self.line())
        assert lines[-1].startswith("x OK"), lines
        return lines

    async def silent(self, seconds: float = 0.2) -> None:
        """Nothing is said for so long."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                data = await self.reader.read(1)
                pytest.fail(f"unexpected: {data!r}")

    async def closed(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            return await self.reader.read() == b""

    def close(self) -> None:
        self.writer.close()


class Server:
    """One worker's IMAP on a port of loopback. `user` logs in with the password pw."""

    def __init__(self, store: Store, config: Config, certificates: Certificates) -> None:
        self.store, self.config, self.certificates = store, config, certificates
        self.limits = Limits(config.server.trusted_networks)
        self.logins = Logins(store, config.auth, self.limits)
        self.sessions = Sessions()
        self.deadlines = Deadlines()
        self.memory = Memory(64 << 20)
        self.service = Service(
            config,
            store,
            self.logins,
            limits=self.limits,
            sessions=self.sessions,
            deadlines=self.deadlines,
            memory=self.memory,
            tls=certificates.server_context,
        )
        self.made: list[Session] = []
        self.chunk = 0
        self.separator = config.mail.separator
        self._clients: list[Client] = []

    async def start(self) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.port, self.tls_port = (sock.getsockname()[1] for sock in self._sockets)
        self._listeners = [
            Listener(self._sockets[:1], self._plain),
            Listener(self._sockets[1:], lambda: Session(self.service, self.certificates.server_context())),
        ]
        for listener in self._listeners:
            await listener.start()
        self.deadlines.start()

    def _plain(self) -> Session:
        session = Session(self.service)
        self.made.append(session)
        return session

    async def stop(self) -> None:
        for client in self._clients:
            client.close()
        for listener in self._listeners:
            listener.close()
        for member in self.deadlines:
            member.abort()
        async with asyncio.timeout(PATIENCE):
            while self.deadlines or self.sessions.accounts():
                await asyncio.sleep(0.001)
        self.deadlines.stop()
        self.logins.close()

    async def connect(self, *, slow: bool = False) -> Client:
        """slow: little is received before somebody reads it."""
        sock = socket.socket()
        if slow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=16_384 if slow else 1 << 26)
        client = Client(reader, writer, self.chunk)
        self._clients.append(client)
        return client

    async def logged_in(self, user: str = "alice", *, slow: bool = False) -> Client:
        client = await self.connect(slow=slow)
        await client.line()
        await client.ask(f"LOGIN {user} pw")
        return client

    async def play(self, transcript: str, *clients: Client) -> list[Client]:
        """Plays a transcript; `clients` are those named 1, 2, … in it (no number is 1)."""
        known = dict(enumerate(clients, 1))
        for raw in transcript.strip().splitlines():
            if not raw.strip():
                continue
            number, who, text = _LINE.fullmatch(raw.strip()).groups()  # type: ignore[union-attr]
            text = text.replace("/", self.separator)
            key = int(number or 1)
            if key not in known:
                known[key] = await self.connect()
            if who == "C":
                await known[key].send(text.encode() + b"\r\n")
            else:
                line = await known[key].line()
                pattern = ".*".join(re.escape(part.encode().decode("latin-1")) for part in text.split("…"))
                assert re.fullmatch(pattern, line.rstrip(" ")), f"expected {text!r}, got {line!r}"
        return [known[key] for key in sorted(known)]


async def opened(dsn: str, folder: Path, worker: int = 0, stamps: Stamps | None = None, **settings: Any) -> Store:
    """A store as one of the workers opens it, its blobs in the folder; stamps: those of its node."""
    config = Config()
    return await Store.open(
        config.storage.model_copy(update=settings),
        mail=config.mail,
        dsn=dsn,
        redis_url=None,
        blobs=str(folder / "blobs"),
        install_key=b"i" * 32,
        master_key=b"m" * 32,
        worker=f"worker {worker}",
        stamps=stamps,
    )


async def add_accounts(store: Store, *names: str) -> None:
    """Accounts of example.org, password pw."""
    await domains.add(store, "example.org")
    hashed = passwords.Hasher(64, 1).hash("pw")
    for name in names:
        await accounts.add(store, None, f"{name}@example.org", hashed)


OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
async def open_store(database: str, tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens stores on one database, as so many workers."""
    stores: list[Store] = []

    async def open_one(dsn: str = database, **settings: Any) -> Store:
        stores.append(await opened(dsn, tmp_path, len(stores), **settings))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imap")
    (folder / "tls").mkdir()
    make_self_signed(folder / "tls/server.crt", folder / "tls/server.key", ["localhost"])
    return folder


@asynccontextmanager
async def running(store: Store, certificate: Path, **sections: dict[str, Any]) -> AsyncIterator[Server]:
    settings: dict[str, Any] = {"server": {"insecure_loopback_auth": True}, "auth": {"argon2_memory_kib": 64}}
    for section, values in sections.items():
        settings[section] = {**settings.get(section, {}), **values}
    config = Config(**settings)
    server = Server(store, config, Certificates(config.tls, certificate))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    """alice and bob @example.org, password pw."""
    store = await open_store()
    await add_accounts(store, "alice", "bob")
    return store


@pytest.fixture
async def server(request: pytest.FixtureRequest, store: Store, certificate: Path) -> AsyncIterator[Server]:
    async with running(store, certificate, mail={"separator": getattr(request, "param", "/")}) as server:
        yield server


both_separators = pytest.mark.parametrize("server", ["/", "."], indirect=True)


@pytest.fixture(params=[0, 1], ids=["whole", "byte by byte"])
def cut(request: pytest.FixtureRequest, server: Server) -> None:
    """Clients send what they have at once, or octet by octet."""
    server.chunk = request.param
