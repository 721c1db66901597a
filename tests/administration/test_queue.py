"""What administrators do with the outbound queue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from mailserver.administration import Refused, accounts, queue
from mailserver.administration.queue import DROPPED, Page, Which
from storage import content, queue_reports
from storage.batch import new_message_id
from storage.queue_admin import Tally
from storage.records import MessageId
from storage.store import Store
from tests.storage.conftest import Split, Summary
from tests.storage.test_queue import enqueue, outgoing


@pytest.fixture
async def queue_id(store: Store) -> MessageId:
    """A message of root's for x@remote.test and y@other.test."""
    root = (await accounts.find(store, "root")).account_id
    return await enqueue(store, replace(outgoing("x@remote.test", "y@other.test"), owner=root))


async def listed(store: Store, **which: Any) -> list[str]:
    return [one.recipient for one in (await queue.list_page(store, Which(**which))).recipients]


async def state_of(store: Store, recipient: str) -> str:
    (one,) = (await queue.list_page(store, Which(recipient=recipient))).recipients
    return one.state


BOTH = ["x@remote.test", "y@other.test"]


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ({}, BOTH),
        ({"destination": "Remote.TEST."}, BOTH[:1]),
        ({"destination": "*.test"}, BOTH),
        ({"destination": "bücher.test"}, []),
        ({"account": "root@example.org"}, BOTH),
        ({"sender": "Alice@EXAMPLE.org"}, BOTH),
        ({"sender": "@example.org"}, BOTH),
        ({"sender": "<>"}, []),
        ({"recipient": "other.test"}, BOTH[1:]),
        ({"state": "waiting", "due": True, "younger_than": 1000.0}, BOTH),
        ({"older_than": 1000.0}, []),
        ({"reply": "451"}, []),
    ],
)
async def test_words_become_a_filter(
    store: Store, queue_id: MessageId, which: dict[str, Any], expected: list[str]
) -> None:
    assert await listed(store, **which) == expected


@pytest.mark.parametrize(
    ("which", "field", "reason"),
    [
        ({"destination": "a b"}, "destination", "not a domain"),
        ({"destination": "*"}, "destination", "not a domain"),
        ({"sender": "a@b@"}, "sender", "not an address"),
        ({"recipient": "x@\x00"}, "recipient", "not a domain"),
        ({"recipient": "\ud800@remote.test"}, "recipient", "not"),
        ({"account": "nobody"}, "account", "does not exist"),
        ({"state": "lost"}, "state", "one of waiting, leased"),
        ({"older_than": -1.0}, "older_than", "0 to"),
        ({"younger_than": float("nan")}, "younger_than", "0 to"),
        ({"younger_than": 1e300}, "younger_than", "0 to"),
        ({"reply": ""}, "reply", "1 to 500"),
        ({"reply": "a\x00"}, "reply", "printable"),
        ({"reply": "\udcff"}, "reply", "printable"),
        ({"queue_id": -1}, "queue_id", "does not exist"),
        ({"queue_id": 2**63}, "queue_id", "does not exist"),
    ],
)
async def test_refusals_name_the_field(store: Store, which: dict[str, Any], field: str, reason: str) -> None:
    for attempt in (queue.list_page(store, Which(**which)), queue.hold(store, Which(**which))):
        with pytest.raises(Refused, match=reason) as refusal:
            await attempt
        assert refusal.value.field == field


async def test_pages(store: Store) -> None:
    await enqueue(store, outgoing(*(f"x{number}@remote.test" for number in range(5))))
    seen: list[str] = []
    page = Page((), "")
    for _ in range(3):
        page = await queue.list_page(store, Which(), page.after or None, 2)
        seen += [one.recipient for one in page.recipients]
    assert seen == [f"x{number}@remote.test" for number in range(5)] and page.after is None


@pytest.mark.parametrize("after", ["", "1.2", "a.b.c", "1.2.\x00", f"{2**64}.1.a", "²2.1.a", "-1.1.a"])
async def test_a_place_that_no_page_has_named(store: Store, after: str) -> None:
    with pytest.raises(Refused) as refusal:
        await queue.list_page(store, Which(), after)
    assert refusal.value.field == "after"


@pytest.mark.parametrize("limit", [0, 1001])
async def test_a_page_has_a_bound(store: Store, limit: int) -> None:
    for attempt in (queue.list_page(store, Which(), None, limit), queue.top(store, limit)):
        with pytest.raises(Refused) as refusal:
            await attempt
        assert refusal.value.field == "limit"


Moving = Callable[[Store, Which], Awaitable[Tally]]


async def drop(store: Store, which: Which) -> Tally:
    return await queue.drop(store, which, notify=False)


async def drop_telling(store: Store, which: Which) -> Tally:
    return await queue.drop(store, which, notify=True)


MOVES: list[Moving] = [queue.retry, queue.hold, queue.release, drop, drop_telling]


@pytest.mark.parametrize("move", MOVES)
async def test_what_is_meant_has_to_be_said(store: Store, queue_id: MessageId, move: Moving) -> None:
    for which, reason in (
        (Which(), "say which"),
        (Which(queue_id=1), "queue id 1 does not exist"),
        (Which(queue_id=queue_id, recipient="z@remote.test"), f"queue id {queue_id} has no such recipient"),
    ):
        with pytest.raises(Refused, match=reason) as refusal:
            await move(store, which)
        assert refusal.value.field == "queue_id"
    assert await listed(store) == BOTH
    assert await move(store, Which(destination="nowhere.test")) == Tally(0, 0)
    assert (await move(store, Which(everything=True))).matched == 2


async def test_holding_releasing_dropping(store: Store, queue_id: MessageId) -> None:
    told: list[tuple[int, int]] = []
    one = Which(queue_id=queue_id, recipient="x@remote.test")
    assert await queue.count(store, one) == 1
    assert await queue.hold(store, one, lambda done, total: told.append((done, total))) == Tally(1, 1)
    assert told == [(1, 1)]
    assert (await state_of(store, "x@remote.test"), await state_of(store, "y@other.test")) == ("held", "waiting")
    assert await queue.release(store, Which(state="held")) == Tally(1, 1)
    assert await queue.retry(store, Which(queue_id=queue_id)) == Tally(2, 2)
    assert await drop_telling(store, one) == Tally(1, 1)
    assert await state_of(store, "x@remote.test") == "failed"
    assert await drop(store, Which(queue_id=queue_id)) == Tally(2, 2)
    assert await listed(store) == []
    with pytest.raises(Refused, match="have left the queue"):
        await queue.hold(store, Which(queue_id=queue_id))


async def test_a_sender_is_told_of_what_was_dropped(store: Store, queue_id: MessageId) -> None:
    await drop_telling(store, Which(queue_id=queue_id))
    ((account_id, _),) = await queue_reports.owed(store, 9)
    report = await queue_reports.take(store, account_id, queue_id, 60)
    assert report is not None and {one.said for one in report.recipients} == {DROPPED}


async def test_one_message(store: Store) -> None:
    text = b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n \x1b[2Jall\r\n\r\nhello\r\n"
    summary = Summary(preview="a\x9bb", header_octets=len(text) - len(b"hello\r\n"))
    prepared = await content.prepare(store, Split(text), summary, len(text))
    number = MessageId(new_message_id())
    root = (await accounts.find(store, "root")).account_id
    out = replace(outgoing(), owner=root)
    await store.committer.deliver(prepared, [], trace_id=uuid4(), quota="share", outgoing=out, message_id=number)
    found = await queue.show(store, number)
    assert (found.shown.queue_id, found.subject, found.preview) == (number, "Grüße  [2Jall", "a b")
    with pytest.raises(Refused, match="queue id 1 does not exist"):
        await queue.show(store, 1)


async def test_the_summary(store: Store, queue_id: MessageId) -> None:
    summary = await queue.top(store)
    assert [one.name for one in summary.destinations] == ["other.test", "remote.test"]
    assert summary.total.waiting == 2
