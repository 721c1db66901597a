"""Accepts connections on sockets that others have bound, and brings them to an orderly end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from mailserver.net.connection import Connection
from mailserver.net.deadlines import Deadlines

BACKLOG = 1024
LAST_WORDS_SECONDS = 1.0
"""For those that are cut off to take note of it."""


class Listener:
    """Some sockets and what is made for each connection to them."""

    def __init__(self, sockets: Sequence[socket.socket], factory: Callable[[], Connection]) -> None:
        self._sockets = tuple(sockets)
        self._factory = factory
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            sock.setblocking(False)
            # Those accepted inherit it. An answer in several writes must not wait for the peer's delayed ACK; asyncio
            # does so only for sockets that were made with the protocol's number.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._servers.append(await loop.create_server(self._factory, sock=sock, backlog=BACKLOG))

    def close(self) -> None:
        """Accepts no more; connections that are open stay so."""
        for server in self._servers:
            server.close()
        self._servers.clear()


async def stop_connections(deadlines: Deadlines, seconds: float) -> None:
    """Asks every connection to end, waits for them for so long, and cuts off the rest. The listeners are closed."""
    await asyncio.sleep(0)  # what was accepted before they were is a member then
    for member in deadlines:
        member.stop()
    if await _are_gone(deadlines, seconds):
        return
    for member in deadlines:
        member.cut_off()
    if not await _are_gone(deadlines, LAST_WORDS_SECONDS):
        for member in deadlines:
            member.abort()
        await asyncio.sleep(0)


async def _are_gone(deadlines: Deadlines, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await deadlines.empty()
    except TimeoutError:
        return False
    return True
