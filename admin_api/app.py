"""The HTTP side: one aiohttp application for the TLS port, one for the clear port.

The clear port answers health and metrics to anybody who may have them, and sends every other request to the TLS port.
With `--insecure-loopback-auth` it serves everything to clients on loopback, in clear.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from admin_api.routes import health, metrics
from admin_api.routes.health import Health
from admin_api.routes.metrics import is_loopback
from config.schema import Config

MAX_BODY_OCTETS = 64 * 1024
_CLEAR_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(config: Config, state: Health, *, secure: bool, https_port: int | None) -> web.Application:
    """The application of one listener. https_port: where clear requests are sent; None where there is no such port."""
    middlewares: list[Any] = [_answer_as_json]
    if not secure:
        middlewares.append(_redirecting(https_port, loopback_in_clear=config.server.insecure_loopback_auth))
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_OCTETS)
    app.add_routes(health.routes(state))
    app.add_routes(metrics.routes(config.http.metrics_token))
    return app


@web.middleware
async def _answer_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """aiohttp's own refusals (404, 405, 413 …) in the form of all other answers."""
    try:
        return await handler(request)
    except web.HTTPException as refusal:
        if refusal.status < 400:
            raise
        headers = {name: value for name, value in refusal.headers.items() if name == "Allow"}
        return web.json_response({"error": refusal.reason}, status=refusal.status, headers=headers)


def _redirecting(https_port: int | None, *, loopback_in_clear: bool) -> Any:
    @web.middleware
    async def redirect(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _CLEAR_PATHS or (loopback_in_clear and is_loopback(request)):
            return await handler(request)
        host = _HOST.fullmatch(request.headers.get("Host", ""))
        if https_port is None or host is None:
            return web.json_response({"error": "only over TLS"}, status=403)
        port = "" if https_port == 443 else f":{https_port}"
        # 308, so that a POST stays one (RFC 9110 §15.4.9).
        return web.Response(status=308, headers={"Location": f"https://{host[1]}{port}{request.rel_url.raw_path_qs}"})

    return redirect
