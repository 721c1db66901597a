"""Is this process alive, and can it serve? For load balancers, orchestrators and `pillarbox ready`.

`/healthz` says that the process answers. `/readyz` looks at what the process cannot do without: 503 with the reasons
while the database or the blob store does not serve; what only slows things down, such as Redis being away, is named and
leaves it ready. The answer is kept for a second, so that asking often costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from aiohttp import web

Problems = dict[str, str]

KEEP_SECONDS = 1.0
# Without these changes spread more slowly, and nothing else happens.
HARMLESS = frozenset({"redis", "notify"})


class Health:
    """What is wrong, asked at most once a second, by one task at a time."""

    def __init__(self, ask: Callable[[], Awaitable[Problems]]) -> None:
        self._ask = ask
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._problems: Problems = {}

    async def problems(self) -> Problems:
        async with self._lock:
            if monotonic() >= self._until:
                self._problems = await self._ask()
                self._until = monotonic() + KEEP_SECONDS
        return self._problems


def routes(health: Health) -> list[web.RouteDef]:
    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        problems = await health.problems()
        if not problems:
            return web.json_response({"status": "ok"})
        unavailable = not problems.keys() <= HARMLESS
        body = {"status": "unavailable" if unavailable else "degraded", "problems": problems}
        return web.json_response(body, status=503 if unavailable else 200)

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]
