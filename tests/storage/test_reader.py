"""What was stored is read back to the octet, whole, in part, and streamed."""

from __future__ import annotations

import base64
import random
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from mailserver.delivery import accept
from storage import reader, summaries
from storage.blobs import REF_OCTETS, name_of
from storage.directory_blobs import DirectoryBlobs
from storage.errors import BlobLost, Damaged, NotFound, Unavailable
from storage.records import MessageId
from storage.store import Store
from tests.storage.blob_stores import all_listed
from tests.storage.conftest import ALICE, place
from tests.support.rows import MessageRow, message_rows

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


async def each(stream: AsyncGenerator[list[tuple[MessageId, reader.Found]], None]) -> AsyncGenerator[Any, None]:
    async for batch in stream:
        for found in batch:
            yield found


async def put(store: Store, octets: bytes) -> MessageRow:
    placement = place(ALICE, header_prefix=PREFIX)
    (placed,) = await accept.accept(
        store, octets, [placement], trace_id=uuid.uuid4(), quota="share", arrived=1_700_000_000
    )
    return (await message_rows(store, ALICE, [placed.message_id]))[placed.message_id]


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
    items = [(row.message_id, row.size) for row in reversed(rows)]
    items.insert(3, (MessageId(12345), 10))
    found = []
    async with aclosing(reader.stream(store, ALICE, items)) as stream:
        async for message_id, pieces in each(stream):
            assert not isinstance(pieces, Damaged)
            found.append((message_id, None if pieces is None else b"".join(pieces)))
    expected = [(row.message_id, PREFIX + octets) for row, octets in zip(rows, SHAPES.values(), strict=True)]
    expected.reverse()
    assert found == [*expected[:3], (12345, None), *expected[3:]]


async def test_an_empty_message_is_streamed(store: Store) -> None:
    row = await put(store, b"")
    async with aclosing(reader.stream(store, ALICE, [(row.message_id, row.size)])) as stream:
        assert [pieces async for _, pieces in each(stream)] == [[PREFIX, b""]]


async def test_a_stream_can_be_left_early(store: Store) -> None:
    rows = [await put(store, SHAPES["long text"]) for _ in range(8)]
    async with aclosing(reader.stream(store, ALICE, [(row.message_id, row.size) for row in rows])) as stream:
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


async def _flip(store: Store, row: MessageRow) -> None:
    """Damages the octets in the database."""
    async with store.acquire() as conn:
        await conn.execute(
            "UPDATE message_contents SET octets = set_byte(octets, 20, get_byte(octets, 20) # 1) "
            "WHERE account_id = $1 AND message_id = $2",
            ALICE,
            row.message_id,
        )


async def _wrong_layout(store: Store, row: MessageRow) -> None:
    """Of no version that there is, behind one reference."""
    async with store.acquire() as conn:
        await conn.execute(
            "UPDATE message_contents SET layout = set_byte(layout, 2 + $2, 99) WHERE message_id = $1",
            row.message_id,
            REF_OCTETS,
        )


async def _lose_blob(store: Store, row: MessageRow) -> None:
    await store.blobs.remove(await all_listed(store.blobs))


async def _damage_blob(store: Store, row: MessageRow) -> None:
    assert isinstance(store.blobs, DirectoryBlobs)
    (path,) = (path for path in store.blobs._root.glob("*/??/*"))
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [_flip, _wrong_layout, _lose_blob, _damage_blob])
async def test_a_damaged_message_is_named_and_holds_up_no_other(
    store: Store, damage: Callable[[Store, MessageRow], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [await put(store, SHAPES[shape]) for shape in ("text", "large attachment", "text")]
    ids = [row.message_id for row in rows]
    await damage(store, rows[1])
    async with aclosing(reader.stream(store, ALICE, [(row.message_id, row.size) for row in rows])) as stream:
        found = [pieces async for _, pieces in each(stream)]
    assert isinstance(found[0], list) and isinstance(found[1], Damaged) and isinstance(found[2], list)
    assert isinstance(found[1], BlobLost) is (damage is _lose_blob)
    assert f"message {ids[1]} is damaged" in caplog.text
    if damage in (_lose_blob, _damage_blob):
        async with store.acquire() as conn:
            (ref,) = (row[0] for row in await conn.fetch("SELECT blob FROM blob_refs"))
        assert name_of(ref) in caplog.text
    for reading in (
        reader.read(store, ALICE, ids[1], row=rows[1]),
        reader.octets(store, ALICE, rows[1], 300_000, 300_100),
    ):
        with pytest.raises(Damaged, match=f"message {ids[1]}"):
            await reading


async def test_headers_beside_one_that_is_damaged(store: Store) -> None:
    rows = [await put(store, SHAPES["text"]) for _ in range(3)]
    ids = [row.message_id for row in rows]
    await _flip(store, rows[1])
    held = await reader.headers(store, ALICE, ids)
    header = PREFIX + b"Subject: x\r\n\r\n"
    assert (held[ids[0]], held[ids[2]]) == (header, header) and isinstance(held[ids[1]], Damaged)
    assert await summaries.headers(store, ALICE, ids) == {ids[0]: header, ids[1]: None, ids[2]: header}
    with pytest.raises(Damaged):
        await summaries.header(store, ALICE, ids[1])


async def test_a_blob_that_went_with_its_message_is_no_damage(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The message is purged, and the blob swept, between the row and the blob."""
    row = await put(store, SHAPES["large attachment"])
    get = store.blobs.get

    async def late(ref: bytes) -> bytes:
        await _lose_blob(store, row)
        async with store.acquire() as conn:
            await conn.execute("DELETE FROM message_contents")
        return await get(ref)

    async def none(refs: list[bytes]) -> dict[bytes, bytes]:
        return {}

    monkeypatch.setattr(store.blobs, "get", late)
    monkeypatch.setattr(store.blobs, "get_some", none)
    async with aclosing(reader.stream(store, ALICE, [(row.message_id, row.size)])) as stream:
        assert [pieces async for _, pieces in each(stream)] == [None]
    assert "damaged" not in caplog.text


async def test_a_store_that_is_away_has_lost_nothing(store: Store, tmp_path: Path) -> None:
    row = await put(store, SHAPES["large attachment"])
    (tmp_path / "blobs").rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        async with aclosing(reader.stream(store, ALICE, [(row.message_id, row.size)])) as stream:
            async for _ in stream:
                pass
    (tmp_path / "away").rename(tmp_path / "blobs")
    assert await reader.read(store, ALICE, row.message_id, row=row) == PREFIX + SHAPES["large attachment"]
