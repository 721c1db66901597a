"""A message that a program of ours sends: who gets it, and who keeps what."""

from __future__ import annotations

import time
from dataclasses import replace
from uuid import uuid4

import pytest

from mailserver.delivery import submit
from mailserver.delivery.route import Routes
from mailserver.delivery.submit import Envelope, RecipientsRefused
from storage import Account, AccountId, Flag, OverQuota, Store, accounts, aliases, domains, mailboxes, reader
from storage.batch import new_message_id
from storage.records import MessageId
from tests.storage.conftest import OpenStore, open_store
from tests.support.rows import message_rows

__all__ = ["open_store"]

OCTETS = b"From: alice@example.org\r\n\r\nhello\r\n"


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    """alice and bob of example.org; team leads to both, away to another server."""
    store: Store = await open_store()
    await domains.add(store, "example.org")
    for name in ("alice", "bob"):
        await accounts.add(store, None, f"{name}@example.org", None)
    await aliases.add(store, "team@example.org", ["alice@example.org", "bob@example.org"])
    await aliases.add(store, "away@example.org", ["Bob@Elsewhere.example"])
    return store


@pytest.fixture
async def alice(store: Store) -> Account:
    return await accounts.find(store, "alice")


@pytest.fixture
async def bob(store: Store) -> Account:
    return await accounts.find(store, "bob")


@pytest.fixture
def envelope(alice: Account) -> Envelope:
    return Envelope(
        alice,
        "alice@example.org",
        ["bob@example.org"],
        OCTETS,
        peer="192.0.2.1",
        hostname="h.example",
        protocol="HTTPS",
    )


async def send(store: Store, envelope: Envelope) -> MessageId:
    made = await submit.plan(store, Routes(store), envelope)
    wanted = MessageId(new_message_id())
    found = await submit.commit(store, envelope, made, message_id=wanted, trace_id=uuid4())
    assert found == wanted
    return found


async def prefix(store: Store, account: Account, message_id: MessageId) -> bytes:
    return (await message_rows(store, account.account_id, [message_id]))[message_id].header_prefix


async def count(store: Store, account: Account, *name: str) -> int:
    return (await mailboxes.find(store, account.account_id, name)).messages


async def test_recipients_know_the_way_and_the_sender_keeps_bcc(
    store: Store, envelope: Envelope, alice: Account, bob: Account
) -> None:
    message_id = await send(store, replace(envelope, bcc=b"Bcc: x@example.org"))
    theirs = await prefix(store, bob, message_id)
    assert theirs.startswith(b"Return-Path: <alice@example.org>\r\nDelivered-To: bob@example.org\r\nReceived: ")
    assert b"by h.example with HTTPS id " in theirs and b"for <bob@example.org>" in theirs and b"Bcc" not in theirs
    assert await prefix(store, alice, message_id) == b"Bcc: x@example.org\r\n"
    assert await count(store, bob, "INBOX") == 1
    sent = await mailboxes.find(store, alice.account_id, ("Sent",))
    assert (sent.messages, sent.unseen) == (1, 0)


async def test_one_copy_for_each_account(store: Store, envelope: Envelope, alice: Account, bob: Account) -> None:
    names = ["bob@example.org", "BOB@example.org", "team@example.org", "bob+x@example.org"]
    message_id = await send(store, replace(envelope, recipients=names, bcc=b"Bcc: y@example.org"))
    assert (await count(store, alice, "INBOX"), await count(store, bob, "INBOX")) == (1, 1)
    own = await prefix(store, alice, message_id)
    assert b"Delivered-To: team@example.org" in own and own.endswith(b"Bcc: y@example.org\r\n")
    assert b" for <" not in own


async def test_without_a_copy(store: Store, envelope: Envelope, alice: Account, bob: Account) -> None:
    made = await submit.plan(store, Routes(store), replace(envelope, save=False))
    assert made.sent is None and made.holder(alice.account_id) == bob.account_id
    await send(store, replace(envelope, save=False))
    assert (await count(store, alice, "Sent"), await count(store, bob, "INBOX")) == (0, 1)


async def test_all_recipients_that_cannot_be_are_named(store: Store, envelope: Envelope) -> None:
    with pytest.raises(RecipientsRefused) as refusal:
        await send(store, replace(envelope, recipients=["no@example.org", "bob@example.org", "nor@example.org"]))
    assert list(refusal.value.reasons) == ["no@example.org", "nor@example.org"]


async def test_outside_recipients_are_gathered_once_each(store: Store, envelope: Envelope) -> None:
    names = ["X@Outside.Example", "X@outside.example", "away@example.org", "bob@example.org"]
    made = await submit.plan(store, Routes(store), replace(envelope, recipients=names))
    assert made.outside == ["X@outside.example", "Bob@elsewhere.example"]
    outgoing = submit._outgoing(envelope, made, b"Received: x\r\n")
    assert outgoing is not None and outgoing.reverse_path == "alice@example.org"
    assert [one.destination for one in outgoing.recipients] == ["outside.example", "elsewhere.example"]


async def test_a_full_mailbox(store: Store, envelope: Envelope, bob: Account) -> None:
    await mailboxes.set_quota(store, bob.account_id, 10, 0)
    with pytest.raises(OverQuota):
        await submit.plan(store, Routes(store), envelope)


async def test_whose_address_it_is(store: Store, alice: Account) -> None:
    for address, owned in (
        ("alice@example.org", True),
        ("Alice+x@Example.org", True),
        ("bob@example.org", False),
        ("team@example.org", False),
        ("x@outside.example", False),
    ):
        assert await accounts.owns_address(store, alice.account_id, address) is owned


async def test_octets_and_flags(store: Store, envelope: Envelope, alice: Account) -> None:
    message_id = await send(store, envelope)
    row = (await message_rows(store, alice.account_id, [message_id]))[message_id]
    pieces = await reader.received(store, AccountId(alice.account_id), message_id)
    assert b"".join(pieces) == OCTETS and row.size == len(OCTETS)
    view = await store.views.open(
        alice.account_id, (await mailboxes.find(store, alice.account_id, ("Sent",))).mailbox_id
    )
    assert view.snapshot.at(1).flags == Flag.SEEN and abs(view.snapshot.at(1).received - time.time()) < 60
    view.close()
