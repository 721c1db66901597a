"""The API while PostgreSQL, Redis or the blob store are away: it says so, and is back by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage import Store
from storage.errors import BlobsUnavailable
from tests.admin_api.conftest import Client, Site, open_store, serving
from tests.admin_api.test_sending import HELLO, form
from tests.support.proxy import PostgresProxy

PATIENCE = 30


@pytest.fixture
async def behind(store: Store, proxy: PostgresProxy, database: str, tmp_path: Path) -> AsyncIterator[Site]:
    """A site whose database connections pass the proxy."""
    soon = {"statement_timeout_seconds": 2, "lock_timeout_seconds": 2}
    broken = await open_store(proxy.dsn_of(database), None, tmp_path, **soon)
    async with serving(broken) as site:
        yield site
        proxy.heal()
    await broken.close()


async def until(client: Client, status: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (await client.get("/emails/inbox")).status != status:
            await asyncio.sleep(0.05)


async def test_without_the_database(behind: Site, proxy: PostgresProxy) -> None:
    alice = await behind.client.log_in("alice")
    assert (await alice.post("/emails", HELLO)).status == 202
    proxy.refuse()
    for _ in range(2):
        for reply in (
            await alice.get("/emails/inbox"),
            await alice.get("/contacts"),
            await alice.post("/emails", HELLO),
            await behind.client.post("/login", {"username": "bob", "password": "x"}),
        ):
            assert reply.status == 503 and int(reply.headers["Retry-After"]) > 0
    proxy.heal()
    await until(alice, 200)
    assert (await alice.post("/emails", HELLO)).status == 202


async def test_without_redis(store: Store, database: str, tmp_path: Path) -> None:
    alone = await open_store(database, f"unix://{tmp_path}/nobody", tmp_path)
    async with serving(alone) as site:
        alice = await site.client.log_in("alice")
        assert (await alice.post("/emails", HELLO)).status == 202
        assert (await alice.post("/logout")).status == 204
        assert (await alice.get("/emails/inbox")).status == 401
    await alone.close()


async def test_without_the_blob_store(site: Site, alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_: bytes) -> bytes:
        raise BlobsUnavailable("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(site.store.blobs, "put", away)
        reply = await alice.post("/emails", data=form(("x", bytes(200_000), "a/b")))
        assert reply.status == 503 and b"disk" not in reply.octets
        assert (await alice.post("/emails", HELLO)).status == 202
    assert (await alice.post("/emails", data=form(("x", bytes(200_000), "a/b")))).status == 202
    assert (await bob.get("/emails/inbox")).json["total"] == 2
