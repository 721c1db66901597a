"""Tokens: what they are good for, and when they are not."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import jwt
import pytest
import redis

from admin_api.auth import AUDIENCE, DAY, Tokens
from admin_api.problems import Problem
from config.schema import AuthConfig
from storage import Store, accounts, tokens
from tests.admin_api.conftest import Client, Site, open_store


async def refused(issuer: Tokens, token: str) -> bool:
    try:
        await issuer.check(token)
    except Problem as problem:
        return problem.status == 401
    return False


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", "Basic YTpi", "Bearer x", "Bearer a.b.c", "Bearer " + "x" * 8000, "Bearer é"],
)
async def test_requests_without_a_good_token(client: Client, value: str) -> None:
    reply = await client.get("/emails/inbox", headers={"Authorization": value})
    assert reply.status == 401 and reply.headers["WWW-Authenticate"] == "Bearer"


async def claims(site: Site, **changed: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"sub": str(site.alice.account_id), "ver": site.alice.version, "jti": str(uuid4()), "aud": AUDIENCE}
    return {name: value for name, value in {**whole, "exp": now + 100, **changed}.items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        ({}, True),
        ({"exp": 1}, False),
        ({"exp": None}, False),
        ({"jti": None}, False),
        ({"jti": "x"}, False),
        ({"sub": "x"}, False),
        ({"sub": "99"}, False),
        ({"ver": 99}, False),
        ({"ver": None}, False),
        ({"aud": "other"}, False),
    ],
)
async def test_claims(site: Site, changed: dict[str, Any], good: bool) -> None:
    key = await tokens.add_signing_key(site.store, 1000)
    token = jwt.encode(await claims(site, **changed), key.secret, "HS256", headers={"kid": key.kid})
    assert await refused(site.api.tokens, token) is not good


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
async def test_other_algorithms(site: Site, algorithm: str) -> None:
    key = await tokens.add_signing_key(site.store, 1000)
    secret = "" if algorithm == "none" else key.secret + bytes(32)
    token = jwt.encode(await claims(site), secret, algorithm, headers={"kid": key.kid})
    assert await refused(site.api.tokens, token)


async def test_another_key_and_another_key_id(site: Site) -> None:
    key = await tokens.add_signing_key(site.store, 1000)
    for secret, kid in ((b"x" * 32, key.kid), (key.secret, "nobody's"), (key.secret, None), (key.secret, 5)):
        try:
            token = jwt.encode(await claims(site), secret, "HS256", headers={"kid": kid})
        except jwt.InvalidTokenError:
            continue
        assert await refused(site.api.tokens, token)


async def test_a_token_counts_on_all_nodes(site: Site, database: str, redis_url: str, tmp_path: Path) -> None:
    token, _ = await site.api.tokens.issue(site.alice)
    store = await open_store(database, redis_url, tmp_path)
    other = Tokens(store, AuthConfig())
    bearer = await other.check(token)
    assert bearer.account == site.alice
    await site.api.tokens.revoke(bearer)
    assert await refused(other, token)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    assert await refused(other, token) and await refused(site.api.tokens, token)
    other.close()
    await store.close()


@pytest.mark.parametrize("change", ["password", "disabled", "role", "removed"])
async def test_a_changed_account_ends_its_tokens(site: Site, alice: Client, change: str) -> None:
    assert (await alice.get("/contacts")).status == 200
    account_id = site.alice.account_id
    match change:
        case "password":
            await accounts.set_password_hash(site.store, account_id, "x")
        case "disabled":
            await accounts.set_status(site.store, account_id, "disabled")
        case "role":
            await accounts.set_role(site.store, account_id, "service")
        case "removed":
            await accounts.remove(site.store, account_id)
    async with asyncio.timeout(10):
        while (await alice.get("/contacts")).status == 200:
            await asyncio.sleep(0.02)
    assert (await alice.get("/contacts")).status == 401


async def test_keys_rotate_and_older_tokens_stay_good(site: Site, database: str) -> None:
    issuer = site.api.tokens
    before, _ = await issuer.issue(site.alice)
    again, _ = await issuer.issue(site.alice)
    assert jwt.get_unverified_header(before) == jwt.get_unverified_header(again)
    conn = await asyncpg.connect(database)
    await conn.execute("UPDATE signing_keys SET created_at = created_at - interval '8 days'")
    fresh = Tokens(site.store, AuthConfig())
    after, _ = await fresh.issue(site.alice)
    assert jwt.get_unverified_header(after) != jwt.get_unverified_header(before)
    for token in (before, after):
        assert (await fresh.check(token)).account == site.alice
    assert await conn.fetchval("SELECT count(*) FROM signing_keys") == 2
    newest = (await tokens.signing_keys(site.store))[-1]
    assert newest.expires - newest.created >= 8 * DAY
    fresh.close()
    await conn.close()


async def test_many_at_once_make_one_key(site: Site, database: str) -> None:
    fresh = Tokens(site.store, AuthConfig())
    await asyncio.gather(*(fresh.issue(site.alice) for _ in range(20)))
    conn = await asyncpg.connect(database)
    assert await conn.fetchval("SELECT count(*) FROM signing_keys") == 1
    fresh.close()
    await conn.close()


async def test_an_expired_token(site: Site, store: Store) -> None:
    site.api.tokens.reconfigure(AuthConfig().model_copy(update={"token_seconds": -1}))
    token, _ = await site.api.tokens.issue(site.alice)
    with pytest.raises(Problem, match="expired"):
        await site.api.tokens.check(token)
