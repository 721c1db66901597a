"""Reading messages back: header prefix (row), text and decoded parts (row), large parts (blobs), as one run of octets.

Bodies stream: a batch is at most 200 rows and about 1 MiB, one batch is read ahead, and no transaction is open while
the receiver is slow. A message expunged meanwhile stays readable, since what holds it is purged much later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence

from storage import base64_lines, codec, content, layout
from storage.aside import aside
from storage.content import StoredContent
from storage.errors import NotFound
from storage.records import AccountId, MessageId, MessageRow
from storage.store import Store

log = logging.getLogger(__name__)

BATCH_ROWS = 200
BATCH_OCTETS = 1 << 20

_STORED = """
SELECT message_id, codec, layout, octets FROM message_contents
WHERE account_id = $1 AND message_id = ANY($2) ORDER BY message_id
"""
_PREFIXES = (
    "SELECT message_id, header_prefix, header_octets FROM messages WHERE account_id = $1 AND message_id = ANY($2)"
)

Item = tuple[MessageId, MessageRow]
Pieces = list[bytes]


async def stored(store: Store, account_id: AccountId, message_ids: Sequence[int]) -> dict[MessageId, StoredContent]:
    """Opened rows by message; an id that is gone is missing. Blobs are not read yet."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_STORED, account_id, message_ids)
    found = {}
    for message_id, form, column, octets in rows:
        if form & codec.SEALED:
            cipher = await store.keys.account(account_id)
            octets = await aside(len(octets), codec.unseal, cipher, octets, content.label(message_id))
        found[message_id] = await aside(len(octets), content.opened, form & ~codec.SEALED, column, octets)
    return found


async def pieces(store: Store, held: StoredContent) -> Pieces:
    """The received octets in pieces; blobs are read now."""
    if held.layout is None:
        return [held.front]
    blobs = await asyncio.gather(*map(store.blobs.get, held.refs))
    octets = len(held.front) + len(held.tail) + sum(map(len, blobs))
    return await aside(octets, layout.rebuild, held.layout, held.front, held.tail, blobs)


async def read(store: Store, account_id: AccountId, message_id: MessageId, *, row: MessageRow) -> bytes:
    """The whole message, our prefix included; NotFound."""
    found = await stored(store, account_id, [message_id])
    if message_id not in found:
        raise NotFound(f"message {message_id}")
    return b"".join([row.header_prefix, *await pieces(store, found[message_id])])


async def octets(store: Store, account_id: AccountId, row: MessageRow, start: int, stop: int) -> bytes:
    """Octets start to stop of the whole message (prefix and received octets); cut short at its end. NotFound.

    Only the blobs that lie in the range are read.
    """
    prefix = len(row.header_prefix)
    if stop <= prefix:
        return row.header_prefix[start:stop]
    found = await stored(store, account_id, [row.message_id])
    if row.message_id not in found:
        raise NotFound(f"message {row.message_id}")
    received = await _range(store, found[row.message_id], max(0, start - prefix), stop - prefix)
    return row.header_prefix[start:] + received


async def _range(store: Store, held: StoredContent, start: int, stop: int) -> bytes:
    out = []
    for span in layout.spans(held.layout, len(held.front)):
        if span.stop <= start or span.start >= stop:
            continue
        if span.source == "blob":
            kept = await store.blobs.get(held.refs[span.offset])
        else:
            kept = (held.front if span.source == "front" else held.tail)[span.offset : span.offset + span.length]
        first, last = max(0, start - span.start), min(stop, span.stop) - span.start
        if span.base64:
            out.append(await aside(last - first, base64_lines.encode_range, kept, first, last))
        else:
            out.append(kept[first:last])
    return b"".join(out)


async def headers(store: Store, account_id: AccountId, message_ids: Sequence[int]) -> dict[MessageId, bytes]:
    """Prefix and received header, the empty line included, without reading any blob. At most 1,000 ids at once."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_PREFIXES, account_id, message_ids)
    held = await stored(store, account_id, message_ids)
    return {
        message_id: prefix + held[message_id].front[:octets]
        for message_id, prefix, octets in rows
        if message_id in held
    }


async def stream(
    store: Store, account_id: AccountId, items: Sequence[Item]
) -> AsyncGenerator[tuple[MessageId, Pieces | None], None]:
    """Whole messages in the order of `items`, as pieces, prefix first; None for one that is gone.

    Close the iterator (aclosing) when leaving early: it reads one batch ahead.
    """
    batches = _batches(items)
    ahead: asyncio.Task[list[tuple[MessageId, Pieces | None]]] | None = None
    try:
        for index, batch in enumerate(batches):
            task = ahead or asyncio.create_task(_load(store, account_id, batch))
            ahead = task
            loaded = await task
            ahead = None
            if index + 1 < len(batches):
                ahead = asyncio.create_task(_load(store, account_id, batches[index + 1]))
            for item in loaded:
                yield item
    finally:
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)


def _batches(items: Sequence[Item]) -> list[list[Item]]:
    batches: list[list[Item]] = []
    octets = 0
    for item in items:
        if not batches or octets + item[1].size > BATCH_OCTETS or len(batches[-1]) >= BATCH_ROWS:
            batches.append([])
            octets = 0
        batches[-1].append(item)
        octets += item[1].size
    return batches


async def _load(store: Store, account_id: AccountId, batch: Sequence[Item]) -> list[tuple[MessageId, Pieces | None]]:
    held = await stored(store, account_id, [message_id for message_id, _ in batch])
    loaded: list[tuple[MessageId, Pieces | None]] = []
    for message_id, row in batch:
        found = held.get(message_id)
        loaded.append((message_id, None if found is None else await _all_pieces(store, found, row)))
    return loaded


async def _all_pieces(store: Store, held: StoredContent, row: MessageRow) -> Pieces | None:
    """Prefix and received octets; None where a blob was swept since the row was read, or is lost."""
    try:
        return [row.header_prefix, *await pieces(store, held)]
    except NotFound as error:
        log.error("message %d cannot be read: %s", row.message_id, error)
        return None
