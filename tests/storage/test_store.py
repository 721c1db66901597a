"""Transactions and what a failure means: surely absent, or unknown, and never a success that is none."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from config.schema import Config
from storage import mailboxes, messages
from storage.errors import OutcomeUnknown, Unavailable
from storage.records import INBOX, LOOK, Flag, FlagChange, Notice
from storage.store import Store, commit, is_unavailable
from tests.storage.conftest import ALICE, OpenStore, deliver, read_only, until_problems
from tests.support.proxy import Fault, PostgresProxy


async def box_names(store: Store) -> list[str]:
    return [box.name[0] for box in await mailboxes.list_all(store, ALICE)]


async def test_an_exception_rolls_back(store: Store) -> None:
    with pytest.raises(KeyError):
        async with store.transaction() as conn:
            await conn.execute("UPDATE mailboxes SET name = '{lost}' WHERE account_id = 1 AND mailbox_id = 2")
            raise KeyError
    assert "lost" not in await box_names(store)


async def test_the_database_is_away() -> None:
    config = Config()
    with pytest.raises(Unavailable):
        await Store.open(
            config.storage, mail=config.mail, dsn="postgresql://nobody@/x?host=/nowhere", redis_url=None,
            blobs="/tmp/none", install_key=b"i" * 32, master_key=b"m" * 32, worker="w",
        )  # fmt: skip


async def test_a_connection_that_breaks_in_a_transaction(store: Store) -> None:
    with pytest.raises(Unavailable):
        async with store.transaction() as conn:
            async with store.acquire() as other:
                await other.execute("SELECT pg_terminate_backend($1)", conn.get_server_pid())
            await asyncio.sleep(0.1)
            await conn.execute("SELECT 1")
    assert await box_names(store)


async def test_commit_of_a_failed_transaction_is_unavailable(database: str) -> None:
    conn = await asyncpg.connect(database)
    await conn.execute("BEGIN")
    with pytest.raises(asyncpg.PostgresError):
        await conn.execute("SELECT 1/0")
    with pytest.raises(Unavailable):
        await commit(conn, 5)
    await conn.close()


async def test_no_answer_to_commit_is_unknown(database: str) -> None:
    conn, other = await asyncpg.connect(database), await asyncpg.connect(database)
    await conn.execute("BEGIN")
    await other.execute("SELECT pg_terminate_backend($1)", conn.get_server_pid())
    with pytest.raises(OutcomeUnknown):
        await commit(conn, 5)
    await other.close()


async def test_commit_is_not_cancelled_with_its_task(database: str) -> None:
    conn, other = await asyncpg.connect(database), await asyncpg.connect(database)
    await conn.execute("CREATE TABLE t (n int)")
    await conn.execute("BEGIN")
    await conn.execute("INSERT INTO t VALUES (1)")
    task = asyncio.create_task(commit(conn, 5))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert conn.is_closed()
    assert await other.fetchval("SELECT count(*) FROM t") in (0, 1)
    await other.close()


async def test_all_are_told_to_look_where_the_writer_goes_away_behind_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Notice] = []
    store.changes.listen(heard.append)
    behind = asyncio.Event()

    async def slow(conn: Any) -> None:
        behind.set()
        await asyncio.sleep(60)

    async def change() -> None:
        async with store.transaction() as conn:
            await conn.execute("UPDATE mailboxes SET messages = 1 WHERE account_id = 1 AND mailbox_id = 1")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_give_back", slow)
        task = asyncio.create_task(change())
        await behind.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert heard == [LOOK]


async def test_nobody_is_told_to_look_where_the_writer_goes_away_before_it(store: Store) -> None:
    heard: list[Notice] = []
    store.changes.listen(heard.append)
    with pytest.raises(asyncio.CancelledError):
        async with store.transaction():
            raise asyncio.CancelledError
    assert heard == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (asyncpg.TooManyConnectionsError("x"), True),
        (asyncpg.AdminShutdownError("x"), True),
        (asyncpg.CannotConnectNowError("x"), True),
        (asyncpg.ReadOnlySQLTransactionError("x"), True),
        (asyncpg.DeadlockDetectedError("x"), True),
        (asyncpg.ConnectionDoesNotExistError("x"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (asyncpg.exceptions.TargetServerAttributeNotMatched("x"), True),
        (asyncpg.InternalClientError("x"), True),
        (asyncpg.UniqueViolationError("x"), False),
        (asyncpg.UndefinedTableError("x"), False),
        (KeyError(), False),
    ],
)
def test_which_failures_say_unavailable(error: Exception, expected: bool) -> None:
    assert is_unavailable(error) is expected


async def test_health(open_store: OpenStore, store: Store) -> None:
    async with asyncio.timeout(5):
        while await store.healthy():
            await asyncio.sleep(0.05)
    store.changes._redis_url = "unix:///nowhere"
    assert set(await store.healthy()) == {"redis"}


async def test_read_only_is_unavailable(store: Store) -> None:
    with pytest.raises(Unavailable):
        async with store.transaction() as conn:
            await conn.execute("SET TRANSACTION READ ONLY")
            await conn.execute("UPDATE mailboxes SET messages = 1 WHERE account_id = 1 AND mailbox_id = 1")


async def test_a_database_that_turns_read_only_and_back(open_store: OpenStore, store: Store, database: str) -> None:
    """Reading goes on; and nobody has to end the connections that began read-only."""
    store = await open_store(lock_timeout_seconds=1)
    await deliver(store)
    async with read_only(database):
        await until_problems(store, "postgres", "notify")
        with pytest.raises(Unavailable):
            await deliver(store)
        with pytest.raises(Unavailable):
            await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", Flag.SEEN))
        assert (await mailboxes.get(store, ALICE, INBOX)).messages == 1
    await until_problems(store)
    await deliver(store)
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", Flag.SEEN))
    box = await mailboxes.get(store, ALICE, INBOX)
    assert (box.messages, box.unseen) == (2, 1)


async def test_others_look_after_a_commit_whose_answer_was_lost(
    store: Store, broken: Store, proxy: PostgresProxy
) -> None:
    """Nobody knows what was changed, so nobody can be told; the mailboxes that are open are read."""
    await deliver(broken)
    await until_problems(store)
    views = [await opened.views.open(ALICE, INBOX) for opened in (store, broken)]
    proxy.arm(Fault(0, "after", marker=b"COMMIT"))
    with pytest.raises(OutcomeUnknown):
        await messages.store_flags(broken, ALICE, INBOX, [1], FlagChange("+", Flag.SEEN))
    async with asyncio.timeout(10):
        for view in views:
            while not view.snapshot.entry(1).flags & Flag.SEEN:  # type: ignore[union-attr]
                await asyncio.sleep(0.01)
            view.close()


async def test_a_connection_that_was_told_to_end_and_is_not_closed_yet(broken: Store, proxy: PostgresProxy) -> None:
    """The driver finds it out of step with its server; the pool hands it out once, and not again."""
    await until_problems(broken)
    proxy.announce_the_end()
    await asyncio.sleep(0.2)  # as a rule it is read while the connection is idle; else the answer is the same
    with pytest.raises(Unavailable):
        await mailboxes.get(broken, ALICE, INBOX)
    assert (await mailboxes.get(broken, ALICE, INBOX)).messages == 0


async def test_a_cancelled_transaction_on_a_lost_connection_stays_cancelled(store: Store) -> None:
    async with store.acquire() as other:
        with pytest.raises(asyncio.CancelledError):
            async with store.transaction() as conn:
                await other.execute("SELECT pg_terminate_backend($1)", conn.get_server_pid())
                await asyncio.sleep(0.2)
                raise asyncio.CancelledError


async def test_what_was_committed_stays_done_where_the_connection_is_lost_afterwards(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncpg.Pool.release

    async def lost(pool: asyncpg.Pool, conn: Any) -> None:
        await release(pool, conn)
        raise asyncpg.InterfaceError("connection is closed")

    monkeypatch.setattr(asyncpg.Pool, "release", lost)
    async with store.transaction() as conn:
        await conn.execute("UPDATE account_state SET modseq = 77 WHERE account_id = $1", ALICE)
    async with store.acquire() as conn:
        assert await conn.fetchval("SELECT modseq FROM account_state WHERE account_id = $1", ALICE) == 77
    with pytest.raises(Unavailable):
        async with store.acquire():
            raise OSError("broken")
