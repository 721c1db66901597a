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
from config.secret import Secret
from mailserver.delivery.accept import accept
from mailserver.delivery.outbox import Outbox
from mailserver.delivery.outgoing import Recipient, outgoing
from mailserver.sending import attempt
from mailserver.sending.outcome import Deferred
from mailserver.sending.retry import Backoff
from mailserver.sending.sender import UNPROVEN
from mailserver.sending.service import Sending
from mailserver.sending.session import Manner, Session, Unreachable
from mailserver.sending.targets import Target
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
    queue_admin,
    reader,
)
from storage.queue_admin import Filter
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
        self.seconds = 10.0  # for the end

    def start(self) -> None:
        self.sending = Sending(self.config, self.store, self.outbox)
        self.unlisten = self.store.changes.listen(self.sending.hear)

    async def stop(self) -> None:
        if self.sending is not None:
            self.unlisten()
            await self.sending.close(self.seconds)
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
            await node.until(lambda: only(node, "later@remote.test"))
    assert (row["state"], row["attempts"], row["last_status"]) == ("waiting", 1, "4.2.1")
    (bounce,) = await node.inbox()
    assert b"never@remote.test" in bounce and b"No such user" in bounce and b"later@remote.test" not in bounce
    assert b"multipart/report" in bounce and [len(m.recipients) for m in sink.messages] == [1]


async def only(node: Node, address: str) -> bool:
    return set(await node.rows()) == {address}


async def has_mail(node: Node) -> bool:
    return bool(await node.inbox())


async def test_smtputf8_is_asked_for_where_it_is_needed(store: Store, alice: Account) -> None:
    with running_sink(extensions=("8BITMIME",)) as sink:
        async with sending_to(store, alice, sink) as node:
            await node.submit("x@remote.test", "grün@remote.test", smtputf8=True)
            await node.submit("y@remote.test", octets=MESSAGE.replace(b"hi", "grün".encode()), smtputf8=True)
            await node.until_sent()
    assert [message.recipients for message in sink.messages] == [("RCPT TO:<x@remote.test>",)]
    assert sorted(b"5.6.7" in report for report in await node.inbox()) == [True, True]


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


async def test_an_administrator_has_a_destination_tried_before_its_time(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        port = sink.port
    settings = {"first_backoff_seconds": 3000.0, "longest_backoff_seconds": 3000.0, "retry_pauses_seconds": (1000.0,)}
    node = Node(store, alice, {"remote.test": f"127.0.0.1:{port}"}, **settings)
    for number in range(70):
        await node.submit(f"x{number}@remote.test")
    node.start()
    await node.until_row("x0@remote.test", last_code=0, lease_token=None)
    with running_sink(port=port) as sink:
        await queue_admin.retry(store, Filter(destination="remote.test"))
        await node.until_sent()
        await node.stop()
    assert len(sink.messages) == 70


async def test_a_dead_destination_holds_up_no_other(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("greeting", "hang")]) as dead, running_sink() as sink:
        routes = {"remote.test": f"127.0.0.1:{sink.port}", "dead.test": f"127.0.0.1:{dead.port}"}
        node = Node(store, alice, routes)
        node.start()
        await node.submit(*(f"x{number}@dead.test" for number in range(50)), "x@remote.test")
        async with asyncio.timeout(SECONDS):
            while not sink.messages:
                await asyncio.sleep(0.02)
        node.seconds = 0.1
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
            for job in node.sending.sender.held._jobs.values():
                job.lease = job.lease._replace(until=time.monotonic())
            sink.drop_all()
            await node.until_row("x@remote.test", last_code=0)
    assert sink.messages == []


async def test_stopping_gives_back_what_was_not_begun(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("greeting", "hang")]) as sink:
        async with sending_to(store, alice, sink, connections=1) as node:
            for number in range(10):
                await node.submit(f"x{number}@remote.test")
            node.seconds = 0.1
    free = [row for row in (await node.rows()).values() if row["lease_token"] is None]
    assert len(free) == 9 and {row["attempts"] for row in free} == {0}


# What must not happen -------------------------------------------------------------------------------------------------


async def test_a_long_backlog_lets_others_have_their_turn(store: Store, alice: Account) -> None:
    with running_sink() as busy, running_sink() as other:
        routes = {"remote.test": f"127.0.0.1:{busy.port}", "other.test": f"127.0.0.1:{other.port}"}
        node = Node(store, alice, routes, connections=1)
        for number in range(300):
            await node.submit(f"x{number}@remote.test")
        node.start()
        async with asyncio.timeout(SECONDS):
            while not busy.messages:
                await asyncio.sleep(0.01)
            await node.submit("x@other.test")
            while not other.messages:
                await asyncio.sleep(0.005)
        sent = len(busy.messages)
        await node.until_sent()
        await node.stop()
    assert sent < 200 and len(busy.messages) == 300


async def test_one_message_tells_whether_a_destination_can_be_reached_again(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("greeting", "hang")]) as sink:
        node = Node(store, alice, {"*": f"127.0.0.1:{sink.port}"}, rescan_seconds=1.0)
        node.seconds = 0.1
        for number in range(20):
            await node.submit(*(f"x{n}@d{number}.test" for n in range(5)))
        node.start()
        assert node.sending is not None
        lane = node.sending.sender._lane("d1.test")
        lane.backoff = Backoff(5, time.monotonic() + 0.2)
        async with asyncio.timeout(SECONDS):
            while not sink.connections:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        attempts = sum(row["attempts"] for row in (await node.rows()).values())
        await node.stop()
    assert (attempts, sink.connections) == (1, 1)


async def test_no_more_is_taken_on_than_will_soon_be_sent(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("greeting", "hang")]) as sink:
        routes = {f"d{number}.test": f"127.0.0.{number + 1}:{sink.port}" for number in range(100)}
        node = Node(store, alice, routes, connections=1, connections_per_destination=1)
        node.seconds = 0.1
        for number in range(100):
            await node.submit(*(f"x{n}@d{number}.test" for n in range(5)))
        node.start()
        assert node.sending is not None
        async with asyncio.timeout(SECONDS):
            while not sink.connections:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.5)
        held = sum(row["attempts"] for row in (await node.rows()).values())
        await node.stop()
    assert held <= 50


async def test_many_connections_of_a_lane_do_not_forget_what_is_left(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        node = Node(store, alice, {"remote.test": f"127.0.0.1:{sink.port}"}, connections_per_destination=60)
        for number in range(150):
            await node.submit(f"x{number}@remote.test")
        node.start()
        await node.until_sent()
        await node.stop()
    assert len(sink.messages) == 150


async def test_nothing_is_begun_while_it_stops(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("greeting", "hang")]) as slow, running_sink() as sink:
        routes = {"slow.test": f"127.0.0.1:{slow.port}", "remote.test": f"127.0.0.1:{sink.port}"}
        node = Node(store, alice, routes)
        node.start()
        await node.submit("x@slow.test")
        async with asyncio.timeout(SECONDS):
            while not slow.connections:
                await asyncio.sleep(0.02)
        assert node.sending is not None
        closing = asyncio.create_task(node.sending.close(1.0))
        await asyncio.sleep(0.1)
        await node.submit("late@remote.test")
        await closing
        node.unlisten()
    assert sink.connections == 0 and (await node.rows())["late@remote.test"]["lease_token"] is None


async def test_a_connection_that_waits_for_more_does_not_hold_up_the_end(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        async with sending_to(store, alice, sink, reuse_seconds=300.0) as node:
            await node.submit("x@remote.test")
            await node.until_sent()
    assert "QUIT" in sink.commands


async def test_a_login_is_said_to_the_smarthost_alone(
    store: Store, alice: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though a fixed route for the domain comes up while its message waits in the smarthost's lane."""
    said: list[tuple[str, str]] = []

    async def open_none(target: Target, manner: Manner) -> Session:
        said.append((target.address, manner.username))
        raise Unreachable(Deferred(0, "4.4.1", "no"), "connection")

    monkeypatch.setattr(Session, "open", open_none)
    smart = {"smarthost": "127.0.0.9:587", "smarthost_username": "me", "smarthost_password": Secret("secret")}
    node = Node(store, alice, {}, **smart)
    node.start()
    assert node.sending is not None
    gate = asyncio.Event()
    load = node.sending.sender.held.load

    async def load_later(job: Any) -> bytes:
        await gate.wait()
        return await load(job)

    monkeypatch.setattr(node.sending.sender.held, "load", load_later)
    await node.submit("x@partner.test")
    await asyncio.sleep(0.1)
    node.sending.reconfigure(Node(store, alice, {"partner.test": "127.0.0.77:25"}, **smart).config)
    gate.set()
    async with asyncio.timeout(SECONDS):
        while not said:
            await asyncio.sleep(0.02)
    await node.stop()
    assert set(said) == {("127.0.0.77", "")}


async def test_the_clock_of_the_node_does_not_matter(
    store: Store, alice: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    with running_sink(faults=[Fault("rcpt", "4xx")]) as sink:
        async with sending_to(store, alice, sink, retry_pauses_seconds=(300.0,), rescan_seconds=1.0) as node:
            await node.submit("x@remote.test")
            await node.until_row("x@remote.test", last_code=451)
            async with store.acquire() as conn:
                pause = await conn.fetchval(
                    "SELECT extract(epoch FROM next_attempt_at - now())::float8 FROM queue_recipients"
                )
    assert 250 < pause < 400


async def test_a_fault_of_ours_leaves_the_message_to_the_end_of_its_lease(
    store: Store, alice: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault")

    with running_sink() as sink:
        async with sending_to(store, alice, sink) as node:
            monkeypatch.setattr(attempt, "move", fault)
            await node.submit("x@remote.test")
            async with asyncio.timeout(SECONDS):
                while not sink.messages:
                    await asyncio.sleep(0.02)
            assert node.sending is not None
            async with asyncio.timeout(SECONDS):
                while len(node.sending.sender.held):
                    await asyncio.sleep(0.02)
            assert node.sending.sender.held.octets == 0
    assert (await node.rows())["x@remote.test"]["lease_token"] is not None


async def test_a_route_that_leads_back_here_is_for_the_administrator_to_mend(store: Store, alice: Account) -> None:
    with running_sink(greeting=f"220 me ESMTP {store.keys.instance}") as sink:
        async with sending_to(store, alice, sink, retry_pauses_seconds=(300.0,)) as node:
            await node.submit("x@remote.test")
            row = await node.until_row("x@remote.test", last_status="4.4.6")
    assert row["state"] == "waiting" and await node.inbox() == []


async def test_nothing_but_routes_leads_to_loopback(store: Store, alice: Account) -> None:
    with running_sink() as sink:
        async with sending_to(store, alice, sink, port=sink.port) as node:
            await node.submit("x@[127.0.0.1]")
            await node.until_sent()
    assert sink.connections == 0
    (bounce,) = await node.inbox()
    assert b"cannot be reached from here" in bounce


async def test_a_server_that_holds_a_message_for_ever_is_left(
    store: Store, alice: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "MESSAGE_SECONDS", 0.3)
    with running_sink(faults=[Fault("rcpt", "hang")]) as sink:
        async with sending_to(store, alice, sink, retry_pauses_seconds=(300.0,)) as node:
            await node.submit("x@remote.test")
            row = await node.until_row("x@remote.test", last_status="4.4.2")
    assert "longer than there is time" in row["last_text"] and row["state"] == "waiting"


async def test_a_connection_that_takes_for_ever_is_given_up(
    store: Store, alice: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "DIAL_SECONDS", 0.3)
    with running_sink(faults=[Fault("greeting", "hang")]) as sink:
        async with sending_to(store, alice, sink, retry_pauses_seconds=(300.0,)) as node:
            await node.submit("x@remote.test")
            row = await node.until_row("x@remote.test", last_status="4.4.1")
    assert "in the time that there is" in row["last_text"]


async def test_a_destination_of_which_nothing_good_is_known_gets_few_connections(store: Store, alice: Account) -> None:
    with running_sink(faults=[Fault("greeting", "hang")]) as sink:
        async with sending_to(store, alice, sink) as node:
            node.seconds = 0.1
            for number in range(30):
                await node.submit(f"x{number}@remote.test")
            async with asyncio.timeout(SECONDS):
                while sink.connections < UNPROVEN:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.2)
            assert sink.connections == UNPROVEN
