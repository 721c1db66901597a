"""What a worker makes of the change feed: sessions and remembered passwords of changed accounts go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.schema import Config
from mailserver.app import Services
from mailserver.login import LoginFailed
from mailserver.net.tls import Certificates
from mailserver.passwords import Hasher
from storage import AccountId, Notice, Store, accounts, domains
from storage.changes import RESYNC

WORDS = "correct horse battery"


class Session:
    def __init__(self) -> None:
        self.reason: str | None = None

    def end(self, reason: str) -> None:
        self.reason = reason


@pytest.fixture
async def store(database: str, tmp_path: Path) -> AsyncIterator[Store]:
    config = Config()
    opened = await Store.open(
        config.storage,
        mail=config.mail,
        dsn=database,
        redis_url=None,
        blobs=str(tmp_path / "blobs"),
        install_key=b"i" * 32,
        master_key=b"m" * 32,
        worker="test",
    )
    await domains.add(opened, "example.org")
    yield opened
    await opened.close()


@pytest.fixture
async def services(store: Store, tmp_path: Path) -> Services:
    config = Config()
    return Services(config, store, Certificates(config.tls, tmp_path))


async def account(store: Store, name: str) -> AccountId:
    made = await accounts.add(store, name, f"{name}@example.org", Hasher(64, 1).hash(WORDS))
    return made.account_id


async def session(services: Services, name: str) -> Session:
    found = await services.logins.check(name, WORDS, peer="127.0.0.1", service="imap")
    made = Session()
    assert services.sessions.add(found.account_id, made)
    return made


async def settle(services: Services) -> None:
    await asyncio.gather(*services._checks)


async def test_a_notice_ends_the_sessions_of_its_account_alone(services: Services, store: Store) -> None:
    alice, _ = await account(store, "alice"), await account(store, "bob")
    one, other = await session(services, "alice"), await session(services, "bob")
    services.hear(Notice("account", alice))
    assert one.reason and not other.reason
    services.hear(Notice("mail", alice))


async def test_a_changed_password_counts_at_once_after_its_notice(services: Services, store: Store) -> None:
    alice = await account(store, "alice")
    await session(services, "alice")
    await accounts.set_password_hash(store, alice, Hasher(64, 1).hash("other words"))
    services.hear(Notice("account", alice))
    with pytest.raises(LoginFailed):
        await session(services, "alice")


@pytest.mark.parametrize(
    ("change", "ends"),
    [("nothing", False), ("password", True), ("disabled", True), ("removed", True), ("disabled and enabled", True)],
)
async def test_after_a_gap_in_the_feed_changed_accounts_are_found(
    services: Services, store: Store, change: str, ends: bool
) -> None:
    alice = await account(store, "alice")
    mine = await session(services, "alice")
    if change == "password":
        await accounts.set_password_hash(store, alice, Hasher(64, 1).hash(WORDS))
        await services.logins.check("alice", WORDS, peer="127.0.0.1", service="imap")  # a newer session beside the old
    if change.startswith("disabled"):
        await accounts.set_status(store, alice, "disabled")
    if change.endswith("enabled"):
        await accounts.set_status(store, alice, "active")
    if change == "removed":
        await accounts.remove(store, alice)
    services.hear(RESYNC)
    await settle(services)
    assert (mine.reason is not None) is ends


async def test_what_is_remembered_of_accounts_without_sessions_is_forgotten(services: Services, store: Store) -> None:
    alice = await account(store, "alice")
    mine = await session(services, "alice")
    services.sessions.remove(alice, mine)
    assert alice in services.logins.versions
    services.hear(RESYNC)
    await settle(services)
    assert services.logins.versions == {}


async def test_a_stopping_server_is_not_ready(services: Services) -> None:
    services.stopping = True
    assert "server" in await services.health.problems()
