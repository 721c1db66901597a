"""A network that breaks: a proxy before a service, for any protocol.

Octets that are held are neither lost nor reordered: when the network heals they arrive, as TCP would have it. A proxy
works in a thread of its own, so that it serves programs with and without a loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

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
