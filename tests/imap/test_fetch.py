"""FETCH: every item, sections and partials, \\Seen, and what happens to messages that are gone."""

from __future__ import annotations

import asyncio
import re

import pytest

from mailserver.imap.fetch import Need, need
from mailserver.protocols.imap.commands import Attribute, BodySection
from storage import messages
from tests.imap.conftest import Client, Server
from tests.imap.mail import put, put_octets

MULTIPART = b"""\
From: Ann <ann@example.org>
To: bob@example.org
Subject: parts
Date: Fri, 23 Feb 1996 15:48:25 +0000
Message-ID: <1@example.org>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x

preamble
--x
Content-Type: text/plain

first
--x
Content-Type: message/rfc822

Subject: inner
From: c@example.org

inner text
--x--
""".replace(b"\n", b"\r\n")


async def selected(server: Server) -> Client:
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    return client


async def fetched(client: Client, command: str) -> bytes:
    """All octets of the answer, up to the tagged line."""
    await client.send(f"x {command}\r\n".encode())
    data = b""
    while not re.search(rb"(?:^|\r\n)x (OK|NO|BAD) [^\r\n]*\r\n\Z", data):
        part = await client.reader.read(1 << 20)
        assert part, data
        data += part
    assert re.search(rb"(?:^|\r\n)x OK ", data), data
    return data[: data.rindex(b"x OK ")]


@pytest.mark.usefixtures("cut")
async def test_what_the_view_knows(server: Server) -> None:
    await put(server, b"one", flags=1)
    await put(server, b"two", keywords=("$Junk",))
    client = await server.logged_in()
    await client.ask("EXAMINE INBOX")
    await server.play(
        r"""
        C: a FETCH 1:* FAST
        S: * 1 FETCH (FLAGS (\Seen \Recent) INTERNALDATE "23-Feb-1996 15:48:25 +0000" RFC822.SIZE 22)
        S: * 2 FETCH (FLAGS (\Recent $Junk) INTERNALDATE "23-Feb-1996 15:48:25 +0000" RFC822.SIZE 22)
        S: a OK FETCH completed
        C: b UID FETCH 2:9 FLAGS
        S: * 2 FETCH (UID 2 FLAGS (\Recent $Junk))
        S: b OK UID FETCH completed
        C: c UID FETCH 7 FLAGS
        S: c OK UID FETCH completed
        C: d FETCH 3 FLAGS
        S: d BAD No such message
        C: e FETCH 1 (UID)
        S: * 1 FETCH (UID 1)
        S: e OK …
        """,
        client,
    )


async def test_envelope_and_structure(server: Server) -> None:
    await put_octets(server, MULTIPART)
    client = await selected(server)
    await server.play(
        r"""
        C: a FETCH 1 (UID ENVELOPE)
        S: * 1 FETCH (UID 1 ENVELOPE ("Fri, 23 Feb 1996 15:48:25 +0000" "parts" (("Ann" NIL …)) … "<1@example.org>"))
        S: a OK …
        C: b FETCH 1 BODYSTRUCTURE
        S: * 1 FETCH (BODYSTRUCTURE (("text" "plain" …)("message" "rfc822" …) "mixed" ("boundary" "x") NIL NIL NIL))
        S: b OK …
        C: c FETCH 1 (BODY FLAGS)
        S: * 1 FETCH (BODY (("text" "plain" …)("message" "rfc822" …) "mixed") FLAGS (\Recent))
        S: c OK …
        C: d FETCH 1 FULL
        S: * 1 FETCH (FLAGS (\Recent) INTERNALDATE "…" RFC822.SIZE 343 ENVELOPE (…) BODY (… "mixed"))
        S: d OK …
        """,
        client,
    )


HEADER = MULTIPART[: MULTIPART.index(b"\r\n\r\n") + 4]
INNER = b"Subject: inner\r\nFrom: c@example.org\r\n\r\ninner text"


@pytest.mark.parametrize(
    ("item", "label", "octets"),
    [
        ("BODY.PEEK[]", "BODY[]", MULTIPART),
        ("RFC822", "RFC822", MULTIPART),
        ("RFC822.HEADER", "RFC822.HEADER", HEADER),
        ("RFC822.TEXT", "RFC822.TEXT", MULTIPART[len(HEADER) :]),
        ("BODY.PEEK[HEADER]", "BODY[HEADER]", HEADER),
        ("BODY.PEEK[TEXT]", "BODY[TEXT]", MULTIPART[len(HEADER) :]),
        (
            "BODY.PEEK[HEADER.FIELDS (To SUBJECT)]",
            "BODY[HEADER.FIELDS (To SUBJECT)]",
            b"To: bob@example.org\r\nSubject: parts\r\n\r\n",
        ),
        ("BODY.PEEK[HEADER.FIELDS (X)]", "BODY[HEADER.FIELDS (X)]", b"\r\n"),
        (
            "BODY.PEEK[HEADER.FIELDS.NOT (From To Date Message-ID MIME-Version Content-Type)]",
            "BODY[HEADER.FIELDS.NOT (From To Date Message-ID MIME-Version Content-Type)]",
            b"Subject: parts\r\n\r\n",
        ),
        ("BODY.PEEK[1]", "BODY[1]", b"first"),
        ("BODY.PEEK[1.MIME]", "BODY[1.MIME]", b"Content-Type: text/plain\r\n\r\n"),
        ("BODY.PEEK[2]", "BODY[2]", INNER),
        ("BODY.PEEK[2.HEADER]", "BODY[2.HEADER]", b"Subject: inner\r\nFrom: c@example.org\r\n\r\n"),
        (
            "BODY.PEEK[2.HEADER.FIELDS (From)]",
            "BODY[2.HEADER.FIELDS (From)]",
            b"From: c@example.org\r\n\r\n",
        ),
        ("BODY.PEEK[2.TEXT]", "BODY[2.TEXT]", b"inner text"),
        ("BODY.PEEK[2.1]", "BODY[2.1]", b"inner text"),
        ("BODY.PEEK[]<6.10>", "BODY[]<6>", MULTIPART[6:16]),
        ("BODY.PEEK[]<330.100>", "BODY[]<330>", MULTIPART[330:]),
        ("BODY.PEEK[]<5000.9>", "BODY[]<5000>", b""),
        ("BODY.PEEK[HEADER]<6.3>", "BODY[HEADER]<6>", b"Ann"),
        ("BODY.PEEK[1]<1.2>", "BODY[1]<1>", b"ir"),
    ],
)
async def test_sections(server: Server, item: str, label: str, octets: bytes) -> None:
    await put_octets(server, MULTIPART)
    client = await selected(server)
    expected = b"* 1 FETCH (%b {%d}\r\n%b)\r\n" % (label.encode(), len(octets), octets)
    assert (await fetched(client, f"FETCH 1 {item}"))[: len(expected)] == expected


@pytest.mark.parametrize("part", ["3", "1.1", "2.2", "1.HEADER", "9.MIME", "2.1.1.1"])
async def test_parts_that_are_not_there(server: Server, part: str) -> None:
    await put_octets(server, MULTIPART)
    client = await selected(server)
    assert await fetched(client, f"FETCH 1 BODY.PEEK[{part}]") == b"* 1 FETCH (BODY[%b] NIL)\r\n" % part.encode()


async def test_what_we_put_in_front_belongs_to_the_message(server: Server) -> None:
    """Our Return-Path and Received are part of the header, and every section stays where it is."""
    prefix = b"Return-Path: <ann@example.org>\r\n"
    await put_octets(server, MULTIPART, prefix=prefix)
    client = await selected(server)
    for item, octets in {
        "BODY.PEEK[]": prefix + MULTIPART,
        "BODY.PEEK[HEADER]": prefix + HEADER,
        "BODY.PEEK[TEXT]": MULTIPART[len(HEADER) :],
        "BODY.PEEK[1]": b"first",
        "BODY.PEEK[2.TEXT]": b"inner text",
        "BODY.PEEK[HEADER.FIELDS (Return-Path)]": prefix + b"\r\n",
    }.items():
        data = await fetched(client, f"FETCH 1 (RFC822.SIZE {item})")
        assert b"RFC822.SIZE %d " % (len(prefix) + len(MULTIPART)) in data
        assert data.endswith(b" {%d}\r\n%b)\r\n" % (len(octets), octets))


async def test_several_sections_in_one_line(server: Server) -> None:
    await put_octets(server, MULTIPART)
    client = await selected(server)
    assert await fetched(client, "UID FETCH 1 (BODY.PEEK[1] UID BODY.PEEK[2.TEXT] FLAGS)") == (
        b"* 1 FETCH (UID 1 FLAGS (\\Recent) BODY[1] {5}\r\nfirst BODY[2.TEXT] {10}\r\ninner text)\r\n"
    )


async def test_nul_comes_as_literal8(server: Server) -> None:
    """RFC 3516 §4.3: no other form can hold it."""
    octets = b"Subject: x\r\n\r\na\0b\r\n"
    await put_octets(server, octets)
    client = await selected(server)
    assert await fetched(client, "FETCH 1 BODY.PEEK[]") == b"* 1 FETCH (BODY[] ~{%d}\r\n%b)\r\n" % (len(octets), octets)


@pytest.mark.parametrize(
    ("item", "sets"),
    [
        ("BODY[]", True),
        ("BODY.PEEK[]", False),
        ("RFC822", True),
        ("RFC822.TEXT", True),
        ("RFC822.HEADER", False),
        ("BODY[1]", True),
        ("BODY[HEADER.FIELDS (Subject)]", True),
        ("ENVELOPE", False),
        ("BODYSTRUCTURE", False),
    ],
)
async def test_what_sets_seen(server: Server, item: str, sets: bool) -> None:
    """RFC 3501 §6.4.5: and the client is told."""
    await put(server, b"text")
    client = await selected(server)
    data = await fetched(client, f"FETCH 1 {item}")
    assert (b"FLAGS (\\Seen \\Recent)" in data) is sets
    assert (b"\\Seen" in await fetched(client, "FETCH 1 FLAGS")) is sets
    assert b"FLAGS" not in await fetched(client, f"FETCH 1 {item}")


async def test_expunges_wait_until_fetch_is_over(server: Server) -> None:
    """RFC 3501 §7.4.1."""
    for _ in range(3):
        placed = await put(server, b"text")
    client = await selected(server)
    await messages.expunge(server.store, placed.account_id, placed.mailbox_id, await deleted(server, placed, [1]))
    await server.play(
        r"""
        C: a FETCH 1:3 UID
        S: * 1 FETCH (UID 1)
        S: * 2 FETCH (UID 2)
        S: * 3 FETCH (UID 3)
        S: a OK FETCH completed
        C: b FETCH 3 UID
        S: * 3 FETCH (UID 3)
        S: b OK …
        C: c UID FETCH 3 UID
        S: * 3 FETCH (UID 3)
        S: * 1 EXPUNGE
        S: c OK …
        C: d FETCH 2 UID
        S: * 2 FETCH (UID 3)
        S: d OK …
        """,
        client,
    )


async def deleted(server: Server, placed: object, uids: list[int]) -> list[int]:
    from storage import FlagChange

    await messages.store_flags(server.store, placed.account_id, placed.mailbox_id, uids, FlagChange("+", 8))  # type: ignore[attr-defined]
    return uids


async def test_a_message_whose_octets_are_gone_is_left_out(server: Server) -> None:
    """RFC 5530, EXPUNGEISSUED."""
    for _ in range(3):
        placed = await put(server, b"text")
    client = await selected(server)
    async with server.store.acquire() as conn:
        await conn.execute("DELETE FROM messages WHERE message_id = $1", placed.message_id)
    await server.play(
        """
        C: a FETCH 1:* (UID BODYSTRUCTURE)
        S: * 1 FETCH (UID 1 BODYSTRUCTURE (…))
        S: * 2 FETCH (UID 2 BODYSTRUCTURE (…))
        S: a OK [EXPUNGEISSUED] FETCH completed
        C: b FETCH 2:3 (UID BODY.PEEK[TEXT])
        S: * 2 FETCH (UID 2 BODY[TEXT] {6}
        S: text
        S: )
        S: b OK [EXPUNGEISSUED] FETCH completed
        """,
        client,
    )


@pytest.mark.parametrize("item", ["UID", "ENVELOPE", "BODY.PEEK[HEADER]", "BODY.PEEK[]"])
async def test_more_messages_than_a_batch_and_a_page(server: Server, item: str) -> None:
    placed = await put(server, b"text")
    uids = [1]
    while len(uids) < 1000:
        result = await messages.copy(server.store, placed.account_id, placed.mailbox_id, uids, placed.mailbox_id)
        uids += result.destination
    client = await selected(server)
    data = await fetched(client, f"FETCH 1:* (UID {item})")
    assert [int(n) for n in re.findall(rb"\* (\d+) FETCH", data)] == list(range(1, len(uids) + 1))
    assert [int(n) for n in re.findall(rb"\(UID (\d+)", data)] == uids
    data = await fetched(client, f"FETCH 60:70,130,990:* (UID {item})")
    assert [int(n) for n in re.findall(rb"\* (\d+) FETCH", data)] == [
        *range(60, 71),
        130,
        *range(990, len(uids) + 1),
    ]


async def test_the_text_of_a_page_follows_its_changes(server: Server) -> None:
    """What is kept for a page must not outlive its place in the mailbox, nor its flags."""
    for _ in range(3):
        await put(server, b"text")
    first, second = await selected(server), await selected(server)
    assert await fetched(second, "FETCH 1:* (UID FLAGS)") == await fetched(second, "FETCH 1:* (UID FLAGS)")
    await first.ask("STORE 1 +FLAGS (\\Deleted)")
    assert b"* 1 FETCH (UID 1 FLAGS (\\Deleted))" in await fetched(second, "FETCH 1:* (UID FLAGS)")
    await first.ask("EXPUNGE")
    await second.ask("NOOP")
    assert await fetched(second, "FETCH 1:* (UID FLAGS)") == (
        b"* 1 FETCH (UID 2 FLAGS ())\r\n* 2 FETCH (UID 3 FLAGS ())\r\n"
    )


async def test_a_slow_reader_holds_no_memory_and_no_connection(server: Server) -> None:
    """8 MB asked for by a client that does not read: little waits, other sessions go on, then all of it comes."""
    body = (b"x" * 76 + b"\r\n") * 13_000
    for _ in range(8):
        await put(server, body)
    slow = await server.logged_in(slow=True)
    await slow.ask("SELECT INBOX")
    await slow.send(b"x FETCH 1:* BODY.PEEK[]\r\n")
    async with asyncio.timeout(10):
        while not server.made[0].blocked:
            await asyncio.sleep(0.01)
    other = await server.logged_in("bob")
    for _ in range(20):
        await other.ask("SELECT INBOX")
    waiting = [session.transport.get_write_buffer_size() for session in server.made if not session.is_closing]
    assert max(waiting) < 1 << 20
    assert server.store.pool.get_idle_size() == server.store.pool.get_size()
    received = 0
    while True:
        line = await slow.reader.readuntil(b"\r\n")
        received += len(line)
        if line.startswith(b"x OK"):
            break
    assert received > 8 * len(body)


def test_what_items_need() -> None:
    assert need(Attribute.FLAGS) is Need.PAGES
    assert need(Attribute.ENVELOPE) is Need.TEXTS
    assert need(BodySection(b"", kind="HEADER.FIELDS")) is Need.TEXTS
    assert need(BodySection(b"", (1,), "HEADER")) is Need.CONTENTS
    assert need(BodySection(b"")) is Need.CONTENTS
    assert need(Attribute.BODY) is Need.TEXTS


async def test_seen_is_set_by_the_flags_as_they_are(server: Server) -> None:
    """The client was told of \\Seen, and not yet that another has taken it away."""
    await put(server, b"Subject: x\r\n\r\nhello\r\n")
    one, two = await selected(server), await selected(server)
    await one.ask("STORE 1 FLAGS.SILENT (\\Seen)")
    await two.ask("STORE 1 FLAGS.SILENT ()")
    assert b"FLAGS (\\Seen \\Recent)" in await fetched(one, "FETCH 1 BODY[TEXT]")
    assert b"\\Seen" in await fetched(two, "FETCH 1 FLAGS")
