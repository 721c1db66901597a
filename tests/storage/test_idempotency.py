"""Requests that have their effect once: every state of a row, on a real database."""

from __future__ import annotations

import uuid
from dataclasses import replace

import asyncpg
import pytest

from storage import idempotency
from storage.idempotency import Begun, Busy, Differs, Request, Sent
from storage.records import MessageId
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, deliver, place

FIRST = Request(ALICE, "k", b"d" * 32, MessageId(1000), BOB, uuid.UUID(int=1))
AGAIN = replace(FIRST, message_id=MessageId(2000), trace_id=uuid.UUID(int=2))


async def age(database: str) -> None:
    conn = await asyncpg.connect(database)
    await conn.execute("UPDATE idempotency_keys SET begun_at = begun_at - interval '1 hour'")
    await conn.close()


async def test_once_done_it_is_answered_as_before(store: Store) -> None:
    assert await idempotency.begin(store, FIRST) == Begun(FIRST.message_id, FIRST.trace_id)
    assert await idempotency.sent(store, ALICE, "k", FIRST.digest) is None
    await idempotency.finish(store, ALICE, "k", FIRST.message_id)
    assert await idempotency.sent(store, ALICE, "k", FIRST.digest) == Sent(FIRST.message_id, FIRST.trace_id)
    assert await idempotency.sent(store, ALICE, "k", b"e" * 32) == Differs()
    assert await idempotency.sent(store, BOB, "k", FIRST.digest) is None
    assert await idempotency.begin(store, AGAIN) == Sent(FIRST.message_id, FIRST.trace_id)


async def test_while_it_is_under_way_the_other_waits(store: Store, database: str) -> None:
    await idempotency.begin(store, FIRST)
    assert await idempotency.begin(store, AGAIN) == Busy()


async def test_another_request_under_the_key_is_refused(store: Store) -> None:
    await idempotency.begin(store, FIRST)
    assert await idempotency.begin(store, replace(AGAIN, digest=b"e" * 32)) == Differs()
    assert await idempotency.begin(store, replace(AGAIN, account_id=BOB)) == Begun(AGAIN.message_id, AGAIN.trace_id)


async def test_one_that_failed_begins_anew(store: Store) -> None:
    await idempotency.begin(store, FIRST)
    await idempotency.forget(store, ALICE, "k")
    assert await idempotency.begin(store, AGAIN) == Begun(AGAIN.message_id, AGAIN.trace_id)


async def test_one_that_was_broken_off_is_taken_over_under_its_ids_once(store: Store, database: str) -> None:
    await idempotency.begin(store, FIRST)
    await age(database)
    assert await idempotency.begin(store, AGAIN) == Begun(FIRST.message_id, FIRST.trace_id)
    assert await idempotency.begin(store, AGAIN) == Busy()


@pytest.mark.parametrize("old", [False, True])
async def test_one_that_was_stored_and_not_answered_is_found(store: Store, database: str, old: bool) -> None:
    await idempotency.begin(store, FIRST)
    placed = await deliver(store, [place(BOB)], trace_id=FIRST.trace_id, message_id=FIRST.message_id)
    assert placed[0].message_id == FIRST.message_id
    if old:
        await age(database)
    assert await idempotency.begin(store, AGAIN) == Sent(FIRST.message_id, FIRST.trace_id)


async def test_a_message_of_another_attempt_is_not_taken_for_it(store: Store) -> None:
    await idempotency.begin(store, FIRST)
    await deliver(store, [place(BOB)], message_id=FIRST.message_id)
    assert await idempotency.begin(store, AGAIN) == Busy()


async def test_old_ones_go(store: Store, database: str) -> None:
    await idempotency.begin(store, FIRST)
    for _ in range(25):
        await age(database)
    await idempotency.begin(store, replace(AGAIN, key="new"))
    await idempotency.drop_old(store)
    conn = await asyncpg.connect(database)
    assert [row[0] for row in await conn.fetch("SELECT key FROM idempotency_keys")] == ["new"]
    await conn.close()
