"""`/api/v1/openapi.json`, and `/docs`, a page that shows it and needs nothing from outside."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from admin_api import openapi
from admin_api.route import PREFIX, Route

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

# Read when this is imported: a worker that has given up root may not be able to.
_FOLDER = Path(__file__).parent.parent / "static"
_FILES = {
    "/docs": ((_FOLDER / "docs.html").read_bytes(), "text/html"),
    "/docs/page.js": ((_FOLDER / "docs.js").read_bytes(), "text/javascript"),
    "/docs/page.css": ((_FOLDER / "docs.css").read_bytes(), "text/css"),
}


def routes(table: Sequence[Route]) -> list[web.RouteDef]:
    document = json.dumps(openapi.document(table), ensure_ascii=False).encode()
    found = [web.get(f"{PREFIX}/openapi.json", _file(document, "application/json"))]
    return [*found, *(web.get(path, _file(*file)) for path, file in _FILES.items())]


def _file(octets: bytes, media_type: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(_: web.Request) -> web.StreamResponse:
        headers = {"Content-Security-Policy": PAGE_POLICY}
        return web.Response(body=octets, content_type=media_type, charset="utf-8", headers=headers)

    return answer
