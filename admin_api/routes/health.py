"""Is this process alive, and can it serve? For load balancers, orchestrators and `pillarbox ready`.

Both tell what is wrong; what is known is kept for a second, so that asking often costs nothing. `/readyz` answers 503
while what the process cannot do without, the database or the blob store, does not serve; what only slows things down,
such as Redis being away, is named and leaves it ready. `/healthz` answers 200 as long as the process does, and soon,
since a restart would mend nothing else.
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
PATIENCE_SECONDS = 1.0


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
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                problems = await health.problems()
        except TimeoutError:
            problems = {"health": "not all parts have answered yet"}
        return web.json_response(_about(problems))

    async def readyz(_: web.Request) -> web.Response:
        about = _about(await health.problems())
        return web.json_response(about, status=503 if about["status"] == "unavailable" else 200)

    return [web.get("/healthz", healthz), web.get("/readyz", readyz)]


def _about(problems: Problems) -> dict[str, object]:
    if not problems:
        return {"status": "ok"}
    return {"status": "degraded" if problems.keys() <= HARMLESS else "unavailable", "problems": problems}
