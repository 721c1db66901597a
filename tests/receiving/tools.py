"""A mail host for tests: the real store, SMTP listeners on loopback, and dialogues with them."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from config.schema import AuthConfig, Config, MailConfig, ServerConfig, SmtpConfig, TlsConfig
from mailserver.login import Logins
from mailserver.net.deadlines import Deadlines
from mailserver.net.limits import Limits
from mailserver.net.listener import Listener
from mailserver.net.sessions import Sessions
from mailserver.net.tls import Certificates, make_self_signed
from mailserver.receiving.mx_policy import MxPolicy
from mailserver.receiving.server import SmtpConnection
from mailserver.receiving.session import Receiving
from mailserver.receiving.submission_policy import SubmissionPolicy
from storage import INBOX, Account, Store, reader
from tests.support.rows import MessageRow, message_rows

PASSWORD = "correct horse"
SECONDS = 20


async def open_store(dsn: str, folder: Path, worker: str = "tests") -> Store:
    """A store on a database that has the schema, with blobs in a folder."""
    config = Config()
    return await Store.open(
        config.storage,
        mail=config.mail,
        dsn=dsn,
        redis_url=None,
        blobs=str(folder / "blobs"),
        install_key=b"i" * 32,
        master_key=b"m" * 32,
        worker=worker,
    )


class Host:
    """The SMTP side of a worker. Made by `hosting`."""

    def __init__(self, store: Store, config: Config, certificates: Certificates, trusted: tuple[str, ...]) -> None:
        self.store = store
        self.config = config
        self.limits = Limits(trusted)
        self.sessions = Sessions()
        self.deadlines = Deadlines()
        self.logins = Logins(store, config.auth, self.limits)
        self.receiving = Receiving(config, store, self.logins, self.limits, self.sessions, certificates, self.deadlines)
        self.client = ssl.create_default_context(cadata=certificates.read(config.tls).chain.decode())
        self.connections: list[SmtpConnection] = []
        mx, submission = MxPolicy(self.receiving), SubmissionPolicy(self.receiving)
        self._kinds = {"mx": (mx, False), "submission": (submission, False), "submissions": (submission, True)}
        self._ports: dict[str, int] = {}
        self._listeners: list[Listener] = []

    async def start(self) -> None:
        for kind, (policy, tls) in self._kinds.items():
            sock = socket.create_server(("127.0.0.1", 0))
            self._ports[kind] = sock.getsockname()[1]

            def make(policy: Any = policy, tls: bool = tls) -> SmtpConnection:
                self.connections.append(SmtpConnection(self.receiving, policy, tls=tls))
                return self.connections[-1]

            self._listeners.append(Listener([sock], make))
            await self._listeners[-1].start()

    async def stop(self) -> None:
        for listener in self._listeners:
            listener.close()
        for member in self.deadlines:
            member.abort()
        self.logins.close()
        await asyncio.sleep(0.01)

    def port(self, kind: str) -> int:
        return self._ports[kind]

    async def talk(self, kind: str = "mx") -> Talk:
        tls = self._kinds[kind][1]
        reader_, writer = await asyncio.open_connection(
            "127.0.0.1",
            self._ports[kind],
            ssl=self.client if tls else None,
            server_hostname="localhost" if tls else None,
            limit=2**20,
        )
        return Talk(self, reader_, writer)

    async def inbox(self, account: Account) -> list[bytes]:
        """The messages in the account's INBOX, each with its prefix."""
        return [await self.whole(account, row) for row in await self.rows(account)]

    async def rows(self, account: Account) -> list[MessageRow]:
        view = await self.store.views.open(account.account_id, INBOX)
        try:
            await view.refresh()
            ids = [entry.message_id for entry in view.snapshot.entries()]
        finally:
            view.close()
        found = await message_rows(self.store, account.account_id, ids)
        return [found[message_id] for message_id in ids]  # type: ignore[index]

    async def whole(self, account: Account, row: MessageRow) -> bytes:
        return await reader.read(self.store, account.account_id, row.message_id, row=row)


class Talk:
    """One connection, as a client sees it."""

    def __init__(self, host: Host, reader_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.host = host
        self.reader = reader_
        self.writer = writer

    def send(self, octets: bytes) -> None:
        self.writer.write(octets)

    async def reply(self) -> str:
        """The next reply, all its lines; "" at the end."""
        async with asyncio.timeout(SECONDS):
            lines = []
            while True:
                line = (await self.reader.readline()).decode()
                lines.append(line)
                if line[3:4] != "-":
                    return "".join(lines)

    async def ask(self, command: str | bytes) -> str:
        """Sends a command, and what came for it."""
        self.send(command if isinstance(command, bytes) else command.encode() + b"\r\n")
        return await self.reply()

    async def rest(self) -> str:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(SECONDS):
            return (await self.reader.read()).decode()

    async def start_tls(self) -> None:
        await self.writer.start_tls(self.host.client, server_hostname="localhost")

    async def hello(self) -> Talk:
        assert (await self.reply()).startswith("220 ")
        assert (await self.ask("EHLO client.example.net")).startswith("250")
        return self

    async def log_in(self, name: str = "alice", password: str = PASSWORD) -> Talk:
        from base64 import b64encode

        answer = await self.ask("AUTH PLAIN " + b64encode(f"\0{name}\0{password}".encode()).decode())
        assert answer.startswith("235"), answer
        return self

    async def envelope(self, sender: str, *recipients: str) -> None:
        assert (await self.ask(f"MAIL FROM:<{sender}>")).startswith("250")
        for recipient in recipients:
            assert (await self.ask(f"RCPT TO:<{recipient}>")).startswith("250")

    async def message(self, octets: bytes) -> str:
        """By DATA; the reply to the end of data."""
        assert (await self.ask("DATA")).startswith("354")
        return await self.ask(dotted(octets) + b".\r\n")

    def close(self) -> None:
        self.writer.close()


def dotted(octets: bytes) -> bytes:
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in octets.split(b"\r\n"))


@asynccontextmanager
async def hosting(
    store: Store,
    certificates: Certificates,
    *,
    trusted: tuple[str, ...] = (),
    clear: bool = True,
    mail: Any = None,
    **smtp: Any,
) -> AsyncIterator[Host]:
    """A running host; keyword arguments are settings of smtp, `mail` settings of mail."""
    config = Config(
        server=ServerConfig(hostname="mail.example.org", insecure_loopback_auth=clear),
        smtp=SmtpConfig(**smtp),
        mail=MailConfig(**(mail or {})),
        auth=AuthConfig(argon2_memory_kib=64, argon2_time=1),
    )
    host = Host(store, config, certificates, trusted)
    await host.start()
    try:
        yield host
    finally:
        await host.stop()


def certificates(folder: Any) -> Certificates:
    make_self_signed(folder / "tls" / "server.crt", folder / "tls" / "server.key", ["localhost", "127.0.0.1"])
    return Certificates(TlsConfig(), folder)


WAYS = ("line by line", "octet by octet", "at once")


async def dialogue(host: Host, script: str, kind: str = "mx", way: str = "line by line") -> None:
    """Plays a script of `C:` and `S:` lines. In a server's line `…` stands for anything; `S: <end>` is the close,
    `S: <hello>` a whole reply of several lines.

    At once: all of the client's lines are sent before any reply is read, as the rudest of pipelines does.
    """
    talk = await host.talk(kind)
    lines = [line.strip() for line in script.strip().splitlines() if line.strip()]
    sent = [line[3:] for line in lines if line.startswith("C:")]
    if way == "at once":
        talk.send("".join(line + "\r\n" for line in sent).encode())
    for line in lines:
        if line.startswith("C:"):
            await _say(talk, line[3:], way)
        else:
            await _expect(talk, line[3:])
    talk.close()


async def _say(talk: Talk, line: str, way: str) -> None:
    octets = line.encode() + b"\r\n"
    if way == "line by line":
        talk.send(octets)
    elif way == "octet by octet":
        for at in range(len(octets)):
            talk.send(octets[at : at + 1])
            await asyncio.sleep(0)


async def _expect(talk: Talk, pattern: str) -> None:
    if pattern == "<hello>":
        assert (await talk.reply()).startswith("250-")
        return
    async with asyncio.timeout(SECONDS):
        got = (await talk.reader.readline()).decode().rstrip("\r\n")
    if pattern == "<end>":
        assert got == "", got
    else:
        wanted = ".*".join(re.escape(part) for part in pattern.split("…"))
        assert re.fullmatch(wanted, got), f"wanted {pattern!r}, got {got!r}"


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not check():
            await asyncio.sleep(0.005)


async def answer(talk: Talk, octets: bytes) -> str:
    talk.send(octets)
    return await talk.reply()
