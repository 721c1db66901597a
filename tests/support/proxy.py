"""Proxies between the program and its services that break what networks and servers break.

    Proxy          any protocol on 127.0.0.1: passes octets on, holds them back, refuses, cuts
    PostgresProxy  reads PostgreSQL's messages (Protocol 3.0) and breaks a connection at one chosen step

Octets that are held are neither lost nor reordered: when the network heals they arrive, as TCP would have it. A proxy
works in a thread of its own, so that it serves tests with and without a loop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

T = TypeVar("T")

_CHUNK = 65_536
_SECONDS = 30

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
    """One connection through a proxy."""

    def __init__(self, client: Streams, server: Streams) -> None:
        self.client_reader, self.client = client
        self.server_reader, self.server = server

    def cut(self) -> None:
        for writer in (self.client, self.server):
            if not writer.is_closing():
                writer.transport.abort()


class Proxy:
    """Listens on a free port of 127.0.0.1 and connects to the unix socket `upstream` for each connection."""

    def __init__(self, upstream: Path) -> None:
        self.upstream = upstream
        self.port = 0
        self._open: asyncio.Event
        self._links: set[Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    # From any thread --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._thread.start()
        self._run(self._start())

    def stop(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    def hold(self) -> None:
        """From now on no octet arrives, in either direction, and nothing says so."""
        self._call(self._open.clear)

    def heal(self) -> None:
        """Everything passes again, first of all what was held."""
        self._run(self._listen())
        self._call(self._open.set)

    def cut(self) -> None:
        """Breaks all connections; those that come afterwards are served."""
        self._call(self._cut)

    def refuse(self) -> None:
        """Breaks all connections and takes no others, as a server does that is down."""
        self._call(self._server.close)
        self.cut()

    # In the proxy's loop ----------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    def _call(self, function: Callable[[], None]) -> None:
        async def call() -> None:
            function()

        self._run(call())

    async def _start(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _listen(self) -> None:
        if not self._server.is_serving():
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 24)

    async def _stop(self) -> None:
        self._server.close()
        self._cut()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _cut(self) -> None:
        for link in list(self._links):
            link.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_unix_connection(str(self.upstream), limit=1 << 24)
        except OSError:
            writer.transport.abort()
            return
        link = Link((reader, writer), server)
        self._links.add(link)
        pumps = [asyncio.ensure_future(self._upwards(link)), asyncio.ensure_future(self._downwards(link))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(pumps[1:], timeout=0.2)  # what the server still had to say
        except asyncio.CancelledError:
            pass  # the proxy stops; the streams' own callback would complain
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._links.discard(link)
            for end in (link.client, link.server):
                end.close()

    async def _upwards(self, link: Link) -> None:
        await self._pump(link.client_reader, link.server)

    async def _downwards(self, link: Link) -> None:
        await self._pump(link.server_reader, link.client)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._open.wait()
            writer.write(data)
            await writer.drain()


How = Literal["before", "sent", "after", "halfway", "stalled", "hung", "killed", "fatal", "rollback"]
"""What happens to the message of a step.

before    the connection breaks and the server never sees it
sent      it is on its way to the server when the connection breaks
after     the server has carried it out, its answer is lost with the connection
halfway   the same, but all of the answer arrives except its end, ReadyForQuery
stalled   it never arrives, and nobody closes anything
hung      it is carried out, and its answer never arrives
killed    the backend is ended (SIGTERM, as pg_terminate_backend does) and says so, before it sees the message
fatal     it is carried out, and the answer is a FATAL error
rollback  ROLLBACK is carried out in its place, and answered so
"""


@dataclass
class Fault:
    """Breaks the step number `step`, counted from the first message that holds `marker` (which is step 0).

    broke: what the step was, once it has happened.
    """

    step: int
    how: How
    marker: bytes = b"BEGIN"
    broke: bytes = b""


@dataclass
class Watch:
    """The steps of one connection from the marker on: messages that ask for an answer (Query, Sync, Flush)."""

    marker: bytes
    link: Link | None = None
    texts: list[bytes] = field(default_factory=list)
    pieces: bytes = b""


class PostgresProxy(Proxy):
    """`arm` chooses what breaks, once for each fault in turn; `watch` tells what steps there are."""

    def __init__(self, upstream: Path) -> None:
        super().__init__(upstream)
        self._faults: list[Fault] = []
        self._watch: Watch | None = None
        self._pids: dict[Link, int] = {}
        self._spoilt: dict[Link, tuple[How, bytes]] = {}

    def dsn_of(self, dsn: str) -> str:
        """How to reach through the proxy what a DSN with a socket names."""
        parts = urlsplit(dsn)
        (user,) = parse_qs(parts.query)["user"]
        return f"postgresql://{user}@127.0.0.1:{self.port}{parts.path}?sslmode=disable"

    def announce_the_end(self) -> None:
        """All clients are told that their connection is ended (FATAL); nothing more is said, and it stays open."""

        def announce() -> None:
            for link in self._links:
                self._spoilt[link] = ("hung", b"")
                link.client.write(_FATAL)

        self._call(announce)

    def arm(self, *faults: Fault) -> None:
        """The next fault counts from when the one before it has happened."""

        def arm() -> None:
            self._faults = list(faults)
            self._watch = Watch(faults[0].marker)

        self._call(arm)

    def watch(self, marker: bytes = b"BEGIN") -> Watch:
        watch = Watch(marker)

        def begin() -> None:
            self._faults = []
            self._watch = watch

        self._call(begin)
        return watch

    @property
    def armed(self) -> int:
        """How many faults have not happened yet."""
        return len(self._faults)

    def disarm(self) -> int:
        """How many faults have not happened, and will not."""
        left, self._faults, self._watch = len(self._faults), [], None
        return left

    # What the client says ---------------------------------------------------------------------------------------------

    async def _upwards(self, link: Link) -> None:
        await self._pass_startup(link)
        async for kind, octets in _messages(link.client_reader):
            await self._open.wait()
            fault = self._due(link, kind, octets)
            if fault is not None and fault.how != "rollback":
                await self._break(link, fault, kind, octets)
                return
            link.server.write(octets if fault is None else _query("ROLLBACK"))
            await link.server.drain()

    async def _pass_startup(self, link: Link) -> None:
        """SSLRequest, StartupMessage, CancelRequest: they have no type octet."""
        while True:
            (length,) = struct.unpack("!i", head := await link.client_reader.readexactly(4))
            body = await link.client_reader.readexactly(length - 4)
            await self._open.wait()
            link.server.write(head + body)
            if body[:2] == b"\0\3":
                return

    def _due(self, link: Link, kind: bytes, octets: bytes) -> Fault | None:
        watch = self._watch
        if watch is None or (watch.link is not None and watch.link is not link):
            return None
        watch.pieces += octets if kind in b"QP" else b""
        if watch.link is None:
            if watch.marker not in octets:
                return None
            watch.link = link
        if kind not in b"QSH":
            return None
        watch.texts.append(watch.pieces)
        watch.pieces = b""
        if not self._faults or len(watch.texts) - 1 < self._faults[0].step:
            return None
        fault = self._faults.pop(0)
        fault.broke = watch.texts[-1]
        self._watch = Watch(self._faults[0].marker) if self._faults else None
        return fault

    async def _break(self, link: Link, fault: Fault, kind: bytes, octets: bytes) -> None:
        match fault.how:
            case "before":
                link.cut()
            case "killed":
                os.kill(self._pids[link], signal.SIGTERM)
                await asyncio.sleep(_SECONDS)
            case "stalled":
                await link.client_reader.read()  # until the client gives up
            case "sent":
                link.server.write(octets)
                await link.server.drain()
                link.cut()
            case "after" | "halfway" | "hung" | "fatal":
                self._spoilt[link] = (fault.how, b"TnE" if kind == b"H" else b"Z")
                link.server.write(octets)
                await link.client_reader.read()

    # What the server says ---------------------------------------------------------------------------------------------

    async def _downwards(self, link: Link) -> None:
        while await self._pass_answer(link):
            pass

    async def _pass_answer(self, link: Link) -> bool:
        kind = await link.server_reader.read(1)
        if not kind:
            return False
        if kind == b"N":  # a notice, or the refusal of TLS, which has no length
            following = await link.server_reader.read(4) if link in self._pids else b""
        else:
            following = await link.server_reader.readexactly(4)
        body = b""
        if following:
            (length,) = struct.unpack("!i", following)
            body = await link.server_reader.readexactly(length - 4)
        if kind == b"K":
            self._pids[link] = struct.unpack("!i", body[:4])[0]
        await self._open.wait()
        if link in self._spoilt:
            return await self._spoil(link, kind, kind + following + body)
        link.client.write(kind + following + body)
        await link.client.drain()
        return True

    async def _spoil(self, link: Link, kind: bytes, octets: bytes) -> bool:
        """One message of an answer that must not arrive whole."""
        how, last = self._spoilt[link]
        if kind not in last:
            if how == "halfway":
                link.client.write(octets)
                await link.client.drain()
            return True
        if how == "hung":
            return True
        if how == "fatal":
            link.client.write(_FATAL)
            await link.client.drain()
        return False


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bytes]]:
    """Type and octets of each message, until the end."""
    while head := await reader.read(1):
        length = await reader.readexactly(4)
        body = await reader.readexactly(struct.unpack("!i", length)[0] - 4)
        yield head, head + length + body


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _query(text: str) -> bytes:
    return _message(b"Q", text.encode() + b"\0")


_FATAL = _message(b"E", b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0")


@contextmanager
def running(proxy: Proxy) -> Iterator[Any]:
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
