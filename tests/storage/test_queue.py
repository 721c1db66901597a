"""The outbound queue: who waits, who may attempt delivery, and what becomes of a recipient (docs/storage-states.md)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from storage import content, housekeeping, queue, queue_reports
from storage.batch import new_message_id
from storage.errors import NotFound
from storage.queue import Again, Ended, Gone, Move, Moved, Said, Taken
from storage.records import (
    Lease,
    MessageId,
    Notice,
    Outgoing,
    OutgoingRecipient,
    Placement,
)
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, OpenStore, Split, Summary, place

OK = Said(250, "2.0.0", "taken", "mx.remote.test")
LATER = Said(451, "4.3.0", "come back", "mx.remote.test")
NEVER = Said(550, "5.1.1", "no such user", "mx.remote.test")
PREFIX = b"Received: by us\r\n"
TEXT = b"Subject: hi\r\n\r\nhello\r\n"


@pytest.fixture(params=["function", "statements"])
def group_commit(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def outgoing(*addresses: str, **more: Any) -> Outgoing:
    """For these recipients, from Alice."""
    names = addresses or ("x@remote.test",)
    recipients = tuple(OutgoingRecipient(name, name.rpartition("@")[2]) for name in names)
    return replace(Outgoing(ALICE, "alice@example.org", recipients, header_prefix=PREFIX), **more)


async def enqueue(
    store: Store,
    out: Outgoing,
    to: Sequence[Placement] = (),
    message_id: int | None = None,
    trace: uuid.UUID | None = None,
) -> MessageId:
    """The id under which the message waits."""
    message = await content.prepare(store, Split(TEXT), Summary(), len(TEXT))
    chosen = MessageId(new_message_id()) if message_id is None else MessageId(message_id)
    await store.committer.deliver(
        message, to, trace_id=trace or uuid.uuid4(), quota="share", outgoing=out, message_id=chosen
    )
    return chosen


async def take(store: Store, *destinations: str, **more: Any) -> list[Taken]:
    names = destinations or ("remote.test",)
    return await queue.take(
        store, names, more.pop("limit", 100), **{"pause": lambda attempts: 60.0, "lease_seconds": 30.0} | more
    )


async def say(store: Store, taken: Taken, *moves: Move) -> None:
    await queue.record(
        store, [Moved(key, taken.lease.token, move) for key, move in zip(taken.keys, moves, strict=True)]
    )


async def rows(store: Store) -> dict[str, Any]:
    """The recipients by address."""
    async with store.acquire() as conn:
        return {row["recipient"]: row for row in await conn.fetch("SELECT * FROM queue_recipients")}


async def message(store: Store) -> Any:
    async with store.acquire() as conn:
        return await conn.fetchrow("SELECT * FROM queue_messages")


async def pass_time(store: Store, seconds: float) -> None:
    """For everything in the queue."""
    columns = {
        "queue_recipients": ("next_attempt_at", "act_by", "lease_until"),
        "queue_messages": ("done_at", "report_until"),
    }
    async with store.acquire() as conn:
        for table, names in columns.items():
            changes = ", ".join(f"{name} = {name} - $1::interval" for name in names)
            await conn.execute(f"UPDATE {table} SET {changes}", timedelta(seconds=seconds))


async def test_a_message_for_others_waits_and_is_in_no_mailbox(store: Store) -> None:
    queue_id = await enqueue(store, outgoing("x@remote.test", "y@other.test", ret="HDRS", envid="e1", smtputf8=True))
    (taken,) = await take(store)
    assert (taken.account_id, taken.queue_id, taken.reverse_path) == (ALICE, queue_id, "alice@example.org")
    assert (taken.ret, taken.envid, taken.smtputf8, taken.body, taken.size) == ("HDRS", "e1", True, "7BIT", len(TEXT))
    assert [recipient.address for recipient in taken.recipients] == ["x@remote.test"]
    assert await queue.load(store, taken) == PREFIX + TEXT
    assert (await message(store))["open"] == 2


async def test_local_and_outside_recipients_are_one_transaction(store: Store) -> None:
    with pytest.raises(NotFound):
        await enqueue(store, outgoing(), [replace(place(BOB), mailbox_id=99)])
    assert await rows(store) == {} and await message(store) is None
    await enqueue(store, outgoing(), [place(BOB)])
    assert set(await rows(store)) == {"x@remote.test"}


async def test_what_is_written_of_a_message_and_its_recipients(store: Store) -> None:
    asks = OutgoingRecipient("y@else.test", "else.test", "SUCCESS,DELAY", "rfc822;y@else.test")
    told = OutgoingRecipient("team@example.org", "example.org", "SUCCESS", report="expanded")
    plain = OutgoingRecipient("x@remote.test", "remote.test")
    more = {"body": "8BITMIME", "smtputf8": True, "ret": "HDRS", "envid": "an id", "act_seconds": 50.0}
    lease = Lease(uuid.uuid4(), time.monotonic() + 30)
    held = {"lease": lease, "lease_seconds": 30.0, "pause_seconds": 20.0}
    for out in (outgoing(**more), outgoing(**more, **held)):
        await enqueue(store, replace(out, recipients=(plain, asks, told)))
        written = await message(store)
        names = ("reverse_path", "envid", "ret", "body", "smtputf8", "header_prefix", "open", "done_at")
        wanted = ("alice@example.org", "an id", "HDRS", "8BITMIME", True, PREFIX, 3, None)
        assert tuple(written[name] for name in names) == wanted
        found = await rows(store)
        names = ("destination", "state", "notify", "orcpt", "attempts", "report", "lease_token")
        attempts, token = (1, lease.token) if out.lease else (0, None)
        assert {address: tuple(row[name] for name in names) for address, row in found.items()} == {
            "x@remote.test": ("remote.test", "waiting", None, None, attempts, None, token),
            "y@else.test": ("else.test", "waiting", "SUCCESS,DELAY", "rfc822;y@else.test", attempts, None, token),
            "team@example.org": ("example.org", "delivered", "SUCCESS", None, 0, "expanded", None),
        }
        for row in found.values():
            begun, leased = written["created_at"], row["lease_token"] is not None
            assert abs(row["act_by"] - begun - timedelta(seconds=50)) < timedelta(seconds=1.1)
            due = timedelta(seconds=30 if leased else 0)
            assert abs(row["next_attempt_at"] - begun - due) < timedelta(seconds=1.1)
            assert (row["lease_until"] is not None) == leased
        async with store.acquire() as conn:
            await conn.execute("DELETE FROM queue_recipients; DELETE FROM queue_messages")


async def test_what_nobody_has_taken_on_is_told(store: Store) -> None:
    heard: list[Notice] = []
    store.changes.listen(heard.append)
    await enqueue(store, outgoing())
    await enqueue(store, outgoing(lease=Lease(uuid.uuid4(), 0.0), lease_seconds=30))
    assert [notice.kind for notice in heard if notice.kind != "resync"] == ["queue"]


async def test_a_lease_from_the_start_keeps_others_away_until_it_ends(store: Store) -> None:
    lease = Lease(uuid.uuid4(), time.monotonic() + 30)
    queue_id = await enqueue(store, outgoing(lease=lease, lease_seconds=30, pause_seconds=5))
    assert await take(store) == []
    await pass_time(store, 20)
    assert await take(store) == []
    await pass_time(store, 20)
    (taken,) = await take(store)
    assert (taken.queue_id, taken.recipients[0].attempts) == (queue_id, 2)


async def test_a_message_of_a_call_that_is_repeated_is_there_once(store: Store) -> None:
    trace, number = uuid.uuid4(), new_message_id()
    for _ in range(2):
        await enqueue(store, outgoing(), [place(BOB)], number, trace)
    assert len(await rows(store)) == 1
    async with store.acquire() as conn:
        assert await conn.fetchval("SELECT messages FROM mailboxes WHERE account_id = 2 AND mailbox_id = 1") == 1


async def test_two_workers_never_take_the_same(store: Store, open_store: OpenStore) -> None:
    other: Store = await open_store()
    for number in range(30):
        await enqueue(store, outgoing(f"x{number}@remote.test", f"y{number}@remote.test"))
    keys = []
    for _ in range(60):
        found = await asyncio.gather(*(take(worker, limit=10) for worker in (store, other, store)))
        keys += [key for some in found for taken in some for key in taken.keys]
        if not any(found):
            break
    assert len(keys) == len(set(keys)) == 60


async def test_who_waits_longest_comes_first_and_destinations_are_apart(store: Store) -> None:
    for name in ("a", "b", "c"):
        await enqueue(store, outgoing(f"{name}@remote.test", f"{name}@other.test"))
        await pass_time(store, 10)
    assert [t.recipients[0].address for t in await take(store, limit=2)] == ["a@remote.test", "b@remote.test"]
    both = await take(store, "remote.test", "other.test", limit=5)
    assert sorted(r.address for taken in both for r in taken.recipients) == [
        *("a@other.test", "b@other.test", "c@other.test", "c@remote.test"),
    ]


async def test_the_schedule_names_each_destination_and_when_it_is_due(store: Store) -> None:
    await enqueue(store, outgoing("x@remote.test", "y@other.test", act_seconds=100))
    await take(store, "other.test")
    due = await queue.schedule(store)
    assert due["remote.test"] == pytest.approx((0, 100), abs=5) and due["other.test"] == pytest.approx((60, 100), abs=5)


async def test_the_next_attempt_is_written_before_the_attempt(store: Store) -> None:
    await enqueue(store, outgoing())
    await take(store, pause=lambda attempts: 100.0 * attempts)
    await pass_time(store, 99)
    assert await take(store) == []
    await pass_time(store, 2)
    (taken,) = await take(store, pause=lambda attempts: 100.0 * attempts)
    assert taken.recipients[0].attempts == 2
    row = (await rows(store))["x@remote.test"]
    assert (row["next_attempt_at"] - row["lease_until"]) == timedelta(seconds=170)


async def test_delivered_to_all_the_message_is_done_and_purged_in_time(store: Store) -> None:
    queue_id = await enqueue(store, outgoing("x@remote.test", "y@other.test"))
    (first,), (second,) = await take(store), await take(store, "other.test")
    await say(store, first, Gone())
    assert (await message(store))["done_at"] is None
    await say(store, second, Gone())
    assert (await message(store))["done_at"] is not None and await rows(store) == {}
    assert await housekeeping.purge(store, ALICE, 0) == 0
    await pass_time(store, 4000)
    async with store.acquire() as conn:
        await conn.execute("UPDATE messages SET created = created - 4000")
    assert await housekeeping.purge(store, ALICE, 0) == 1
    assert await message(store) is None
    with pytest.raises(NotFound):
        await queue.load(store, first)
    assert first.queue_id == queue_id


async def test_a_message_that_a_mailbox_holds_stays_when_it_was_sent(store: Store) -> None:
    await enqueue(store, outgoing(), [place(ALICE)])
    (taken,) = await take(store)
    await say(store, taken, Gone())
    await pass_time(store, 4000)
    async with store.acquire() as conn:
        await conn.execute("UPDATE messages SET created = created - 4000")
    assert await housekeeping.purge(store, ALICE, 0) == 0
    assert await message(store) is None and await queue.load(store, taken) == PREFIX + TEXT


async def test_deferred(store: Store) -> None:
    await enqueue(store, outgoing())
    (taken,) = await take(store)
    now = time.monotonic()
    await say(store, taken, Again(LATER, now + 500, now + 900, notice=True))
    row = (await rows(store))["x@remote.test"]
    assert (row["state"], row["report"], row["last_code"], row["last_text"]) == ("waiting", "delayed", 451, "come back")
    assert (row["lease_token"], row["next_attempt_at"].timestamp()) == (None, pytest.approx(time.time() + 500, abs=20))
    assert await take(store) == []
    await pass_time(store, 501)
    assert len(await take(store)) == 1


async def test_what_is_said_under_a_lease_that_was_taken_over_counts_for_nothing(store: Store) -> None:
    await enqueue(store, outgoing())
    (first,) = await take(store)
    await pass_time(store, 61)
    (second,) = await take(store)
    await say(store, first, Gone())
    assert len(await rows(store)) == 1 and (await message(store))["open"] == 1
    await say(store, second, Gone())
    await say(store, second, Gone())
    assert await rows(store) == {} and (await message(store))["open"] == 0


async def test_a_lease_is_renewed_unless_it_was_taken_over(store: Store) -> None:
    await enqueue(store, outgoing("x@remote.test", "y@other.test"))
    (mine,), (lost,) = await take(store), await take(store, "other.test")
    await pass_time(store, 61)
    (theirs,) = await take(store, "other.test")
    held = [(key, taken.lease.token) for taken in (mine, lost) for key in taken.keys]
    kept, until = await queue.renew(store, held, 100)
    assert kept == set(mine.keys) and until == pytest.approx(time.monotonic() + 100, abs=5)
    assert await take(store) == [] and theirs.lease.token != lost.lease.token
    await pass_time(store, 90)
    assert await take(store) == []
    await pass_time(store, 20)
    assert len(await take(store)) == 1


async def test_what_is_given_back_is_due_at_once_and_was_no_attempt(store: Store) -> None:
    await enqueue(store, outgoing())
    (taken,) = await take(store)
    await queue.give_back(store, [(key, taken.lease.token) for key in taken.keys])
    (again,) = await take(store)
    assert again.recipients[0].attempts == 1


async def test_one_that_needs_attention_is_found_though_it_is_not_due(store: Store) -> None:
    await enqueue(store, outgoing(act_seconds=100))
    (taken,) = await take(store)
    now = time.monotonic()
    await say(store, taken, Again(LATER, now + 500, now + 100))
    assert await take(store, overdue=True) == []
    await pass_time(store, 101)
    assert await take(store) == []
    (overdue,) = await take(store, overdue=True)
    assert overdue.recipients[0].attempts == 2


# Reports --------------------------------------------------------------------------------------------------------------


async def test_a_report_names_those_that_it_tells_of(store: Store) -> None:
    queue_id = await enqueue(store, outgoing("a@remote.test", "b@remote.test", "c@remote.test"))
    (taken,) = await take(store)
    now = time.monotonic()
    await say(store, taken, Ended("failed", NEVER), Again(LATER, now + 500, now + 900, notice=True), Gone())
    assert await queue_reports.owed(store, 10) == [(ALICE, queue_id)]
    report = await queue_reports.take(store, ALICE, queue_id, 60)
    assert report is not None
    told = [(r.address, r.report, r.said) for r in report.recipients]
    assert told == [("a@remote.test", "failed", NEVER), ("b@remote.test", "delayed", LATER)]
    assert await queue_reports.take(store, ALICE, queue_id, 60) is None and await queue_reports.owed(store, 10) == []
    await queue_reports.finish(store, report)
    (row,) = (await rows(store)).values()
    assert (row["recipient"], row["told"], row["report"]) == ("b@remote.test", True, None)
    assert (await message(store))["open"] == 1 and await queue_reports.owed(store, 10) == []


async def test_a_report_whose_maker_died_is_made_again_under_the_same_ids(store: Store) -> None:
    queue_id = await enqueue(store, outgoing("a@remote.test", "b@remote.test"))
    (taken,) = await take(store)
    now = time.monotonic()
    await say(store, taken, Ended("failed", NEVER), Again(LATER, now + 10, now + 900))
    first = await queue_reports.take(store, ALICE, queue_id, 60)
    await pass_time(store, 61)
    (later,) = await take(store)
    await say(store, later, Ended("failed", NEVER))
    second = await queue_reports.take(store, ALICE, queue_id, 60)
    assert first == second and second is not None
    await queue_reports.finish(store, second)
    assert set(await rows(store)) == {"b@remote.test"}
    third = await queue_reports.take(store, ALICE, queue_id, 60)
    assert third is not None and third.report_id != second.report_id
    assert [r.address for r in third.recipients] == ["b@remote.test"]
    await queue_reports.finish(store, third)
    assert (await message(store))["done_at"] is not None


async def test_a_delay_that_became_a_failure_meanwhile_is_told_of_as_one(store: Store) -> None:
    queue_id = await enqueue(store, outgoing())
    (taken,) = await take(store)
    now = time.monotonic()
    await say(store, taken, Again(LATER, now + 10, now + 900, notice=True))
    delay = await queue_reports.take(store, ALICE, queue_id, 60)
    await pass_time(store, 11)
    (again,) = await take(store)
    await say(store, again, Ended("failed", NEVER))
    assert delay is not None
    await queue_reports.finish(store, delay)
    failure = await queue_reports.take(store, ALICE, queue_id, 60)
    assert failure is not None and [r.report for r in failure.recipients] == ["failed"]


async def test_delivery_here_is_reported_from_the_queue(store: Store) -> None:
    out = outgoing()
    here = OutgoingRecipient("bob@example.org", "example.org", "SUCCESS", "rfc822;bob", report="delivered")
    queue_id = await enqueue(store, replace(out, recipients=(here,)), [place(BOB)])
    assert await take(store, "example.org") == []
    report = await queue_reports.take(store, ALICE, queue_id, 60)
    assert report is not None
    (told,) = report.recipients
    assert (told.address, told.orcpt, told.report, told.said) == ("bob@example.org", "rfc822;bob", "delivered", None)
    await queue_reports.finish(store, report)
    assert (await message(store))["done_at"] is not None
