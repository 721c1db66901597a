"""Reports that are owed to senders of queued messages: each is made once, whoever dies in the midst of it.

Recipients of whom a report is owed stay in the queue until it is delivered. Who makes one notes its message id and
trace id first, and marks the recipients that it tells of; whoever repeats the work, because the first one has not
finished in time, delivers the same report under the same ids, which meets the key where it was delivered already.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from storage.batch import new_message_id
from storage.queue import Said, less
from storage.records import AccountId, MessageId
from storage.store import Store

_OWED = """
SELECT DISTINCT r.account_id, r.queue_id
FROM queue_recipients r JOIN queue_messages q ON q.account_id = r.account_id AND q.queue_id = r.queue_id
WHERE r.report IS NOT NULL AND (q.report_until IS NULL OR q.report_until < now()) LIMIT $1
"""
_TAKE = """
UPDATE queue_messages SET report_id = coalesce(report_id, $3), report_trace = coalesce(report_trace, $4),
    report_until = $5
WHERE account_id = $1 AND queue_id = $2 AND (report_until IS NULL OR report_until < now())
RETURNING report_id, report_trace, reverse_path, envid, ret, extract(epoch FROM created_at)::float8 AS created
"""
_MARK = """
UPDATE queue_recipients SET report_id = $3 WHERE account_id = $1 AND queue_id = $2 AND report IS NOT NULL
"""
_MARKED = """
SELECT recipient, orcpt, report, last_code, last_status, last_text, last_host,
    extract(epoch FROM last_attempt)::float8 AS last_attempt
FROM queue_recipients WHERE account_id = $1 AND queue_id = $2 AND report_id = $3 ORDER BY recipient
"""
_DROP = """
DELETE FROM queue_recipients
WHERE account_id = $1 AND queue_id = $2 AND report_id = $3 AND state IN ('delivered', 'failed')
RETURNING account_id, queue_id
"""
_TOLD = """
UPDATE queue_recipients SET told = true, report = NULL, report_id = NULL
WHERE account_id = $1 AND queue_id = $2 AND report_id = $3
"""
_FINISH = """
UPDATE queue_messages SET report_id = NULL, report_trace = NULL, report_until = NULL
WHERE account_id = $1 AND queue_id = $2 AND report_id = $3
"""
_NOW = "SELECT now()"


@dataclass(frozen=True, slots=True)
class Reported:
    """A recipient that a report tells of. report: "failed", "delayed", "relayed", "expanded" or "delivered"."""

    address: str
    orcpt: str
    report: str
    said: Said | None
    last_attempt: float | None
    """Epoch seconds."""


@dataclass(frozen=True, slots=True)
class OwedReport:
    """A report to be made. report_id, trace_id: its own; created: of the message that it is about, epoch seconds."""

    account_id: AccountId
    queue_id: MessageId
    report_id: MessageId
    trace_id: UUID
    reverse_path: str
    envid: str
    ret: str
    created: float
    recipients: tuple[Reported, ...]


async def owed(store: Store, limit: int) -> list[tuple[AccountId, MessageId]]:
    """Messages of whose recipients a report is owed that nobody makes now."""
    async with store.acquire() as conn:
        return [(row[0], row[1]) for row in await conn.fetch(_OWED, limit)]


async def take(store: Store, account_id: AccountId, queue_id: MessageId, seconds: float) -> OwedReport | None:
    """Takes on the report of a message for so long; None where another has it. Where none is owed, it has nobody."""
    new_id = new_message_id()
    async with store.transaction() as conn:
        until = await conn.fetchval(_NOW) + timedelta(seconds=seconds)
        row = await conn.fetchrow(_TAKE, account_id, queue_id, new_id, uuid4(), until)
        if row is None:
            return None
        report_id = row["report_id"]
        if report_id == new_id:
            await conn.execute(_MARK, account_id, queue_id, report_id)
        marked = await conn.fetch(_MARKED, account_id, queue_id, report_id)
    return OwedReport(
        account_id,
        queue_id,
        report_id,
        row["report_trace"],
        row["reverse_path"],
        row["envid"] or "",
        row["ret"] or "",
        row["created"],
        tuple(map(_reported, marked)),
    )


def _reported(row: Any) -> Reported:
    said = None
    if row["last_code"] is not None:
        said = Said(row["last_code"], row["last_status"], row["last_text"], row["last_host"])
    return Reported(row["recipient"], row["orcpt"] or "", row["report"], said, row["last_attempt"])


async def finish(store: Store, report: OwedReport) -> None:
    """It was delivered: who is done with leaves the queue, who is delayed has been told of. May be repeated."""
    key = (report.account_id, report.queue_id, report.report_id)
    async with store.transaction() as conn:
        dropped = await conn.fetch(_DROP, *key)
        await conn.execute(_TOLD, *key)
        await less(conn, dropped)
        await conn.execute(_FINISH, *key)
