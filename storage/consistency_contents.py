"""The part of storage/consistency.py that looks at messages, their stored octets, and the blobs that these need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from storage import reader
from storage.blobs import REF_OCTETS, name_of
from storage.errors import BlobLost, Damaged, NotFound
from storage.findings import Findings, Mend
from storage.records import MessageId
from storage.store import Store

_CONTENTS_AT_ONCE = 500
_REFS_AT_ONCE = 500
_LAST = 2**63 - 1

_MESSAGES = """
SELECT message_id, octet_length(header_prefix) + size FROM messages WHERE account_id = $1 AND message_id = ANY($2)
"""
_CONTENTS = "SELECT message_id FROM message_contents WHERE account_id = $1 AND message_id = ANY($2)"
_LAYOUTS = f"""
SELECT message_id, layout FROM message_contents
WHERE account_id = $1 AND message_id > $2 AND layout IS NOT NULL ORDER BY message_id LIMIT {_CONTENTS_AT_ONCE}
"""
_REFS_OF = """
SELECT message_id, blob FROM blob_refs WHERE account_id = $1 AND message_id > $2 AND message_id <= $3
"""
_WITHOUT_CONTENT = """
SELECT message_id FROM unnest($2::bigint[]) AS asked(message_id) WHERE NOT EXISTS (
    SELECT FROM message_contents c WHERE c.account_id = $1 AND c.message_id = asked.message_id)
"""
_QUEUED = "SELECT queue_id FROM queue_messages WHERE account_id = $1 AND done_at IS NULL ORDER BY queue_id"
_LOST_THREADS = """
SELECT thread_id FROM messages WHERE account_id = $1 AND thread_id <> message_id
EXCEPT SELECT thread_id FROM thread_refs WHERE account_id = $1
"""
_ADD_REF = "INSERT INTO blob_refs (account_id, message_id, blob) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
_DROP_REF = "DELETE FROM blob_refs WHERE account_id = $1 AND message_id = $2 AND blob = $3"
_REFS = f"""
SELECT message_id, blob FROM blob_refs WHERE account_id = $1 AND (message_id, blob) > ($2, $3)
ORDER BY message_id, blob LIMIT {_REFS_AT_ONCE}
"""
_STILL_REFERRED = "SELECT message_id, blob FROM blob_refs WHERE account_id = $1 AND blob = ANY($2)"
_SIZES = f"""
SELECT message_id, size FROM messages WHERE account_id = $1 AND message_id > $2
ORDER BY message_id LIMIT {reader.BATCH_ROWS}
"""

Held = tuple[int, int, str]
"""A message that something holds: its id, its size in octets as it is said there, and where."""


async def check_held(conn: Any, findings: Findings, held: Sequence[Held]) -> None:
    """Are these messages there, and as long as it is said?"""
    if not held:
        return
    ids = list({message_id for message_id, _, _ in held})
    sizes = {row[0]: row[1] for row in await conn.fetch(_MESSAGES, findings.account_id, ids)}
    contents = {row[0] for row in await conn.fetch(_CONTENTS, findings.account_id, ids)}
    for message_id, size, where in held:
        if message_id not in sizes:
            findings.fault("message", where, f"message {message_id} is missing")
        elif sizes[message_id] != size:
            findings.fault("size", where, f"{size} octets, of message {message_id} {sizes[message_id]}")
        if message_id not in contents:
            findings.fault("contents", where, f"the octets of message {message_id} are missing")


async def examine(conn: Any, findings: Findings) -> None:
    """What contents, references, the queue and threads say of each other."""
    last = -1
    while last < _LAST:
        rows = await conn.fetch(_LAYOUTS, findings.account_id, last)
        upto = rows[-1][0] if len(rows) == _CONTENTS_AT_ONCE else _LAST
        await _compare_refs(conn, findings, rows, await conn.fetch(_REFS_OF, findings.account_id, last, upto))
        last = upto
    await _check_queue(conn, findings)
    for row in await conn.fetch(_LOST_THREADS, findings.account_id):
        findings.fault("thread", f"thread {row[0]}", "messages are in it, and no reference leads to it")


async def _compare_refs(conn: Any, findings: Findings, rows: Iterable[Any], noted: Iterable[Any]) -> None:
    """The references that layouts name against those that blob_refs has."""
    named = {(message_id, ref) for message_id, layout in rows for ref in refs_in(layout)}
    kept = {(message_id, ref) for message_id, ref in noted}
    surplus = sorted(kept - named)
    bare = {row[0] for row in await conn.fetch(_WITHOUT_CONTENT, findings.account_id, [m for m, _ in surplus])}
    for message_id, ref in sorted(named - kept):
        mend = _statement(_ADD_REF, findings.account_id, message_id, ref)
        findings.fault("blob refs", f"message {message_id}", f"blob {name_of(ref)} is not noted", mend)
    for message_id, ref in surplus:
        # Where the octets are lost, the blob may be all that is left of the message.
        drop = None if message_id in bare else _statement(_DROP_REF, findings.account_id, message_id, ref)
        findings.fault("blob refs", f"message {message_id}", f"blob {name_of(ref)} is noted and not needed", drop)


def refs_in(column: bytes) -> list[bytes]:
    """The references of a layout column, see storage/content.py."""
    count = int.from_bytes(column[:2], "big")
    return [column[2 + REF_OCTETS * i : 2 + REF_OCTETS * (i + 1)] for i in range(count)]


def _statement(sql: str, *arguments: Any) -> Mend:
    async def mend(conn: Any, modseq: int) -> None:
        await conn.execute(sql, *arguments)

    return mend


async def _check_queue(conn: Any, findings: Findings) -> None:
    ids = [row[0] for row in await conn.fetch(_QUEUED, findings.account_id)]
    there = {row[0] for row in await conn.fetch(_CONTENTS, findings.account_id, ids)}
    for queue_id in ids:
        if queue_id not in there:
            findings.fault("queue", f"queue {queue_id}", "the octets of the message are missing")


# Without a transaction ------------------------------------------------------------------------------------------------


async def find_blobs(store: Store, findings: Findings) -> None:
    """Is every blob there that is referred to?"""
    last = (-1, b"")
    while True:
        async with store.acquire() as conn:
            rows = await conn.fetch(_REFS, findings.account_id, *last)
        if not rows:
            return
        last = (rows[-1][0], rows[-1][1])
        refs = sorted({row[1] for row in rows})
        findings.looked_at["blobs"] += len(refs)
        missing = await store.blobs.missing(refs)
        if missing:
            await _report_missing(store, findings, missing)


async def _report_missing(store: Store, findings: Findings, missing: list[bytes]) -> None:
    async with store.acquire() as conn:
        rows = await conn.fetch(_STILL_REFERRED, findings.account_id, missing)
    for message_id, ref in rows:
        findings.fault("blob", f"message {message_id}", f"blob {name_of(ref)} is missing")


async def read_octets(store: Store, findings: Findings) -> None:
    """Opens and rebuilds every message, one at a time."""
    last = -1
    while True:
        async with store.acquire() as conn:
            rows = await conn.fetch(_SIZES, findings.account_id, last)
        if not rows:
            return
        for message_id, size in rows:
            await _read_one(store, findings, MessageId(message_id), size)
        last = rows[-1][0]


async def _read_one(store: Store, findings: Findings, message_id: MessageId, size: int) -> None:
    where = f"message {message_id}"
    findings.looked_at["octets"] += size
    try:
        octets = sum(map(len, await reader.received(store, findings.account_id, message_id)))
    except NotFound:
        return  # purged meanwhile, or named by what holds it
    except BlobLost:
        return  # named by find_blobs
    except Damaged as error:
        findings.fault("octets", where, f"it cannot be opened: {error}")
        return
    if octets != size:
        findings.fault("octets", where, f"it is rebuilt to {octets} octets, and has {size}")
