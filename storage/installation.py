"""What the database knows about the installation as a whole: fingerprints of its keys, and how it is replicated.

A node whose keys have other fingerprints would write what nobody else can read, so it must not start.
"""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from storage.connect import connect
from storage.store import serving

_ADD = "INSERT INTO install (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"
_GET = "SELECT value FROM install WHERE name = $1"
_STANDBYS = """
SELECT count(*) AS standbys, count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')) AS synchronous
FROM pg_stat_replication WHERE state = 'streaming'
"""

_NOT_SYNCHRONOUS = (
    "no standby replicates synchronously: a failover may lose mail that was acknowledged; set synchronous_standby_names"
)


class WrongKeys(Exception):
    """names: the keys that are not those of this database."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def fingerprint(name: str, key: bytes) -> str:
    """Tells keys apart and says nothing about them."""
    return hmac.digest(key, f"pillarbox {name} fingerprint".encode(), "sha256").hex()[:32]


async def claim(dsn: str, keys: Mapping[str, bytes]) -> None:
    """Leaves the fingerprints of the keys, or compares them with what others left. WrongKeys, Unavailable."""
    wrong = []
    for name, key in keys.items():
        mine = fingerprint(name, key)
        if await remember(dsn, f"{name}_fingerprint", mine) != mine:
            wrong.append(name)
    if wrong:
        raise WrongKeys(wrong)


async def remember(dsn: str, name: str, value: str) -> str:
    """Notes a value unless there is one already; the value that stands. Unavailable."""
    async with _connection(dsn) as conn:
        if await conn.fetchval(_GET, name) is None:
            await conn.execute(_ADD, name, value)
        return str(await conn.fetchval(_GET, name))


async def warnings(dsn: str) -> list[str]:
    """What is wrong with the database as a keeper of acknowledged mail. Unavailable."""
    async with _connection(dsn) as conn:
        row = await conn.fetchrow(_STANDBYS)
        if row["standbys"] and not row["synchronous"]:
            return [_NOT_SYNCHRONOUS]
        return []


@asynccontextmanager
async def _connection(dsn: str) -> AsyncIterator[Any]:
    with serving():
        conn = await connect(dsn, timeout=10, command_timeout=30)
        try:
            yield conn
        finally:
            conn.terminate()
