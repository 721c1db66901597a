"""Reports are delivered once, to whoever sent the message, wherever that is."""

from __future__ import annotations

import asyncio
import email
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from email.message import Message
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from config.schema import Config
from mailserver.delivery.accept import accept
from mailserver.delivery.outbox import NOBODY_SENDS
from mailserver.sending.reporter import TAKEN_SECONDS, Reporter
from storage import (
    INBOX,
    SYSTEM,
    Account,
    Outgoing,
    OutgoingRecipient,
    Store,
    account_state,
    accounts,
    aliases,
    domains,
    mailboxes,
    queue,
    queue_reports,
    reader,
)
from storage.queue import Again, Ended, Move, Moved, Said
from tests.receiving.tools import open_store

WHO = Said(550, "5.1.1", "No such user", "mx.remote.test")
LATER = Said(451, "4.3.0", "Come back", "mx.remote.test")
MESSAGE = b"From: a@example.org\r\nMessage-ID: <1@example.org>\r\nSubject: hi\r\n\r\nhello\r\n"


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


@pytest.fixture
async def reporter(store: Store, alice: Account) -> AsyncIterator[Reporter]:
    made = Reporter(store, Config(), NOBODY_SENDS)
    yield made
    await made.close()


async def failed(store: Store, owner: Account, sender: str, *moves: Move, **more: Any) -> None:
    """A message from this sender, of whose recipients each has come to one of these ends."""
    names = [f"x{number}@remote.test" for number in range(len(moves))]
    orcpt = more.get("orcpt", "")
    recipients = tuple(OutgoingRecipient(name, "remote.test", orcpt=orcpt) for name in names)
    out = Outgoing(owner.account_id, sender, recipients, envid=more.get("envid", ""), ret=more.get("ret", ""))
    await accept(store, MESSAGE, [], trace_id=uuid4(), quota="share", arrived=0, outgoing=out)
    (taken,) = await queue.take(store, ["remote.test"], 100, pause=lambda n: 60.0, lease_seconds=60.0)
    await queue.record(store, [Moved(k, taken.lease.token, m) for k, m in zip(taken.keys, moves, strict=True)])


async def inbox(store: Store, account: Account) -> list[Message]:
    view = await store.views.open(account.account_id, INBOX)
    try:
        await view.refresh()
        ids = [entry.message_id for entry in view.snapshot.entries()]
    finally:
        view.close()
    pieces = [await reader.received(store, account.account_id, message_id) for message_id in ids]
    return [email.message_from_bytes(b"".join(some)) for some in pieces]


async def until(there: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await there():
            await asyncio.sleep(0.01)


async def until_nothing_is_owed(store: Store) -> None:
    async def nothing() -> bool:
        async with store.acquire() as conn:
            return bool(
                await conn.fetchval("SELECT count(*) = 0 FROM queue_recipients WHERE report IS NOT NULL")
                and await conn.fetchval("SELECT count(*) = 0 FROM queue_messages WHERE report_id IS NOT NULL")
            )

    await until(nothing)


def fields(report: Message, number: int = 1) -> Message:
    status: Any = report.get_payload()[1]
    part: Message = status.get_payload()[number]
    return part


async def test_one_report_tells_of_all_that_is_owed(store: Store, alice: Account, reporter: Reporter) -> None:
    moves = (Ended("failed", WHO), Ended("failed", LATER), Again(LATER, 9e9, 9e9))
    await failed(store, alice, "alice@example.org", *moves, envid="q+2B1", ret="HDRS", orcpt="rfc822;X")
    reporter.look()
    await until_nothing_is_owed(store)
    (report,) = await inbox(store, alice)
    first, second = fields(report, 1), fields(report, 2)
    assert (first["Action"], first["Status"], first["Original-Recipient"]) == ("failed", "5.1.1", "rfc822;X")
    assert second["Status"] == "4.3.0" and second["Remote-MTA"] == "dns; mx.remote.test"
    assert fields(report, 0)["Original-Envelope-Id"] == "q+1"
    assert report["Auto-Submitted"] == "auto-replied" and "x2@remote.test" not in report.as_string()
    async with store.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM queue_recipients") == 1


async def test_a_sender_behind_an_alias(store: Store, alice: Account, reporter: Reporter) -> None:
    await aliases.add(store, "sales@example.org", ["alice@example.org", "them@elsewhere.test"])
    await failed(store, alice, "sales@example.org", Ended("failed", WHO))
    reporter.look()
    await until_nothing_is_owed(store)
    assert len(await inbox(store, alice)) == 1
    async with store.acquire() as conn:
        row = await conn.fetchrow("SELECT * FROM queue_recipients")
        assert (row["account_id"], row["recipient"], row["notify"]) == (SYSTEM, "them@elsewhere.test", "NEVER")
        assert await conn.fetchval("SELECT reverse_path FROM queue_messages WHERE account_id = 0") == ""


async def test_a_sender_who_does_not_exist(store: Store, alice: Account, reporter: Reporter) -> None:
    await failed(store, alice, "gone@example.org", Ended("failed", WHO))
    reporter.look()
    await until_nothing_is_owed(store)
    assert await inbox(store, alice) == []


async def test_what_another_has_begun_is_made_once(store: Store, alice: Account) -> None:
    """The one who began has delivered it, and died before saying so."""
    dead = Reporter(store, Config(), NOBODY_SENDS)
    await dead.close()
    await failed(store, alice, "alice@example.org", Ended("failed", WHO))
    ((account_id, queue_id),) = await queue_reports.owed(store, 10)
    owed = await queue_reports.take(store, account_id, queue_id, TAKEN_SECONDS)
    assert owed is not None
    await dead._deliver(owed)
    async with store.acquire() as conn:
        ago = timedelta(seconds=TAKEN_SECONDS + 1)
        await conn.execute("UPDATE queue_messages SET report_until = report_until - $1::interval", ago)
    reporter = Reporter(store, Config(), NOBODY_SENDS)
    await until_nothing_is_owed(store)
    await reporter.close()
    (report,) = await inbox(store, alice)
    assert UUID(report["Message-ID"][1:37]) == owed.trace_id


async def test_a_full_mailbox_is_tried_again(
    store: Store, alice: Account, reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    await account_state.set_quota(store, alice.account_id, 10, 0)
    await failed(store, alice, "alice@example.org", Ended("failed", WHO))
    caplog.set_level("INFO")
    reporter.look()

    async def waits() -> bool:
        return "waits: " in caplog.text

    await until(waits)
    await account_state.set_quota(store, alice.account_id, 0, 0)
    async with store.acquire() as conn:
        await conn.execute("UPDATE queue_messages SET report_until = now()")
    reporter.look()
    await until_nothing_is_owed(store)
    assert len(await inbox(store, alice)) == 1


@pytest.mark.parametrize(("owner", "returned"), [("system", False), ("alice", True)])
async def test_a_report_of_success_returns_nothing_that_a_stranger_wrote(
    store: Store, alice: Account, reporter: Reporter, owner: str, returned: bool
) -> None:
    """Anybody may ask on port 25, in Alice's name."""
    to = OutgoingRecipient("alice@example.org", "example.org", "SUCCESS", report="delivered")
    out = Outgoing(SYSTEM if owner == "system" else alice.account_id, "alice@example.org", (to,), ret="FULL")
    await accept(store, MESSAGE, [], trace_id=uuid4(), quota="share", arrived=0, outgoing=out)
    reporter.look()
    await until_nothing_is_owed(store)
    (report,) = await inbox(store, alice)
    assert fields(report)["Action"] == "delivered"
    assert ("Subject: hi" in report.as_string()) is returned
