"""SEARCH by a real client on a real store."""

from __future__ import annotations

import asyncio
import socket
import struct
import time

import pytest

from mailserver.imap import search
from storage import reader
from tests.imap.conftest import Client, Server
from tests.imap.mail import put, put_octets

ENCODED = (
    b"Subject: report\r\nFrom: ann@example.com\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n"
)
LETTERS = [
    (
        b"Subject: Lunch on Friday\r\nFrom: Ann Smith <ann@example.com>\r\nDate: Thu, 1 Feb 2024 23:30:00 -0800\r\n",
        b"Pizza?",
    ),
    (b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nFrom: bob@example.net\r\nTo: alice@example.org\r\n", b"Sch\xf6n"),
    (b"Subject: Re: Lunch on\r\n Friday\r\nFrom: carol@example.com\r\nX-Spam: no\r\n", b"Pasta, says Smith"),
    (ENCODED, b"0JzQuNGAINC4INC80LjRgA=="),
]


@pytest.fixture
async def letters(server: Server) -> Server:
    for at, (header, body) in enumerate(LETTERS):
        await put(server, body, header=header, flags=[0, 1, 5, 8][at], keywords=("$Work",) if at == 2 else ())
    return server


@pytest.mark.usefixtures("cut")
async def test_a_dialogue(letters: Server) -> None:
    client = await letters.logged_in()
    await client.ask("SELECT INBOX")
    await letters.play(
        """
        C: a SEARCH UNSEEN
        S: * SEARCH 1 4
        S: a OK SEARCH completed
        C: b UID SEARCH SUBJECT lunch
        S: * SEARCH 1 3
        S: b OK UID SEARCH completed
        C: c SEARCH SUBJECT nothing
        S: * SEARCH
        S: c OK SEARCH completed
        C: d SEARCH CHARSET UTF-8 BODY {6}
        S: + …
        C: мир
        S: * SEARCH 4
        S: d OK SEARCH completed
        C: e SEARCH CHARSET X-UNKNOWN ALL
        S: e NO [BADCHARSET (US-ASCII UTF-8)] …
        C: f SEARCH BOGUS
        S: f BAD …
        """,
        client,
    )


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("ALL", "1 2 3 4"),
        ("KEYWORD $work", "3"),
        ("UNDELETED UNSEEN", "1"),
        ('SUBJECT "lunch on friday"', "1 3"),
        ('SUBJECT "GRÜSSE"', "2"),
        ("FROM example.com", "1 3 4"),
        ('HEADER X-Spam ""', "3"),
        ("TEXT smith", "1 3"),
        ("BODY smith", "3"),
        ('BODY "SCHÖN"', "2"),
        ("NOT TEXT smith", "2 4"),
        ("OR SUBJECT report BODY pizza", "1 4"),
        ("FROM ann BODY pizza", "1"),
        ("FROM ann NOT BODY pizza", "4"),
        ("SEEN OR FROM bob BODY pasta", "2 3"),
        ("SENTON 1-Feb-2024", "1"),
        ("SENTON 2-Feb-2024", ""),
        # Letters without a Date were sent on the day of their arrival, 23-Feb-1996.
        ("SENTBEFORE 1-Jan-2000", "2 3 4"),
        ("SENTON 23-Feb-1996", "2 3 4"),
        ("SENTSINCE 1-Feb-2024 BODY pizza", "1"),
        ("ON 23-Feb-1996", "1 2 3 4"),
        ("RECENT", "1 2 3 4"),
        ("2:* LARGER 1 SMALLER 100000", "2 3 4"),
        ("UID 2", "2"),
        ("7", ""),
    ],
)
async def test_keys(letters: Server, keys: str, found: str) -> None:
    client = await letters.logged_in()
    await client.ask("SELECT INBOX")
    await client.send(f"x SEARCH CHARSET UTF-8 {keys}\r\n".encode())
    assert await client.line() == f"* SEARCH {found}".rstrip()
    assert (await client.line()).startswith("x OK")


@pytest.mark.parametrize("keys", ["SUBJECT lunch", "SUBJECT gr", 'HEADER X-Spam ""', "OR FROM bob SUBJECT report"])
async def test_the_second_time_no_header_is_read(letters: Server, keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await letters.logged_in()
    await client.ask("SELECT INBOX")
    first = await client.ask(f"SEARCH {keys}")

    async def never(*_: object) -> None:
        raise AssertionError("read from the database")

    monkeypatch.setattr(reader, "headers", never)
    assert await client.ask(f"SEARCH {keys}") == first
    (numbers,) = (line.split()[2:] for line in await client.ask(f"SEARCH NOT ({keys})") if line.startswith("*"))
    assert sorted([*first[0].split()[2:], *numbers]) == ["1", "2", "3", "4"]


async def test_long_headers_and_many_keys_find_the_same(server: Server) -> None:
    filler = b"".join(b"X-Filler-%d: %s\r\n" % (n, b"y" * 60) for n in range(200))
    await put(server, b"text", header=filler + b"Subject: Lunch  on\r\n Friday\r\n")
    await put(server, b"text", header=b"Subject: Lunch  on\r\n Friday\r\n")
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    many = " ".join("SUBJECT lunch" for _ in range(60))
    others = " ".join(f"NOT SUBJECT other{n}" for n in range(60))
    for keys in ('SUBJECT "lunch on fri"', many, others):
        assert await client.ask(f"SEARCH {keys}") == ["* SEARCH 1 2", "x OK SEARCH completed"]


async def test_an_empty_mailbox(server: Server) -> None:
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    for keys in ("ALL", "1:*", "UID 1:*", "BODY x", "NOT SUBJECT x"):
        assert await client.ask(f"SEARCH {keys}") == ["* SEARCH", "x OK SEARCH completed"]


async def test_the_prefix_that_we_add_is_part_of_the_header(server: Server) -> None:
    await put(server, b"x", prefix=b"Return-Path: <sender@example.net>\r\n")
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    for keys in ("HEADER Return-Path sender", "TEXT sender@", "SUBJECT test"):
        assert (await client.ask(f"SEARCH {keys}"))[0] == "* SEARCH 1"


async def test_large_messages_and_their_attachments(server: Server) -> None:
    text = b"\r\n".join(b"line %d of a long text" % n for n in range(20_000))
    await put(server, text + b"\r\nneedle at\r\nthe end")
    await put(server, text)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    assert (await client.ask('SEARCH BODY "needle at the end"'))[0] == "* SEARCH 1"
    assert (await client.ask('SEARCH NOT BODY "needle at the end"'))[0] == "* SEARCH 2"


async def test_others_change_the_mailbox_meanwhile(letters: Server) -> None:
    """RFC 3501 §7.4.1: SEARCH tells of no EXPUNGE, so that its numbers are those that the client knows."""
    first, second = await letters.logged_in(), await letters.logged_in()
    await first.ask("SELECT INBOX")
    await second.ask("SELECT INBOX")
    await second.ask("EXPUNGE")
    assert (await first.ask("SEARCH DELETED"))[0] == "* SEARCH 4"
    assert (await first.ask("SEARCH FROM ann"))[0] == "* SEARCH 1 4"
    assert await first.ask("UID SEARCH ALL") == ["* SEARCH 1 2 3 4", "* 4 EXPUNGE", "x OK UID SEARCH completed"]


async def test_more_messages_than_a_batch(server: Server) -> None:
    for number in range(450):
        await put_octets(server, b"Subject: number %d\r\n\r\nbody %d\r\n" % (number, number % 7))
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    every_seventh = " ".join(str(number + 1) for number in range(450) if number % 7 == 3)
    assert (await client.ask('SEARCH BODY "body 3"'))[0] == f"* SEARCH {every_seventh}"
    assert (await client.ask('SEARCH SUBJECT "number" BODY "body 3"'))[0] == f"* SEARCH {every_seventh}"
    assert (await client.ask("SEARCH SUBJECT 449"))[0] == "* SEARCH 450"


async def test_others_are_served_while_one_searches(server: Server) -> None:
    text = b"\r\n".join(b"line %d of a long text" % n for n in range(40_000))
    for _ in range(6):
        await put(server, text)
    searcher, other = await server.logged_in(), await server.logged_in("bob")
    await searcher.ask("SELECT INBOX")
    keys = " ".join(f"NOT BODY absent{n}" for n in range(60))
    searching = asyncio.create_task(searcher.ask(f"SEARCH {keys}"))
    slowest = 0.0
    rounds = 0
    while not searching.done():
        started = time.monotonic()
        await other.ask("NOOP")
        slowest = max(slowest, time.monotonic() - started)
        rounds += 1
    assert (await searching)[0] == "* SEARCH 1 2 3 4 5 6"
    assert rounds > 10
    assert slowest < 0.25


async def begin_long_search(server: Server) -> Client:
    text = b"\r\n".join(b"line %d of a long text" % n for n in range(40_000))
    for _ in range(8):
        await put(server, text)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await client.send(b"x SEARCH " + b" ".join(b"NOT BODY absent%d" % n for n in range(2000)) + b"\r\n")
    await asyncio.sleep(0.1)
    assert server.made[0]._task is not None
    return client


async def is_over(server: Server) -> None:
    async with asyncio.timeout(5):
        while server.made[0]._task is not None:
            await asyncio.sleep(0.01)


async def test_a_search_ends_with_its_connection(server: Server) -> None:
    client = await begin_long_search(server)
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    await is_over(server)


async def test_a_search_says_that_it_goes_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_NOTICE_SECONDS", 0.05)
    client = await begin_long_search(server)
    assert await client.line() == "* OK Still searching"
    # A client that only stops sending may still read; one that is gone answers the next notice by a reset.
    client.close()
    await is_over(server)


async def test_extended_search(letters: Server) -> None:
    """RFC 4731 §3.1."""
    client = await letters.logged_in()
    await client.ask("SELECT INBOX")
    await letters.play(
        """
        C: A282 SEARCH RETURN (MIN COUNT) SUBJECT lunch
        S: * ESEARCH (TAG "A282") COUNT 2 MIN 1
        S: A282 OK SEARCH completed
        C: A283 SEARCH RETURN () NOT SUBJECT report
        S: * ESEARCH (TAG "A283") ALL 1:3
        S: A283 OK SEARCH completed
        C: b] UID SEARCH RETURN (MIN MAX ALL) 1,3:4
        S: * ESEARCH (TAG "b]") UID MIN 1 MAX 4 ALL 1,3:4
        S: b] OK UID SEARCH completed
        C: c SEARCH RETURN (MIN MAX ALL COUNT) SUBJECT nothing
        S: * ESEARCH (TAG "c") COUNT 0
        S: c OK SEARCH completed
        """,
        client,
    )


async def test_a_long_answer_is_one_set(letters: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_NUMBERS_A_PIECE", 2)
    client = await letters.logged_in()
    await client.ask("SELECT INBOX")
    assert (await client.ask("SEARCH RETURN () ALL"))[0] == '* ESEARCH (TAG "x") ALL 1:2,3:4'
    assert (await client.ask("SEARCH ALL"))[0] == "* SEARCH 1 2 3 4"


async def test_a_search_ends_with_a_client_that_only_closes(server: Server) -> None:
    """It might still read: whether it is gone shows when it is written to."""
    client = await begin_long_search(server)
    client.close()
    await is_over(server)


async def test_a_search_ends_where_its_session_is_to_end(server: Server) -> None:
    client = await begin_long_search(server)
    server.made[0].stopping()
    assert await client.line() == "* BYE The server is shutting down"
    assert await client.closed()
    await is_over(server)


async def test_a_search_ends_within_a_large_message(server: Server) -> None:
    await put(server, "Zeile für Zeile\r\n".encode() * 700_000, header=b"Subject: large\r\n")
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await client.send(b"x SEARCH " + b" ".join(b"NOT BODY absent%d" % n for n in range(2000)) + b"\r\n")
    await asyncio.sleep(0.1)
    server.made[0].stopping()
    assert await client.line() == "* BYE The server is shutting down"
    await is_over(server)


async def test_copies_in_one_mailbox_are_both_searched(server: Server) -> None:
    await put(server, b"needle\r\n")
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await client.ask("COPY 1 INBOX")
    await client.ask("NOOP")
    assert (await client.ask("SEARCH BODY needle"))[0] == "* SEARCH 1 2"
    assert (await client.ask("SEARCH NOT BODY needle"))[0] == "* SEARCH"
