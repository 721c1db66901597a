"""Schema and SQL keep the rules that let them run unchanged on a database distributed by account_id.

The rules: an account's table has account_id first in every key; no foreign key or trigger; a write or lock names one
account; no array subscript or slice is assigned in SET; no volatile function and no reading of the clock with a
column in an UPDATE or DELETE.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

import asyncpg
import pytest

import storage
from storage import membership

DIRECTORY = {
    "install", "domains", "accounts", "addresses", "alias_targets", "schema_migrations", "migrations", "signing_keys",
}  # fmt: skip
"""Reference tables: global uniqueness lives there."""


def constants() -> list[tuple[str, str]]:
    """Every SQL statement that a storage module holds, by name."""
    found = {}
    for info in pkgutil.iter_modules(storage.__path__):
        module = importlib.import_module(f"storage.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, str) and re.match(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b", value):
                found.setdefault(value, f"{info.name}.{name}")
    return [(name, sql) for sql, name in found.items()]


CONSTANTS = constants()
ACCOUNT_TABLES = (
    "account_state", "mailboxes", "subscriptions", "mailbox_pages", "messages", "message_contents", "blob_refs",
    "vanished", "thread_refs", "queue_messages", "queue_recipients", "acl", "shared_with",
    "contacts", "revoked_tokens", "idempotency_keys",
)  # fmt: skip


def breaks(sql: str) -> list[str]:
    """The rules that a statement breaks."""
    text = re.sub(r"\s+", " ", sql)
    touched = [table for table in ACCOUNT_TABLES if re.search(rf"(UPDATE|INTO|FROM|JOIN) {table}\b", text)]
    writes = re.search(r"\b(UPDATE|DELETE|INSERT)\b", text.replace("FOR UPDATE", "").replace("DO UPDATE", ""))
    locks = "FOR UPDATE" in text
    problems = []
    if touched and (writes or locks) and not re.search(r"account_id = \$1|(VALUES \(|SELECT )\$1", text):
        problems.append("a write or lock must name one account")
    if re.search(r"\bSET\b[^;]*?[\w\]]+ = [\w.]+\[", text):
        problems.append("an array subscript is assigned in SET")
    if touched and re.search(r"\b(UPDATE \w+|DELETE FROM)\b", text):
        if re.search(r"clock_timestamp|random\(|nextval|gen_random_uuid", text):
            problems.append("a volatile function in UPDATE or DELETE")
        if re.search(r"now\(\) ?[-+]|[-+] ?now\(\)|interval", text, re.IGNORECASE):
            problems.append("clock arithmetic in UPDATE or DELETE")
    return problems


@pytest.mark.parametrize(("name", "sql"), CONSTANTS, ids=[name for name, _ in CONSTANTS])
def test_statement_keeps_the_rules(name: str, sql: str) -> None:
    assert breaks(sql) == []


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE mailboxes SET messages = 0",
        "INSERT INTO messages (account_id, message_id) SELECT u.a, u.m FROM unnest($1::bigint[], $2::bigint[]) AS u",
        "SELECT 1 FROM account_state WHERE account_id = ANY($1) FOR UPDATE",
        "UPDATE mailbox_pages SET uids = uids[1:2] WHERE account_id = $1",
        "UPDATE mailboxes SET deleted_at = now() - $2 WHERE account_id = $1",
        "DELETE FROM messages WHERE account_id = $1 AND message_id < random()",
    ],
)
def test_a_broken_rule_is_found(sql: str) -> None:
    assert breaks(sql)


async def test_every_statement_prepares(database: str) -> None:
    conn = await asyncpg.connect(database)
    problems = []
    for name, sql in CONSTANTS:
        try:
            await conn.prepare(sql)
        except asyncpg.PostgresError as error:
            problems.append(f"{name}: {error}")
    await conn.close()
    assert problems == [] and len(CONSTANTS) > 50


async def test_catalogue(database: str) -> None:
    conn = await asyncpg.connect(database)
    keys = await conn.fetch("""
        SELECT c.relname AS name, i.indexrelid::regclass::text AS index, i.indisprimary AS is_primary,
            (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = i.indkey[0]) AS first
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique
    """)
    tables = {row[0] for row in await conn.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    account_tables = tables - DIRECTORY
    assert account_tables == set(ACCOUNT_TABLES)
    assert {row["name"] for row in keys if row["is_primary"]} >= account_tables
    assert [row["index"] for row in keys if row["name"] in account_tables and row["first"] != "account_id"] == []
    assert await conn.fetchval("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == 0
    assert await conn.fetchval("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == 0
    storage_of = dict(
        await conn.fetch(
            "SELECT attname::text, attstorage::text FROM pg_attribute WHERE attrelid = 'mailbox_pages'::regclass"
        )
    )
    compression = (
        "SELECT DISTINCT attcompression FROM pg_attribute WHERE atttypid = 'bytea'::regtype "
        "AND attrelid IN ('mailbox_pages'::regclass, 'vanished'::regclass)"
    )
    assert [row[0] for row in await conn.fetch(compression)] == [b"l"]
    assert {storage_of[c] for c in membership.NAMES} == {"m"}
    await conn.close()
