"""Redis as a cache that may be away."""

from __future__ import annotations

import asyncio
from pathlib import Path

from storage.cache import Cache


async def test_what_was_put_is_found(redis_url: str) -> None:
    cache = Cache(redis_url)
    assert await cache.get("a") is None
    await cache.put("a", b"1", 60)
    await cache.put_new("a", b"2", 60)
    await cache.put_new("b", b"3", 60)
    assert (await cache.get("a"), await cache.get("b")) == (b"1", b"3")
    await cache.close()


async def test_without_redis_nothing_is_found_and_nothing_fails() -> None:
    cache = Cache(None)
    await cache.put("a", b"1", 60)
    assert await cache.get("a") is None
    await cache.close()


async def test_one_that_does_not_answer_is_left_alone(tmp_path: Path) -> None:
    asked = 0

    def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1

    server = await asyncio.start_unix_server(silent, tmp_path / "silent")
    cache = Cache(f"unix://{tmp_path}/silent")
    async with asyncio.timeout(10):
        for _ in range(20):
            assert await cache.get("a") is None
    assert asked == 1
    await cache.close()
    server.close()


async def test_one_that_is_away(tmp_path: Path) -> None:
    cache = Cache(f"unix://{tmp_path}/nobody")
    assert await cache.get("a") is None
    await cache.put("a", b"1", 60)
    await cache.close()
