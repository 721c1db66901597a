"""Mailbox trees put into the database at once."""

from __future__ import annotations

from collections.abc import Iterable

from storage import accounts
from tests.imap.conftest import Server

_CLEAR = "DELETE FROM mailboxes WHERE account_id = $1 AND mailbox_id > 1"
_UNSUBSCRIBE = "DELETE FROM subscriptions WHERE account_id = $1"
_PLANT = """
INSERT INTO mailboxes (account_id, mailbox_id, name, uidvalidity)
SELECT $1, 1 + number, string_to_array(name, '/'), number
FROM unnest($2::text[]) WITH ORDINALITY AS given (name, number)
"""
_NEXT = """
UPDATE account_state SET next_mailbox = $2, next_uidvalidity = greatest(next_uidvalidity, $2) WHERE account_id = $1
"""
_SUBSCRIBE = "INSERT INTO subscriptions (account_id, name) SELECT $1, string_to_array(unnest($2::text[]), '/')"


async def plant(server: Server, names: Iterable[str], *, subscribed: Iterable[str] = (), user: str = "alice") -> None:
    """Gives the account INBOX and these mailboxes, and these subscriptions; levels are separated by slashes."""
    account_id = (await accounts.find(server.store, user)).account_id
    names = list(names)
    async with server.store.acquire() as conn:
        await conn.execute(_CLEAR, account_id)
        await conn.execute(_UNSUBSCRIBE, account_id)
        await conn.execute(_PLANT, account_id, names)
        await conn.execute(_NEXT, account_id, len(names) + 2)
        await conn.execute(_SUBSCRIBE, account_id, list(subscribed))
