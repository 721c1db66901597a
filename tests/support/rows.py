"""Rows of `messages` as they are, for tests that look at what was written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from storage import AccountId, MessageId, Store

_ROWS = """
SELECT message_id, trace_id, header_prefix, size, header_octets, envelope, bodystructure, parts, thread_id, sent,
preview FROM messages WHERE account_id = $1 AND message_id = ANY($2)
"""


@dataclass(frozen=True, slots=True)
class MessageRow:
    """See storage/migrations/0001_base.sql."""

    message_id: MessageId
    trace_id: UUID
    header_prefix: bytes
    size: int
    header_octets: int
    envelope: bytes
    bodystructure: bytes
    parts: bytes | None
    thread_id: int
    sent: int
    preview: str


async def message_rows(store: Store, account_id: AccountId, message_ids: Sequence[int]) -> dict[MessageId, MessageRow]:
    """By message id; one that is gone is missing."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_ROWS, account_id, message_ids)
    return {row[0]: MessageRow(*row) for row in rows}
