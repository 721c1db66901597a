"""Signing keys and tokens that were taken back, on a real database and Redis."""

from __future__ import annotations

import time
import uuid

import asyncpg
import pytest
import redis

from storage import housekeeping, tokens
from storage.errors import Damaged
from storage.keys import Keys
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, OpenStore


async def test_all_nodes_know_the_keys_the_newest_last(store: Store, open_store: OpenStore) -> None:
    first = await tokens.add_signing_key(store, 1000)
    second = await tokens.add_signing_key(store, 2000)
    other = await open_store()
    found = list(await tokens.signing_keys(other))
    assert [(key.kid, key.secret) for key in found] == [(key.kid, key.secret) for key in (first, second)]
    assert abs(found[0].expires - time.time() - 1000) < 60


async def test_they_are_sealed(database: str, store: Store) -> None:
    made = await tokens.add_signing_key(store, 1000)
    conn = await asyncpg.connect(database)
    stored = await conn.fetchval("SELECT secret FROM signing_keys")
    assert made.secret not in stored
    store.keys = Keys(store, b"i" * 32, b"x" * 32)
    with pytest.raises(Damaged):
        await tokens.signing_keys(store)
    await conn.close()


async def test_expired_keys_do_not_count_and_go(database: str, store: Store) -> None:
    await tokens.add_signing_key(store, -1)
    assert list(await tokens.signing_keys(store)) == []
    await housekeeping.once(store)
    conn = await asyncpg.connect(database)
    assert await conn.fetchval("SELECT count(*) FROM signing_keys") == 0
    await conn.close()


@pytest.mark.parametrize("with_redis", [True, False])
async def test_a_revocation_counts_on_all_nodes_at_once(
    open_store: OpenStore, redis_url: str, with_redis: bool
) -> None:
    one, other = [await open_store(redis_url if with_redis else None) for _ in range(2)]
    jti = uuid.uuid4()
    for node in (one, other):
        assert not await tokens.is_revoked(node, ALICE, jti)
    await tokens.revoke(one, ALICE, jti, time.time() + 100)
    await tokens.revoke(one, ALICE, jti, time.time() + 100)
    for node in (one, other):
        assert await tokens.is_revoked(node, ALICE, jti)
        assert not await tokens.is_revoked(node, BOB, jti)
        assert not await tokens.is_revoked(node, ALICE, uuid.uuid4())


async def test_an_emptied_redis_loses_nothing(open_store: OpenStore, redis_url: str) -> None:
    node = await open_store(redis_url)
    jti = uuid.uuid4()
    await tokens.revoke(node, ALICE, jti, time.time() + 100)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert await tokens.is_revoked(node, ALICE, jti)
    await tokens.revoke(node, ALICE, jti, time.time() + 100)


async def test_what_redis_knows_needs_no_query(open_store: OpenStore, redis_url: str, database: str) -> None:
    node = await open_store(redis_url)
    jti = uuid.uuid4()
    assert not await tokens.is_revoked(node, ALICE, jti)
    conn = await asyncpg.connect(database)
    await conn.execute("ALTER TABLE revoked_tokens RENAME TO hidden")
    assert not await tokens.is_revoked(node, ALICE, jti)
    await conn.close()


async def test_expired_revocations_go(database: str, store: Store) -> None:
    kept, gone = uuid.uuid4(), uuid.uuid4()
    await tokens.revoke(store, ALICE, kept, time.time() + 100)
    await tokens.revoke(store, ALICE, gone, time.time() - 1)
    await tokens.revoke(store, BOB, gone, time.time() - 1)
    await tokens.drop_expired(store)
    conn = await asyncpg.connect(database)
    assert [row[0] for row in await conn.fetch("SELECT jti FROM revoked_tokens")] == [kept]
    await conn.close()
