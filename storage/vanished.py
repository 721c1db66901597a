"""What left a mailbox: one row per expunge, for sessions that resynchronise and for undelete."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from storage.account_state import State
from storage.membership import Stretch
from storage.packed import pack
from storage.records import Mailbox

_INSERT = """
INSERT INTO vanished (account_id, mailbox_id, modseq, expunged_at, reason, uids, message_ids, flags, sizes, received)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
SINCE = """
SELECT uids FROM vanished WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3
"""


async def expunged(conn: Any, state: State, mailbox: Mailbox, left: Stretch) -> None:
    """Keeps expunged messages for undelete."""
    columns = (left.uids, left.message_ids, left.flags, left.sizes, left.received)
    await _insert(conn, state, mailbox, "expunged", *map(pack, columns))


async def moved(conn: Any, state: State, mailbox: Mailbox, left: Stretch) -> None:
    """Remembers that these UIDs are gone; the messages live on elsewhere, so nothing is held."""
    await _insert(conn, state, mailbox, "moved", pack(left.uids), None, None, None, None)


async def _insert(conn: Any, state: State, mailbox: Mailbox, reason: str, *columns: bytes | None) -> None:
    now = datetime.fromtimestamp(state.now, UTC)
    await conn.execute(_INSERT, mailbox.account_id, mailbox.mailbox_id, state.modseq, now, reason, *columns)
