"""What a worker makes of the change feed: sessions and remembered passwords of changed accounts go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from admin_api.service import Api
from config.schema import Config
from mailserver.app import Services, SharedMemory, mail_factories, serve
from mailserver.login import LoginFailed
from mailserver.net.tls import Certificates, make_self_signed
from mailserver.passwords import Hasher
from storage import AccountId, Notice, Store, accounts, domains
from storage.changes import RESYNC
from tests.support.proxy import PostgresProxy, running
from tests.support.services import Databases

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


async def test_other_settings_reach_every_part(services: Services, tmp_path: Path) -> None:
    """One Config, taken up in one go; each setting that a reload may change is that of the new one afterwards."""
    make_self_signed(tmp_path / "tls" / "server.crt", tmp_path / "tls" / "server.key", ["a.example.org"])
    mail_factories(services, ("smtp", "submission", "imap"))
    assert services.receiving is not None and services.imap is not None
    services.api = Api(services.config, services.store, services.logins, SharedMemory(services.memory))
    context = services.certificates.server_context()
    config = Config(
        server={"trusted_networks": ["192.0.2.0/24"], "hostname": "b.example.org"},
        storage={"batch_messages": 7},
        mail={"receive_memory_mib": 3, "default_mailboxes": []},
        smtp={"max_connections_per_address": 5, "max_connections": 6},
        imap={"max_connections": 8, "max_connections_per_account": 9},
        auth={"cache_seconds": 0, "token_seconds": 77},
    )
    make_self_signed(tmp_path / "tls" / "server.crt", tmp_path / "tls" / "server.key", ["b.example.org"])
    services.reconfigure(config, services.certificates.read(config.tls))
    assert services.config is services.receiving.config is config
    assert services.limits.is_trusted("192.0.2.9") and not services.limits.is_trusted("127.0.0.1")
    assert services.memory.limit == services.receiving.memory.limit == 3 << 20
    assert (services.store.config, services.store.mail) == (config.storage, config.mail)
    assert (services.receiving.connections.total, services.receiving.connections.per_address) == (6, 5)
    assert (services.imap.connections.total, services.imap.config) == (8, config.imap)
    assert services.receiving.greeting.startswith(b"220 b.example.org")
    assert services.certificates.server_context() is not context
    assert services.api.config is config
    alice = await account(services.store, "alice")
    assert (await services.api.tokens.issue(await accounts.get(services.store, alice)))[1] == 77
    services.logins.close()


async def test_a_stopping_server_is_not_ready(services: Services) -> None:
    services.stopping = True
    assert "server" in await services.health.problems()


async def test_a_silent_database_does_not_hold_up_the_end(databases: Databases, database: str, tmp_path: Path) -> None:
    """Housekeeping is in the midst of a query. What the driver does about that fails, and hides its cancellation."""
    make_self_signed(tmp_path / "tls" / "server.crt", tmp_path / "tls" / "server.key", ["a.example.org"])
    config = Config()
    busy = config.storage.model_copy(update={"sweep_interval_seconds": 0, "lock_timeout_seconds": 1})
    with running(PostgresProxy(databases.server.folder / ".s.PGSQL.5432")) as proxy:
        opened = await Store.open(
            busy,
            mail=config.mail,
            dsn=proxy.dsn_of(database),
            redis_url=None,
            blobs=str(tmp_path / "blobs"),
            install_key=b"i" * 32,
            master_key=b"m" * 32,
            worker="test",
        )
        ready, stop = asyncio.Event(), asyncio.Event()
        served = Services(config, opened, Certificates(config.tls, tmp_path))
        serving = asyncio.create_task(serve(served, {}, stop=stop, ready=ready.set, housekeeper=True))
        await ready.wait()
        proxy.hold()
        await asyncio.sleep(0.3)
        stop.set()
        _, late = await asyncio.wait([serving], timeout=40)
        proxy.heal()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await opened.close()
    assert not late
