"""Mail from users: whose address it may carry, and the one edit."""

from __future__ import annotations

import re
import time

from storage import accounts
from tests.receiving.conftest import People
from tests.receiving.tools import Host, Talk

ALL = "Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@x>\r\n"


async def alice(host: Host) -> Talk:
    return await (await (await host.talk("submission")).hello()).log_in()


SENDERS = {
    "alice@example.org": "250 2.1.0",
    "Alice+tag@EXAMPLE.org": "250 2.1.0",
    "a.liddell@example.org": "250 2.1.0",
    "wonderland@example.org": "250 2.1.0",
    "": "250 2.1.0",
    "bob@example.org": "550 5.7.1",
    "both@example.org": "550 5.7.1",
    "split@example.org": "550 5.7.1",
    "nobody@example.org": "550 5.7.1",
    "anything@catch.example": "550 5.7.1",
    "alice@elsewhere.example": "550 5.7.1",
    "a..b@example.org": "550 5.7.1",
}


async def test_senders(host: Host) -> None:
    replies = {}
    for sender in SENDERS:
        talk = await alice(host)
        replies[sender] = (await talk.ask(f"MAIL FROM:<{sender}>"))[:9]
        talk.close()
    assert replies == SENDERS


async def test_a_catch_all_owns_nothing(host: Host) -> None:
    talk = await (await (await host.talk("submission")).hello()).log_in("bob")
    assert (await talk.ask("MAIL FROM:<anything@catch.example>")).startswith("550 5.7.1")
    talk.close()


RECIPIENTS = {
    "bob@example.org": "250 2.1.5",
    "both@example.org": "250 2.1.5",
    "postmaster": "250 2.1.5",
    "nobody@example.org": "550 5.1.1",
    "someone@elsewhere.example": "250 2.1.5",
    "away@example.org": "250 2.1.5",
    "split@example.org": "250 2.1.5",
    "x@[192.0.2.1]": "250 2.1.5",
    "x@not-.a.domain": "501 5.1.3",
}


async def test_recipients(host: Host) -> None:
    replies = {}
    for recipient in RECIPIENTS:
        talk = await alice(host)
        await talk.ask("MAIL FROM:<alice@example.org>")
        replies[recipient] = (await talk.ask(f"RCPT TO:<{recipient}>"))[:9]
        talk.close()
    assert replies == RECIPIENTS


AUTHORS = {
    "From: alice@example.org": True,
    "From: Alice <alice+news@example.org>": True,
    'From: "bob@example.org" <a.liddell@example.org>': True,
    "From: (bob@example.org) alice@example.org": True,
    "From: =?utf-8?q?bob=40example.org?= <wonderland@example.org>": True,
    "FROM: alice@example.org,\r\n a.liddell@example.org": True,
    "From: bob@example.org": False,
    "From: Alice <bob@example.org>": False,
    "From: alice@example.org, bob@example.org": False,
    "From: alice@example.org\r\nfrom: bob@example.org": False,
    "From: group: bob@example.org;": False,
    "From: alice@elsewhere.example": False,
    "From: <>": False,
    "From: Alice": False,
    "From:": False,
    "From: group:;": False,
    'From: "alice@example.org"@elsewhere.example': False,
    "From: alice@example.org <bob@example.org>": False,
}


async def test_authors(host: Host, people: People) -> None:
    replies = {}
    for field in AUTHORS:
        talk = await alice(host)
        await talk.envelope("alice@example.org", "bob@example.org")
        replies[field] = (await talk.message(f"{ALL}{field}\r\n\r\ntext\r\n".encode()))[:9]
        talk.close()
    assert replies == {field: "250 2.0.0" if accepted else "550 5.7.1" for field, accepted in AUTHORS.items()}
    assert len(await host.inbox(people.bob)) == sum(AUTHORS.values())


async def test_long_lists_of_authors(host: Host, people: People) -> None:
    """One author many times is asked for once; what stands behind the last that is read is not let through unread."""
    mine = ["alice@example.org"]
    for authors, reply in (
        (mine * 9_000, "250 2.0.0"),
        (mine * 9_000 + ["eve@elsewhere.example"], "550 5.7.1"),
        (mine * 12_000 + ["eve@elsewhere.example"], "550 5.7.1"),
        ([f'"{"x" * 60_000}" <alice@example.org>'] * 9 + ["eve@elsewhere.example"], "550 5.7.1"),
    ):
        talk = await alice(host)
        await talk.envelope("alice@example.org", "bob@example.org")
        begin = time.process_time()
        field = "From: " + ",\r\n ".join(authors)
        assert (await talk.message(f"{ALL}{field}\r\n\r\ntext\r\n".encode()))[:9] == reply
        assert time.process_time() - begin < 1
        talk.close()


async def test_the_one_edit(host: Host, people: People) -> None:
    talk = await alice(host)
    await talk.envelope("alice+x@example.org", "bob@example.org")
    await talk.message(b"Bcc: secret@example.org\r\nSubject: hi\r\nResent-Bcc: two\r\n more\r\n\r\nBcc: text\r\n")
    [row] = await host.rows(people.bob)
    stored = (await host.whole(people.bob, row))[len(row.header_prefix) :].decode()
    assert re.fullmatch(
        r"Date: [^\r\n]+ \+0000\r\n"
        r"From: <alice\+x@example\.org>\r\n"
        r"Message-ID: <[0-9a-f-]{36}@mail\.example\.org>\r\n"
        r"Subject: hi\r\n\r\nBcc: text\r\n",
        stored,
    ), stored
    assert b" with ESMTPA id " in row.header_prefix
    talk.close()


async def test_a_whole_message_stays_as_it_is(host: Host, people: People) -> None:
    octets = f"{ALL}From: alice@example.org\r\n\r\n.\r\n..\r\n".encode()
    talk = await alice(host)
    await talk.envelope("alice@example.org", "bob@example.org")
    await talk.message(octets)
    [row] = await host.rows(people.bob)
    assert (await host.whole(people.bob, row))[len(row.header_prefix) :] == octets
    talk.close()


async def test_the_null_sender_gets_its_owners_name(host: Host, people: People) -> None:
    talk = await alice(host)
    await talk.envelope("", "bob@example.org")
    await talk.message(b"Subject: read\r\n\r\n")
    [stored] = await host.inbox(people.bob)
    assert stored.startswith(b"Return-Path: <>\r\n")
    assert b"\r\nFrom: <alice@example.org>\r\n" in stored
    talk.close()


async def test_disabled_accounts_cannot_log_in(host: Host, people: People) -> None:
    await accounts.set_status(host.store, people.alice.account_id, "disabled")
    talk = await (await host.talk("submission")).hello()
    assert (await talk.ask("AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=")).startswith("535 5.7.13")
    assert (await talk.ask("AUTH PLAIN AGFsaWNlAHdyb25n")).startswith("535 5.7.8")
    talk.close()


async def test_guessing_is_throttled(host: Host) -> None:
    talk = await (await host.talk("submission")).hello()
    for _ in range(10):
        assert (await talk.ask("AUTH PLAIN AGFsaWNlAHdyb25n")).startswith("535 5.7.8")
    assert (await talk.ask("AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=")).startswith("454 4.7.0")
    talk.close()
