"""Reading messages back: header prefix (row), text and decoded parts (row), large parts (blobs), as one run of octets.

Bodies stream: a batch is at most 200 rows and about 1 MiB, one batch is read ahead, and no transaction is open while
the receiver is slow. A message expunged meanwhile stays readable, since what holds it is purged much later.

A message whose octets do not open, or one of whose blobs is lost, is damaged, which is logged. Where one message is
asked for, Damaged is raised; where many are, it stands in the message's place, and the others are read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from storage import base64_lines, codec, content, layout
from storage.aside import IN_LOOP_OCTETS, aside
from storage.blobs import name_of
from storage.content import StoredContent
from storage.errors import BlobLost, Damaged, NotFound
from storage.packed import listed
from storage.records import AccountId, Extent, MessageId
from storage.store import Store
from storage.tasks import together

log = logging.getLogger(__name__)

BATCH_ROWS = 200
BATCH_OCTETS = 1 << 20

_STORED = """
SELECT message_id, codec, layout, octets FROM message_contents
WHERE account_id = $1 AND message_id = ANY($2) ORDER BY message_id
"""
_WHOLE = """
SELECT c.message_id, m.header_prefix, c.codec, c.layout, c.octets
FROM message_contents c JOIN messages m ON m.account_id = c.account_id AND m.message_id = c.message_id
WHERE c.account_id = $1 AND c.message_id = ANY($2::text::bigint[])
"""
_IS_THERE = "SELECT EXISTS (SELECT FROM message_contents WHERE account_id = $1 AND message_id = $2)"
_PREFIXES = (
    "SELECT message_id, header_prefix, header_octets FROM messages WHERE account_id = $1 AND message_id = ANY($2)"
)

Item = tuple[MessageId, int]
"""A message and its size in octets."""
Pieces = list[bytes]
Found = Pieces | Damaged | None

_UNREADABLE = (ValueError, IndexError, RuntimeError)
"""What is raised by a row whose layout or codec is not that of its octets."""


async def stored(
    store: Store, account_id: AccountId, message_ids: Sequence[int]
) -> dict[MessageId, StoredContent | Damaged]:
    """Opened rows by message; an id that is gone is missing. Blobs are not read yet."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_STORED, account_id, message_ids)
    found: dict[MessageId, StoredContent | Damaged] = {}
    for row in rows:
        try:
            found[row[0]] = await opened(store, account_id, *row)
        except Damaged as error:
            found[row[0]] = error
    return found


async def _one(store: Store, account_id: AccountId, message_id: MessageId) -> StoredContent:
    found = (await stored(store, account_id, [message_id])).get(message_id)
    if found is None:
        raise NotFound(f"message {message_id}")
    if isinstance(found, Damaged):
        raise found
    return found


async def opened(
    store: Store, account_id: AccountId, message_id: MessageId, form: int, column: bytes | None, octets: bytes
) -> StoredContent:
    """A row of message_contents: codec, layout and octets. Damaged."""
    try:
        cipher = await store.keys.account(account_id) if form & codec.SEALED else None
        return await aside(len(octets), content.unsealed, cipher, message_id, form, column, octets)
    except (Damaged, *_UNREADABLE) as error:
        raise _damaged(message_id, error) from error


async def received(store: Store, account_id: AccountId, message_id: MessageId) -> Pieces:
    """A message without our prefix, in pieces; NotFound, Damaged."""
    return await _pieces(store, account_id, message_id, await _one(store, account_id, message_id))


async def _pieces(
    store: Store,
    account_id: AccountId,
    message_id: MessageId,
    held: StoredContent,
    known: Mapping[bytes, bytes] = MappingProxyType({}),
) -> Pieces:
    """The received octets in pieces; blobs that are not known are read now. NotFound, Damaged."""
    if held.layout is None:
        return [held.front]
    missing = [ref for ref in held.refs if ref not in known]
    if missing:
        read = await together(_blob(store, account_id, message_id, ref) for ref in missing)
        known = {**known, **dict(zip(missing, read, strict=True))}
    blobs = [known[ref] for ref in held.refs]
    octets = len(held.front) + len(held.tail) + sum(map(len, blobs))
    try:
        return await aside(octets, layout.rebuild, held.layout, held.front, held.tail, blobs)
    except _UNREADABLE as error:
        raise _damaged(message_id, error) from error


async def _blob(store: Store, account_id: AccountId, message_id: MessageId, ref: bytes) -> bytes:
    """A blob of a message. One that is not there was swept after the message was purged, or is lost."""
    try:
        return await store.blobs.get(ref)
    except Damaged as error:
        raise _damaged(message_id, error) from error
    except NotFound as error:
        async with store.acquire() as conn:
            if not await conn.fetchval(_IS_THERE, account_id, message_id):
                raise
        raise _damaged(message_id, BlobLost(f"blob {name_of(ref)} is missing")) from error


def _damaged(message_id: MessageId, error: Exception) -> Damaged:
    log.error("message %d is damaged: %s", message_id, error)
    kind = BlobLost if isinstance(error, BlobLost) else Damaged
    return kind(f"message {message_id}: {error}")


async def read(store: Store, account_id: AccountId, message_id: MessageId, *, row: Extent) -> bytes:
    """The whole message, our prefix included; NotFound, Damaged."""
    return b"".join([row.header_prefix, *await received(store, account_id, message_id)])


async def octets(store: Store, account_id: AccountId, row: Extent, start: int, stop: int) -> bytes:
    """Octets start to stop of the whole message (prefix and received octets); cut short at its end. NotFound, Damaged.

    Only the blobs that lie in the range are read.
    """
    prefix = len(row.header_prefix)
    if stop <= prefix:
        return row.header_prefix[start:stop]
    held = await _one(store, account_id, row.message_id)
    try:
        received = await _range(store, account_id, row.message_id, held, max(0, start - prefix), stop - prefix)
    except _UNREADABLE as error:
        raise _damaged(row.message_id, error) from error
    return row.header_prefix[start:] + received


async def _range(
    store: Store, account_id: AccountId, message_id: MessageId, held: StoredContent, start: int, stop: int
) -> bytes:
    out = []
    for span in layout.spans(held.layout, len(held.front)):
        if span.stop <= start or span.start >= stop:
            continue
        if span.source == "blob":
            kept = await _blob(store, account_id, message_id, held.refs[span.offset])
        else:
            kept = (held.front if span.source == "front" else held.tail)[span.offset : span.offset + span.length]
        first, last = max(0, start - span.start), min(stop, span.stop) - span.start
        if span.base64:
            out.append(await aside(last - first, base64_lines.encode_range, kept, first, last))
        else:
            out.append(kept[first:last])
    return b"".join(out)


async def headers(store: Store, account_id: AccountId, message_ids: Sequence[int]) -> dict[MessageId, bytes | Damaged]:
    """Prefix and received header, the empty line included, without reading any blob. At most 1,000 ids at once."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_PREFIXES, account_id, message_ids)
    found = await stored(store, account_id, message_ids)
    fronts: dict[MessageId, bytes | Damaged] = {}
    for message_id, prefix, octets in rows:
        held = found.get(message_id)
        if held is not None:
            fronts[message_id] = held if isinstance(held, Damaged) else prefix + held.front[:octets]
    return fronts


async def stream(
    store: Store, account_id: AccountId, items: Sequence[Item]
) -> AsyncGenerator[list[tuple[MessageId, Found]], None]:
    """Whole messages in the order of `items`, some at a time, as pieces, prefix first; None for one that is gone, or
    Damaged.

    Close the iterator (aclosing) when leaving early: it reads one batch ahead.
    """
    batches = _batches(items)
    ahead: asyncio.Task[list[tuple[MessageId, Found]]] | None = None
    try:
        for index, batch in enumerate(batches):
            task = ahead or asyncio.create_task(_load(store, account_id, batch))
            ahead = task
            loaded = await task
            ahead = None
            if index + 1 < len(batches):
                ahead = asyncio.create_task(_load(store, account_id, batches[index + 1]))
            yield loaded
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)


def _batches(items: Sequence[Item]) -> list[list[Item]]:
    batches: list[list[Item]] = []
    octets = 0
    for item in items:
        if not batches or octets + item[1] > BATCH_OCTETS or len(batches[-1]) >= BATCH_ROWS:
            batches.append([])
            octets = 0
        batches[-1].append(item)
        octets += item[1]
    return batches


async def _load(store: Store, account_id: AccountId, batch: Sequence[Item]) -> list[tuple[MessageId, Found]]:
    async with store.acquire() as conn:
        rows = await conn.fetch(_WHOLE, account_id, listed([message_id for message_id, _ in batch]))
    held = await _opened(store, account_id, rows)
    refs = [ref for content in held.values() if isinstance(content, StoredContent) for ref in content.refs]
    blobs = await store.blobs.get_some(refs) if refs else {}
    found: dict[int, Found] = {}
    for message_id, prefix, *_ in rows:
        found[message_id] = await _whole(store, account_id, message_id, prefix, held[message_id], blobs)
    return [(message_id, _own(found.get(message_id))) for message_id, _ in batch]


def _own(found: Found) -> Found:
    """For who takes its list to pieces: a batch may name a message twice."""
    return list(found) if isinstance(found, list) else found


async def _opened(store: Store, account_id: AccountId, rows: Sequence[Any]) -> dict[MessageId, StoredContent | Damaged]:
    """Rows of _WHOLE by message: most at once, those that are large or do not open one by one."""
    cipher = None
    with suppress(Damaged, NotFound):
        cipher = await store.keys.account(account_id)
    held: dict[MessageId, StoredContent | Damaged] = {}
    for message_id, _, form, column, octets in rows:
        try:
            if len(octets) > IN_LOOP_OCTETS:
                raise ValueError
            held[message_id] = content.unsealed(cipher, message_id, form, column, octets)
        except (Damaged, *_UNREADABLE):
            try:
                held[message_id] = await opened(store, account_id, message_id, form, column, octets)
            except Damaged as error:
                held[message_id] = error
    return held


async def _whole(
    store: Store,
    account_id: AccountId,
    message_id: MessageId,
    prefix: bytes,
    held: StoredContent | Damaged,
    blobs: Mapping[bytes, bytes],
) -> Found:
    """Prefix and received octets."""
    if isinstance(held, Damaged):
        return held
    if held.layout is None:
        return [prefix, held.front]
    try:
        return [prefix, *await _pieces(store, account_id, message_id, held, blobs)]
    except Damaged as error:
        return error
    except NotFound:
        return None
