"""Connections of HTTP clients, counted: one too many is told so (not where that would take a handshake), and closed.

aiohttp itself bounds a head in its size, and in the time that it may take: a connection whose keep-alive time ends
before a whole head has come is closed. How many clients there are is not its question.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from aiohttp import web

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
_PAUSE_SECONDS = 1.0
"""After a failure to accept, as where no descriptor is free."""

_BODY = b'{"error": "too many connections"}'
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    b"Retry-After: 30\r\nConnection: close\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Counter(Protocol):
    def admit(self, address: str) -> bool:
        """Counts a connection, or not where it is one too many."""

    def release(self, address: str) -> None: ...


class CountedSite(web.SockSite):
    """One socket; its connections are counted from the moment they are accepted, before any TLS handshake."""

    __slots__ = ("counter",)

    counter: Counter

    async def start(self) -> None:
        await web.BaseSite.start(self)
        make = cast("Callable[[], asyncio.Protocol]", self._runner.server)
        self._sock.listen(self._backlog)
        # What a site asks of its server is that it can be closed.
        self._server = cast("asyncio.Server", _Acceptor(self._sock, make, self.counter, self._ssl_context))


class _Acceptor:
    """Accepts connections until it is closed."""

    def __init__(
        self,
        sock: socket.socket,
        make: Callable[[], asyncio.Protocol],
        counter: Counter,
        context: ssl.SSLContext | None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._make = make
        self._counter = counter
        self._context = context
        self._beginning: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        self._accepting.cancel()
        for task in self._beginning:
            task.cancel()
        self._sock.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(self._sock)
            except OSError as error:
                log.warning("no connection can be accepted: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            address = str(peer[0]) if peer else ""
            if not self._counter.admit(address):
                self._refuse(accepted)
                continue
            task = asyncio.create_task(self._begin(accepted, address))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket, address: str) -> None:
        """From accepting to aiohttp's own protocol, TLS in between."""
        protocol = _Counted(self._make, lambda: self._counter.release(address))
        seconds = HANDSHAKE_SECONDS if self._context else None
        begun = False
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, accepted, ssl=self._context, ssl_handshake_timeout=seconds
            )
            begun = True
        except OSError as error:
            log.debug("no handshake with %s: %s", address, error)
        finally:
            if not begun:
                accepted.close()
                protocol.connection_lost(None)

    def _refuse(self, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(OSError):
            if self._context is None:
                accepted.send(TOO_MANY)


class _Counted(asyncio.Protocol):
    """Around aiohttp's protocol: tells when the connection is over, once."""

    __slots__ = ("_inner", "_make", "_release")

    def __init__(self, make: Callable[[], asyncio.Protocol], release: Callable[[], None]) -> None:
        self._make = make
        self._release: Callable[[], None] | None = release
        self._inner: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner = self._make()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connection_lost(exc)
