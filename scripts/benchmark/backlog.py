"""A queue full of mail for a destination that nobody can reach, made by SQL as accepting it would have made it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from benchmark.errors import BenchError
from mailserver.cli.context import Given, node

_SECONDS = 120.0
_ACCOUNT = "SELECT account_id FROM addresses WHERE address = $1"
_FIRST = "SELECT coalesce(max(message_id), 0) + 1 FROM messages WHERE account_id = $1"
_FILL = (
    """
INSERT INTO messages (account_id, message_id, trace_id, header_prefix, size, header_octets, envelope, bodystructure,
    thread_id, sent, preview, created)
SELECT $1::bigint, $2::bigint + n, gen_random_uuid(), 'Received: x', 4096, 300, 'NIL', 'NIL', $2::bigint + n, 0, '', 0
FROM generate_series(0, $3::int - 1) n
""",
    """
INSERT INTO message_contents (account_id, message_id, codec, layout, octets)
SELECT $1::bigint, $2::bigint + n, 0, NULL, repeat(md5(n::text), 64)::bytea FROM generate_series(0, $3::int - 1) n
""",
    """
INSERT INTO queue_messages (account_id, queue_id, trace_id, reverse_path, header_prefix, open, created_at)
SELECT $1::bigint, $2::bigint + n, gen_random_uuid(), 'user@example.test', 'Received: x', 1, now()
FROM generate_series(0, $3::int - 1) n
""",
    """
INSERT INTO queue_recipients (account_id, queue_id, recipient, destination, state, next_attempt_at, act_by)
SELECT $1::bigint, $2::bigint + n, 'r' || n || '@' || $4::text, $4, 'waiting', now(), now() + interval '4 h'
FROM generate_series(0, $3::int - 1) n
""",
)
_TRIED = "SELECT EXISTS (SELECT FROM queue_recipients WHERE destination = $1 AND last_attempt IS NOT NULL)"
_EMPTY = """
WITH gone AS (DELETE FROM queue_recipients WHERE destination = $1 RETURNING account_id, queue_id),
    queued AS (DELETE FROM queue_messages q USING gone
        WHERE (q.account_id, q.queue_id) = (gone.account_id, gone.queue_id)),
    contents AS (DELETE FROM message_contents c USING gone
        WHERE (c.account_id, c.message_id) = (gone.account_id, gone.queue_id))
DELETE FROM messages m USING gone WHERE (m.account_id, m.message_id) = (gone.account_id, gone.queue_id)
"""


def fill(data: Path, settings: Path, owner: str, destination: str, count: int) -> None:
    """Returns when the destination has been tried once."""
    asyncio.run(_fill(data, settings, owner, destination, count))


def empty(data: Path, settings: Path, destination: str) -> None:
    asyncio.run(_empty(data, settings, destination))


async def _fill(data: Path, settings: Path, owner: str, destination: str, count: int) -> None:
    deadline = time.monotonic() + _SECONDS
    async with _connection(data, settings) as conn:
        account = await conn.fetchval(_ACCOUNT, owner)
        first = await conn.fetchval(_FIRST, account)
        async with conn.transaction():
            for sql in _FILL:
                values = (account, first, count, destination)
                await conn.execute(sql, *values[: 4 if "$4" in sql else 3])
        await conn.execute("VACUUM ANALYZE queue_recipients, queue_messages, messages, message_contents")
        while not await conn.fetchval(_TRIED, destination):
            if time.monotonic() > deadline:
                raise BenchError(f"nobody tries {destination}")
            await asyncio.sleep(0.5)


async def _empty(data: Path, settings: Path, destination: str) -> None:
    async with _connection(data, settings) as conn:
        await conn.execute(_EMPTY, destination)
        await conn.execute("VACUUM ANALYZE queue_recipients, queue_messages, messages, message_contents")


@asynccontextmanager
async def _connection(data: Path, settings: Path) -> AsyncIterator[Any]:
    async with node(Given(data, settings)) as found:
        conn = await asyncpg.connect(found.dsn, command_timeout=_SECONDS)
        try:
            yield conn
        finally:
            await conn.close()
