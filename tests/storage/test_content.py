from __future__ import annotations

import asyncio

import pytest

from storage import codec, content
from storage.blobs import REF_OCTETS, generation_of
from storage.errors import Unavailable
from storage.store import Store
from tests.storage.conftest import Split, Summary


async def test_one_stretch(store: Store) -> None:
    message = await content.prepare(store, Split(b"text " * 100), Summary(), 500)
    assert (message.layout, message.refs, message.codec) == (None, [], codec.LZ4)
    held = content.opened(message.codec, message.layout, message.octets)
    assert held.front == b"text " * 100


async def test_parts_and_blobs(store: Store) -> None:
    split = Split(b"text " * 100, (b"inline1", b"inline2"), (b"blob1", b"blob2"), b"LAYOUT")
    message = await content.prepare(store, split, Summary(), 600)
    held = content.opened(message.codec, message.layout, message.octets)
    assert (held.front, held.tail, held.layout) == (b"text " * 100, b"inline1inline2", b"LAYOUT")
    assert [await store.blobs.get(ref) for ref in held.refs] == [b"blob1", b"blob2"]
    assert all(len(ref) == REF_OCTETS for ref in held.refs)


async def test_putting_again_replaces_the_references(store: Store) -> None:
    message = await content.prepare(store, Split(b"t", (), (b"blob",), b"LAYOUT"), Summary(), 5)
    before = list(message.refs)
    message.refs = []
    await content.put_blobs(store, message)
    assert message.refs == before and message.oldest_generation == generation_of(before[0])
    assert content.opened(message.codec, message.layout, message.octets).layout == b"LAYOUT"


async def test_after_a_put_failed_none_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    running: set[bytes] = set()
    begun: set[bytes] = set()

    async def put(blob: bytes) -> bytes:
        running.add(blob)
        begun.add(blob)
        try:
            await asyncio.sleep(0 if blob == b"2" else 3600)
        finally:
            running.discard(blob)
        raise Unavailable("full")

    monkeypatch.setattr(store.blobs, "put", put)
    split = Split(b"t", (), tuple(b"%d" % number for number in range(9)), b"LAYOUT")
    with pytest.raises(Unavailable, match="full"):
        await content.prepare(store, split, Summary(), 9)
    assert begun == {b"0", b"1", b"2", b"3"} and not running
