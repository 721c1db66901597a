"""Requests that send a message once, however often they are repeated (the Idempotency-Key of the API).

A row is written before the message: who asked for what under which key, the id and the trace id that the message will
have, and an account that will hold it. States of a row:

    begun      the message is being written, or the attempt was broken off
    done       the message is stored

begin: absent → begun. finish: begun → done, after the message's COMMIT. forget: begun → absent, where the message was
surely not stored. A repetition that finds a begun row looks for the message: where it is, the row is done, whatever
became of the process that wrote it. Where it is not, and so much time has passed that the earlier attempt is over, the
repetition takes the row over and tries again under the same ids; before that it is told to wait. Rows go after a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from storage.records import AccountId, MessageId
from storage.store import Store

KEEP = timedelta(days=1)
_MARGIN_SECONDS = 30.0
"""Added to the time that a write may wait, after which an attempt is over for certain."""

_BEGIN = """
INSERT INTO idempotency_keys (account_id, key, request, message_id, holder, trace_id, begun_at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING key
"""
_FIND = """
SELECT request, message_id, holder, trace_id, done, begun_at FROM idempotency_keys WHERE account_id = $1 AND key = $2
"""
_TAKE_OVER = """
UPDATE idempotency_keys SET begun_at = $4 WHERE account_id = $1 AND key = $2 AND begun_at = $3 AND NOT done
RETURNING key
"""
_FINISH = "UPDATE idempotency_keys SET done = true, message_id = $3 WHERE account_id = $1 AND key = $2"
_FORGET = "DELETE FROM idempotency_keys WHERE account_id = $1 AND key = $2 AND NOT done"
_IS_STORED = "SELECT trace_id = $3 FROM messages WHERE account_id = $1 AND message_id = $2"
_WITH_OLD = "SELECT DISTINCT account_id FROM idempotency_keys WHERE begun_at < $1 LIMIT 1000"
_DROP_OLD = "DELETE FROM idempotency_keys WHERE account_id = $1 AND begun_at < $2"


@dataclass(frozen=True, slots=True)
class Request:
    """One request under a key. digest: SHA-256 of what it asks for; holder: an account that the message will be in."""

    account_id: AccountId
    key: str
    digest: bytes
    message_id: MessageId
    holder: AccountId
    trace_id: UUID


@dataclass(frozen=True, slots=True)
class Begun:
    """Send it, under these ids."""

    message_id: MessageId
    trace_id: UUID


@dataclass(frozen=True, slots=True)
class Sent:
    """It was sent before."""

    message_id: MessageId
    trace_id: UUID


@dataclass(frozen=True, slots=True)
class Busy:
    """An earlier attempt may still be under way."""


@dataclass(frozen=True, slots=True)
class Differs:
    """The key was used for another request."""


async def begin(store: Store, request: Request) -> Begun | Sent | Busy | Differs:
    """What there is to do for a request."""
    now = datetime.now(UTC)
    mine = (request.account_id, request.key)
    async with store.acquire() as conn:
        values = (request.digest, request.message_id, request.holder, request.trace_id, now)
        if await conn.fetchval(_BEGIN, *mine, *values) is not None:
            return Begun(request.message_id, request.trace_id)
        row = await conn.fetchrow(_FIND, *mine)
        if row is None:  # an earlier attempt has failed just now
            return Busy()
        if row["request"] != request.digest:
            return Differs()
        return await _repeated(store, conn, request, row, now)


async def sent(store: Store, account_id: AccountId, key: str, digest: bytes) -> Sent | Differs | None:
    """Whether the key is done with, before anything is done for the request; None: `begin` says more."""
    async with store.acquire() as conn:
        row = await conn.fetchrow(_FIND, account_id, key)
    if row is None:
        return None
    if row["request"] != digest:
        return Differs()
    return Sent(row["message_id"], row["trace_id"]) if row["done"] else None


async def _repeated(store: Store, conn: Any, request: Request, row: Any, now: datetime) -> Begun | Sent | Busy:
    if row["done"]:
        return Sent(row["message_id"], row["trace_id"])
    if await conn.fetchval(_IS_STORED, row["holder"], row["message_id"], row["trace_id"]):
        await conn.execute(_FINISH, request.account_id, request.key, row["message_id"])
        return Sent(row["message_id"], row["trace_id"])
    patience = timedelta(seconds=2 * store.config.lock_timeout_seconds + _MARGIN_SECONDS)
    if now - row["begun_at"] < patience:
        return Busy()
    taken = await conn.fetchval(_TAKE_OVER, request.account_id, request.key, row["begun_at"], now)
    return Busy() if taken is None else Begun(row["message_id"], row["trace_id"])


async def finish(store: Store, account_id: AccountId, key: str, message_id: MessageId) -> None:
    """The message is stored."""
    async with store.acquire() as conn:
        await conn.execute(_FINISH, account_id, key, message_id)


async def forget(store: Store, account_id: AccountId, key: str) -> None:
    """The message is surely not stored: a repetition begins anew."""
    async with store.acquire() as conn:
        await conn.execute(_FORGET, account_id, key)


async def drop_old(store: Store) -> None:
    """For housekeeping."""
    before = datetime.now(UTC) - KEEP
    async with store.acquire() as conn:
        while rows := await conn.fetch(_WITH_OLD, before):
            for (account_id,) in rows:
                await conn.execute(_DROP_OLD, account_id, before)
