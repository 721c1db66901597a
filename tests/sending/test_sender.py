"""The send role on a real queue, with real servers to send to: what becomes of a message, and of a destination."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from config.schema import Config
from mailserver.delivery.accept import accept
from mailserver.delivery.outbox import Outbox
from mailserver.delivery.outgoing import Recipient, outgoing
from mailserver.sending.service import Sending
from storage import (
    INBOX,
    SYSTEM,
    Account,
    Notice,
    Store,
    Unavailable,
    accounts,
    domains,
    mailboxes,
    queue,
    reader,
)
from tests.receiving.tools import open_store
from tests.support.smtp_sink import Fault, Sink, running_sink

MESSAGE = b"From: alice@example.org\r\nMessage-ID: <1@example.org>\r\nSubject: hi\r\n\r\n.hello\r\n"
SECONDS = 20


class Node:
    """A store and, where wanted, who sends; the sink takes the mail of remote.test."""

    def __init__(self, store: Store, alice: Account, routes: dict[str, Any], **settings: Any) -> None:
        self.store = store
        self.alice = alice
        usual = {"routes": tuple(f"{name} = {host}" for name, host in routes.items()), "retry_pauses_seconds": (0.2,)}
        config = Config()
        self.config = config.model_copy(update={"send": config.send.model_copy(update=usual | settings)})
        self.outbox = Outbox(self.config.send.delay_notice_seconds)
        self.sending: Sending | None = None

    def start(self) -> None:
        self.sending = Sending(self.config, self.store, self.outbox)
        self.unlisten = self.store.changes.listen(self.sending.hear)

    async def stop(self) -> None:
        if self.sending is not None:
            self.unlisten()
            await self.sending.close()
            self.sending = None

    async def submit(self, *to: str, sender: str = "alice@example.org", octets: bytes = MESSAGE, **more: Any) -> None:
        notify, orcpt = more.pop("notify", None), more.pop("orcpt", "")
        recipients = [Recipient(address, (), (address,), notify, orcpt) for address in to]
        out = outgoing(self.alice.account_id, sender, recipients, header_prefix=b"Received: x\r\n", **more)
        await accept(
            self.store, octets, [], trace_id=uuid4(), quota="share", arrived=0, outgoing=out, outbox=self.outbox
        )

    async def rows(self) -> dict[str, Any]:
        async with self.store.acquire() as conn:
            return {row["recipient"]: row for row in await conn.fetch("SELECT * FROM queue_recipients")}

    async def left(self) -> int:
        async with self.store.acquire() as conn:
            return int(await conn.fetchval("SELECT count(*) FROM queue_messages WHERE done_at IS NULL"))

    async def until(self, there: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(SECONDS):
            while not await there():
                await asyncio.sleep(0.02)

    async def until_sent(self) -> None:
        async def sent() -> bool:
            return await self.left() == 0

        await self.until(sent)

    async def until_row(self, address: str, **columns: Any) -> Any:
        async def so() -> bool:
            row = (await self.rows()).get(address)
            return row is not None and all(row[name] == value for name, value in columns.items())

        await self.until(so)
        return (await self.rows())[address]

    async def inbox(self) -> list[bytes]:
        """The octets of the messages in Alice's INBOX."""
        account_id = self.alice.account_id
        view = await self.store.views.open(account_id, INBOX)
        try:
            await view.refresh()
            ids = [entry.message_id for entry in view.snapshot.entries()]
        finally:
            view.close()
        return [b"".join(await reader.received(self.store, account_id, message_id)) for message_id in ids]


@pytest.fixture
async def store(database: str, tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(database, tmp_path)
    await mailboxes.create_account_state(store, SYSTEM)
    yield store
    await store.close()


@pytest.fixture
async def alice(store: Store) -> Account:
    await domains.add(store, "example.org")
    return await accounts.add(store, "alice", "alice@example.org", None)


@asynccontextmanager
async def sending_to(store: Store, alice: Account, sink: Sink, **settings: Any) -> AsyncIterator[Node]:
    node = Node(store, alice, {"remote.test": f"127.0.0.1:{sink.port}"}, **settings)
    node.start()
    try:
        yield node
    finally:
        await node.stop()


async def test_a_message_goes_out_at_once_and_leaves_the_queue(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        async with sending_to(store, alice, sink) as node:
            await node.submit("x@remote.test", "y@remote.test", smtputf8=False, ret="HDRS", envid="e1")
            await node.until_sent()
    (message,) = sink.messages
    assert message.octets == b"Received: x\r\n" + MESSAGE
    assert message.mail.startswith("MAIL FROM:<alice@example.org>") and "RET=HDRS ENVID=e1" in message.mail
    assert len(message.recipients) == 2 and await node.rows() == {}


async def test_what_waits_in_the_queue_is_found_at_the_start(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        node = Node(store, alice, {"remote.test": f"127.0.0.1:{sink.port}"})
        for number in range(120):
            await node.submit(f"x{number}@remote.test")
        node.start()
        await node.until_sent()
        await node.stop()
    assert sorted(m.recipients[0] for m in sink.messages) == sorted(f"RCPT TO:<x{n}@remote.test>" for n in range(120))
    assert sink.connections <= 20


async def test_a_look_that_failed_is_made_again(store: Store, alice: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Unavailable("not now")]
    schedule = queue.schedule

    async def failing_once(store: Store) -> dict[str, tuple[float, float]]:
        if answers:
            raise answers.pop()
        return await schedule(store)

    monkeypatch.setattr(queue, "schedule", failing_once)
    with running_sink() as sink:
        node = Node(store, alice, {"remote.test": f"127.0.0.1:{sink.port}"}, rescan_seconds=3600.0)
        await node.submit("reader@remote.test")
        node.start()
        await node.until_sent()
        await node.stop()
    assert len(sink.messages) == 1


async def test_hints_wait_where_looking_takes_long(
    store: Store, alice: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    async def slow(store: Store) -> dict[str, tuple[float, float]]:
        looks.append(time.monotonic())
        await asyncio.sleep(0.1)
        return {}

    monkeypatch.setattr(queue, "schedule", slow)
    node = Node(store, alice, {}, rescan_seconds=3600.0)
    node.start()
    assert node.sending is not None
    async with asyncio.timeout(SECONDS):
        while len(looks) < 3:
            node.sending.hear(Notice("queue", alice.account_id))
            await asyncio.sleep(0.02)
    await node.stop()
    assert all(later - sooner >= 2 for sooner, later in pairwise(looks))  # twenty times as long as a look takes


async def test_many_recipients_go_in_transactions_of_a_hundred(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        async with sending_to(store, alice, sink) as node:
            await node.submit(*(f"x{number}@remote.test" for number in range(250)))
            await node.until_sent()
    assert sorted(len(message.recipients) for message in sink.messages) == [50, 100, 100]


async def test_recipients_with_different_answers(store: Store, alice: Account) -> None:
    replies = {"never@remote.test": "550 5.1.1 No such user", "later@remote.test": "450 4.2.1 Busy"}
    with running_sink(replies=replies) as sink:
        async with sending_to(store, alice, sink, retry_pauses_seconds=(300.0,)) as node:
            await node.submit("now@remote.test", "never@remote.test", "later@remote.test")
            row = await node.until_row("later@remote.test", last_code=450)
            await node.until(lambda: has_mail(node))
            await node.until(lambda: only_waits_for(node, "later@remote.test"))
    assert (row["state"], row["attempts"], row["last_status"]) == ("waiting", 1, "4.2.1")
    (bounce,) = await node.inbox()
    assert b"never@remote.test" in bounce and b"No such user" in bounce and b"later@remote.test" not in bounce
    assert b"multipart/report" in bounce and [len(m.recipients) for m in sink.messages] == [1]


async def has_mail(node: Node) -> bool:
    return bool(await node.inbox())


async def only_waits_for(node: Node, address: str) -> bool:
    return set(await node.rows()) == {address}


async def test_a_deferred_message_is_tried_again(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("mail", "4xx", times=1)]) as sink:
        async with sending_to(store, alice, sink, reuse_seconds=0.0) as node:
            await node.submit("x@remote.test")
            await node.until_sent()
    assert len(sink.messages) == 1 and sink.connections == 2


async def test_nothing_is_told_of_a_message_from_the_null_reverse_path(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("rcpt", "5xx")]) as sink:
        async with sending_to(store, alice, sink) as node:
            await node.submit("x@remote.test", sender="")
            await node.until_sent()
    assert await node.inbox() == []


async def test_a_connection_serves_one_message_after_the_other(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        async with sending_to(store, alice, sink) as node:
            for number in range(5):
                await node.submit(f"x{number}@remote.test")
                await node.until_sent()
    assert len(sink.messages) == 5 and sink.connections == 1


async def test_a_destination_that_cannot_be_reached_is_dialled_seldom(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        port = sink.port
    node = Node(
        store, alice, {"remote.test": f"127.0.0.1:{port}"}, first_backoff_seconds=2.0, retry_pauses_seconds=(0.1,)
    )
    for number in range(300):
        await node.submit(f"x{number}@remote.test")
    node.start()
    await node.until_row("x0@remote.test", last_code=0)
    await asyncio.sleep(1)
    attempts = [row["attempts"] for row in (await node.rows()).values()]
    assert sum(attempts) <= 60, "one batch of them learns it, and nobody else is tried"
    with running_sink(port=port) as sink:
        await node.until_sent()
        await node.stop()
    assert len(sink.messages) == 300


async def test_a_dead_destination_holds_up_no_other(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("greeting", "hang")]) as dead, running_sink() as sink:
        routes = {"remote.test": f"127.0.0.1:{sink.port}", "dead.test": f"127.0.0.1:{dead.port}"}
        node = Node(store, alice, routes)
        node.start()
        await node.submit(*(f"x{number}@dead.test" for number in range(50)), "x@remote.test")
        async with asyncio.timeout(SECONDS):
            while not sink.messages:
                await asyncio.sleep(0.02)
        node.config = node.config.model_copy(
            update={"server": node.config.server.model_copy(update={"shutdown_seconds": 0.1})}
        )
        assert node.sending is not None
        node.sending.reconfigure(node.config)
        await node.stop()


async def test_given_up_while_its_destination_backs_off(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        port = sink.port
    node = Node(
        store,
        alice,
        {"remote.test": f"127.0.0.1:{port}"},
        give_up_seconds=100.0,
        delay_notice_seconds=50.0,
        retry_pauses_seconds=(30.0,),
        rescan_seconds=1.0,
    )
    node.start()
    await node.submit("x@remote.test")
    await node.until_row("x@remote.test", last_code=0)
    await grow_older(store, 51)
    await node.until(lambda: has_mail(node))
    row = await node.until_row("x@remote.test", told=True)
    assert (row["state"], row["report"]) == ("waiting", None)
    await grow_older(store, 50)
    await node.until_sent()
    await node.stop()
    notice, bounce = await node.inbox()
    assert b"delayed" in notice.lower() and b"Action: delayed" in notice and b"Action: failed" in bounce


async def grow_older(store: Store, seconds: float) -> None:
    async with store.acquire() as conn:
        change = timedelta(seconds=seconds)
        await conn.execute("UPDATE queue_messages SET created_at = created_at - $1::interval", change)
        await conn.execute(
            "UPDATE queue_recipients SET act_by = act_by - $1::interval, "
            "next_attempt_at = next_attempt_at - $1::interval",
            change,
        )


async def test_success_is_reported_where_the_other_server_does_not(store: Store, alice: Account) -> None:
    with running_sink(extensions=("PIPELINING", "8BITMIME")) as sink:
        async with sending_to(store, alice, sink) as node:
            await node.submit("x@remote.test", notify="SUCCESS", orcpt="rfc822;X@remote.test", envid="abc+2B")
            await node.until_sent()
    (report,) = await node.inbox()
    assert b"Action: relayed" in report and b"Original-Recipient: rfc822;X@remote.test" in report
    assert b"Original-Envelope-Id: abc+" in report and len(sink.messages) == 1


async def test_success_is_left_to_a_server_that_has_dsn(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        async with sending_to(store, alice, sink) as node:
            await node.submit("x@remote.test", notify="SUCCESS,FAILURE", orcpt="rfc822;X@remote.test")
            await node.until_sent()
    assert await node.inbox() == []
    assert sink.messages[0].recipients == ("RCPT TO:<x@remote.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;X@remote.test",)


async def test_who_does_not_want_to_hear_is_told_nothing(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("rcpt", "5xx")]) as sink:
        async with sending_to(store, alice, sink) as node:
            await node.submit("x@remote.test", notify="NEVER")
            await node.until_sent()
    assert await node.inbox() == []


async def test_a_report_for_a_sender_elsewhere_goes_out_by_the_queue(store: Store, alice: Account) -> None:
    with running_sink(replies={"x@remote.test": "550 5.1.1 Who?"}) as sink:
        async with sending_to(store, alice, sink) as node:
            await node.submit("x@remote.test", sender="them@remote.test")
            await node.until_sent()
    (report,) = sink.messages
    assert report.mail.startswith("MAIL FROM:<>") and report.recipients == ("RCPT TO:<them@remote.test> NOTIFY=NEVER",)


async def test_two_nodes_share_the_queue_and_send_each_message_once(
    store: Store, alice: Account, database: str, tmp_path: Path
) -> None:
    other = await open_store(database, tmp_path)
    with running_sink() as sink:
        nodes = [Node(s, alice, {"remote.test": f"127.0.0.1:{sink.port}"}, rescan_seconds=1.0) for s in (store, other)]
        for number in range(200):
            await nodes[0].submit(f"x{number}@remote.test")
        for node in nodes:
            node.start()
        await nodes[0].until_sent()
        for node in nodes:
            await node.stop()
    await other.close()
    recipients = [message.recipients[0] for message in sink.messages]
    assert len(recipients) == len(set(recipients)) == 200


async def test_a_lease_of_the_dead_is_taken_over(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        node = Node(store, alice, {"remote.test": f"127.0.0.1:{sink.port}"}, rescan_seconds=1.0)
        await node.submit("x@remote.test")
        (taken,) = await queue.take(store, ["remote.test"], 1, pause=lambda n: 0.5, lease_seconds=0.5)
        node.start()
        await node.until_sent()
        await node.stop()
        await queue.record(store, [queue.Moved(key, taken.lease.token, queue.Gone()) for key in taken.keys])
    assert len(sink.messages) == 1


async def test_without_a_lease_a_message_is_not_finished(store: Store, alice: Account) -> None:
    """Who was stopped for so long that another may have its messages ends no message."""
    with running_sink(faults=[Fault("data", "hang", times=1)], extensions=()) as sink:
        async with sending_to(store, alice, sink, retry_pauses_seconds=(300.0,)) as node:
            await node.submit("x@remote.test")
            async with asyncio.timeout(SECONDS):
                while "DATA" not in sink.commands:
                    await asyncio.sleep(0.02)
            assert node.sending is not None
            for job in node.sending.sender._held.values():
                job.lease = job.lease._replace(until=time.monotonic())
            sink.drop_all()
            await node.until_row("x@remote.test", last_code=0)
    assert sink.messages == []


async def test_stopping_gives_back_what_was_not_begun(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("greeting", "hang")]) as sink:
        async with sending_to(store, alice, sink, connections=1) as node:
            for number in range(10):
                await node.submit(f"x{number}@remote.test")
            node.config = node.config.model_copy(
                update={"server": node.config.server.model_copy(update={"shutdown_seconds": 0.1})}
            )
            assert node.sending is not None
            node.sending.reconfigure(node.config)
    free = [row for row in (await node.rows()).values() if row["lease_token"] is None]
    assert len(free) == 9 and {row["attempts"] for row in free} == {0}
