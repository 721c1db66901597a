"""One database behind several servers: the one that takes writes is found, and left when it takes none any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from storage import mailboxes
from storage.connect import connect, split
from storage.errors import Unavailable
from storage.records import INBOX
from storage.store import Store
from tests.storage.conftest import ALICE, OpenStore, deliver, read_only, until_problems
from tests.support.proxy import PostgresProxy, running


@pytest.mark.parametrize(
    ("dsn", "servers"),
    [
        ("postgresql:///d?host=%2Ftmp&user=u", ["postgresql:///d?host=%2Ftmp&user=u"]),
        ("postgresql://u:p%40@h:1/d", ["postgresql://u:p%40@h:1/d"]),
        (
            "postgresql://u:p%40@a,b:2,[::1]:3/d?target_session_attrs=read-write",
            [f"postgresql://u:p%40@{h}/d?target_session_attrs=read-write" for h in ("a", "b:2", "[::1]:3")],
        ),
        ("postgres://a,b/d", ["postgres://a/d", "postgres://b/d"]),
    ],
)
def test_one_dsn_for_each_server(dsn: str, servers: list[str]) -> None:
    assert split(dsn) == servers


@pytest.fixture
def other(proxy: PostgresProxy) -> Iterator[PostgresProxy]:
    with running(PostgresProxy(proxy.upstream)) as other:
        yield other


@pytest.fixture
def dsn(database: str, proxy: PostgresProxy, other: PostgresProxy) -> str:
    """The proxy first, the other one second, and only where writes are taken."""
    first, second = proxy.dsn_of(database), other.dsn_of(database)
    host = second.partition("@")[2].partition("/")[0]
    return first.replace(f":{proxy.port}/", f":{proxy.port},{host}/") + "&target_session_attrs=read-write"


@pytest.mark.parametrize("how", ["refuses", "breaks off", "is silent"])
async def test_a_server_that_does_not_serve_is_passed_over(dsn: str, proxy: PostgresProxy, how: str) -> None:
    if how == "refuses":
        proxy.refuse()
    elif how == "breaks off":
        proxy.upstream = proxy.upstream.with_name("nobody")
    else:
        proxy.hold()
    conn = await connect(dsn, timeout=2)
    assert await conn.fetchval("SELECT 1") == 1
    await conn.close()


async def test_no_server_serves(dsn: str, proxy: PostgresProxy, other: PostgresProxy) -> None:
    proxy.refuse()
    other.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(dsn, timeout=2)


async def test_a_store_follows_the_server_that_takes_writes(
    store: Store, open_store: OpenStore, database: str, dsn: str, proxy: PostgresProxy, other: PostgresProxy
) -> None:
    several: Store = await open_store(dsn=dsn, lock_timeout_seconds=2)
    await deliver(several)
    proxy.refuse()
    await asyncio.wait_for(deliver(several), 10)
    proxy.heal()
    other.refuse()
    await asyncio.wait_for(deliver(several), 10)
    other.heal()
    async with read_only(database):
        await until_problems(several, "postgres", "notify")
        for work in (deliver(several), mailboxes.get(several, ALICE, INBOX)):
            with pytest.raises(Unavailable):
                await work
    await until_problems(several)
    await deliver(several)
    assert (await mailboxes.get(store, ALICE, INBOX)).messages == 4
    await several.close()


async def test_what_the_last_server_says_is_raised(dsn: str) -> None:
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await connect(dsn.replace("/test_", "/nobody_"), timeout=2)
