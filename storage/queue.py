"""The outbound queue: recipients who wait for delivery elsewhere, and who may attempt it.

docs/storage-states.md lists the states of a recipient and the moves between them; each move is a function here, in
queue_reports.py or in queue_admin.py. A recipient's row is taken on by a lease: one conditional UPDATE that sets an end
by the database's clock, and a token. Whatever is said of the recipient later names that token, so what a process says
whose lease was taken over says nothing. Taking on writes the time of the next attempt first: a process that dies in
the midst of an attempt leaves the recipient for then.

Nothing here takes account_state. Only `rows`, which the committer writes together with a message, stands under it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg

from storage import reader
from storage.records import AccountId, Lease, MessageId, Outgoing
from storage.store import Store

_MESSAGE = """
INSERT INTO queue_messages (account_id, queue_id, trace_id, reverse_path, envid, ret, body, smtputf8, header_prefix,
    open, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, now())
"""
_RECIPIENT = """
INSERT INTO queue_recipients (account_id, queue_id, recipient, destination, state, notify, orcpt, attempts,
    next_attempt_at, act_by, report, lease_token, lease_until)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, now()), $10, $11, $12, $13)
"""
# By index from one destination to the next: a destination of 100,000 recipients costs as much as one of a few.
_SCHEDULE = """
WITH RECURSIVE destinations AS (
    SELECT min(destination) AS name FROM queue_recipients WHERE state = 'waiting'
    UNION ALL
    SELECT (SELECT min(destination) FROM queue_recipients WHERE state = 'waiting' AND destination > d.name)
    FROM destinations d WHERE d.name IS NOT NULL
)
SELECT d.name AS destination,
    extract(epoch FROM (SELECT min(next_attempt_at) FROM queue_recipients
        WHERE state = 'waiting' AND destination = d.name) - now())::float8 AS due,
    extract(epoch FROM (SELECT min(act_by) FROM queue_recipients
        WHERE state = 'waiting' AND destination = d.name) - now())::float8 AS act
FROM destinations d WHERE d.name IS NOT NULL
"""
_SCHEDULE_OF_SHARDS = """
SELECT destination, extract(epoch FROM min(next_attempt_at) - now())::float8 AS due,
    extract(epoch FROM min(act_by) - now())::float8 AS act
FROM queue_recipients WHERE state = 'waiting' GROUP BY destination
"""
_WAITING = "SELECT count(*) FROM (SELECT FROM queue_messages WHERE account_id = $1 AND done_at IS NULL LIMIT $2) AS q"
_FREE = "state = 'waiting' AND (lease_until IS NULL OR lease_until < now())"
_DUE = f"""
SELECT account_id, queue_id, recipient, attempts, now() AS now FROM queue_recipients
WHERE destination = $1 AND next_attempt_at <= now() AND {_FREE} ORDER BY next_attempt_at LIMIT $2
"""
_OVERDUE = f"""
SELECT account_id, queue_id, recipient, attempts, now() AS now FROM queue_recipients
WHERE destination = $1 AND act_by <= now() AND {_FREE} ORDER BY act_by LIMIT $2
"""
_TAKE = f"""
UPDATE queue_recipients SET attempts = attempts + 1, next_attempt_at = $4, lease_until = $5, lease_token = $6
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3 AND {_FREE}
RETURNING account_id, queue_id, recipient, destination, notify, orcpt, attempts, told
"""
_TAKEN_MESSAGES = """
SELECT q.account_id, q.queue_id, q.trace_id, q.reverse_path, q.envid, q.ret, q.body, q.smtputf8, q.header_prefix,
    extract(epoch FROM now() - q.created_at)::float8 AS age, m.size
FROM queue_messages q JOIN messages m ON m.account_id = q.account_id AND m.message_id = q.queue_id
WHERE q.account_id = $1 AND q.queue_id = $2
"""
_RENEW = """
UPDATE queue_recipients SET lease_until = $5, next_attempt_at = greatest(next_attempt_at, $5)
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3 AND lease_token = $4
RETURNING account_id, queue_id, recipient
"""
_GIVE_BACK = """
UPDATE queue_recipients SET attempts = attempts - 1, next_attempt_at = now(), lease_until = NULL, lease_token = NULL
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3 AND lease_token = $4
"""
_GONE = """
WITH gone AS (
    DELETE FROM queue_recipients
    WHERE account_id = $1 AND queue_id = $2 AND lease_token = $3 AND recipient = ANY($4) RETURNING 1
), number AS (SELECT count(*)::int AS n FROM gone)
UPDATE queue_messages SET open = open - n, done_at = CASE WHEN open <= n THEN now() END
FROM number WHERE account_id = $1 AND queue_id = $2 AND n > 0
"""
_ENDED = """
UPDATE queue_recipients SET state = $5, report = $6, report_id = NULL, last_code = $7, last_status = $8, last_text = $9,
    last_host = $10, last_attempt = now(), lease_until = NULL, lease_token = NULL
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3 AND lease_token = $4
"""
_AGAIN = """
UPDATE queue_recipients SET next_attempt_at = $5, act_by = $6, report = coalesce($7, report), last_code = $8,
    last_status = $9, last_text = $10, last_host = $11, last_attempt = now(), lease_until = NULL, lease_token = NULL
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3 AND lease_token = $4
"""
LESS = """
UPDATE queue_messages SET open = open - $3, done_at = CASE WHEN open <= $3 THEN now() END
WHERE account_id = $1 AND queue_id = $2
"""
_NOW = "SELECT now()"


class Key(NamedTuple):
    """A recipient's row."""

    account_id: int
    queue_id: int
    recipient: str


@dataclass(frozen=True, slots=True)
class TakenRecipient:
    """attempts: with the one that is to be made now. told: of the delay, already."""

    address: str
    destination: str
    notify: str | None
    orcpt: str
    attempts: int
    told: bool


@dataclass(slots=True)
class Taken:
    """A queued message and those of its recipients that were taken on.

    born: the moment at which it was accepted, of this process's monotonic clock; size: octets.

    recipients: all for one destination, or of those that were asked for together. lease: of each.
    octets: where they are at hand, else `load` them.
    """

    account_id: AccountId
    queue_id: MessageId
    trace_id: UUID
    reverse_path: str
    envid: str
    ret: str
    body: str
    smtputf8: bool
    header_prefix: bytes
    born: float
    size: int
    recipients: list[TakenRecipient]
    lease: Lease
    octets: bytes | None = None

    @property
    def keys(self) -> list[Key]:
        return [Key(self.account_id, self.queue_id, recipient.address) for recipient in self.recipients]


class Said(NamedTuple):
    """What another server, or nobody, said at the last attempt: of an outcome."""

    code: int
    status: str
    text: str
    host: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The recipient leaves the queue; nobody is told."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempts are over, and the sender is told. report: "failed" or "relayed"."""

    report: str
    said: Said


@dataclass(frozen=True, slots=True)
class Again:
    """It is tried again. at, act_by: moments of the monotonic clock. notice: the sender is told of the delay."""

    said: Said
    at: float
    act_by: float
    notice: bool = False


Move = Gone | Ended | Again


class Moved(NamedTuple):
    """What became of a recipient under a lease."""

    key: Key
    token: UUID
    move: Move


def rows(outgoing: Outgoing, queue_id: int, trace_id: UUID, now: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The statements and arguments that put a message into the queue. now: the database's clock, epoch seconds."""
    account = outgoing.owner
    yield (
        _MESSAGE,
        (
            *(account, queue_id, trace_id, outgoing.reverse_path, outgoing.envid or None, outgoing.ret or None),
            *(outgoing.body, outgoing.smtputf8, outgoing.header_prefix, len(outgoing.recipients)),
        ),
    )
    act_by = _moment(now + outgoing.act_seconds)
    for recipient in outgoing.recipients:
        key = (account, queue_id, recipient.address, recipient.destination)
        asked = (recipient.notify, recipient.orcpt or None)
        if recipient.report:
            yield _RECIPIENT, (*key, "delivered", *asked, 0, None, act_by, recipient.report, None, None)
        elif outgoing.lease is None:
            yield _RECIPIENT, (*key, "waiting", *asked, 0, None, act_by, None, None, None)
        else:
            next_at = _moment(now + max(outgoing.pause_seconds, outgoing.lease_seconds))
            until = _moment(now + outgoing.lease_seconds)
            yield _RECIPIENT, (*key, "waiting", *asked, 1, next_at, act_by, None, outgoing.lease.token, until)


async def waiting(store: Store, account_id: AccountId, most: int) -> int:
    """How many messages of the account are in the queue; not counted beyond `most`."""
    async with store.acquire() as conn:
        return int(await conn.fetchval(_WAITING, account_id, most))


async def schedule(store: Store) -> dict[str, tuple[float, float]]:
    """Of each destination for which somebody waits: seconds until a recipient is due, and until one needs attention."""
    async with store.acquire() as conn:
        try:
            rows = await conn.fetch(_SCHEDULE)
        except asyncpg.FeatureNotSupportedError:  # a distributed database does not walk
            rows = await conn.fetch(_SCHEDULE_OF_SHARDS)
    # A destination may have lost its last recipient between two looks.
    return {row["destination"]: (row["due"], row["act"]) for row in rows if row["due"] is not None}


async def take(
    store: Store,
    destinations: Sequence[str],
    limit: int,
    *,
    pause: Callable[[int], float],
    lease_seconds: float,
    overdue: bool = False,
) -> list[Taken]:
    """Takes on recipients that are due, those that have waited longest first; at most `limit` a destination.

    pause: seconds to the next attempt after so many; it counts from the end of the lease at the earliest. overdue:
    those that need attention, due or not.
    """
    lease = Lease(uuid4(), time.monotonic() + lease_seconds)
    async with store.transaction() as conn:
        candidates = await many(conn, _OVERDUE if overdue else _DUE, [(name, limit) for name in destinations])
        arguments = [_take_arguments(row, lease, pause, lease_seconds) for row in candidates]
        rows = await many(conn, _TAKE, sorted(arguments))
        messages = sorted({(row["account_id"], row["queue_id"]) for row in rows})
        taken = {(row[0], row[1]): _taken(row, lease) for row in await many(conn, _TAKEN_MESSAGES, messages)}
    for account_id, queue_id, address, destination, notify, orcpt, attempts, told in rows:
        message = taken.get((account_id, queue_id))
        if message is not None:
            recipient = TakenRecipient(address, destination, notify, orcpt or "", attempts, told)
            message.recipients.append(recipient)
    return list(taken.values())


def _take_arguments(row: Any, lease: Lease, pause: Callable[[int], float], seconds: float) -> tuple[Any, ...]:
    now = row["now"]
    again = now + timedelta(seconds=max(pause(row["attempts"] + 1), seconds))
    return row["account_id"], row["queue_id"], row["recipient"], again, now + timedelta(seconds=seconds), lease.token


def _taken(row: Any, lease: Lease) -> Taken:
    return Taken(
        account_id=row["account_id"],
        queue_id=row["queue_id"],
        trace_id=row["trace_id"],
        reverse_path=row["reverse_path"],
        envid=row["envid"] or "",
        ret=row["ret"] or "",
        body=row["body"],
        smtputf8=row["smtputf8"],
        header_prefix=row["header_prefix"],
        born=time.monotonic() - row["age"],
        size=row["size"],
        recipients=[],
        lease=lease,
    )


async def load(store: Store, taken: Taken) -> bytes:
    """What goes out: prefix and octets. NotFound, Damaged, Unavailable."""
    pieces = await reader.received(store, taken.account_id, taken.queue_id)
    return b"".join([taken.header_prefix, *pieces])


async def renew(store: Store, leases: Iterable[tuple[Key, UUID]], seconds: float) -> tuple[set[Key], float]:
    """Holds on to recipients for so many seconds more; those that are still ours, until when (monotonic)."""
    until = time.monotonic() + seconds
    async with store.transaction() as conn:
        end = await conn.fetchval(_NOW) + timedelta(seconds=seconds)
        rows = await many(conn, _RENEW, [(*key, token, end) for key, token in sorted(leases)])
    return {Key(*row) for row in rows}, until


async def give_back(store: Store, leases: Iterable[tuple[Key, UUID]]) -> None:
    """Nothing was attempted: they are due at once, for whoever comes."""
    async with store.transaction() as conn:
        await conn.executemany(_GIVE_BACK, [(*key, token) for key, token in sorted(leases)])


async def record(store: Store, moves: Sequence[Moved]) -> None:
    """Writes what became of recipients, in one transaction. Those whose lease was taken over are left alone.

    May be repeated: a second time nothing has its token any more. Unavailable, OutcomeUnknown.
    """
    ended, again = [], []
    gone: dict[tuple[int, int, UUID], list[str]] = {}
    for moved in sorted(moves, key=lambda moved: moved.key):
        key = (*moved.key, moved.token)
        match moved.move:
            case Gone():
                gone.setdefault((key[0], key[1], moved.token), []).append(key[2])
            case Ended(report, said):
                ended.append((*key, "failed" if report == "failed" else "delivered", report, *said))
            case Again(said, at, act_by, notice):
                ask = "delayed" if notice else None
                again.append((*key, at, act_by, ask, *said))
    left = [(*message, recipients) for message, recipients in gone.items()]
    work = [(sql, rows) for sql, rows in ((_ENDED, ended), (_AGAIN, again), (_GONE, left)) if rows]
    async with store.acquire() if work == [(_GONE, left)] else store.transaction() as conn:
        for sql, rows in work:
            # What is gone alone, as it mostly is, commits by itself.
            await conn.executemany(sql, await _at_moments(conn, rows) if sql == _AGAIN else rows)


async def _at_moments(conn: Any, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The moments of _AGAIN by the database's clock: nodes may have others."""
    since = await conn.fetchval(_NOW) - timedelta(seconds=time.monotonic())
    return [(*row[:4], _after(since, row[4]), _after(since, row[5]), *row[6:]) for row in rows]


async def less(conn: Any, rows: Sequence[Any]) -> None:
    """So many recipients of each message have gone; rows: account and message of each that did."""
    count: dict[tuple[int, int], int] = {}
    for row in rows:
        key = (row[0], row[1])
        count[key] = count.get(key, 0) + 1
    if count:
        await conn.executemany(LESS, [(*key, number) for key, number in sorted(count.items())])


async def many(conn: Any, sql: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The rows that a statement returns for all its arguments, in one round trip."""
    return list(await conn.fetchmany(sql, arguments)) if arguments else []


def _after(since: datetime, seconds: float) -> datetime:
    return since + timedelta(seconds=seconds)


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
