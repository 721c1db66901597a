"""Columns of texts that are kept, and messages that are too large to be read with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mailserver.imap import texts
from mailserver.imap.texts import KeptTexts
from mailserver.protocols.imap.commands import Attribute, BodySection
from storage import summaries
from storage.pages import Page
from tests.imap.conftest import Client, Server
from tests.imap.mail import put, put_octets


def page(*ids: int) -> Page:
    zeros = [0] * len(ids)
    return Page(0, 1, ids, ids, zeros, zeros, zeros, zeros, zeros)


def test_a_column_is_good_for_the_same_messages() -> None:
    kept = KeptTexts(1 << 20)
    kept.put(1, page(1, 2), Attribute.ENVELOPE, [b"a", b"b"])
    assert kept.get(1, page(1, 2), Attribute.ENVELOPE) == [b"a", b"b"]
    assert kept.get(1, page(1, 2), Attribute.BODY) is None
    assert kept.get(1, page(1, 2, 3), Attribute.ENVELOPE) is None
    assert kept.get(1, page(1), Attribute.ENVELOPE) is None
    assert kept.get(2, page(1, 2), Attribute.ENVELOPE) is None


def test_the_longest_unused_goes_first() -> None:
    kept = KeptTexts(40_000)
    for number in range(1, 9):
        kept.put(1, page(number), Attribute.ENVELOPE, [b"x" * 3_600])
    kept.get(1, page(1), Attribute.ENVELOPE)
    kept.put(1, page(9), Attribute.ENVELOPE, [b"x" * 3_600])
    there = [n for n in range(1, 10) if kept.get(1, page(n), Attribute.ENVELOPE)]
    assert there == [1, 3, 4, 5, 6, 7, 8, 9]


def test_a_column_takes_its_share_at_most() -> None:
    kept = KeptTexts(40_000)
    kept.put(1, page(1), Attribute.ENVELOPE, [b"x" * 5_001])
    assert kept.get(1, page(1), Attribute.ENVELOPE) is None
    kept.octets = 0
    kept.put(1, page(1), Attribute.ENVELOPE, [b""])
    assert kept.get(1, page(1), Attribute.ENVELOPE) is None


def test_names_of_fields_count() -> None:
    """Of 64 KiB of them a client may make as many as it likes."""
    kept = KeptTexts(2_000_000)
    for number in range(20):
        name = b"x%d-" % number + b"x" * 60_000
        kept.put(1, page(1), BodySection(b"BODY[HEADER.FIELDS (" + name + b")]", fields=frozenset({name})), [b""])
    assert len(kept._columns) == 11


async def said(client: Client, command: str) -> list[str]:
    """All lines of an answer; headers in it have empty ones."""
    await client.send(f"x {command}\r\n".encode())
    lines = [await client.line()]
    while not lines[-1].startswith("x "):
        lines.append(await client.line())
    assert lines[-1].startswith("x OK"), lines
    return lines


@pytest.mark.parametrize("item", ["ENVELOPE", "BODYSTRUCTURE", "BODY", "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"])
async def test_the_second_time_nothing_is_read(server: Server, item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        await put(server, b"text", header=b"Subject: number %d\r\n" % number)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    first = await said(client, f"FETCH 1:* (FLAGS {item})")
    part = await said(client, f"FETCH 2 ({item})")
    await client.ask("STORE 1:* +FLAGS.SILENT (\\Seen)")

    async def read(*_: object) -> None:
        pytest.fail("it was read")

    for name in ("structures", "structure", "headers", "header"):
        monkeypatch.setattr(summaries, name, read)
    again = await said(client, f"FETCH 1:* (FLAGS {item})")
    assert again == [line.replace("\\Recent", "\\Seen \\Recent") for line in first]
    assert await said(client, f"FETCH 2 ({item})") == part
    monkeypatch.undo()
    await put(server, b"text", header=b"Subject: another\r\n")
    assert len(await said(client, f"FETCH 1:* (FLAGS {item})")) > len(first)


async def test_many_of_a_page_bring_all_of_it(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        await put(server, b"text", header=b"Subject: number %d\r\n" % number)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    seen: list[int] = []
    real = summaries.structures

    async def read(store: Any, account_id: Any, ids: Sequence[int]) -> Any:
        seen.append(len(ids))
        return await real(store, account_id, ids)

    monkeypatch.setattr(summaries, "structures", read)
    await client.ask("FETCH 1:3 ENVELOPE")
    first = await client.ask("FETCH 3:18 ENVELOPE")
    assert len(first) == 17 and '"number 2"' in first[0] and '"number 17"' in first[15]
    again = await client.ask("FETCH 1:20 ENVELOPE")
    assert len(again) == 21 and '"number 19"' in again[19]
    assert again[2:18] == first[:16]
    assert seen == [3, 20]


@pytest.mark.parametrize("item", ["ENVELOPE", "BODYSTRUCTURE", "BODY", "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"])
async def test_large_ones_are_read_alone(server: Server, item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes back is the same, however little is read together."""
    for number in range(3):
        await put_octets(
            server,
            b"Subject: %b\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" % (b"long " * (1 + 200 * number))
            + b"--x\r\n\r\none\r\n--x\r\n\r\ntwo\r\n--x--\r\n",
        )
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    server.service.texts.octets = 0
    expected = await said(client, f"FETCH 1:* ({item} UID)")
    for limit in (0, 500):
        monkeypatch.setattr(summaries, "TOGETHER_OCTETS", limit)
        monkeypatch.setattr(summaries, "HEADER_TOGETHER_OCTETS", limit)
        assert await said(client, f"FETCH 1:* ({item} UID)") == expected
    monkeypatch.setattr(texts, "_AT_ONCE", 10)
    assert await said(client, f"FETCH 1:* ({item} UID)") == expected


async def test_a_large_one_is_read_once_for_all_items(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await put(server, b"text", header=b"Subject: s\r\nX-Long: " + b"x" * 900 + b"\r\n" * 20)
    monkeypatch.setattr(summaries, "HEADER_TOGETHER_OCTETS", 10)
    count = 0
    header = summaries.header

    async def counted(*args: object) -> bytes:
        nonlocal count
        count += 1
        return await header(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(summaries, "header", counted)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await said(client, "FETCH 1 (BODY[HEADER] BODY[HEADER.FIELDS (SUBJECT)] BODY[HEADER.FIELDS.NOT (SUBJECT)])")
    assert count == 1
