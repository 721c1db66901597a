"""A store on a fresh database, a second one beside it as another worker, and messages to put into them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from config.schema import Config
from storage import content, mailboxes
from storage.clock import Stamps
from storage.records import INBOX, AccountId, MessageId, Placed, Placement
from storage.store import Store
from tests.support.proxy import PostgresProxy

ALICE = AccountId(1)
BOB = AccountId(2)


@dataclass
class Summary:
    envelope: bytes = b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
    bodystructure: bytes = b'("text" "plain" NIL NIL NIL "7bit" 0 0)'
    header_octets: int = 14
    parts: bytes | None = None
    sent: int = 1_700_000_000
    preview: str = "hello"
    msgids: tuple[bytes, ...] = ()


@dataclass
class Split:
    front: bytes
    inline: tuple[bytes, ...] = ()
    blobs: tuple[bytes, ...] = ()
    layout: bytes | None = None


OpenStore = Callable[..., Any]


@pytest.fixture
async def open_store(database: str, tmp_path: Path, group_commit: str) -> AsyncIterator[OpenStore]:
    """Opens stores on one database, as so many workers."""
    opened: list[Store] = []

    async def open_one(
        redis_url: str | None = None,
        dsn: str = database,
        worker: str = "",
        stamps: Stamps | None = None,
        **settings: Any,
    ) -> Store:
        config = Config()
        store = await Store.open(
            config.storage.model_copy(update={"group_commit": group_commit, **settings}),
            mail=config.mail,
            dsn=dsn,
            redis_url=redis_url,
            blobs=str(tmp_path / "blobs"),
            install_key=b"i" * 32,
            master_key=b"m" * 32,
            worker=worker or f"worker {len(opened)}",
            stamps=stamps,
        )
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    """A store with two accounts, Alice (1) and Bob (2)."""
    store: Store = await open_store()
    for account in (ALICE, BOB):
        await mailboxes.create_account_state(store, account)
    return store


@pytest.fixture
async def broken(store: Store, open_store: OpenStore, proxy: PostgresProxy, database: str) -> AsyncIterator[Store]:
    """A store whose connections pass the proxy; `store` beside it knows the truth."""
    made: Store = await open_store(dsn=proxy.dsn_of(database), lock_timeout_seconds=2, statement_timeout_seconds=1)
    await until_problems(made)
    yield made
    proxy.heal()
    await made.close()


@asynccontextmanager
async def read_only(dsn: str) -> AsyncIterator[None]:
    """A database that takes no writes, for connections that begin from now on; those that were there are ended."""
    conn = await asyncpg.connect(dsn)
    name = await conn.fetchval("SELECT current_database()")
    await conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await conn.fetch(_END_OTHERS)
    try:
        yield
    finally:
        await conn.execute(f"SET default_transaction_read_only = off; ALTER DATABASE {name} RESET ALL")
        await conn.close()


_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()
"""


async def until_problems(store: Store, *names: str) -> None:
    """Waits until exactly these parts are said to be wrong."""
    async with asyncio.timeout(20):
        while set(await store.healthy()) != set(names):
            await asyncio.sleep(0.02)


async def deliver(
    store: Store,
    to: Sequence[Placement] | None = None,
    *,
    text: bytes = b"Subject: hi\r\n\r\nhello\r\n",
    blobs: tuple[bytes, ...] = (),
    msgids: tuple[bytes, ...] = (),
    quota: str = "share",
    trace_id: uuid.UUID | None = None,
    message_id: MessageId | None = None,
) -> list[Placed]:
    """One message, by default into Alice's INBOX."""
    split = Split(text, blobs=blobs, layout=b"layout" if blobs else None)
    size = len(text) + sum(map(len, blobs))
    message = await content.prepare(store, split, Summary(msgids=msgids), size)
    placements = to if to is not None else [place(ALICE)]
    placed: list[Placed] = await store.committer.deliver(
        message, placements, trace_id=trace_id or uuid.uuid4(), quota=quota, message_id=message_id
    )
    return placed


def place(account: AccountId, mailbox: int = INBOX, **more: Any) -> Placement:
    return Placement(account, mailbox, more.pop("received", 1_700_000_000), **more)  # type: ignore[arg-type]
