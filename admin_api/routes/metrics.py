"""`/metrics` for Prometheus: the counters of all processes of this node, added up.

For clients on loopback, and elsewhere for those that show the bearer token of the setting `http.metrics_token`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import os

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from config.secret import Secret


def routes(token: Secret | None) -> list[web.RouteDef]:
    async def metrics(request: web.Request) -> web.Response:
        if not _may_see(request, token):
            return web.json_response(
                {"error": "metrics are for loopback, or for the bearer token of http.metrics_token"},
                status=401 if token else 403,
                headers={"WWW-Authenticate": "Bearer"} if token else {},
            )
        body = await asyncio.to_thread(_collect)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return [web.get("/metrics", metrics)]


def _may_see(request: web.Request, token: Secret | None) -> bool:
    if is_loopback(request):
        return True
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return (
        token is not None
        and scheme.lower() == "bearer"
        and hmac.compare_digest(given.strip().encode(), token.reveal().encode())
    )


def is_loopback(request: web.Request) -> bool:
    """Does the request come from this host?"""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    try:
        address = ipaddress.ip_address(str(peer[0]).partition("%")[0]) if peer else None
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and address.is_loopback


def _collect() -> bytes:
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
