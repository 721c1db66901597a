"""A store with the domain example.org and the superadmin root, and a hasher that costs little."""

from __future__ import annotations

import pytest

from mailserver.administration import accounts, domains
from mailserver.administration.accounts import Wish
from mailserver.passwords import Hasher
from storage.store import Store
from tests.storage.conftest import OpenStore, open_store

__all__ = ["open_store"]


@pytest.fixture
def hasher() -> Hasher:
    return Hasher(memory_kib=64, time_cost=1)


@pytest.fixture
async def store(open_store: OpenStore, hasher: Hasher) -> Store:
    store: Store = await open_store()
    await domains.add(store, "example.org")
    await accounts.add(store, hasher, Wish("root@example.org", role="superadmin"))
    return store
