"""Aliases on a real database."""

from __future__ import annotations

import pytest

from storage import accounts, aliases, domains
from storage.aliases import Alias
from storage.errors import AlreadyExists, LimitReached, NotFound
from storage.store import Store
from tests.storage.conftest import OpenStore


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    store: Store = await open_store()
    await domains.add(store, "example.org")
    await accounts.add(store, None, "alice@example.org", None)
    return store


async def test_targets_come_and_go_and_the_last_takes_the_alias_along(store: Store) -> None:
    assert await aliases.add(store, "Sales@example.org", ["Alice@EXAMPLE.org"]) == ("alice@example.org",)
    assert await aliases.add(store, "sales@example.org", ["alice@example.org", "Bob@Elsewhere.org"]) == (
        "Bob@elsewhere.org",
    )
    assert await aliases.get(store, "SALES@example.org") == Alias(
        "sales@example.org", ("Bob@elsewhere.org", "alice@example.org")
    )
    with pytest.raises(NotFound):
        await aliases.remove(store, "sales@example.org", ["alice@example.org", "nobody@example.org"])
    assert await aliases.remove(store, "sales@example.org", ["BOB@elsewhere.org"]) == ("Bob@elsewhere.org",)
    assert await aliases.remove(store, "sales@example.org", ["alice@example.org"]) == ("alice@example.org",)
    for gone in (aliases.get, aliases.remove):
        with pytest.raises(NotFound):
            await gone(store, "sales@example.org")
    await accounts.add(store, None, "sales@example.org", None)


async def test_removing_all(store: Store) -> None:
    await aliases.add(store, "@example.org", ["alice@example.org", "b@elsewhere.org"])
    assert await aliases.remove(store, "@Example.org") == ("alice@example.org", "b@elsewhere.org")
    assert await aliases.list_all(store) == []


@pytest.mark.parametrize(
    ("address", "targets", "error"),
    [
        ("alice@example.org", ["b@elsewhere.org"], AlreadyExists),
        ("sales@elsewhere.org", ["alice@example.org"], NotFound),
        ("sales", ["alice@example.org"], ValueError),
        ("sales@example.org", ["alice"], ValueError),
        ("sales@example.org", ["@elsewhere.org"], ValueError),
        ("sales@example.org", [], ValueError),
        ("sales@example.org", [f"t{n}@elsewhere.org" for n in range(1001)], LimitReached),
    ],
)
async def test_refusals_leave_nothing(store: Store, address: str, targets: list[str], error: type[Exception]) -> None:
    with pytest.raises(error):
        await aliases.add(store, address, targets)
    assert await aliases.list_all(store) == []


async def test_lists_come_in_pages_and_by_domain(store: Store) -> None:
    await domains.add(store, "example.net")
    for address in ("b@example.org", "a@example.org", "c@example.net"):
        await aliases.add(store, address, ["alice@example.org"])
    assert [alias.address for alias in await aliases.list_page(store, limit=2)] == ["a@example.org", "b@example.org"]
    assert [alias.address for alias in await aliases.list_page(store, after="b@example.org")] == ["c@example.net"]
    assert [alias.address for alias in await aliases.list_all(store, domain="example.net")] == ["c@example.net"]
