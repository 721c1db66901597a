"""A message as it is written: its summary, its octets in stored form, its blobs already durable.

`prepare` does everything that needs no lock: compress, put blobs. What the committer adds later is the account's seal.

Stored octets: without a layout one stretch (codec applied). With one: 4 octets of length, the text stretch (codec
applied), then decoded parts. The layout column is the number of blobs (2 octets), their references, and the layout
proper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage import codec
from storage.aside import aside
from storage.blobs import REF_OCTETS, generation_of
from storage.errors import Damaged
from storage.store import Store
from storage.tasks import together

_PUTS_AT_ONCE = 4
"""Each holds another copy of its blob."""


class Summary(Protocol):
    """What storage takes from a parsed message."""

    @property
    def envelope(self) -> bytes: ...
    @property
    def bodystructure(self) -> bytes: ...
    @property
    def header_octets(self) -> int: ...
    @property
    def parts(self) -> bytes | None: ...
    @property
    def sent(self) -> int: ...
    @property
    def preview(self) -> str: ...
    @property
    def msgids(self) -> tuple[bytes, ...]: ...


class Split(Protocol):
    """The octets of a message taken apart; layout as in storage/layout.py."""

    @property
    def front(self) -> bytes: ...
    @property
    def inline(self) -> Sequence[bytes]: ...
    @property
    def blobs(self) -> Sequence[bytes]: ...
    @property
    def layout(self) -> bytes | None: ...


@dataclass(slots=True)
class Message:
    """Ready to be written by the committer; one object serves all its copies."""

    summary: Summary
    size: int
    codec: int
    octets: bytes
    layout: bytes | None
    refs: list[bytes]
    blobs: Sequence[bytes]

    @property
    def oldest_generation(self) -> int | None:
        return min(map(generation_of, self.refs)) if self.refs else None


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A row of message_contents, opened: text stretch, decoded parts, layout and blob references."""

    front: bytes
    tail: bytes
    layout: bytes | None
    refs: tuple[bytes, ...]


async def prepare(store: Store, split: Split, summary: Summary, size: int) -> Message:
    """Compresses and puts blobs; Unavailable where the blob store does not serve. size: octets of the message."""
    form, octets = await aside(len(split.front) + sum(map(len, split.inline)), _stored, split)
    message = Message(summary, size, form, octets, None, [], split.blobs)
    await put_blobs(store, message)
    message.layout = _with_refs(split.layout, message.refs)
    return message


def _stored(split: Split) -> tuple[int, bytes]:
    """The codec and the octets of the row, without a seal."""
    form, text = codec.compress(split.front)
    if split.layout is None:
        return form, text
    return form, b"".join((len(text).to_bytes(4, "big"), text, *split.inline))


async def put_blobs(store: Store, message: Message) -> None:
    """Makes the message's blobs durable in the current generation."""
    refs: list[bytes] = []
    for start in range(0, len(message.blobs), _PUTS_AT_ONCE):
        refs += await together(map(store.blobs.put, message.blobs[start : start + _PUTS_AT_ONCE]))
    if message.layout is not None:
        message.layout = _with_refs(_layout_proper(message.layout), refs)
    message.refs = refs


def _with_refs(layout: bytes | None, refs: Sequence[bytes]) -> bytes | None:
    return None if layout is None else b"".join((len(refs).to_bytes(2, "big"), *refs, layout))


def _layout_proper(column: bytes) -> bytes:
    return column[2 + REF_OCTETS * int.from_bytes(column[:2], "big") :]


def unsealed(cipher: AESGCM | None, message_id: int, form: int, column: bytes | None, octets: bytes) -> StoredContent:
    """What a row holds; cipher: the account's, for one that is sealed. Damaged, ValueError."""
    if form & codec.SEALED:
        if cipher is None:
            raise Damaged("there is no key for what is sealed")
        octets = codec.unseal(cipher, octets, label(message_id))
    return opened(form & ~codec.SEALED, column, octets)


def opened(form: int, column: bytes | None, octets: bytes) -> StoredContent:
    """What the two columns hold, after the seal was taken off."""
    if column is None:
        return StoredContent(codec.expand(form, octets), b"", None, ())
    count = int.from_bytes(column[:2], "big")
    refs = tuple(column[2 + REF_OCTETS * i : 2 + REF_OCTETS * (i + 1)] for i in range(count))
    end = 4 + int.from_bytes(octets[:4], "big")
    front = codec.expand(form, memoryview(octets)[4:end])
    return StoredContent(front, octets[end:], _layout_proper(column), refs)


def label(message_id: int) -> bytes:
    """What a sealed row is bound to."""
    return b"message %d" % message_id
