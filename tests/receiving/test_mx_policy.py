"""Mail from other servers: who may be written to, and what is stored of it."""

from __future__ import annotations

import re

from storage import accounts
from tests.receiving.conftest import People
from tests.receiving.tools import Host, dialogue

MESSAGE = b"From: <x@elsewhere.example>\r\nSubject: hi\r\n\r\n.dots\r\n..\r\n\r\nend\r\n"


RECIPIENTS = {
    "alice@example.org": "250 2.1.5",
    "ALICE@Example.ORG": "250 2.1.5",
    "alice+tag@example.org": "250 2.1.5",
    "a.liddell@example.org": "250 2.1.5",
    '"alice"@example.org': "250 2.1.5",
    "both@example.org": "250 2.1.5",
    "anything@catch.example": "250 2.1.5",
    "postmaster": "250 2.1.5",
    "Postmaster": "250 2.1.5",
    "postmaster@example.org": "250 2.1.5",
    "abuse@catch.example": "250 2.1.5",
    "@relay.example:bob@example.org": "250 2.1.5",
    "nobody@example.org": "550 5.1.1",
    "nobody+alice@example.org": "550 5.1.1",
    "a..b@example.org": "550 5.1.1",
    "alice@elsewhere.example": "550 5.7.1",
    "alice@sub.example.org": "550 5.7.1",
    "alice%elsewhere.example@example.org": "550 5.1.1",
    "elsewhere.example!alice@example.org": "550 5.1.1",
    "alice@[127.0.0.1]": "550 5.7.1",
    "away@example.org": "250 2.1.5",
    "split@example.org": "250 2.1.5",
    "alice": "501 5.1.3",
    "": "501 5.1.3",
}


async def test_recipients(host: Host) -> None:
    replies = {}
    for recipient in RECIPIENTS:
        talk = await (await host.talk()).hello()
        await talk.ask("MAIL FROM:<x@elsewhere.example>")
        replies[recipient] = (await talk.ask(f"RCPT TO:<{recipient}>"))[:9]
        talk.close()
    assert replies == RECIPIENTS


async def test_any_sender(host: Host, people: People) -> None:
    senders = ["", "x@elsewhere.example", "alice@example.org", "root@[192.0.2.1]"]
    for sender in senders:
        talk = await (await host.talk()).hello()
        await talk.envelope(sender, "alice@example.org")
        assert (await talk.message(MESSAGE)).startswith("250 2.0.0 OK ")
        talk.close()
    for sender, stored in zip(senders, await host.inbox(people.alice), strict=True):
        assert stored.startswith(f"Return-Path: <{sender}>\r\n".encode())


async def test_octets_are_stored_as_they_came_behind_a_prefix_of_ours(host: Host, people: People) -> None:
    talk = await (await host.talk()).hello()
    await talk.envelope("x@elsewhere.example", "alice+tag@example.org")
    answer = await talk.message(MESSAGE)
    trace = re.fullmatch(r"250 2\.0\.0 OK ([0-9a-f-]{36})\r\n", answer)
    assert trace
    [row] = await host.rows(people.alice)
    assert str(row.trace_id) == trace[1]
    assert row.size == len(MESSAGE)
    prefix = row.header_prefix.decode()
    assert await host.whole(people.alice, row) == row.header_prefix + MESSAGE
    assert re.fullmatch(
        r"Return-Path: <x@elsewhere\.example>\r\n"
        r"Delivered-To: alice\+tag@example\.org\r\n"
        r"Received: from client\.example\.net \(\[127\.0\.0\.1\]\)\r\n"
        rf"\tby mail\.example\.org with ESMTP id {trace[1]}\r\n"
        r"\tfor <alice\+tag@example\.org>;\r\n"
        r"\t\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\n",
        prefix,
    ), prefix
    talk.close()


async def test_one_copy_for_each_account(host: Host, people: People) -> None:
    talk = await (await host.talk()).hello()
    names = ["both@example.org", "alice@example.org", "alice+x@example.org", "bob@example.org", "z@catch.example"]
    await talk.envelope("x@elsewhere.example", *names)
    assert (await talk.message(MESSAGE)).startswith("250")
    [alice], [bob] = await host.inbox(people.alice), await host.inbox(people.bob)
    for stored in (alice, bob):
        assert b"Delivered-To: both@example.org\r\n" in stored
        assert b"\tfor <" not in stored  # who else was written to is nobody's business (RFC 5321 §7.2)
    assert not await host.inbox(people.admin)
    talk.close()


async def test_mail_for_the_administrator(host: Host, people: People) -> None:
    for name in ("postmaster", "abuse@example.org", "PostMaster@catch.example"):
        talk = await (await host.talk()).hello()
        await talk.envelope("x@elsewhere.example", name)
        assert (await talk.message(MESSAGE)).startswith("250")
        talk.close()
    assert len(await host.inbox(people.admin)) == 3


async def test_mail_for_a_disabled_account_arrives(host: Host, people: People) -> None:
    await accounts.set_status(host.store, people.alice.account_id, "disabled")
    talk = await (await host.talk()).hello()
    await talk.envelope("x@elsewhere.example", "alice@example.org")
    assert (await talk.message(MESSAGE)).startswith("250")
    assert len(await host.inbox(people.alice)) == 1
    talk.close()


async def test_no_login_here(host: Host) -> None:
    await dialogue(
        host,
        """
        S: 220 mail.example.org ESMTP Pillarbox …
        C: EHLO client
        S: 250-mail.example.org
        S: 250-PIPELINING
        S: 250-SIZE 52428800
        S: 250-STARTTLS
        S: 250-ENHANCEDSTATUSCODES
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-DSN
        S: 250 CHUNKING
        C: AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=
        S: 502 5.5.1 …
        C: MAIL FROM:<a@b> AUTH=<>
        S: 555 5.5.4 AUTH …
        """,
    )


async def test_internationalized_mail(host: Host, people: People) -> None:
    await accounts.add_address(host.store, people.alice.account_id, "älice@example.org")
    talk = await (await host.talk()).hello()
    assert (await talk.ask("MAIL FROM:<grüße@elsewhere.example> SMTPUTF8")).startswith("250")
    assert (await talk.ask("RCPT TO:<ÄLICE@example.org>")).startswith("250")
    assert (await talk.message("Subject: grüße\r\n\r\n".encode())).startswith("250")
    [stored] = await host.inbox(people.alice)
    assert "Return-Path: <grüße@elsewhere.example>\r\nDelivered-To: ÄLICE@example.org\r\n".encode() in stored
    assert b" with UTF8SMTP id " in stored
    talk.close()
