"""Removing the mail of an account.

Each slice is a transaction that takes account_state first, like every other writer, and deletes a bounded number of
rows, so that neither a lock nor a transaction lasts long. Deliveries that routed before the account was marked may
still land between two slices; therefore the state goes last, together with whatever is left, under one lock: who
comes later finds no state, and the account is gone for it. Blobs are left to the sweeper, which finds them without a
reference.
"""

from __future__ import annotations

from storage.records import AccountId
from storage.store import Store

SLICE = 500
"""Rows of one table that a transaction deletes."""

_LOCK = "SELECT account_id FROM account_state WHERE account_id = $1 FOR UPDATE"
_DELETE_STATE = "DELETE FROM account_state WHERE account_id = $1"


def _sliced(table: str, keys: str, values: str) -> tuple[str, str]:
    """Two statements: the key of the last row of a slice, and the deletion of all rows up to a key."""
    return (
        f"SELECT {keys} FROM {table} WHERE account_id = $1 ORDER BY {keys} OFFSET $2 LIMIT 1",
        f"DELETE FROM {table} WHERE account_id = $1 AND ({keys}) <= ({values})",
    )


# Membership first, contents after it: a crash in between leaves messages that no mailbox shows, not mailboxes that show
# what is gone.
_SLICED = (
    _sliced("mailbox_pages", "mailbox_id, page", "$2, $3"),
    _sliced("vanished", "mailbox_id, modseq", "$2, $3"),
    _sliced("blob_refs", "message_id, blob", "$2, $3"),
    _sliced("message_contents", "message_id", "$2"),
    _sliced("messages", "message_id", "$2"),
    _sliced("thread_refs", "msgid_hash", "$2"),
    _sliced("queue_recipients", "queue_id, recipient", "$2, $3"),
    _sliced("queue_messages", "queue_id", "$2"),
    _sliced("contacts", "contact_id", "$2"),
)

_REST = (
    "DELETE FROM mailbox_pages WHERE account_id = $1",
    "DELETE FROM vanished WHERE account_id = $1",
    "DELETE FROM blob_refs WHERE account_id = $1",
    "DELETE FROM message_contents WHERE account_id = $1",
    "DELETE FROM messages WHERE account_id = $1",
    "DELETE FROM thread_refs WHERE account_id = $1",
    "DELETE FROM queue_recipients WHERE account_id = $1",
    "DELETE FROM queue_messages WHERE account_id = $1",
    "DELETE FROM acl WHERE account_id = $1",
    "DELETE FROM shared_with WHERE account_id = $1",
    "DELETE FROM subscriptions WHERE account_id = $1",
    "DELETE FROM mailboxes WHERE account_id = $1",
    "DELETE FROM contacts WHERE account_id = $1",
    "DELETE FROM idempotency_keys WHERE account_id = $1",
    "DELETE FROM revoked_tokens WHERE account_id = $1",
)


async def remove_mail(store: Store, account_id: AccountId) -> None:
    """Deletes every row of the account but its directory rows. Repeatable."""
    for last_key, delete in _SLICED:
        while await _remove_slice(store, account_id, last_key, delete):
            pass
    async with store.transaction() as conn:
        await conn.fetchval(_LOCK, account_id)
        for statement in _REST:
            await conn.execute(statement, account_id)
        await conn.execute(_DELETE_STATE, account_id)


async def _remove_slice(store: Store, account_id: AccountId, last_key: str, delete: str) -> bool:
    """Deletes one whole slice of one table; false where less than a slice is left."""
    async with store.transaction() as conn:
        await conn.fetchval(_LOCK, account_id)
        key = await conn.fetchrow(last_key, account_id, SLICE - 1)
        if key is not None:
            await conn.execute(delete, account_id, *key)
    return key is not None
