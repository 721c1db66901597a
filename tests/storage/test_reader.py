"""What was stored is read back to the octet, whole, in part, and streamed."""

from __future__ import annotations

import base64
import random
import uuid
from contextlib import aclosing
from pathlib import Path

import pytest

from mailserver.delivery import accept
from storage import messages, reader
from storage.errors import NotFound, Unavailable
from storage.records import MessageId, MessageRow
from storage.store import Store
from tests.storage.blob_stores import all_listed
from tests.storage.conftest import ALICE, place

PREFIX = b"Return-Path: <>\r\n"


def attachment(octets: bytes) -> bytes:
    text = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    return b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + text


def multipart(*parts: bytes) -> bytes:
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
    return b'Subject: x\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n' + body + b"--b--\r\n"


RANDOM = random.Random(1)
SHAPES = {
    "text": b"Subject: x\r\n\r\nhello\r\n",
    "empty": b"",
    "only header": b"Subject: x\r\n",
    "nul and bare line ends": b"Subject: x\r\n\r\na\x00b\rc\nd",
    "long text": b"Subject: x\r\n\r\n" + b"words and words\r\n" * 20_000,
    "small attachment": multipart(b"\r\ntext\r\n", attachment(RANDOM.randbytes(5_000))),
    "large attachment": multipart(b"\r\ntext\r\n", attachment(RANDOM.randbytes(300_000))),
    "several": multipart(*(attachment(RANDOM.randbytes(n)) for n in (900, 3_000, 80_000, 2_000, 90_000))),
    "large binary": multipart(b"Content-Type: application/x\r\n\r\n" + RANDOM.randbytes(100_000)),
}


async def put(store: Store, octets: bytes) -> MessageRow:
    placement = place(ALICE, header_prefix=PREFIX)
    (placed,) = await accept.accept(
        store, octets, [placement], trace_id=uuid.uuid4(), quota="share", arrived=1_700_000_000
    )
    return (await messages.summaries(store, ALICE, [placed.message_id]))[placed.message_id]


@pytest.mark.parametrize("octets", SHAPES.values(), ids=SHAPES)
async def test_whole_and_parts(store: Store, octets: bytes) -> None:
    row = await put(store, octets)
    whole = PREFIX + octets
    assert await reader.read(store, ALICE, row.message_id, row=row) == whole
    for start, stop in ((0, 5), (0, len(PREFIX)), (10, 30), (len(whole) // 2, len(whole)), (len(whole), 10**6)):
        assert await reader.octets(store, ALICE, row, start, stop) == whole[start:stop]


async def test_headers_need_no_blob(store: Store) -> None:
    row = await put(store, SHAPES["large attachment"])
    await store.blobs.remove(await all_listed(store.blobs))
    held = await reader.headers(store, ALICE, [row.message_id, 12345])
    header = SHAPES["large attachment"].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert held == {row.message_id: PREFIX + header}


async def test_stream_keeps_the_order_and_tells_what_is_gone(store: Store) -> None:
    rows = [await put(store, octets) for octets in SHAPES.values()]
    items = [(row.message_id, row) for row in reversed(rows)]
    items.insert(3, (MessageId(12345), rows[0]))
    found = []
    async with aclosing(reader.stream(store, ALICE, items)) as stream:
        async for message_id, pieces in stream:
            found.append((message_id, None if pieces is None else b"".join(pieces)))
    expected = [(row.message_id, PREFIX + octets) for row, octets in zip(rows, SHAPES.values(), strict=True)]
    expected.reverse()
    assert found == [*expected[:3], (12345, None), *expected[3:]]


async def test_an_empty_message_is_streamed(store: Store) -> None:
    row = await put(store, b"")
    async with aclosing(reader.stream(store, ALICE, [(row.message_id, row)])) as stream:
        assert [b"".join(pieces or ()) async for _, pieces in stream] == [PREFIX]


async def test_a_stream_can_be_left_early(store: Store) -> None:
    rows = [await put(store, SHAPES["long text"]) for _ in range(8)]
    async with aclosing(reader.stream(store, ALICE, [(row.message_id, row) for row in rows])) as stream:
        async for _ in stream:
            break
    assert await reader.read(store, ALICE, rows[0].message_id, row=rows[0])


async def test_gone(store: Store) -> None:
    row = await put(store, SHAPES["text"])
    with pytest.raises(NotFound):
        await reader.read(store, ALICE, MessageId(1), row=row)


async def test_nothing_readable_lies_in_the_database(store: Store) -> None:
    await put(store, SHAPES["small attachment"])
    async with store.acquire() as conn:
        stored = await conn.fetchval("SELECT octets FROM message_contents")
    assert b"Subject" not in stored


async def test_a_message_whose_blob_is_lost_holds_up_no_other(store: Store) -> None:
    rows = [await put(store, SHAPES[shape]) for shape in ("text", "large attachment", "text")]
    await store.blobs.remove(await all_listed(store.blobs))
    async with aclosing(reader.stream(store, ALICE, [(row.message_id, row) for row in rows])) as stream:
        assert [pieces is None async for _, pieces in stream] == [False, True, False]


async def test_a_store_that_is_away_has_lost_nothing(store: Store, tmp_path: Path) -> None:
    row = await put(store, SHAPES["large attachment"])
    (tmp_path / "blobs").rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        async with aclosing(reader.stream(store, ALICE, [(row.message_id, row)])) as stream:
            async for _ in stream:
                pass
    (tmp_path / "away").rename(tmp_path / "blobs")
    assert await reader.read(store, ALICE, row.message_id, row=row) == PREFIX + SHAPES["large attachment"]
