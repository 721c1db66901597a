"""What administrators see of the queue and do to it: filters, pages, slices, sums. The moves: test_queue_states.py."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from storage import queue, queue_admin, queue_reports
from storage.errors import NotFound, Unavailable
from storage.queue import Again, Ended, Gone, Moved, Said, Taken
from storage.queue_admin import Cursor, Filter, Tally
from storage.records import MessageId, Notice, OutgoingRecipient
from storage.store import Store
from tests.storage.conftest import ALICE, BOB
from tests.storage.test_queue import LATER, NEVER, TEXT, enqueue, message, outgoing, pass_time, rows, take

TOLD = Said(0, "5.3.0", "taken out by an administrator", "")


async def found(store: Store, **wanted: Any) -> list[str]:
    return [one.recipient for one in await queue_admin.listed(store, Filter(**wanted), None, 100)]


async def older(store: Store, queue_id: int, seconds: float) -> None:
    async with store.acquire() as conn:
        await conn.execute(
            "UPDATE queue_messages SET created_at = created_at - $2::interval WHERE queue_id = $1",
            queue_id,
            timedelta(seconds=seconds),
        )


async def record(store: Store, taken: Taken, move: queue.Move) -> None:
    await queue.record(store, [Moved(key, taken.lease.token, move) for key in taken.keys])


@pytest.fixture
async def busy(store: Store) -> Store:
    """A recipient in every state, in messages of Alice and Bob; each is called by its state."""
    now = time.monotonic()
    old = await enqueue(store, outgoing("waiting@a.test", "held@b.test"))
    await older(store, old, 7200)
    await queue_admin.hold(store, Filter(recipient="held@b.test"))
    await enqueue(store, replace(outgoing("Leased@x.b.test", "later@y.x.b.test"), owner=BOB, reverse_path="Bob@b.org"))
    await take(store, "x.b.test")
    (taken,) = await take(store, "y.x.b.test")
    await record(store, taken, Again(LATER, now + 500, now + 900))
    await enqueue(store, outgoing("failed@c_d.test", "failed@cxd.test", reverse_path=""))
    for name in ("c_d.test", "cxd.test"):
        (taken,) = await take(store, name)
        await record(store, taken, Ended("failed", NEVER))
    here = OutgoingRecipient("delivered@a.test", "a.test", "SUCCESS", "", report="delivered")
    await enqueue(store, replace(outgoing(), recipients=(here,)))
    return store


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"destination": "b.test"}, "held@b.test"),
        ({"destination": "*.b.test"}, "Leased@x.b.test later@y.x.b.test"),
        ({"destination": "c_d.test"}, "failed@c_d.test"),
        ({"destination": "%"}, ""),
        ({"recipient": "leased@X.B.test"}, "Leased@x.b.test"),
        ({"recipient": "x.b.test"}, "Leased@x.b.test"),
        ({"recipient": "*.b.test"}, "Leased@x.b.test later@y.x.b.test"),
        ({"sender": "bob@b.ORG"}, "Leased@x.b.test later@y.x.b.test"),
        ({"sender": "example.org"}, "delivered@a.test held@b.test waiting@a.test"),
        ({"sender": "ample.org"}, ""),
        ({"sender": ""}, "failed@c_d.test failed@cxd.test"),
        ({"account_id": BOB}, "Leased@x.b.test later@y.x.b.test"),
        ({"state": "waiting"}, "later@y.x.b.test waiting@a.test"),
        ({"state": "leased"}, "Leased@x.b.test"),
        ({"state": "held"}, "held@b.test"),
        ({"state": "failed"}, "failed@c_d.test failed@cxd.test"),
        ({"state": "delivered"}, "delivered@a.test"),
        ({"older_than": 3600}, "held@b.test waiting@a.test"),
        ({"younger_than": 3600, "account_id": ALICE}, "delivered@a.test failed@c_d.test failed@cxd.test"),
        ({"older_than": 7100, "younger_than": 7300, "state": "held"}, "held@b.test"),
        ({"due": True}, "waiting@a.test"),
        ({"reply": "COME back"}, "later@y.x.b.test"),
        ({"reply": "451 4.3.0 come"}, "later@y.x.b.test"),
        ({"reply": "550"}, "failed@c_d.test failed@cxd.test"),
        ({"reply": "%"}, ""),
        ({"queue_id": MessageId(1)}, ""),
    ],
)
async def test_filters(busy: Store, wanted: dict[str, Any], expected: str) -> None:
    assert sorted(await found(busy, **wanted)) == expected.split()
    assert await queue_admin.count(busy, Filter(**wanted)) == len(expected.split())


async def test_what_a_line_says(busy: Store) -> None:
    (one,) = await queue_admin.listed(busy, Filter(recipient="later@y.x.b.test"), None, 100)
    assert (one.account_id, one.sender, one.destination, one.state) == (BOB, "Bob@b.org", "y.x.b.test", "waiting")
    assert (one.attempts, one.report, one.told, one.size, one.said) == (1, "", False, len(TEXT), LATER)
    assert one.created == pytest.approx(time.time(), abs=60) and one.lease_until is None
    assert one.next_attempt == pytest.approx(time.time() + 500, abs=60)
    (leased,) = await queue_admin.listed(busy, Filter(state="leased"), None, 100)
    assert leased.lease_until == pytest.approx(time.time() + 30, abs=60) and leased.said is None


async def test_pages_go_on_where_the_last_one_ended_though_the_queue_changes(store: Store) -> None:
    for number in range(4):
        await enqueue(store, outgoing(*(f"{name}@d{number}.test" for name in "abc")))
        await asyncio.sleep(0.002)  # ids of one millisecond come in any order
    seen: list[str] = []
    after: Cursor | None = None
    while page := await queue_admin.listed(store, Filter(), after, 5):
        assert len(page) <= 5
        seen += [one.recipient for one in page]
        after = page[-1].cursor
        await queue_admin.drop(store, Filter(recipient=page[-1].recipient))
    assert seen == [f"{name}@d{number}.test" for number in range(4) for name in "abc"]


async def test_show(busy: Store) -> None:
    (one,) = await queue_admin.listed(busy, Filter(state="held"), None, 1)
    shown = await queue_admin.show(busy, one.queue_id)
    assert (shown.queue_id, shown.sender, shown.size, shown.preview) == (
        *(one.queue_id, "alice@example.org", len(TEXT), "hello"),
    )
    assert [(r.recipient, r.state) for r in shown.recipients] == [
        ("held@b.test", "held"),
        ("waiting@a.test", "waiting"),
    ]
    await queue_admin.drop(busy, Filter(queue_id=one.queue_id))
    gone = await queue_admin.show(busy, one.queue_id)
    assert gone.recipients == () and gone.done is not None and shown.done is None
    with pytest.raises(NotFound, match="queue id 1"):
        await queue_admin.show(busy, 1)


async def test_the_summary(busy: Store) -> None:
    for number in range(2):
        await enqueue(busy, outgoing(f"{number}@y.x.b.test"))
    (taken,) = await take(busy, "y.x.b.test", limit=1)
    await record(busy, taken, Again(Said(452, "4.2.2", "full", "mx2"), time.monotonic() + 50, time.monotonic() + 900))
    summary = await queue_admin.summary(busy, 2)
    total = summary.total
    assert (total.waiting, total.leased, total.held, total.owed, summary.all) == (4, 1, 1, 3, 6)
    assert total.oldest == pytest.approx(7200, abs=60) and total.next_in == 0
    first, second = summary.destinations
    assert (first.name, first.amounts.waiting, second.name) == ("y.x.b.test", 3, "a.test")
    assert first.said == Said(452, "4.2.2", "full", "mx2"), "the latest reply"
    assert (second.amounts.waiting, second.amounts.owed, second.said) == (1, 1, None)


async def test_the_summary_of_an_empty_queue(store: Store) -> None:
    summary = await queue_admin.summary(store, 10)
    assert (summary.destinations, summary.all, summary.total.waiting, summary.total.oldest) == ((), 0, 0, None)


async def test_moves_go_through_all_that_match_in_slices(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_admin, "SLICE", 4)
    for owner in (BOB, ALICE, BOB):
        await enqueue(store, replace(outgoing(*(f"{name}@x.test" for name in "abcde"), "f@y.test"), owner=owner))
    heard: list[Notice] = []
    store.changes.listen(heard.append)
    told: list[int] = []
    assert await queue_admin.hold(store, Filter(destination="x.test"), told.append) == Tally(15, 15)
    assert told == [4, 8, 12, 15]
    assert {(notice.kind, notice.account_id) for notice in heard} == {("queue", ALICE), ("queue", BOB)}
    assert await queue_admin.hold(store, Filter(destination="x.test")) == Tally(15, 0)
    heard.clear()
    assert await queue_admin.release(store, Filter(account_id=ALICE)) == Tally(6, 5)
    assert {(notice.kind, notice.account_id) for notice in heard} == {("retry", ALICE)}
    heard.clear()
    assert await queue_admin.release(store, Filter(account_id=ALICE)) == Tally(6, 0)
    assert heard == []
    assert await queue_admin.drop(store, Filter(state="held"), TOLD, told.append) == Tally(10, 10)
    assert await found(store, state="failed") == await found(store, account_id=BOB, destination="x.test")
    assert await queue_admin.drop(store, Filter()) == Tally(18, 18)
    assert await rows(store) == {} and (await message(store))["done_at"] is not None


async def test_a_retry_is_due_at_once(store: Store) -> None:
    await enqueue(store, outgoing())
    (taken,) = await take(store)
    await record(store, taken, Again(LATER, time.monotonic() + 500, time.monotonic() + 900))
    assert await take(store) == []
    assert await queue_admin.retry(store, Filter(recipient="x@remote.test")) == Tally(1, 1)
    (again,) = await take(store)
    assert again.recipients[0].attempts == 2
    assert await queue_admin.retry(store, Filter()) == Tally(1, 0), "it is being tried"


async def test_an_attempt_under_way_ends_though_its_recipient_is_held(store: Store) -> None:
    await enqueue(store, outgoing("x@remote.test", "y@other.test"))
    (first,), (second,) = await take(store), await take(store, "other.test")
    await queue_admin.hold(store, Filter())
    kept, _ = await queue.renew(store, [(key, t.lease.token) for t in (first, second) for key in t.keys], 100)
    assert len(kept) == 2
    await record(store, first, Gone())
    await record(store, second, Again(LATER, time.monotonic() - 1, time.monotonic() + 900))
    assert await found(store) == ["y@other.test"] and await found(store, state="held") == ["y@other.test"]
    assert await take(store, "other.test") == []
    await queue_admin.release(store, Filter())
    assert len(await take(store, "other.test")) == 1


async def test_what_was_dropped_cannot_be_renewed_and_its_outcome_counts_for_nothing(store: Store) -> None:
    await enqueue(store, outgoing("x@remote.test", "y@other.test"))
    (first,), (second,) = await take(store), await take(store, "other.test")
    await queue_admin.drop(store, Filter(destination="remote.test"))
    await queue_admin.drop(store, Filter(destination="other.test"), TOLD)
    kept, _ = await queue.renew(store, [(key, t.lease.token) for t in (first, second) for key in t.keys], 100)
    assert kept == set()
    for taken in (first, second):
        await record(store, taken, Gone())
    assert (await message(store))["open"] == 1 and await found(store, state="failed") == ["y@other.test"]


async def test_a_dropped_recipient_is_reported_with_what_the_administrator_says(store: Store) -> None:
    queue_id = await enqueue(store, outgoing())
    await queue_admin.drop(store, Filter(), TOLD)
    report = await queue_reports.take(store, ALICE, queue_id, 60)
    assert report is not None and [(r.report, r.said) for r in report.recipients] == [("failed", TOLD)]
    await queue_reports.finish(store, report)
    assert (await message(store))["done_at"] is not None


async def test_a_report_whose_recipients_were_dropped_holds_up_no_other(store: Store) -> None:
    queue_id = await enqueue(store, outgoing("x@remote.test", "y@other.test"))
    (taken,) = await take(store)
    await record(store, taken, Ended("failed", NEVER))
    first = await queue_reports.take(store, ALICE, queue_id, 60)
    await queue_admin.drop(store, Filter(state="failed"))
    (taken,) = await take(store, "other.test")
    await record(store, taken, Ended("failed", NEVER))
    assert await queue_reports.owed(store, 9) == [], "somebody is at it"
    await pass_time(store, 61)
    empty = await queue_reports.take(store, ALICE, queue_id, 60)
    assert first is not None and empty is not None and empty.recipients == ()
    await queue_reports.finish(store, empty)
    second = await queue_reports.take(store, ALICE, queue_id, 60)
    assert second is not None and [r.address for r in second.recipients] == ["y@other.test"]


async def test_moves_and_workers_at_the_same_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever meets the other's rows in another order gives way and comes again; nothing is counted twice."""
    monkeypatch.setattr(queue_admin, "SLICE", 20)
    for number in range(40):
        await enqueue(store, outgoing(f"a{number}@remote.test", f"b{number}@remote.test"))

    async def work() -> None:
        for _ in range(30):
            with suppress(Unavailable):  # it gave way: its leases end by themselves
                for taken in await take(store, limit=10):
                    await record(store, taken, Ended("failed", NEVER) if taken.queue_id % 2 else Gone())

    async def administer() -> None:
        for _ in range(6):
            await queue_admin.hold(store, Filter())
            await queue_admin.release(store, Filter())
            await queue_admin.drop(store, Filter(recipient="a7@remote.test"))

    await asyncio.gather(work(), administer())
    await queue_admin.drop(store, Filter())
    async with store.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM queue_messages WHERE open <> 0 OR done_at IS NULL") == 0
