"""Brings the schema up to date: numbered SQL files, forward only.

`migrations/NNNN_name.sql` are applied in the order of their numbers, each in one transaction with its row in
`schema_migrations`, so a crash leaves a file applied whole or not at all. An advisory lock lets one process at a time
do it; the others wait and find nothing left. A file that was applied may not change any more: its checksum is kept. A
database that knows a file we do not have belongs to a newer program and is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from storage.connect import connect
from storage.errors import Unavailable
from storage.store import is_unavailable, serving

FOLDER = Path(__file__).parent / "migrations"
LOCK = 0x50424D49  # any number, as long as all of us take the same
LOCK_SECONDS = 300.0

_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     int PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_LOCK = "SELECT pg_advisory_lock($1)"
_APPLIED = "SELECT number, name, checksum FROM schema_migrations ORDER BY number"
_ADD = "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)"
_VERSION = "SELECT current_setting('server_version_num')::int"
OLDEST_SERVER = 150_000


class MigrationError(Exception):
    """The schema cannot be brought up to date; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


async def migrate(dsn: str, known: Sequence[Migration] | None = None) -> list[str]:
    """Applies what is missing; the names of what was applied. MigrationError, Unavailable.

    known: what `migrations` has read, for a process that cannot read our files any more.
    """
    if known is None:
        known = migrations()
    conn = await _connect(dsn)
    try:
        with serving():
            # The lock goes with the session, so a process that dies here hinders nobody.
            await conn.execute(_LOCK, LOCK, timeout=LOCK_SECONDS)
            await conn.execute(_TABLE)
            missing = _missing(known, await conn.fetch(_APPLIED))
            for migration in missing:
                await _apply(conn, migration)
            return [migration.name for migration in missing]
    finally:
        conn.terminate()


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """All files, in order. MigrationError where two have the same number."""
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        number, _, rest = path.stem.partition("_")
        if not number.isdigit() or not rest:
            raise MigrationError(f"{path.name} is not named NNNN_name.sql")
        if int(number) in found:
            raise MigrationError(f"{path.name} and {found[int(number)].name}.sql have the same number")
        found[int(number)] = Migration(int(number), path.stem, path.read_text(encoding="utf-8"))
    return [found[number] for number in sorted(found)]


async def _connect(dsn: str) -> Any:
    try:
        conn = await connect(dsn, timeout=10, server_settings={"application_name": "pillarbox migrate"})
    except Exception as error:
        if is_unavailable(error):
            raise Unavailable(f"the database does not answer: {error}") from error
        raise MigrationError(f"the database refuses: {error}") from error
    version = await conn.fetchval(_VERSION)
    if version < OLDEST_SERVER:
        conn.terminate()
        raise MigrationError(f"PostgreSQL {version // 10_000} is too old; {OLDEST_SERVER // 10_000} or newer is needed")
    return conn


def _missing(known: Sequence[Migration], applied: list[Any]) -> list[Migration]:
    by_number = {migration.number: migration for migration in known}
    for row in applied:
        migration = by_number.pop(row["number"], None)
        if migration is None:
            raise MigrationError(
                f"the database has {row['name']}, which this version of Pillarbox does not know: it was brought up to "
                "date by a newer version; use that one"
            )
        if migration.checksum != row["checksum"]:
            raise MigrationError(f"{migration.name} was changed after it had been applied to this database")
    last = max((row["number"] for row in applied), default=0)
    late = [migration.name for number, migration in by_number.items() if number < last]
    if late:
        raise MigrationError(f"{', '.join(late)} came too late: the database is already at number {last}")
    return [by_number[number] for number in sorted(by_number)]


async def _apply(conn: Any, migration: Migration) -> None:
    try:
        async with conn.transaction():
            await conn.execute(migration.text, timeout=3600)
            await conn.execute(_ADD, migration.number, migration.name, migration.checksum)
    except asyncpg.PostgresError as error:
        raise MigrationError(f"{migration.name}: {error}") from error
