"""BODY[section]<partial> of large messages: the same answers as from the whole, with less reading."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest

from mailserver.imap import sections
from mailserver.imap.sections import Kept
from tests.imap.conftest import Server
from tests.imap.mail import put_octets
from tests.imap.test_fetch import fetched, selected

ATTACHMENT = base64.encodebytes(random.Random(1).randbytes(300_000)).replace(b"\n", b"\r\n")
TEXT = b"short text\r\n" * 3
LONG = b"a long line of text\r\n" * 8_000
MESSAGE = b"".join(
    [
        b"From: a@example.org\r\nSubject: large\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n",
        b"--b\r\nContent-Type: text/plain\r\n\r\n" + TEXT + b"\r\n",
        b"--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + ATTACHMENT + b"\r\n",
        b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\n" + LONG + b"\r\n",
        b"--b--\r\n",
    ]
)
PREFIX = b"Return-Path: <a@example.org>\r\n"
WHOLE = PREFIX + MESSAGE
HEADER = WHOLE[: WHOLE.index(b"\r\n\r\n") + 4]


@pytest.mark.parametrize(
    ("section", "octets"),
    [
        ("[1]", TEXT),
        ("[1.MIME]", b"Content-Type: text/plain\r\n\r\n"),
        ("[2]", ATTACHMENT),
        ("[2]<100000.50>", ATTACHMENT[100_000:100_050]),
        ("[2]<400000.99999>", ATTACHMENT[400_000:499_999]),
        ("[2]<9999999.5>", b""),
        ("[3.HEADER]", b"Subject: inner\r\n\r\n"),
        ("[3.HEADER.FIELDS (subject)]", b"Subject: inner\r\n\r\n"),
        ("[3.TEXT]<20.21>", b"\na long line of text\r"),
        ("[TEXT]", MESSAGE[len(HEADER) - len(PREFIX) :]),
        ("[]<0.10>", WHOLE[:10]),
        ("[]<100.400000>", WHOLE[100:400_100]),
        ("[HEADER.FIELDS (return-path)]", PREFIX + b"\r\n"),
        ("[4]", None),
        ("[]", WHOLE),
    ],
)
async def test_sections_of_a_large_message(server: Server, section: str, octets: bytes | None) -> None:
    await put_octets(server, MESSAGE, prefix=PREFIX)
    client = await selected(server)
    data = await fetched(client, f"FETCH 1 (UID BODY.PEEK{section})")
    assert data.startswith(b"* 1 FETCH (UID 1 BODY[")
    if octets is None:
        assert data.endswith(b"] NIL)\r\n")
    else:
        assert data.endswith(b" {%d}\r\n%b)\r\n" % (len(octets), octets))


async def test_text_is_read_without_its_attachments(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await put_octets(server, MESSAGE)
    client = await selected(server)
    read: list[Any] = []
    real = server.store.blobs.get

    async def get(ref: bytes) -> bytes:
        read.append(ref)
        return await real(ref)

    monkeypatch.setattr(server.store.blobs, "get", get)
    await fetched(client, "FETCH 1 (BODY.PEEK[1] BODY.PEEK[1.MIME] BODY.PEEK[HEADER])")
    assert not read
    got = b""
    while len(got) < len(ATTACHMENT):
        data = await fetched(client, f"FETCH 1 BODY.PEEK[2]<{len(got)}.65536>")
        got += data[data.index(b"}\r\n") + 3 : -3]
    assert got == ATTACHMENT
    assert len(read) == 1, "the part was put together once"


async def test_small_and_large_in_one_answer(server: Server) -> None:
    small = b"Subject: small\r\n\r\ntiny"
    for octets in (small, MESSAGE, small, MESSAGE, MESSAGE, small):
        await put_octets(server, octets)
    client = await selected(server)
    data = await fetched(client, "FETCH 1:* (BODY.PEEK[1])")
    expected = b""
    for seq, text in enumerate((b"tiny", TEXT, b"tiny", TEXT, TEXT, b"tiny"), 1):
        expected += b"* %d FETCH (BODY[1] {%d}\r\n%b)\r\n" % (seq, len(text), text)
    assert data == expected


async def test_a_large_message_that_is_gone(server: Server) -> None:
    placed = await put_octets(server, MESSAGE)
    client = await selected(server)
    async with server.store.acquire() as conn:
        await conn.execute("DELETE FROM message_contents WHERE message_id = $1", placed.message_id)
    await server.play("C: a FETCH 1 BODY.PEEK[1]\nS: a OK [EXPUNGEISSUED] FETCH completed", client)


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "KEPT_OCTETS", 100)
    kept = Kept()
    for number in range(5):
        kept.put((1, number, 0, 40), b"x" * 40)
    assert [number for number in range(5) if kept.get((1, number, 0, 40))] == [3, 4]
    kept.get((1, 3, 0, 40))
    kept.put((1, 9, 0, 40), b"x" * 40)
    assert kept.get((1, 4, 0, 40)) is None
    kept.clear()
    assert kept.get((1, 3, 0, 40)) is None
