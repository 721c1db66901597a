"""Where addresses lead, on a real database."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from storage import accounts, aliases, directory, domains
from storage.directory import CACHE_SECONDS, NOT_OURS, UNKNOWN, DirectoryCache, Resolved, resolve
from storage.errors import LimitReached, Unavailable
from storage.records import Notice
from storage.store import Store
from tests.storage.conftest import OpenStore

ROOT, ALICE, BOB = 1, 2, 3


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    """example.org with the accounts root (superadmin), alice and bob; example.net with a catch-all for bob."""
    store: Store = await open_store()
    for name in ("example.org", "example.net"):
        await domains.add(store, name)
    await accounts.add(store, None, "root@example.org", None, role="superadmin")
    await accounts.add(store, None, "alice@example.org", None)
    await accounts.add(store, None, "bob@example.org", None)
    await aliases.add(store, "@example.net", ["bob@example.org"])
    return store


async def add_all(store: Store, table: dict[str, list[str]]) -> None:
    for address, targets in table.items():
        await aliases.add(store, address, targets)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("alice@example.org", ((ALICE,), (), "ok", True)),
        ("ALICE+Some.tag@Example.org", ((ALICE,), (), "ok", True)),
        ("nobody@example.org", ((), (), "unknown", False)),
        ("nobody@elsewhere.org", ((), (), "not_ours", False)),
        ("no address", ((), (), "unknown", False)),
        ("any@example.net", ((BOB,), (), "ok", False)),
        ("any+tag@example.net", ((BOB,), (), "ok", False)),
        ("postmaster", ((ROOT,), (), "ok", True)),
        ("Postmaster", ((ROOT,), (), "ok", True)),
        ("postmaster@example.org", ((ROOT,), (), "ok", True)),
        ("abuse+x@example.org", ((ROOT,), (), "ok", True)),
        ("postmaster@example.net", ((ROOT,), (), "ok", True)),
        ("postmaster@elsewhere.org", ((), (), "not_ours", False)),
        ("team@example.org", ((ALICE, BOB), ("Carol@elsewhere.org",), "ok", False)),
        ("team+tag@example.org", ((ALICE, BOB), ("Carol@elsewhere.org",), "ok", False)),
        ("outer@example.org", ((ALICE, BOB), ("Carol@elsewhere.org",), "ok", False)),
        ("away@example.org", ((), ("carol@elsewhere.org",), "ok", True)),
        ("tagged@example.org", ((ALICE,), (), "ok", True)),
        ("loop1@example.org", ((), (), "unknown", False)),
        ("loop3@example.org", ((ALICE,), (), "ok", False)),
        ("dead@example.org", ((), (), "unknown", False)),
        ("halfdead@example.org", ((ALICE,), (), "ok", False)),
        ("viacatchall@example.org", ((BOB,), (), "ok", False)),
        ("alice+exact@example.org", ((BOB,), (), "ok", True)),
    ],
)
async def test_where_an_address_leads(store: Store, address: str, found: tuple[object, ...]) -> None:
    await add_all(
        store,
        {
            "team@example.org": ["alice@example.org", "bob+x@example.org", "Carol@elsewhere.org"],
            "outer@example.org": ["team@example.org", "alice@example.org"],
            "away@example.org": ["carol@elsewhere.org"],
            "tagged@example.org": ["alice+tagged@example.org"],
            "loop1@example.org": ["loop2@example.org"],
            "loop2@example.org": ["loop1@example.org"],
            "loop3@example.org": ["loop3+x@example.org", "alice@example.org", "loop1@example.org"],
            "dead@example.org": ["nobody@example.org"],
            "halfdead@example.org": ["nobody@example.org", "alice@example.org"],
            "viacatchall@example.org": ["someone@example.net"],
            "alice+exact@example.org": ["bob@example.org"],
        },
    )
    result = await resolve(store, address)
    assert (result.accounts, result.remote, result.status, result.alone) == found


async def test_own_addresses_of_postmaster_go_first(store: Store) -> None:
    await add_all(store, {"postmaster@example.org": ["alice@example.org"], "abuse@example.net": ["alice@example.org"]})
    for address in ("postmaster@example.org", "postmaster+x@example.org", "abuse@example.net"):
        assert (await resolve(store, address)).accounts == (ALICE,)
    assert (await resolve(store, "postmaster")).accounts == (ROOT,)


async def test_without_a_superadmin_postmaster_falls_to_the_catch_all(store: Store) -> None:
    second = await accounts.add(store, None, "root2@example.org", None, role="superadmin")
    await accounts.set_status(store, (await accounts.find(store, "root")).account_id, "disabled")
    assert (await resolve(store, "postmaster@example.net")).accounts == (second.account_id,)
    await accounts.set_role(store, second.account_id, "user")
    assert (await resolve(store, "postmaster@example.net")).accounts == (BOB,)
    assert await resolve(store, "postmaster@example.org") == UNKNOWN
    assert await resolve(store, "postmaster") == UNKNOWN


async def test_nesting_and_fan_out_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {f"c{n}@example.org": [f"c{n + 1}@example.org"] for n in range(20)}
    await add_all(store, {**chain, "c20@example.org": ["alice@example.org"]})
    assert (await resolve(store, "c2@example.org")).accounts == (ALICE,)
    with pytest.raises(LimitReached):
        await resolve(store, "c0@example.org")
    monkeypatch.setattr(directory, "MAX_ADDRESSES", 50)
    await aliases.add(store, "wide@example.org", [f"t{n}@elsewhere.org" for n in range(60)])
    with pytest.raises(LimitReached):
        await resolve(store, "wide@example.org")


async def test_an_international_address(store: Store) -> None:
    await domains.add(store, "bücher.example")
    made = await accounts.add(store, None, "jos\u00e9@bücher.example", None)
    assert (await resolve(store, "JOSE\u0301+x@XN--BCHER-KVA.example")).accounts == (made.account_id,)


async def test_a_change_elsewhere_drops_what_is_kept(open_store: OpenStore, store: Store) -> None:
    other: Store = await open_store()
    while not other.changes.database_up:
        await asyncio.sleep(0.01)
    assert await resolve(other, "new@example.org") == UNKNOWN
    made = await accounts.add(store, None, "new@example.org", None)
    assert (await resolve(store, "new@example.org")).accounts == (made.account_id,)
    async with asyncio.timeout(2):
        while (await resolve(other, "new@example.org")).status != "ok":
            await asyncio.sleep(0.01)


async def caught_up(store: Store) -> None:
    """Until all that was told before has been heard."""
    heard = asyncio.Event()
    forget = store.changes.listen(lambda notice: heard.set() if notice.kind == "marker" else None)
    async with asyncio.timeout(10):
        while not store.changes.database_up:
            await asyncio.sleep(0.01)
        async with store.acquire() as conn:
            await directory.announce(conn, "marker")
        await heard.wait()
    forget()


async def test_an_answer_is_kept_and_shared(store: Store) -> None:
    """Many at once ask the database once, later ones not at all."""
    await caught_up(store)
    queries: list[str] = []
    original = store.acquire

    def counting() -> Any:
        queries.append("")
        return original()

    store.acquire = counting  # type: ignore[method-assign]
    results = await asyncio.gather(*(resolve(store, "alice@example.org") for _ in range(50)))
    assert {result.accounts for result in results} == {(ALICE,)}
    await resolve(store, "alice@example.org")
    assert len(queries) == 1


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Loads:
    """A load that can be held up, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Resolved:
        self.count += 1
        await self.gate.wait()
        return UNKNOWN if self.count == 1 else NOT_OURS


def cache_for(clock: Clock) -> tuple[DirectoryCache, list[Any]]:
    listeners: list[Any] = []
    store: Any = SimpleNamespace(changes=SimpleNamespace(listen=listeners.append))
    return DirectoryCache(store, clock=clock), listeners


async def test_the_cache_ages() -> None:
    clock, load = Clock(), Loads()
    cache, _ = cache_for(clock)
    assert await cache.get("a", load) == UNKNOWN
    clock.now = CACHE_SECONDS - 1
    assert await cache.get("a", load) == UNKNOWN
    clock.now = CACHE_SECONDS
    assert await cache.get("a", load) == NOT_OURS


@pytest.mark.parametrize(
    ("kind", "dropped"), [("directory", True), ("account", True), ("resync", True), ("mail", False), ("list", False)]
)
async def test_which_notices_drop_the_cache(kind: str, dropped: bool) -> None:
    load = Loads()
    cache, [listener] = cache_for(Clock())
    await cache.get("a", load)
    listener(Notice(kind))
    await cache.get("a", load)
    assert load.count == (2 if dropped else 1)


async def test_what_was_loading_when_the_cache_was_dropped_is_not_kept() -> None:
    load = Loads()
    cache, _ = cache_for(Clock())
    load.gate.clear()
    early = asyncio.ensure_future(cache.get("a", load))
    await asyncio.sleep(0)
    cache.drop()
    late = asyncio.ensure_future(cache.get("a", load))
    await asyncio.sleep(0)
    load.gate.set()
    await asyncio.gather(early, late)
    assert load.count == 2
    assert await cache.get("a", load) == NOT_OURS
    assert load.count == 2


async def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "CACHE_ENTRIES", 3)
    load = Loads()
    cache, _ = cache_for(Clock())
    for key in "abcadc":
        await cache.get(key, load)
    assert load.count == 4
    await cache.get("b", load)
    assert load.count == 5


async def test_a_caller_that_leaves_and_a_load_that_fails_harm_nobody() -> None:
    load = Loads()
    cache, _ = cache_for(Clock())
    load.gate.clear()
    leaving, staying = (asyncio.ensure_future(cache.get("a", load)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    load.gate.set()
    assert await staying == UNKNOWN

    async def fail() -> Resolved:
        raise Unavailable

    with pytest.raises(Unavailable):
        await cache.get("b", fail)
    assert await cache.get("b", load) == NOT_OURS
