"""Aliases: addresses of ours that lead to other addresses, here or elsewhere. A catch-all is the alias `@domain`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage import addresses, directory, domains
from storage.errors import AlreadyExists, LimitReached, NotFound
from storage.store import Store

MAX_TARGETS = 1000

_INSERT = """
INSERT INTO addresses (address, domain, kind) VALUES ($1, $2, 'alias') ON CONFLICT DO NOTHING RETURNING address
"""
_LOCK = "SELECT kind FROM addresses WHERE address = $1 FOR UPDATE"
_INSERT_TARGETS = """
INSERT INTO alias_targets (address, target) SELECT $1::text, n.target FROM unnest($2::text[]) AS n(target)
ON CONFLICT DO NOTHING RETURNING target
"""
_TARGETS = "SELECT target FROM alias_targets WHERE address = $1 ORDER BY target"
_DELETE_TARGETS = "DELETE FROM alias_targets WHERE address = $1 AND target = ANY($2::text[])"
_DELETE = "DELETE FROM addresses WHERE address = $1"
_LIST = """
SELECT a.address, ARRAY(SELECT t.target FROM alias_targets t WHERE t.address = a.address ORDER BY t.target) AS targets
FROM addresses a WHERE a.kind = 'alias' AND a.address > $1 ORDER BY a.address LIMIT $2
"""
_LIST_OF_DOMAIN = """
SELECT a.address, ARRAY(SELECT t.target FROM alias_targets t WHERE t.address = a.address ORDER BY t.target) AS targets
FROM addresses a WHERE a.kind = 'alias' AND a.domain = $3 AND a.address > $1 ORDER BY a.address LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Alias:
    address: str
    targets: tuple[str, ...]


async def add(store: Store, address: str, targets: Sequence[str]) -> tuple[str, ...]:
    """Makes the alias, or adds targets to it; those that were not there before.

    NotFound: the domain is not ours. AlreadyExists: the address is an account's. LimitReached, ValueError.
    """
    if not targets:
        raise ValueError("an alias needs a target")
    name = addresses.pattern(address)
    domain = addresses.domain_of(name)
    async with store.transaction() as conn:
        wanted = await _stored_targets(conn, targets)
        if not await domains.hold(conn, {domain}):
            raise NotFound(f"the domain {domain}")
        await conn.fetchval(_INSERT, name, domain)
        if await conn.fetchval(_LOCK, name) != "alias":
            raise AlreadyExists(f"{name} as an account's address")
        added = [row["target"] for row in await conn.fetch(_INSERT_TARGETS, name, wanted)]
        if len(await conn.fetch(_TARGETS, name)) > MAX_TARGETS:
            raise LimitReached(f"an alias has at most {MAX_TARGETS} targets")
        await directory.announce(conn, "directory")
    store.directory_cache.drop()
    return tuple(sorted(added))


async def get(store: Store, address: str) -> Alias:
    """NotFound, ValueError."""
    name = addresses.pattern(address)
    async with store.acquire() as conn:
        targets = await conn.fetch(_TARGETS, name)
    if not targets:
        raise NotFound(f"the alias {name}")
    return Alias(name, tuple(row["target"] for row in targets))


async def list_page(store: Store, *, domain: str | None = None, after: str = "", limit: int = 1000) -> list[Alias]:
    """Aliases by address, those behind `after`."""
    async with store.acquire() as conn:
        if domain is None:
            rows = await conn.fetch(_LIST, after, limit)
        else:
            rows = await conn.fetch(_LIST_OF_DOMAIN, after, limit, addresses.domain(domain))
    return [Alias(row["address"], tuple(row["targets"])) for row in rows]


async def list_all(store: Store, *, domain: str | None = None) -> list[Alias]:
    found: list[Alias] = []
    while page := await list_page(store, domain=domain, after=found[-1].address if found else ""):
        found += page
    return found


async def remove(store: Store, address: str, targets: Sequence[str] = ()) -> tuple[str, ...]:
    """Takes these targets away, or all; with its last target the alias goes. NotFound, ValueError."""
    name = addresses.pattern(address)
    async with store.transaction() as conn:
        if await conn.fetchval(_LOCK, name) != "alias":
            raise NotFound(f"the alias {name}")
        there = [row["target"] for row in await conn.fetch(_TARGETS, name)]
        going = _matching(there, targets) if targets else there
        await conn.execute(_DELETE_TARGETS, name, going)
        if len(going) == len(there):
            await conn.execute(_DELETE, name)
        await directory.announce(conn, "directory")
    store.directory_cache.drop()
    return tuple(going)


def _matching(there: list[str], targets: Sequence[str]) -> list[str]:
    """The stored targets that are meant, however they are spelled; NotFound where one is not there."""
    stored = {addresses.canonical(target): target for target in there}
    meant = dict.fromkeys(addresses.canonical(target) for target in targets)
    for target in meant:
        if target not in stored:
            raise NotFound(f"the target {target}")
    return [stored[target] for target in meant]


async def _stored_targets(conn: Any, targets: Sequence[str]) -> list[str]:
    """Targets as they are stored: canonical in our domains, elsewhere with the local part as it is spelled."""
    spelled = [addresses.spelled(target) for target in targets]
    ours = await domains.hold(conn, {addresses.domain_of(target) for target in spelled})
    kept = {addresses.canonical(t) if addresses.domain_of(t) in ours else t for t in spelled}
    return sorted(kept)
