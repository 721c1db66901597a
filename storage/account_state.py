"""The lock and the clock of an account: every write of its mail takes this row first and raises modseq by one."""

from __future__ import annotations

from typing import Any, NamedTuple

from storage.errors import NotFound, OverQuota
from storage.records import AccountId, Quota
from storage.store import Store

LOCK = """
UPDATE account_state SET modseq = modseq + 1 WHERE account_id = $1
RETURNING account_id, modseq, quota_octets, quota_messages, used_octets, used_messages, next_mailbox,
    next_uidvalidity, extract(epoch FROM now())::bigint AS now
"""

_SET_USE = """
UPDATE account_state SET used_octets = $2, used_messages = $3, undelete_octets = undelete_octets + $4
WHERE account_id = $1
"""
_SET_NEXT = "UPDATE account_state SET next_mailbox = $2, next_uidvalidity = $3 WHERE account_id = $1"
_QUOTA = "SELECT quota_octets, quota_messages, used_octets, used_messages FROM account_state WHERE account_id = $1"
_SET_QUOTA = "UPDATE account_state SET quota_octets = $2, quota_messages = $3 WHERE account_id = $1"


class State(NamedTuple):
    """The locked row; modseq is already the new one, now is the database's clock in epoch seconds."""

    account_id: int
    modseq: int
    quota_octets: int
    quota_messages: int
    used_octets: int
    used_messages: int
    next_mailbox: int
    next_uidvalidity: int
    now: int

    def check_room(self, octets: int, messages: int) -> None:
        """Raises OverQuota where so much more does not fit."""
        if self.quota_octets and self.used_octets + octets > self.quota_octets:
            raise OverQuota(never=octets > self.quota_octets)
        if self.quota_messages and self.used_messages + messages > self.quota_messages:
            raise OverQuota(never=messages > self.quota_messages)


async def lock(conn: Any, account_id: int) -> State:
    """Takes the account, waiting for it, and raises its modseq. NotFound: the account is gone."""
    row = await conn.fetchrow(LOCK, account_id)
    if row is None:
        raise NotFound(f"account {account_id}")
    return State(*row)


async def set_use(conn: Any, state: State, octets: int, messages: int, *, undelete_octets: int = 0) -> None:
    """Adds to what the account uses (negative: takes away), from the locked values, and to what waits for undelete."""
    if octets or messages:
        used = (state.used_octets + octets, state.used_messages + messages)
        await conn.execute(_SET_USE, state.account_id, *used, undelete_octets)


async def set_next(conn: Any, account_id: int, next_mailbox: int, next_uidvalidity: int) -> None:
    await conn.execute(_SET_NEXT, account_id, next_mailbox, next_uidvalidity)


async def quota(store: Store, account_id: AccountId) -> Quota:
    """Limits and use as they stand; NotFound."""
    async with store.acquire() as conn:
        row = await conn.fetchrow(_QUOTA, account_id)
    if row is None:
        raise NotFound(f"account {account_id}")
    return Quota(*row)


async def set_quota(store: Store, account_id: AccountId, octets: int, messages: int) -> None:
    """0 is no limit. What is there already stays, however much it is."""
    async with store.transaction() as conn:
        await lock(conn, account_id)
        await conn.execute(_SET_QUOTA, account_id, octets, messages)
