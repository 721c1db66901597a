"""What FETCH answers of many messages without their bodies: ENVELOPE, BODYSTRUCTURE, headers.

Messages are read together as far as their octets are few; what is large is left out there, and read one by one. So what
a batch holds is bounded however its messages are made: ask for at most 400 at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage import reader
from storage.errors import Damaged, NotFound
from storage.records import AccountId, Brief, Extent, MessageId
from storage.store import Store

TOGETHER_OCTETS = 8 * 1024
"""Of an ENVELOPE or BODYSTRUCTURE that is read with others, at most."""
HEADER_TOGETHER_OCTETS = 16 * 1024
CONTENT_TOGETHER_OCTETS = 64 * 1024
"""Of a header, and of the stored contents, that are read with others, at most."""

_STRUCTURES = """
SELECT message_id, CASE WHEN octet_length(envelope) <= $3 THEN envelope END,
    CASE WHEN octet_length(bodystructure) <= $3 THEN bodystructure END
FROM messages WHERE account_id = $1 AND message_id = ANY($2)
"""
_STRUCTURE = "SELECT envelope, bodystructure FROM messages WHERE account_id = $1 AND message_id = $2"
_HEADERS = """
SELECT m.message_id, m.header_prefix, m.header_octets, c.codec, c.layout,
    CASE WHEN m.header_octets <= $3 AND octet_length(c.octets) <= $4 THEN c.octets END
FROM messages m JOIN message_contents c ON c.account_id = m.account_id AND c.message_id = m.message_id
WHERE m.account_id = $1 AND m.message_id = ANY($2)
"""
_EXTENTS = """
SELECT message_id, header_prefix, size, header_octets, parts FROM messages
WHERE account_id = $1 AND message_id = ANY($2)
"""
_BRIEFS = "SELECT message_id, header_prefix, size, sent FROM messages WHERE account_id = $1 AND message_id = ANY($2)"


async def structures(
    store: Store, account_id: AccountId, message_ids: Sequence[int]
) -> tuple[dict[int, bytes | None], dict[int, bytes | None]]:
    """ENVELOPEs and BODYSTRUCTUREs by message id, ready to send; an id that is gone is missing.

    None where one is too large to be read with others.
    """
    async with store.acquire() as conn:
        rows = await conn.fetch(_STRUCTURES, account_id, message_ids, TOGETHER_OCTETS)
    return {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}


async def structure(store: Store, account_id: AccountId, message_id: int) -> tuple[bytes, bytes]:
    """ENVELOPE and BODYSTRUCTURE of one message, however large; NotFound."""
    async with store.acquire() as conn:
        row = await conn.fetchrow(_STRUCTURE, account_id, message_id)
    if row is None:
        raise NotFound(f"message {message_id}")
    return row[0], row[1]


async def headers(store: Store, account_id: AccountId, message_ids: Sequence[int]) -> dict[int, bytes | None]:
    """Prefix and received header, the empty line included, by message id; no blob is read.

    None where the message's stored octets are too many to be read with others, or are damaged: `header` says so. An id
    that is gone is missing.
    """
    async with store.acquire() as conn:
        rows = await conn.fetch(_HEADERS, account_id, message_ids, HEADER_TOGETHER_OCTETS, CONTENT_TOGETHER_OCTETS)
    found: dict[int, bytes | None] = {}
    for message_id, prefix, size, form, layout, octets in rows:
        if octets is None:
            found[message_id] = None
            continue
        try:
            held = await reader.opened(store, account_id, MessageId(message_id), form, layout, octets)
        except Damaged:
            found[message_id] = None
        else:
            found[message_id] = prefix + held.front[:size]
    return found


async def header(store: Store, account_id: AccountId, message_id: int) -> bytes:
    """Prefix and received header of one message, however large; NotFound, Damaged."""
    found = (await reader.headers(store, account_id, [message_id])).get(MessageId(message_id))
    if found is None:
        raise NotFound(f"message {message_id}")
    if isinstance(found, Damaged):
        raise found
    return found


async def extents(store: Store, account_id: AccountId, message_ids: Sequence[int]) -> dict[int, Extent]:
    """Where the parts of messages lie, by message id; an id that is gone is missing."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_EXTENTS, account_id, message_ids)
    return {row[0]: Extent(*row) for row in rows}


async def briefs(store: Store, account_id: AccountId, message_ids: Sequence[int]) -> dict[int, Brief]:
    """What a search needs, by message id; an id that is gone is missing."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_BRIEFS, account_id, message_ids)
    return {row[0]: Brief(*row) for row in rows}
