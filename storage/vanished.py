"""What left a mailbox: one row per expunge, for sessions that resynchronise and for undelete."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from storage.account_state import State
from storage.records import Mailbox

_INSERT = """
INSERT INTO vanished (account_id, mailbox_id, modseq, uids, message_ids, flags, sizes, received, expunged_at, reason)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
SINCE = """
SELECT uids FROM vanished WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3
"""
_KEEP = "UPDATE account_state SET undelete_octets = undelete_octets + $2 WHERE account_id = $1"


async def expunged(conn: Any, state: State, mailbox: Mailbox, columns: tuple[Sequence[int], ...]) -> None:
    """Keeps expunged messages for undelete; columns: uids, message_ids, flags, sizes, received."""
    uids, message_ids, flags, sizes, received = (list(column) for column in columns)
    key = (mailbox.account_id, mailbox.mailbox_id, state.modseq)
    now = datetime.fromtimestamp(state.now, UTC)
    await conn.execute(_INSERT, *key, uids, message_ids, flags, sizes, received, now, "expunged")
    await conn.execute(_KEEP, mailbox.account_id, sum(sizes))


async def moved(conn: Any, state: State, mailbox: Mailbox, uids: Sequence[int]) -> None:
    """Remembers that these UIDs are gone; the messages live on elsewhere, so nothing is held."""
    key = (mailbox.account_id, mailbox.mailbox_id, state.modseq)
    now = datetime.fromtimestamp(state.now, UTC)
    await conn.execute(_INSERT, *key, list(uids), None, None, None, None, now, "moved")
