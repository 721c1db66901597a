"""The HTTP side: one aiohttp application for the TLS port, one for the clear port.

The clear port answers health and metrics to anybody who may have them, and sends every other request to the TLS port.
With `--insecure-loopback-auth` it serves everything to clients on loopback, in clear.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from admin_api.problems import Problem
from admin_api.route import answer_problems, web_routes
from admin_api.routes import accounts, contacts, docs, emails, health, metrics
from admin_api.routes.health import Health
from admin_api.routes.metrics import is_loopback
from admin_api.service import Api
from config.schema import Config

MAX_BODY_OCTETS = 64 * 1024
"""What aiohttp reads of a body by itself; routes that take one have their own bounds."""

ROUTES = [*accounts.ROUTES, *emails.ROUTES, *contacts.ROUTES]

_CLEAR_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_TLS_HEADERS = {"Strict-Transport-Security": "max-age=31536000"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    config: Config, state: Health, *, secure: bool, https_port: int | None, api: Api | None = None
) -> web.Application:
    """The application of one listener. https_port: where clear requests are sent; None where there is no such port.

    api None: health and metrics alone.
    """
    middlewares: list[Any] = [answer_problems]
    if not secure:
        middlewares.append(_redirecting(https_port, loopback_in_clear=config.server.insecure_loopback_auth))
    app = web.Application(middlewares=middlewares, client_max_size=MAX_BODY_OCTETS)
    app.on_response_prepare.append(_add_headers)
    app.add_routes(health.routes(state))
    app.add_routes(metrics.routes(config.http.metrics_token))
    if api is not None:
        app.add_routes(web_routes(api, ROUTES))
        app.add_routes(docs.routes(ROUTES))
    return app


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """What a browser must not make of an answer; a route may have said it more strictly."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    if request.secure:
        response.headers.update(_TLS_HEADERS)
    response.headers.pop("Server", None)


def _redirecting(https_port: int | None, *, loopback_in_clear: bool) -> Any:
    @web.middleware
    async def redirect(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in _CLEAR_PATHS or (loopback_in_clear and is_loopback(request)):
            return await handler(request)
        host = _HOST.fullmatch(request.headers.get("Host", ""))
        if https_port is None or host is None:
            raise Problem(403, "only over TLS")
        port = "" if https_port == 443 else f":{https_port}"
        # 308, so that a POST stays one (RFC 9110 §15.4.9).
        return web.Response(status=308, headers={"Location": f"https://{host[1]}{port}{request.rel_url.raw_path_qs}"})

    return redirect
