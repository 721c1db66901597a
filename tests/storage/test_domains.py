"""Domains on a real database."""

from __future__ import annotations

import asyncio

import pytest

from storage import accounts, domains
from storage.errors import AlreadyExists, NotAllowed, NotFound
from storage.records import Domain
from tests.storage.conftest import OpenStore


async def test_a_domain_lives(open_store: OpenStore) -> None:
    store = await open_store()
    assert await domains.add(store, "Example.ORG", "open") == Domain("example.org", "open")
    with pytest.raises(AlreadyExists):
        await domains.add(store, "example.org")
    await domains.set_registration(store, "example.org", "closed")
    assert await domains.get(store, "EXAMPLE.org") == Domain("example.org", "closed")
    await domains.add(store, "bücher.example")
    assert [domain.name for domain in await domains.list_all(store)] == ["example.org", "xn--bcher-kva.example"]
    await domains.remove(store, "example.org")
    for missing in (domains.get, domains.remove):
        with pytest.raises(NotFound):
            await missing(store, "example.org")
    with pytest.raises(NotFound):
        await domains.set_registration(store, "example.org", "open")


async def test_a_domain_with_addresses_stays(open_store: OpenStore) -> None:
    store = await open_store()
    await domains.add(store, "example.org")
    account = await accounts.add(store, None, "alice@example.org", None)
    assert await domains.counts(store, "example.org") == (1, 0)
    with pytest.raises(NotAllowed):
        await domains.remove(store, "example.org")
    await accounts.remove(store, account.account_id)
    await domains.remove(store, "example.org")


async def test_no_address_is_left_without_its_domain(open_store: OpenStore) -> None:
    store = await open_store()

    async def attempt(work: object) -> bool:
        try:
            await work  # type: ignore[misc]
        except (NotFound, NotAllowed):
            return False
        return True

    for turn in range(20):
        await domains.add(store, "example.org")
        made, removed = await asyncio.gather(
            attempt(accounts.add(store, None, f"a{turn}@example.org", None)),
            attempt(domains.remove(store, "example.org")),
        )
        assert made is not removed
        if made:
            await accounts.remove(store, (await accounts.find(store, f"a{turn}")).account_id)
            await domains.remove(store, "example.org")


async def test_bad_names(open_store: OpenStore) -> None:
    store = await open_store()
    for name in ("", "a b", "-x.org"):
        with pytest.raises(ValueError):
            await domains.add(store, name)
