"""Connections of HTTP clients, counted: one too many is told so, and closed.

aiohttp itself bounds a head in its size, and in the time that it may take: a connection whose keep-alive time ends
before a whole head has come is closed. How many clients there are is not its question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from aiohttp import web

HANDSHAKE_SECONDS = 10.0

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
    """One socket; its connections are counted."""

    __slots__ = ("counter",)

    counter: Counter

    async def start(self) -> None:
        await web.BaseSite.start(self)
        make = cast("Callable[[], asyncio.Protocol]", self._runner.server)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: _Gate(make, self.counter),
            sock=self._sock,
            ssl=self._ssl_context,
            ssl_handshake_timeout=HANDSHAKE_SECONDS if self._ssl_context else None,
            backlog=self._backlog,
        )


class _Gate(asyncio.Protocol):
    """Before aiohttp's own protocol, which is made for those who are let in."""

    __slots__ = ("_address", "_counter", "_inner", "_make")

    def __init__(self, make: Callable[[], asyncio.Protocol], counter: Counter) -> None:
        self._make = make
        self._counter = counter
        self._inner: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        if self._counter.admit(self._address):
            self._inner = self._make()
            self._inner.connection_made(transport)
        else:
            cast("asyncio.Transport", transport).write(TOO_MANY)
            transport.close()

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
        inner, self._inner = self._inner, None
        if inner is not None:
            self._counter.release(self._address)
            inner.connection_lost(exc)
