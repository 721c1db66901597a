"""An empty installation gets one domain and one superadmin, once."""

from __future__ import annotations

import asyncio

import pytest

from mailserver import passwords
from mailserver.administration import Refused, first_start
from mailserver.passwords import Hasher
from storage import accounts, directory, domains
from tests.storage.conftest import OpenStore


async def test_several_nodes_begin_at_once(open_store: OpenStore, hasher: Hasher) -> None:
    stores = [await open_store() for _ in range(3)]
    results = await asyncio.gather(*(first_start.begin(store, hasher, "Example.org") for store in stores))
    [made] = [result for result in results if result]
    assert (made.account.username, made.account.primary_address) == ("admin", "admin@example.org")
    assert made.account.role == "superadmin"
    login = await accounts.find_login(stores[0], "admin")
    assert login is not None
    assert made.password is not None
    assert passwords.verify(str(login.password_hash), made.password)
    assert [domain.name for domain in await domains.list_all(stores[0])] == ["example.org"]
    assert (await directory.resolve(stores[1], "postmaster")).accounts == (made.account.account_id,)
    assert await first_start.begin(stores[0], hasher, "example.net") is None


async def test_a_domain_that_cannot_be_one(open_store: OpenStore, hasher: Hasher) -> None:
    with pytest.raises(Refused):
        await first_start.begin(await open_store(), hasher, "[127.0.0.1]")
