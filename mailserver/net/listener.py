"""Accepts connections on sockets that others have bound, and brings them to an orderly end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from mailserver.net.connection import Connection
from mailserver.net.deadlines import Deadlines

BACKLOG = 1024


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
            self._servers.append(await loop.create_server(self._factory, sock=sock, backlog=BACKLOG))

    def close(self) -> None:
        """Accepts no more; connections that are open stay so."""
        for server in self._servers:
            server.close()
        self._servers.clear()


async def stop_connections(deadlines: Deadlines, seconds: float) -> None:
    """Asks every connection to end, waits for them for so long, and drops the rest."""
    for member in deadlines:
        member.stop()
    try:
        async with asyncio.timeout(seconds):
            await deadlines.empty()
    except TimeoutError:
        for member in deadlines:
            member.abort()
        await asyncio.sleep(0)
