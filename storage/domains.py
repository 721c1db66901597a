"""Domains: the names this installation receives mail for."""

from __future__ import annotations

from typing import Any

from storage import addresses, directory
from storage.errors import AlreadyExists, NotAllowed, NotFound
from storage.records import Domain
from storage.store import Store

REGISTRATIONS = ("open", "closed")

_INSERT = "INSERT INTO domains (name, registration) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING name"
_GET = "SELECT name, registration FROM domains WHERE name = $1"
_LIST = "SELECT name, registration FROM domains ORDER BY name"
_SET_REGISTRATION = "UPDATE domains SET registration = $2 WHERE name = $1 RETURNING name"
_LOCK = "SELECT name FROM domains WHERE name = $1 FOR UPDATE"
_SHARE = "SELECT name FROM domains WHERE name = ANY($1::text[]) ORDER BY name FOR KEY SHARE"
_DELETE = "DELETE FROM domains WHERE name = $1"
_COUNTS = """
SELECT count(*) FILTER (WHERE kind = 'account'), count(*) FILTER (WHERE kind = 'alias') FROM addresses WHERE domain = $1
"""


async def add(store: Store, name: str, registration: str = "closed") -> Domain:
    """Makes the domain ours; AlreadyExists, ValueError."""
    made = Domain(addresses.domain(name), registration)
    async with store.transaction() as conn:
        if await conn.fetchval(_INSERT, made.name, registration) is None:
            raise AlreadyExists(f"the domain {made.name}")
        await directory.announce(conn, "directory")
    store.directory_cache.drop()
    return made


async def get(store: Store, name: str) -> Domain:
    """NotFound, ValueError."""
    folded = addresses.domain(name)
    async with store.acquire() as conn:
        row = await conn.fetchrow(_GET, folded)
    if row is None:
        raise NotFound(f"the domain {folded}")
    return Domain(*row)


async def list_all(store: Store) -> list[Domain]:
    async with store.acquire() as conn:
        return [Domain(*row) for row in await conn.fetch(_LIST)]


async def set_registration(store: Store, name: str, registration: str) -> None:
    """Opens or closes registration by anybody; NotFound, ValueError."""
    folded = addresses.domain(name)
    async with store.transaction() as conn:
        if await conn.fetchval(_SET_REGISTRATION, folded, registration) is None:
            raise NotFound(f"the domain {folded}")
        await directory.announce(conn, "directory")
    store.directory_cache.drop()


async def counts(store: Store, name: str) -> tuple[int, int]:
    """How many addresses of accounts, and how many aliases, a domain has."""
    async with store.acquire() as conn:
        accounts, aliases = await conn.fetchrow(_COUNTS, addresses.domain(name))
    return accounts, aliases


async def remove(store: Store, name: str) -> None:
    """Gives the domain up; NotFound, ValueError, NotAllowed while it has addresses."""
    folded = addresses.domain(name)
    async with store.transaction() as conn:
        # The lock first and the count in a statement after it: an address that was being added holds the row shared.
        if await conn.fetchval(_LOCK, folded) is None:
            raise NotFound(f"the domain {folded}")
        accounts, aliases = await conn.fetchrow(_COUNTS, folded)
        if accounts or aliases:
            raise NotAllowed(f"{folded} still has {accounts} addresses of accounts and {aliases} aliases")
        await conn.execute(_DELETE, folded)
        await directory.announce(conn, "directory")
    store.directory_cache.drop()


async def hold(conn: Any, names: set[str]) -> set[str]:
    """Keeps the domains from being removed until the transaction ends; those of `names` that are ours."""
    return {row["name"] for row in await conn.fetch(_SHARE, sorted(names))}
