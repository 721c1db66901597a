"""What is over goes: messages past their undelete window or sent, deleted mailboxes, blobs that nothing refers to, and
what the API remembers of tokens and requests for a while.

A message stays until no mailbox, no undelete window and no queue row holds it, and for an hour after its commit at
least, so that whoever is reading it now can finish. Purging takes account_state first and works in slices; UIDs stay
in `vanished`. Blobs are swept only three generations back and older (see storage/blobs.py), and not at all while a
transaction older than a day is about.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from storage import blobs, idempotency, tokens
from storage.errors import StorageError, Unavailable
from storage.packed import INT8, UINT4, integers, unpack
from storage.store import Store

log = logging.getLogger(__name__)

GRACE_SECONDS = 3600
LONG_SECONDS = 86_400
_SLICE = 50
_SENT_SLICE = 1000
_LOCK_KEY = 0x50494C4C  # one housekeeper at a time; a hint only, every step is safe beside another

_ACCOUNTS = "SELECT account_id FROM account_state WHERE account_id > $1 ORDER BY account_id LIMIT 200"
_LOCK = "SELECT account_id FROM account_state WHERE account_id = $1 FOR UPDATE"
_EXPIRED = """
SELECT mailbox_id, modseq, message_ids, sizes FROM vanished
WHERE account_id = $1 AND expunged_at < $2 AND message_ids IS NOT NULL ORDER BY expunged_at LIMIT $3
"""
_LET_GO = """
UPDATE vanished SET message_ids = NULL, flags = NULL, sizes = NULL, received = NULL
WHERE account_id = $1 AND mailbox_id = $2 AND modseq = $3
"""
_LESS_UNDELETE = """
UPDATE account_state SET undelete_octets = greatest(0, undelete_octets - $2) WHERE account_id = $1
"""
_DELETED_MAILBOX = """
SELECT mailbox_id FROM mailboxes WHERE account_id = $1 AND deleted_at < $2 ORDER BY mailbox_id LIMIT 1
"""
_MAILBOX_MESSAGES = "SELECT message_ids FROM mailbox_pages WHERE account_id = $1 AND mailbox_id = $2"
_DROP_PAGES = "DELETE FROM mailbox_pages WHERE account_id = $1 AND mailbox_id = $2"
_DROP_MAILBOX = "DELETE FROM mailboxes WHERE account_id = $1 AND mailbox_id = $2"
_VANISHED_MESSAGES = """
SELECT message_ids, sizes FROM vanished WHERE account_id = $1 AND mailbox_id = $2 AND message_ids IS NOT NULL
"""
_DROP_VANISHED = "DELETE FROM vanished WHERE account_id = $1 AND mailbox_id = $2"
# EXCEPT, for NOT IN is planned by a guess of how many there are, and may go through all of them for each candidate.
_DEAD = f"""
SELECT message_id FROM messages WHERE account_id = $1 AND message_id = ANY($2) AND created < $3
    EXCEPT {integers("message_ids", "mailbox_pages", "account_id = $1")}
    EXCEPT {integers("message_ids", "vanished", "account_id = $1 AND message_ids IS NOT NULL")}
    EXCEPT SELECT queue_id FROM queue_messages WHERE account_id = $1
"""
_SENT = """
SELECT queue_id FROM queue_messages WHERE account_id = $1 AND done_at < $2 ORDER BY done_at LIMIT $3
"""
_DROP_SENT = "DELETE FROM queue_messages WHERE account_id = $1 AND queue_id = ANY($2)"
_DROP_MESSAGES = "DELETE FROM messages WHERE account_id = $1 AND message_id = ANY($2)"
_DROP_CONTENTS = "DELETE FROM message_contents WHERE account_id = $1 AND message_id = ANY($2)"
_DROP_REFS = "DELETE FROM blob_refs WHERE account_id = $1 AND message_id = ANY($2)"
_OLD_TRANSACTION = """
SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE xact_start < $1 AND datname = current_database() AND pid <> pg_backend_pid())
    OR EXISTS (SELECT FROM pg_prepared_xacts WHERE prepared < $1 AND database = current_database())
"""
_NOW = "SELECT extract(epoch FROM now())::bigint"
_NEWEST = "SELECT blob FROM blob_refs ORDER BY blob DESC LIMIT 3"
_OLDEST = "SELECT blob FROM blob_refs ORDER BY blob LIMIT 3"
_REFERRED = "SELECT DISTINCT blob FROM blob_refs WHERE blob = ANY($1)"
_TRY_LOCK = "SELECT pg_try_advisory_lock($1)"
_UNLOCK = "SELECT pg_advisory_unlock($1)"


async def run(store: Store) -> None:
    """Every `sweep_interval_seconds`, for as long as the worker lives."""
    while True:
        await asyncio.sleep(store.config.sweep_interval_seconds)
        try:
            await once(store)
        except StorageError as error:
            log.warning("housekeeping was broken off: %s", error)
        except Exception:
            log.exception("housekeeping failed")


async def once(store: Store) -> tuple[int, int]:
    """One round over everything, unless another process is at it: messages purged, blobs removed."""
    async with store.acquire() as conn:
        if not await conn.fetchval(_TRY_LOCK, _LOCK_KEY):
            return 0, 0
        try:
            await tokens.drop_expired(store)
            await idempotency.drop_old(store)
            purged = await _purge_all(store)
            return purged, await sweep_blobs(store)
        finally:
            await conn.execute(_UNLOCK, _LOCK_KEY)


async def _purge_all(store: Store) -> int:
    purged, last = 0, -1
    before = time.time() - store.config.undelete_days * 86_400
    while True:
        async with store.acquire() as conn:
            accounts = [row[0] for row in await conn.fetch(_ACCOUNTS, last)]
        if not accounts:
            return purged
        for account_id in accounts:
            try:
                purged += await purge(store, account_id, before)
            except StorageError as error:
                log.warning("account %s was not purged this time: %s", account_id, error)
        last = accounts[-1]


async def purge(store: Store, account_id: int, before: float) -> int:
    """Lets go of what was expunged or deleted before that moment (epoch seconds); returns how many messages went."""
    purged = 0
    before = min(before, time.time() - GRACE_SECONDS)
    while (count := await _purge_slice(store, account_id, before)) is not None:
        purged += count
    while (count := await _purge_sent(store, account_id)) is not None:
        purged += count
    return purged


async def _purge_sent(store: Store, account_id: int) -> int | None:
    """Messages that have left the queue, in one transaction; None when nothing was left to do."""
    moment = datetime.fromtimestamp(time.time() - GRACE_SECONDS, UTC)
    async with store.transaction() as conn:
        if await conn.fetchrow(_LOCK, account_id) is None:
            return None
        sent = [row[0] for row in await conn.fetch(_SENT, account_id, moment, _SENT_SLICE)]
        if not sent:
            return None
        await conn.execute(_DROP_SENT, account_id, sent)
        return await _drop_dead(conn, account_id, sent)


async def _purge_slice(store: Store, account_id: int, before: float) -> int | None:
    """One transaction; None when nothing was left to do."""
    moment = datetime.fromtimestamp(before, UTC)
    async with store.transaction() as conn:
        if await conn.fetchrow(_LOCK, account_id) is None:
            return None
        rows = await conn.fetch(_EXPIRED, account_id, moment, _SLICE)
        if rows:
            candidates = _messages(rows)
            await conn.executemany(_LET_GO, [(account_id, row["mailbox_id"], row["modseq"]) for row in rows])
            await conn.execute(_LESS_UNDELETE, account_id, _octets(rows))
        else:
            mailbox_id = await conn.fetchval(_DELETED_MAILBOX, account_id, moment)
            if mailbox_id is None:
                return None
            candidates = await _drop_mailbox(conn, account_id, mailbox_id)
        return await _drop_dead(conn, account_id, candidates)


async def _drop_mailbox(conn: Any, account_id: int, mailbox_id: int) -> list[int]:
    """Removes a deleted mailbox for good; its messages are candidates."""
    pages = await conn.fetch(_MAILBOX_MESSAGES, account_id, mailbox_id)
    expunged = await conn.fetch(_VANISHED_MESSAGES, account_id, mailbox_id)
    await conn.execute(_LESS_UNDELETE, account_id, _octets(expunged))
    for statement in (_DROP_PAGES, _DROP_VANISHED, _DROP_MAILBOX):
        await conn.execute(statement, account_id, mailbox_id)
    return _messages([*pages, *expunged])


def _messages(rows: Sequence[Any]) -> list[int]:
    return [message_id for row in rows for message_id in unpack(INT8, row["message_ids"])]


def _octets(rows: Sequence[Any]) -> int:
    return sum(sum(unpack(UINT4, row["sizes"])) for row in rows)


async def _drop_dead(conn: Any, account_id: int, candidates: Sequence[int]) -> int:
    """Deletes those of the candidates that nothing holds any more."""
    rows = await conn.fetch(_DEAD, account_id, list(set(candidates)), int(time.time()) - GRACE_SECONDS)
    dead = [row[0] for row in rows]
    if dead:
        for statement in (_DROP_REFS, _DROP_CONTENTS, _DROP_MESSAGES):
            await conn.execute(statement, account_id, dead)
    return len(dead)


async def sweep_blobs(store: Store, now: float | None = None) -> int:
    """Removes old blobs that no row refers to, as seen at `now` (epoch seconds); returns how many.

    By default as seen by the database's clock, by which commits judge the age of a blob, too.
    """
    async with store.acquire() as conn:
        if await conn.fetchval(_OLD_TRANSACTION, datetime.fromtimestamp(time.time() - LONG_SECONDS, UTC)):
            log.warning("blobs are not swept: a transaction has been open for more than a day")
            return 0
        moment = await conn.fetchval(_NOW) if now is None else now
    removed, before = 0, blobs.generation(moment) - 2
    async with aclosing(store.blobs.listed(before)) as pages:
        async for refs in pages:
            async with store.acquire() as conn:
                held = {row[0] for row in await conn.fetch(_REFERRED, refs)}
            garbage = [ref for ref in refs if ref not in held]
            if garbage:
                await store.blobs.remove(garbage)
            removed += len(garbage)
    await store.blobs.clear(before)
    return removed


async def blobs_are_elsewhere(store: Store) -> bool:
    """Do messages refer to blobs, and the store has neither the newest nor the oldest few of them?

    Then it is not the one that they were put into, and reading messages would look like their loss.
    """
    async with store.acquire() as conn:
        refs = {row[0] for statement in (_NEWEST, _OLDEST) for row in await conn.fetch(statement)}
    try:
        missing = await store.blobs.missing(list(refs))
    except Unavailable:
        return False  # nobody knows
    if missing and len(missing) < len(refs):
        log.error(
            "%d of %d blobs are missing; nodes must share one place, `admin fsck` names all", len(missing), len(refs)
        )
    return bool(refs) and len(missing) == len(refs)
