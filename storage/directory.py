"""Where an address leads: accounts of ours, addresses elsewhere, or nowhere.

An address is looked up in this order, and the first that is there counts:

1. the address itself, an account's or an alias;
2. the address without its +tag;
3. for postmaster and abuse of any of our domains, the first active superadmin (RFC 5321 §4.5.1, RFC 2142);
4. the catch-all of its domain.

An alias is followed to its targets, each of which is looked up in the same way; one query a level. A target that was
seen already is not followed again, so loops end; depth and number of addresses are bounded (LimitReached). An account
that is being removed counts as not there. Targets of ours that lead nowhere are left out; where nothing is left the
address is unknown.

Results are kept per process: every change of the directory drops them all, by its notice and at once in the process
that made it, a feed that was broken drops them when it is back, and they age out in any case. Loads of one address
that run at the same time are one load; a load that was running when the cache was dropped is answered but not kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from storage import addresses, changes
from storage.errors import LimitReached
from storage.records import AccountId, Notice
from storage.store import Store

CACHE_SECONDS = 60.0
CACHE_ENTRIES = 20_000
MAX_DEPTH = 20
MAX_ADDRESSES = 10_000
"""How many addresses one address may expand to, those on the way included."""

TO_ADMINISTRATOR = ("postmaster", "abuse")

_FIND = """
SELECT a.address, a.account_id, c.status,
    ARRAY(SELECT t.target FROM alias_targets t WHERE t.address = a.address ORDER BY t.target) AS targets
FROM addresses a LEFT JOIN accounts c ON c.account_id = a.account_id
WHERE a.address = ANY($1::text[])
"""
_OURS = "SELECT name FROM domains WHERE name = ANY($1::text[])"
_SUPERADMIN = """
SELECT account_id FROM accounts WHERE role = 'superadmin' AND status = 'active' ORDER BY account_id LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Resolved:
    """accounts: sorted, each once. remote: outside targets of aliases, for the queue; empty where status is not "ok".

    alone: neither a catch-all nor an alias of several targets was on the way, so a single account that comes out owns
    the address.
    """

    accounts: tuple[AccountId, ...]
    remote: tuple[str, ...]
    status: Literal["ok", "unknown", "not_ours"]
    alone: bool = False


UNKNOWN = Resolved((), (), "unknown")
NOT_OURS = Resolved((), (), "not_ours")


async def resolve(store: Store, address: str) -> Resolved:
    """Where mail for the address goes. A bare `postmaster` is the administrator (RFC 5321 §4.1.1.3). LimitReached."""
    return await store.directory_cache.get(address, lambda: _resolve(store, address))


async def announce(conn: Any, kind: str, account_id: int = 0) -> None:
    """Tells all processes when the transaction commits.

    "directory": addresses, aliases or domains changed. "account": the account's sessions and cached logins must end.
    """
    await changes.notify(conn, Notice(kind, AccountId(account_id)))


class DirectoryCache:
    """Results of `resolve` in one process, least recently used first out."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[float, Resolved]] = {}
        self._loads: dict[str, asyncio.Task[Resolved]] = {}
        self._tasks: set[asyncio.Task[Resolved]] = set()
        store.changes.listen(self._hear)

    async def get(self, key: str, load: Callable[[], Awaitable[Resolved]]) -> Resolved:
        kept = self._kept.pop(key, None)
        if kept is not None and kept[0] > self._clock():
            self._kept[key] = kept
            return kept[1]
        task = self._loads.get(key)
        if task is None:
            task = self._loads[key] = asyncio.ensure_future(self._load(key, load))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        # Shielded: a caller that goes away must not fail the others that wait for the same load.
        return await asyncio.shield(task)

    def drop(self) -> None:
        """Forgets everything, and what is being loaded as well."""
        self._kept.clear()
        self._loads.clear()

    async def _load(self, key: str, load: Callable[[], Awaitable[Resolved]]) -> Resolved:
        me = asyncio.current_task()
        try:
            found = await load()
            if self._loads.get(key) is me:
                self._keep(key, found)
            return found
        finally:
            if self._loads.get(key) is me:
                del self._loads[key]

    def _keep(self, key: str, found: Resolved) -> None:
        if len(self._kept) >= CACHE_ENTRIES:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (self._clock() + CACHE_SECONDS, found)

    def _hear(self, notice: Notice) -> None:
        if notice.kind in ("directory", "account", "resync"):
            self.drop()


async def _resolve(store: Store, address: str) -> Resolved:
    async with store.acquire() as conn:
        if address.lower() == "postmaster":
            superadmin = await conn.fetchval(_SUPERADMIN)
            return UNKNOWN if superadmin is None else Resolved((AccountId(superadmin),), (), "ok", alone=True)
        try:
            wanted = addresses.canonical(address)
        except ValueError:
            return UNKNOWN
        return await _expand(conn, wanted)


@dataclass(frozen=True, slots=True)
class _Found:
    """One address looked up: an account, or an alias and its targets, or nothing."""

    account_id: int | None = None
    targets: tuple[str, ...] = ()
    ours: bool = True
    by_catch_all: bool = False


@dataclass(slots=True)
class _Walk:
    """What an expansion has met so far."""

    accounts: set[int] = field(default_factory=set)
    remote: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    alone: bool = True

    def take(self, address: str, spelling: str, found: _Found) -> None:
        if not found.ours:
            self.remote[address] = spelling
        if found.account_id is not None:
            self.accounts.add(found.account_id)
        if found.by_catch_all or len(found.targets) > 1:
            self.alone = False

    def result(self) -> Resolved:
        if not (self.accounts or self.remote):
            return UNKNOWN
        accounts = tuple(AccountId(account_id) for account_id in sorted(self.accounts))
        return Resolved(accounts, tuple(sorted(self.remote.values())), "ok", self.alone)


async def _expand(conn: Any, wanted: str) -> Resolved:
    walk = _Walk(seen={wanted})
    level = {wanted: wanted}
    for depth in range(MAX_DEPTH):
        found = await _look_up(conn, level)
        if depth == 0 and not found[wanted].ours:
            return NOT_OURS
        targets: dict[str, str] = {}
        for address, spelling in level.items():
            walk.take(address, spelling, found[address])
            targets.update((addresses.canonical(target), target) for target in found[address].targets)
        level = {address: spelling for address, spelling in targets.items() if address not in walk.seen}
        walk.seen.update(level)
        if not level:
            return walk.result()
        if len(walk.seen) > MAX_ADDRESSES:
            raise LimitReached(f"{wanted} leads to more than {MAX_ADDRESSES} addresses")
    raise LimitReached(f"aliases behind {wanted} are nested deeper than {MAX_DEPTH}")


async def _look_up(conn: Any, wanted: dict[str, str]) -> dict[str, _Found]:
    """Each address of one level; one query where all are there."""
    candidates = {address: _candidates(address) for address in wanted}
    names = sorted({name for group in candidates.values() for name in group})
    rows = {row["address"]: row for row in await conn.fetch(_FIND, names) if row["status"] != "removing"}
    found = {}
    for address, group in candidates.items():
        hit = next((name for name in group if name in rows), None)
        if hit is not None and not (hit[0] == "@" and _for_administrator(address)):
            row = rows[hit]
            found[address] = _Found(row["account_id"], tuple(row["targets"]), by_catch_all=hit[0] == "@")
    missing = [address for address in wanted if address not in found]
    return {**found, **(await _look_further(conn, missing, rows) if missing else {})}


async def _look_further(conn: Any, missing: list[str], rows: dict[str, Any]) -> dict[str, _Found]:
    """Addresses without a row of their own: outside, the administrator's, or nobody's."""
    domains = sorted({addresses.domain_of(address) for address in missing})
    ours = {row["name"] for row in await conn.fetch(_OURS, domains)}
    found = {address: _Found(ours=addresses.domain_of(address) in ours) for address in missing}
    for address in missing:
        if found[address].ours and _for_administrator(address):
            found[address] = await _administrator(conn, address, rows)
    return found


async def _administrator(conn: Any, address: str, rows: dict[str, Any]) -> _Found:
    superadmin = await conn.fetchval(_SUPERADMIN)
    if superadmin is not None:
        return _Found(superadmin)
    row = rows.get(addresses.catch_all(addresses.domain_of(address)))
    return _Found() if row is None else _Found(row["account_id"], tuple(row["targets"]), by_catch_all=True)


def _candidates(address: str) -> tuple[str, ...]:
    return address, addresses.without_tag(address), addresses.catch_all(addresses.domain_of(address))


def _for_administrator(address: str) -> bool:
    return addresses.without_tag(address).rpartition("@")[0] in TO_ADMINISTRATOR
