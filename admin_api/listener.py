"""Serves HTTP and HTTPS on sockets that others have bound."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from admin_api.app import make_app
from admin_api.routes.health import Health
from config.schema import Config

BACKLOG = 1024
ALPN = ("http/1.1",)
"""What is offered in the TLS handshake (RFC 7301)."""

KEEPALIVE_SECONDS = 30.0
SHUTDOWN_SECONDS = 5.0


@asynccontextmanager
async def listening(
    config: Config,
    health: Health,
    *,
    clear: Sequence[socket.socket],
    secure: Sequence[socket.socket],
    tls: ssl.SSLContext,
) -> AsyncIterator[None]:
    """Serves for as long as the block lasts; requests that are under way at its end get a moment to finish."""
    https_port = secure[0].getsockname()[1] if secure else None
    async with AsyncExitStack() as stack:
        for sockets, context in ((clear, None), (secure, tls)):
            app = make_app(config, health, secure=context is not None, https_port=https_port)
            runner = web.AppRunner(
                app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, keepalive_timeout=KEEPALIVE_SECONDS
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            for sock in sockets:
                await web.SockSite(runner, sock, ssl_context=context, backlog=BACKLOG).start()
        yield
