from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from mailserver import passwords
from mailserver.net.tls import Certificates
from storage import SYSTEM, Account, Store, accounts, aliases, domains, mailboxes
from tests.receiving.tools import PASSWORD, Host, hosting, open_store
from tests.receiving.tools import certificates as make_certificates
from tests.support.services import Databases

HASH = passwords.Hasher(64, 1).hash(PASSWORD)


@dataclass
class People:
    alice: Account
    bob: Account
    admin: Account


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def store(database: str, tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(database, tmp_path)
    yield store
    await store.close()


@pytest.fixture
async def people(store: Store) -> People:
    """alice, bob and an administrator at example.org; a catch-all at catch.example; some aliases."""
    await mailboxes.create_account_state(store, SYSTEM)
    await domains.add(store, "example.org")
    await domains.add(store, "catch.example")
    admin = await accounts.add(store, "root", "admin@example.org", HASH, role="superadmin")
    alice = await accounts.add(store, "alice", "alice@example.org", HASH, further=["a.liddell@example.org"])
    bob = await accounts.add(store, "bob", "bob@example.org", HASH)
    await aliases.add(store, "both@example.org", ["alice@example.org", "bob@example.org"])
    await aliases.add(store, "wonderland@example.org", ["alice@example.org"])
    await aliases.add(store, "@catch.example", ["bob@example.org"])
    await aliases.add(store, "away@example.org", ["someone@elsewhere.example"])
    await aliases.add(store, "split@example.org", ["alice@example.org", "someone@elsewhere.example"])
    return People(alice, bob, admin)


@pytest.fixture
async def host(store: Store, people: People, certificates: Certificates) -> AsyncIterator[Host]:
    async with hosting(store, certificates) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(
    databases: Databases, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Host]:
    """One host for all tests of a module: alice and bob at example.org; clients are trusted."""
    name = databases.make()
    store = await open_store(databases.dsn(name), tmp_path_factory.mktemp("store"))
    await domains.add(store, "example.org")
    for person in ("alice", "bob"):
        await accounts.add(store, None, f"{person}@example.org", HASH)
    async with hosting(store, certificates, trusted=("127.0.0.0/8",)) as running:
        yield running
    await store.close()
    databases.drop(name)
