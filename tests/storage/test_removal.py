"""Removing an account's mail: every table, in slices, against deliveries that still land."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from storage import removal
from storage.errors import NotFound
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, deliver, place
from tests.storage.test_sql_rules import ACCOUNT_TABLES, breaks

STATEMENTS = [sql for pair in removal._SLICED for sql in pair] + list(removal._REST) + [removal._DELETE_STATE]


@pytest.mark.parametrize("sql", STATEMENTS)
async def test_statements_keep_the_rules(sql: str) -> None:
    assert breaks(sql) == []


def test_no_table_is_forgotten() -> None:
    deleted = {sql.split("DELETE FROM ")[1].split()[0] for sql in STATEMENTS if sql.startswith("DELETE")}
    assert deleted == set(ACCOUNT_TABLES)
    assert {sql.split()[2] for sql in removal._REST} == set(ACCOUNT_TABLES) - {"account_state"}


async def test_what_is_delivered_meanwhile_goes_as_well(
    database: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "SLICE", 5)
    for number in range(30):
        await deliver(store, [place(ALICE), place(BOB)], msgids=(b"<%d@x>" % number,))
    landed = 0

    async def keep_delivering() -> None:
        nonlocal landed
        while True:
            await deliver(store, [place(ALICE)])
            landed += 1

    late = asyncio.ensure_future(keep_delivering())
    while not landed:
        await asyncio.sleep(0.001)
    await removal.remove_mail(store, ALICE)
    with pytest.raises(NotFound):
        await late
    conn = await asyncpg.connect(database)
    for table in ACCOUNT_TABLES:
        assert await conn.fetchval(f"SELECT count(*) FROM {table} WHERE account_id = $1", ALICE) == 0, table
    assert await conn.fetchval("SELECT count(*) FROM messages WHERE account_id = $1", BOB) == 30
    await conn.close()
    await removal.remove_mail(store, ALICE)


async def test_slices_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "SLICE", 10)
    for _ in range(25):
        await deliver(store, [place(ALICE)])
    last_key, delete = next(pair for pair in removal._SLICED if " messages " in pair[0])
    assert [await removal._remove_slice(store, ALICE, last_key, delete) for _ in range(3)] == [True, True, False]
    async with store.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM messages WHERE account_id = $1", ALICE) == 5
