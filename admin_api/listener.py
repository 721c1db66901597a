"""Serves HTTP and HTTPS on sockets that others have bound."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence

from aiohttp import web

from admin_api.app import make_app
from admin_api.connections import CountedSite, Counter
from admin_api.routes.health import Health
from admin_api.service import Api
from config.schema import Config

BACKLOG = 1024
ALPN = ("http/1.1",)
"""What is offered in the TLS handshake (RFC 7301)."""

KEEPALIVE_SECONDS = 30.0
MAX_CONNECTIONS = 500
MAX_CONNECTIONS_PER_ADDRESS = 50
"""In one worker, and of one client address."""
_LONGEST = 3600.0
"""The runner's own bound on its end; `close` has a nearer one."""


class HttpListener:
    """The two applications and their sockets."""

    def __init__(
        self,
        config: Config,
        health: Health,
        *,
        tls: ssl.SSLContext,
        connections: Counter,
        api: Api | None = None,
    ) -> None:
        self._config = config
        self._api = api
        self._health = health
        self._tls = tls
        self._connections = connections
        self._runners: list[web.AppRunner] = []

    async def start(self, *, clear: Sequence[socket.socket], secure: Sequence[socket.socket]) -> None:
        https_port = secure[0].getsockname()[1] if secure else None
        for sockets, context in ((clear, None), (secure, self._tls)):
            app = make_app(self._config, self._health, secure=context is not None, https_port=https_port, api=self._api)
            runner = web.AppRunner(
                app,
                access_log=None,
                shutdown_timeout=_LONGEST,
                keepalive_timeout=KEEPALIVE_SECONDS,
                auto_decompress=False,
            )
            await runner.setup()
            self._runners.append(runner)
            for sock in sockets:
                site = CountedSite(runner, sock, ssl_context=context, backlog=BACKLOG)
                site.counter = self._connections
                await site.start()

    async def close(self, seconds: float) -> None:
        """Accepts no more at once; requests that are under way have so long to be answered, others are closed."""
        endings = [asyncio.create_task(runner.cleanup()) for runner in self._runners]
        self._runners.clear()
        if endings:
            _, late = await asyncio.wait(endings, timeout=seconds)
            for ending in late:
                ending.cancel()
            await asyncio.gather(*endings, return_exceptions=True)
