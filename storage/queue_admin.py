"""What administrators see of the outbound queue and do to it, as moves of docs/storage-states.md.

A `Filter` names recipients, for a look and for a move alike. A move goes through all that match in slices, in the order
of their keys; each slice is a transaction that names one account in every statement and says in its WHERE from which
states the move is legal, so what a worker does meanwhile stands. Between two slices the queue is as good as before, so
a move that was cut short may be repeated.

A lease is nobody's but its worker's: to hold, release or retry a recipient leaves token and end as they are, and what
the worker records under them counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from storage.errors import NotFound, Unavailable
from storage.queue import Key, Said, less, many
from storage.records import AccountId, MessageId, Notice
from storage.store import Store

STATES = ("waiting", "leased", "held", "failed", "delivered")
"""As they are shown: "leased" is a recipient that waits and whom a worker has; the last two wait for a report."""

SLICE = 500
"""Recipients that are moved in one transaction."""

_TRIES = 5
"""Of a slice that met a worker who wrote the same rows in another order: one of the two has to give way."""

_SHOWN_STATE = "CASE WHEN r.state = 'waiting' AND r.lease_until >= now() THEN 'leased' ELSE r.state END"
_MATCHING = f"""
FROM queue_recipients r JOIN queue_messages q ON q.account_id = r.account_id AND q.queue_id = r.queue_id
WHERE ($1::bigint IS NULL OR r.account_id = $1) AND ($2::bigint IS NULL OR r.queue_id = $2)
    AND ($3::text IS NULL OR r.destination LIKE $3) AND ($4::text IS NULL OR lower(r.recipient) LIKE $4)
    AND ($5::text IS NULL OR lower(q.reverse_path) LIKE $5) AND ($6::text IS NULL OR {_SHOWN_STATE} = $6)
    AND ($7::float8 IS NULL OR q.created_at <= now() - make_interval(secs => $7))
    AND ($8::float8 IS NULL OR q.created_at > now() - make_interval(secs => $8))
    AND (NOT $9::boolean OR (r.next_attempt_at <= now() AND {_SHOWN_STATE} = 'waiting'))
    AND ($10::text IS NULL OR concat_ws(' ', nullif(r.last_code, 0), r.last_status, r.last_text) ILIKE $10)
"""
_COUNT = f"SELECT count(*) {_MATCHING}"
_PAGE = f"""
WITH page AS (
    SELECT r.*, {_SHOWN_STATE} AS shown_state, q.reverse_path, q.created_at {_MATCHING}
        AND ($11::bigint IS NULL OR (r.queue_id, r.account_id, r.recipient) > ($11, $12::bigint, $13::text))
    ORDER BY r.queue_id, r.account_id, r.recipient LIMIT $14
)
SELECT p.account_id, p.queue_id, p.recipient, p.destination, p.reverse_path, p.shown_state, p.attempts, p.report,
    p.told, extract(epoch FROM p.created_at)::float8 AS created, m.size,
    extract(epoch FROM p.next_attempt_at)::float8 AS next_attempt,
    extract(epoch FROM p.lease_until)::float8 AS lease_until,
    extract(epoch FROM p.last_attempt)::float8 AS last_attempt,
    p.last_code, p.last_status, p.last_text, p.last_host
FROM page p LEFT JOIN messages m ON m.account_id = p.account_id AND m.message_id = p.queue_id
ORDER BY p.queue_id, p.account_id, p.recipient
"""
_MESSAGE = """
SELECT q.account_id, q.queue_id, q.trace_id, q.reverse_path, q.envid, q.ret, q.body, q.smtputf8, q.open,
    extract(epoch FROM q.created_at)::float8 AS created, extract(epoch FROM q.done_at)::float8 AS done,
    m.size, m.preview
FROM queue_messages q LEFT JOIN messages m ON m.account_id = q.account_id AND m.message_id = q.queue_id
WHERE q.queue_id = $1 ORDER BY q.account_id LIMIT 1
"""
_AMOUNTS = f"""
    count(*) FILTER (WHERE {_SHOWN_STATE} = 'waiting') AS waiting,
    count(*) FILTER (WHERE {_SHOWN_STATE} = 'leased') AS leased, count(*) FILTER (WHERE r.state = 'held') AS held,
    count(r.report) AS owed, extract(epoch FROM now() - min(q.created_at))::float8 AS oldest,
    extract(epoch FROM min(r.next_attempt_at) FILTER (WHERE r.state = 'waiting') - now())::float8 AS next_in
FROM queue_recipients r JOIN queue_messages q ON q.account_id = r.account_id AND q.queue_id = r.queue_id
"""
_TOTAL = f"SELECT count(DISTINCT r.destination) AS destinations, {_AMOUNTS}"
# The latest of replies is the greatest of arrays that begin with its moment, so that a group keeps but one of them.
_BY_DESTINATION = f"""
SELECT r.destination,
    max(ARRAY[to_char(r.last_attempt AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS'), r.last_code::text, r.last_status,
        r.last_text, r.last_host]) FILTER (WHERE r.last_attempt IS NOT NULL) AS last, {_AMOUNTS}
GROUP BY r.destination ORDER BY count(*) DESC, r.destination LIMIT $1
"""
_CANDIDATES = f"""
SELECT r.account_id, r.queue_id, r.recipient,
    q.reverse_path <> '' AND (r.notify IS NULL OR upper(r.notify) LIKE '%FAILURE%') AS wants {_MATCHING}
    AND (r.account_id, r.queue_id, r.recipient) > ($11, $12, $13) AND (q.account_id, q.queue_id) >= ($11, $12)
ORDER BY r.account_id, r.queue_id, r.recipient LIMIT $14
"""
_RETRY = """
UPDATE queue_recipients SET state = 'waiting', next_attempt_at = greatest($4, lease_until)
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3
    AND (state = 'held' OR (state = 'waiting' AND (lease_until IS NULL OR lease_until < now())))
RETURNING account_id, queue_id
"""
_HOLD = """
UPDATE queue_recipients SET state = 'held'
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3 AND state = 'waiting'
RETURNING account_id, queue_id
"""
_RELEASE = """
UPDATE queue_recipients SET state = 'waiting', next_attempt_at = greatest($4, lease_until)
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3 AND state = 'held'
RETURNING account_id, queue_id
"""
_DROP = """
DELETE FROM queue_recipients WHERE account_id = $1 AND queue_id = $2 AND recipient = $3
RETURNING account_id, queue_id
"""
_DROP_UNTOLD = """
DELETE FROM queue_recipients
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3 AND state IN ('waiting', 'held')
RETURNING account_id, queue_id
"""
_FAIL = """
UPDATE queue_recipients SET state = 'failed', report = 'failed', report_id = NULL, last_code = $4, last_status = $5,
    last_text = $6, last_host = $7, lease_until = NULL, lease_token = NULL
WHERE account_id = $1 AND queue_id = $2 AND recipient = $3 AND state IN ('waiting', 'held')
RETURNING account_id, queue_id
"""
_NOW = "SELECT now()"


@dataclass(frozen=True, slots=True)
class Filter:
    """Recipients that fulfil all that is not None.

    destination: a domain in stored form, or `*.domain` for all below it. sender, recipient: an address, or a domain
    likewise; a sender "" is the null reverse-path. state: one of STATES. older_than, younger_than: of the message, in
    seconds. due: waits, and its time has come. reply: words in the last reply (code, status, text), in any case.
    """

    account_id: AccountId | None = None
    queue_id: MessageId | None = None
    destination: str | None = None
    sender: str | None = None
    recipient: str | None = None
    state: str | None = None
    older_than: float | None = None
    younger_than: float | None = None
    due: bool = False
    reply: str | None = None

    @property
    def arguments(self) -> tuple[Any, ...]:
        return (
            *(self.account_id, self.queue_id),
            None if self.destination is None else _domain_pattern(self.destination),
            *(_address_pattern(self.recipient), _address_pattern(self.sender), self.state),
            *(self.older_than, self.younger_than, self.due),
            None if self.reply is None else f"%{_literally(self.reply)}%",
        )


class Cursor(NamedTuple):
    """The last recipient of a page."""

    queue_id: int
    account_id: int
    recipient: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A recipient in the queue. state: one of STATES; report: what its sender is to be told of, or "".

    size: octets of the message, 0 where they are gone. created, next_attempt, lease_until, last_attempt: epoch seconds.
    """

    account_id: AccountId
    queue_id: MessageId
    recipient: str
    destination: str
    sender: str
    state: str
    attempts: int
    report: str
    told: bool
    created: float
    size: int
    next_attempt: float
    lease_until: float | None
    last_attempt: float | None
    said: Said | None

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.queue_id, self.account_id, self.recipient)


@dataclass(frozen=True, slots=True)
class Shown:
    """A queued message. created: epoch seconds; done: when its last recipient went, None while there are some."""

    account_id: AccountId
    queue_id: MessageId
    trace_id: UUID
    sender: str
    envid: str
    ret: str
    body: str
    smtputf8: bool
    created: float
    done: float | None
    size: int
    preview: str
    recipients: tuple[Listed, ...]


@dataclass(frozen=True, slots=True)
class Amounts:
    """Recipients by state, and reports that are owed. oldest, next_in: seconds, None where there is nobody."""

    waiting: int
    leased: int
    held: int
    owed: int
    oldest: float | None
    next_in: float | None


@dataclass(frozen=True, slots=True)
class Destination:
    """said: the last reply that any of its recipients got."""

    name: str
    amounts: Amounts
    said: Said | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The whole queue, and those destinations for which most recipients wait. all: how many destinations there are."""

    total: Amounts
    destinations: tuple[Destination, ...]
    all: int


class Tally(NamedTuple):
    """What a move came to: recipients that matched, and those of them that it was legal for."""

    matched: int
    moved: int


Progress = Callable[[int], None]
"""Told how many recipients have been gone through."""


def _silent(done: int) -> None: ...


# Looking --------------------------------------------------------------------------------------------------------------


async def listed(store: Store, wanted: Filter, after: Cursor | None, limit: int) -> list[Listed]:
    """Recipients behind the cursor, those of the oldest messages first."""
    cursor = (None, None, None) if after is None else after
    async with store.acquire() as conn:
        return [_listed(row) for row in await conn.fetch(_PAGE, *wanted.arguments, *cursor, limit)]


async def count(store: Store, wanted: Filter) -> int:
    async with store.acquire() as conn:
        found: int = await conn.fetchval(_COUNT, *wanted.arguments)
    return found


async def show(store: Store, queue_id: int) -> Shown:
    """A message with all its recipients that have a row; NotFound."""
    async with store.acquire() as conn:
        row = await conn.fetchrow(_MESSAGE, queue_id)
        if row is None:
            raise NotFound(f"queue id {queue_id}")
        wanted = Filter(account_id=row["account_id"], queue_id=row["queue_id"])
        recipients = await conn.fetch(_PAGE, *wanted.arguments, None, None, None, row["open"])
    return Shown(
        row["account_id"],
        row["queue_id"],
        row["trace_id"],
        row["reverse_path"],
        row["envid"] or "",
        row["ret"] or "",
        row["body"],
        row["smtputf8"],
        row["created"],
        row["done"],
        row["size"] or 0,
        row["preview"] or "",
        tuple(map(_listed, recipients)),
    )


async def summary(store: Store, limit: int) -> Summary:
    """Of at most so many destinations."""
    async with store.acquire() as conn:
        total = await conn.fetchrow(_TOTAL)
        rows = await conn.fetch(_BY_DESTINATION, limit)
    destinations = tuple(Destination(row["destination"], _amounts(row), _latest(row["last"])) for row in rows)
    return Summary(_amounts(total), destinations, total["destinations"])


def _listed(row: Any) -> Listed:
    return Listed(
        row["account_id"],
        row["queue_id"],
        row["recipient"],
        row["destination"],
        row["reverse_path"],
        row["shown_state"],
        row["attempts"],
        row["report"] or "",
        row["told"],
        row["created"],
        row["size"] or 0,
        row["next_attempt"],
        row["lease_until"],
        row["last_attempt"],
        None
        if row["last_code"] is None
        else Said(row["last_code"], row["last_status"], row["last_text"], row["last_host"]),
    )


def _amounts(row: Any) -> Amounts:
    next_in = None if row["next_in"] is None else max(0.0, row["next_in"])
    return Amounts(row["waiting"], row["leased"], row["held"], row["owed"], row["oldest"], next_in)


def _latest(last: Sequence[str] | None) -> Said | None:
    return None if last is None else Said(int(last[1]), *last[2:])


# Moving ---------------------------------------------------------------------------------------------------------------


async def retry(store: Store, wanted: Filter, progress: Progress = _silent) -> Tally:
    """Those that wait or are held are due now; those that a worker has are left to it."""
    return await _move(store, wanted, _retry_slice, progress, "retry")


async def hold(store: Store, wanted: Filter, progress: Progress = _silent) -> Tally:
    """Those that wait are kept back; an attempt that is under way comes to its end."""
    return await _move(store, wanted, _hold_slice, progress)


async def release(store: Store, wanted: Filter, progress: Progress = _silent) -> Tally:
    """Those that are held are due now."""
    return await _move(store, wanted, _release_slice, progress, "retry")


async def drop(store: Store, wanted: Filter, told: Said | None = None, progress: Progress = _silent) -> Tally:
    """Takes them out of the queue, whatever their state; an attempt that is under way may deliver nonetheless.

    told: what senders who want to hear of failures (RFC 3461 §4.1) are told; these recipients fail, and those of whom a
    report is owed already stay until it is made. None: nobody hears anything more.
    """

    async def drop_slice(conn: Any, rows: Sequence[Any]) -> list[Any]:
        failed: list[Any] = []
        if told is None:
            gone = await many(conn, _DROP, [_key(row) for row in rows])
        else:
            gone = await many(conn, _DROP_UNTOLD, [_key(row) for row in rows if not row["wants"]])
            failed = await many(conn, _FAIL, [(*_key(row), *told) for row in rows if row["wants"]])
        await less(conn, gone)
        return [*gone, *failed]

    return await _move(store, wanted, drop_slice, progress)


async def _retry_slice(conn: Any, rows: Sequence[Any]) -> list[Any]:
    now = await conn.fetchval(_NOW)
    return await many(conn, _RETRY, [(*_key(row), now) for row in rows])


async def _hold_slice(conn: Any, rows: Sequence[Any]) -> list[Any]:
    return await many(conn, _HOLD, [_key(row) for row in rows])


async def _release_slice(conn: Any, rows: Sequence[Any]) -> list[Any]:
    now = await conn.fetchval(_NOW)
    return await many(conn, _RELEASE, [(*_key(row), now) for row in rows])


_Mover = Callable[[Any, Sequence[Any]], Awaitable[list[Any]]]
"""Moves recipients, given the connection and their rows of _CANDIDATES; account and message of each that was moved."""


async def _move(store: Store, wanted: Filter, move: _Mover, progress: Progress, kind: str = "queue") -> Tally:
    matched = moved = 0
    last = Key(-1, -1, "")
    while True:
        rows, changed = await _slice(store, wanted, last, move)
        if changed:
            accounts = sorted({row[0] for row in changed})
            await store.changes.publish([Notice(kind, AccountId(account_id)) for account_id in accounts])
        matched += len(rows)
        moved += len(changed)
        progress(matched)
        if len(rows) < SLICE:
            return Tally(matched, moved)
        last = _key(rows[-1])


async def _slice(store: Store, wanted: Filter, last: Key, move: _Mover) -> tuple[Sequence[Any], Sequence[Any]]:
    """The recipients behind the last one, and those of them that were moved."""
    for tries_left in reversed(range(_TRIES)):
        try:
            async with store.transaction() as conn:
                rows = await conn.fetch(_CANDIDATES, *wanted.arguments, *last, SLICE)
                return rows, await move(conn, rows)
        except Unavailable:
            if not tries_left:
                raise
    raise AssertionError("there is a last try")


def _key(row: Any) -> Key:
    return Key(row["account_id"], row["queue_id"], row["recipient"])


# Patterns of LIKE -----------------------------------------------------------------------------------------------------


def _address_pattern(text: str | None) -> str | None:
    if not text or "@" in text:
        return None if text is None else _literally(text.lower())
    return f"%@{_domain_pattern(text)}"


def _domain_pattern(text: str) -> str:
    below, name = text.startswith("*."), text.removeprefix("*.")
    return f"%.{_literally(name.lower())}" if below else _literally(name.lower())


def _literally(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
