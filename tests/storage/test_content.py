from __future__ import annotations

from storage import codec, content
from storage.blobs import REF_OCTETS, generation_of
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
