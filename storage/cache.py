"""Redis as a cache: what is in it was read from the database and can be read there again.

It may be emptied or away at any moment. While it does not answer it is left alone for a second at a time, so that
nobody waits for it over and over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = logging.getLogger(__name__)

_PREFIX = "pillarbox:"
_ANSWER_SECONDS = 0.5
_PAUSE_SECONDS = 1.0


class Cache:
    """Small values by key. url None: there is no Redis, and nothing is ever found."""

    def __init__(self, url: str | None) -> None:
        self._redis: redis.asyncio.Redis | None = None
        self._paused_until = 0.0
        if url is not None:
            self._redis = redis.asyncio.from_url(
                url,
                socket_timeout=_ANSWER_SECONDS,
                socket_connect_timeout=_ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )

    async def get(self, key: str) -> bytes | None:
        """None where it is not there, or not known."""
        found: bytes | None = await self._ask(lambda redis: redis.get(_PREFIX + key))
        return found

    async def put(self, key: str, value: bytes, seconds: int) -> None:
        await self._ask(lambda redis: redis.set(_PREFIX + key, value, ex=seconds))

    async def put_new(self, key: str, value: bytes, seconds: int) -> None:
        """Leaves what is there already."""
        await self._ask(lambda redis: redis.set(_PREFIX + key, value, ex=seconds, nx=True))

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.aclose()

    async def _ask(self, command: Callable[[redis.asyncio.Redis], Any]) -> Any:
        if self._redis is None or time.monotonic() < self._paused_until:
            return None
        try:
            return await command(self._redis)
        except (RedisError, OSError, TimeoutError) as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            log.info("the cache does not answer: %s", error)
            return None
