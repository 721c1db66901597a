"""Accounts of the directory: who there is, under which names, and with which password hash.

Creating: one transaction writes the directory rows; a second one for each account makes its mail state
(`ensure_state`), which is repeatable: a login, or adding the account again, makes good what a crash in between left
undone.

Removing: the directory row is marked 'removing', from when on nobody logs in and no mail comes; then the mail goes
(storage/removal.py), then the directory rows. Each step can be repeated after a crash. Ids are never given out again.

`version` rises with every change that must end sessions and cached logins; such a change is announced as "account",
every other one as "directory".
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from storage import addresses, directory, domains, mailboxes, removal
from storage.errors import AlreadyExists, LimitReached, NotAllowed, NotFound, StorageError
from storage.records import Account, AccountId, Login
from storage.store import Store

ROLES = ("superadmin", "domain_admin", "user", "service")

_COLUMNS = "c.account_id, c.username, c.primary_address, c.role, c.status, c.version"

_GET = f"SELECT {_COLUMNS}, c.password_hash FROM accounts c WHERE c.account_id = $1"
_BY_USERNAME = f"SELECT {_COLUMNS}, c.password_hash FROM accounts c WHERE c.username = $1"
_BY_ADDRESS = f"""
SELECT {_COLUMNS}, c.password_hash FROM addresses a JOIN accounts c ON c.account_id = a.account_id WHERE a.address = $1
"""
_LIST = f"SELECT {_COLUMNS} FROM accounts c WHERE c.account_id > $1 ORDER BY c.account_id LIMIT $2"
_LIST_OF_DOMAIN = f"""
SELECT {_COLUMNS} FROM accounts c
WHERE c.account_id > $1 AND c.account_id IN (SELECT a.account_id FROM addresses a WHERE a.domain = $3)
ORDER BY c.account_id LIMIT $2
"""
_ADDRESSES = "SELECT address FROM addresses WHERE account_id = $1 ORDER BY address"
_TAKEN = "SELECT address FROM addresses WHERE address = ANY($1::text[])"
_INSERT = """
INSERT INTO accounts (username, primary_address, role, password_hash)
SELECT n.username, n.primary_address, n.role, n.password_hash
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS n(username, primary_address, role, password_hash)
ON CONFLICT DO NOTHING RETURNING account_id, username, primary_address, role, status, version
"""
_INSERT_ADDRESSES = """
INSERT INTO addresses (address, domain, kind, account_id)
SELECT n.address, n.domain, 'account', n.account_id
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS n(address, domain, account_id)
ON CONFLICT DO NOTHING RETURNING address, account_id
"""
_DELETE_ADDRESS = "DELETE FROM addresses WHERE account_id = $1 AND address = $2 RETURNING address"
_DELETE_ADDRESSES = "DELETE FROM addresses WHERE account_id = ANY($1::bigint[])"
_DELETE = "DELETE FROM accounts WHERE account_id = ANY($1::bigint[])"
_LOCK = "SELECT username, primary_address FROM accounts WHERE account_id = $1 AND status <> 'removing' FOR UPDATE"
_SET_HASH = """
UPDATE accounts SET password_hash = $2, version = version + 1 WHERE account_id = $1 AND status <> 'removing'
RETURNING account_id
"""
_REPLACE_HASH = "UPDATE accounts SET password_hash = $3 WHERE account_id = $1 AND password_hash = $2"
_SET_STATUS = """
UPDATE accounts SET status = $2, version = version + 1 WHERE account_id = $1 AND status <> 'removing'
RETURNING account_id
"""
_SET_ROLE = """
UPDATE accounts SET role = $2, version = version + 1 WHERE account_id = $1 AND status <> 'removing'
RETURNING account_id
"""
_SHARE = "SELECT account_id FROM accounts WHERE account_id = $1 AND status <> 'removing' FOR SHARE"
_MARK = "UPDATE accounts SET status = 'removing', version = version + 1 WHERE account_id = $1 RETURNING account_id"
_OTHER_SUPERADMINS = """
SELECT count(*) FROM accounts WHERE role = 'superadmin' AND status = 'active' AND account_id <> $1
"""
_TARGETED = "DELETE FROM alias_targets WHERE target = ANY($1::text[]) RETURNING address"
_EMPTIED = """
DELETE FROM addresses a WHERE a.address = ANY($1::text[]) AND a.kind = 'alias'
    AND NOT EXISTS (SELECT 1 FROM alias_targets t WHERE t.address = a.address)
RETURNING a.address
"""


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to be made. username None: the local part, or the whole address where that is taken."""

    primary_address: str
    password_hash: str | None
    username: str | None = None
    role: str = "user"
    quota_octets: int = 0
    quota_messages: int = 0
    addresses: tuple[str, ...] = ()


async def add(
    store: Store,
    username: str | None,
    primary_address: str,
    password_hash: str | None,
    role: str = "user",
    quota_octets: int = 0,
    quota_messages: int = 0,
    further: Sequence[str] = (),
) -> Account:
    """Makes an account with its mailboxes.

    NotFound: a domain is not ours. AlreadyExists: an address or the username is taken. ValueError: one is malformed, or
    the username has an `@` and is none of the account's addresses.
    """
    new = NewAccount(primary_address, password_hash, username, role, quota_octets, quota_messages, tuple(further))
    [outcome] = await add_many(store, [new])
    if isinstance(outcome, Account):
        return outcome
    raise outcome


async def add_many(store: Store, wanted: Sequence[NewAccount]) -> list[Account | StorageError | ValueError]:
    """Makes many accounts, in one transaction for the directory; the outcome of each in the same order."""
    outcomes: list[Account | StorageError | ValueError] = []
    plans: list[_Plan] = []
    for new in wanted:
        try:
            plans.append(_plan(new, len(outcomes)))
            outcomes.append(AlreadyExists(new.primary_address))
        except ValueError as error:
            outcomes.append(error)
    async with store.transaction() as conn:
        for index, outcome in (await _insert_all(conn, plans)).items():
            outcomes[index] = outcome
        await directory.announce(conn, "directory")
    store.directory_cache.drop()
    made = [(outcome, new) for outcome, new in zip(outcomes, wanted, strict=True) if isinstance(outcome, Account)]
    await _make_states(store, made)
    return outcomes


@dataclass(slots=True)
class _Plan:
    """A checked NewAccount on its way in; index is its place in the caller's list."""

    index: int
    new: NewAccount
    addresses: list[str]
    usernames: list[str]
    account: Account | None = field(default=None)

    @property
    def domains(self) -> set[str]:
        return {addresses.domain_of(address) for address in self.addresses}


def _plan(new: NewAccount, index: int) -> _Plan:
    """Names in their stored form, and the usernames to try in turn; ValueError."""
    if new.role not in ROLES:
        raise ValueError(f"{new.role} is no role")
    own = list(dict.fromkeys(addresses.canonical(address) for address in (new.primary_address, *new.addresses)))
    if new.username is not None:
        name = addresses.username(new.username)
        if "@" in name and name not in own:
            raise ValueError(f"the user name {name} has an @ and is none of the account's addresses")
        return _Plan(index, new, own, [name])
    try:
        return _Plan(index, new, own, [addresses.username(addresses.local_text(own[0])), own[0]])
    except ValueError:
        return _Plan(index, new, own, [own[0]])


async def _insert_all(conn: Any, plans: list[_Plan]) -> dict[int, Account | StorageError]:
    """Inserts what can be; each refusal by its index. A plan that loses one of its names is taken back whole."""
    ours = await domains.hold(conn, {name for plan in plans for name in plan.domains})
    outcomes: dict[int, Account | StorageError] = {}
    going: list[_Plan] = []
    taken = {row["address"] for row in await conn.fetch(_TAKEN, [a for plan in plans for a in plan.addresses])}
    for plan in plans:
        foreign = sorted(plan.domains - ours)
        there = next((address for address in plan.addresses if address in taken), None)
        if foreign:
            outcomes[plan.index] = NotFound(f"the domain {foreign[0]}")
        elif there:
            outcomes[plan.index] = AlreadyExists(f"the address {there}")
        else:
            taken.update(plan.addresses)
            going.append(plan)
    await _insert_accounts(conn, going)
    for plan in going:
        if plan.account is None:
            outcomes[plan.index] = AlreadyExists(f"the user name {plan.usernames[0]}")
    made = [plan for plan in going if plan.account is not None]
    lost = await _insert_addresses(conn, made)
    for plan in made:
        assert plan.account is not None
        outcomes[plan.index] = lost.get(plan.account.account_id, plan.account)
    return outcomes


async def _insert_accounts(conn: Any, plans: list[_Plan]) -> None:
    """Gives each plan its account row, under the first of its usernames that is free."""
    for turn in range(2):
        open_plans: dict[str, _Plan] = {}
        for plan in plans:
            if plan.account is None and turn < len(plan.usernames):
                open_plans.setdefault(plan.usernames[turn], plan)
        if not open_plans:
            continue
        # Ascending, so that two that add the same names wait for each other and do not deadlock.
        names = sorted(open_plans)
        chosen = [open_plans[name] for name in names]
        rows = await conn.fetch(
            _INSERT,
            names,
            [plan.addresses[0] for plan in chosen],
            [plan.new.role for plan in chosen],
            [plan.new.password_hash for plan in chosen],
        )
        for row in rows:
            open_plans[row["username"]].account = _account(row)


async def _insert_addresses(conn: Any, plans: list[_Plan]) -> dict[int, StorageError]:
    """Writes the addresses; accounts that lost one to somebody else in this instant are taken back."""
    rows = sorted((a, plan.account.account_id) for plan in plans if plan.account for a in plan.addresses)
    if not rows:
        return {}
    names = [address for address, _ in rows]
    placed = await conn.fetch(
        _INSERT_ADDRESSES, names, [addresses.domain_of(name) for name in names], [owner for _, owner in rows]
    )
    missing = set(rows) - {(row["address"], row["account_id"]) for row in placed}
    lost: dict[int, StorageError] = {owner: AlreadyExists(f"the address {name}") for name, owner in missing}
    if lost:
        await conn.execute(_DELETE_ADDRESSES, list(lost))
        await conn.execute(_DELETE, list(lost))
    return lost


async def _make_states(store: Store, made: list[tuple[Account, NewAccount]]) -> None:
    """The second step, one transaction an account, few at a time so that other work finds connections."""
    slots = asyncio.Semaphore(max(1, store.config.pool_size - 1))

    async def make(account: Account, new: NewAccount) -> None:
        async with slots:
            await ensure_state(store, account.account_id, new.quota_octets, new.quota_messages)

    await asyncio.gather(*(make(account, new) for account, new in made))


async def ensure_state(store: Store, account_id: AccountId, quota_octets: int = 0, quota_messages: int = 0) -> bool:
    """Makes the mail state and mailboxes of an account that has none; did it? The quota counts only then.

    The directory row is held meanwhile, so that an account that is being removed gets no state back.
    """
    async with store.transaction() as conn:
        if await conn.fetchval(_SHARE, account_id) is None:
            return False
        return await mailboxes.insert_account_state(store, conn, account_id, quota_octets, quota_messages)


async def get(store: Store, account_id: AccountId) -> Account:
    """NotFound."""
    async with store.acquire() as conn:
        row = await conn.fetchrow(_GET, account_id)
    if row is None:
        raise NotFound(f"account {account_id}")
    return _account(row)


async def find(store: Store, name: str) -> Account:
    """The account with this username or address, in whatever status it is; NotFound."""
    row = await _row_of(store, name)
    if row is None:
        raise NotFound(f"the account {name}")
    return _account(row)


async def find_login(store: Store, name: str) -> Login | None:
    """What a password check needs, for the username or any address of an account; None where there is none."""
    row = await _row_of(store, name)
    if row is None or row["status"] == "removing":
        return None
    return Login(_account(row), row["password_hash"])


async def _row_of(store: Store, name: str) -> Any:
    try:
        key = addresses.username(name)
    except ValueError:
        return None
    async with store.acquire() as conn:
        # A username with an @ is one of its account's addresses, so one look-up finds either.
        return await conn.fetchrow(_BY_ADDRESS if "@" in key else _BY_USERNAME, key)


async def list_page(store: Store, *, domain: str | None = None, after: int = 0, limit: int = 1000) -> list[Account]:
    """Accounts in order of their ids, those behind `after`; domain: only those with an address in it."""
    async with store.acquire() as conn:
        if domain is None:
            rows = await conn.fetch(_LIST, after, limit)
        else:
            rows = await conn.fetch(_LIST_OF_DOMAIN, after, limit, addresses.domain(domain))
    return [_account(row) for row in rows]


async def list_all(store: Store, *, domain: str | None = None) -> list[Account]:
    found: list[Account] = []
    while page := await list_page(store, domain=domain, after=found[-1].account_id if found else 0):
        found += page
    return found


async def addresses_of(store: Store, account_id: AccountId) -> list[str]:
    """All addresses of an account, the primary one included."""
    async with store.acquire() as conn:
        return [row["address"] for row in await conn.fetch(_ADDRESSES, account_id)]


async def taken(store: Store, names: Sequence[str]) -> set[str]:
    """Which of these canonical addresses exist, as an account's or an alias."""
    async with store.acquire() as conn:
        return {row["address"] for row in await conn.fetch(_TAKEN, list(names))}


async def owns_address(store: Store, account_id: AccountId, address: str) -> bool:
    """May the account send as this address? It may as whatever routes to it alone, +tag included.

    Nobody owns what lies behind aliases that are nested too deep.
    """
    try:
        found = await directory.resolve(store, address)
    except LimitReached:
        return False
    return found.alone and found.accounts == (account_id,) and not found.remote


async def add_address(store: Store, account_id: AccountId, address: str) -> None:
    """NotFound (account, or a domain that is not ours), AlreadyExists, ValueError."""
    name = addresses.canonical(address)
    domain = addresses.domain_of(name)
    async with store.transaction() as conn:
        await _lock(conn, account_id)
        if not await domains.hold(conn, {domain}):
            raise NotFound(f"the domain {domain}")
        if not await conn.fetch(_INSERT_ADDRESSES, [name], [domain], [account_id]):
            raise AlreadyExists(f"the address {name}")
        await directory.announce(conn, "directory")
    store.directory_cache.drop()


async def remove_address(store: Store, account_id: AccountId, address: str) -> None:
    """NotFound, ValueError; NotAllowed for the primary address and for the one that is the username."""
    name = addresses.canonical(address)
    async with store.transaction() as conn:
        account = await _lock(conn, account_id)
        if name in (account["primary_address"], account["username"]):
            raise NotAllowed(f"{name} is the account's primary address or user name")
        if await conn.fetchval(_DELETE_ADDRESS, account_id, name) is None:
            raise NotFound(f"the address {name}")
        await directory.announce(conn, "directory")
    store.directory_cache.drop()


async def set_password_hash(store: Store, account_id: AccountId, password_hash: str | None) -> None:
    """A new password: sessions and cached logins end. NotFound."""
    await _change(store, account_id, _SET_HASH, password_hash)


async def replace_hash(store: Store, account_id: AccountId, old: str, new: str) -> None:
    """The same password hashed anew: nothing ends. Nothing happens where the password has changed meanwhile."""
    async with store.acquire() as conn:
        await conn.execute(_REPLACE_HASH, account_id, old, new)


async def set_status(store: Store, account_id: AccountId, status: str) -> None:
    """'active' or 'disabled': cannot log in or send, mail still arrives. NotFound."""
    await _change(store, account_id, _SET_STATUS, status)


async def set_role(store: Store, account_id: AccountId, role: str) -> None:
    """NotFound."""
    await _change(store, account_id, _SET_ROLE, role)


async def _change(store: Store, account_id: AccountId, statement: str, value: str | None) -> None:
    async with store.transaction() as conn:
        if await conn.fetchval(statement, account_id, value) is None:
            raise NotFound(f"account {account_id}")
        await directory.announce(conn, "account", account_id)
    store.directory_cache.drop()


async def other_superadmins(store: Store, account_id: AccountId) -> int:
    """How many active superadmins there are beside this account."""
    async with store.acquire() as conn:
        return int(await conn.fetchval(_OTHER_SUPERADMINS, account_id))


async def remove(store: Store, account_id: AccountId) -> list[str]:
    """Removes the account with all its mail; the aliases that led to it alone, which go with it. NotFound."""
    async with store.transaction() as conn:
        if await conn.fetchval(_MARK, account_id) is None:
            raise NotFound(f"account {account_id}")
        await directory.announce(conn, "account", account_id)
    store.directory_cache.drop()
    await removal.remove_mail(store, account_id)
    async with store.transaction() as conn:
        own = [row["address"] for row in await conn.fetch(_ADDRESSES, account_id)]
        pointing = sorted({row["address"] for row in await conn.fetch(_TARGETED, own)})
        emptied = [row["address"] for row in await conn.fetch(_EMPTIED, pointing)]
        await conn.execute(_DELETE_ADDRESSES, [account_id])
        await conn.execute(_DELETE, [account_id])
        await directory.announce(conn, "account", account_id)
    store.directory_cache.drop()
    return sorted(emptied)


async def _lock(conn: Any, account_id: int) -> Any:
    row = await conn.fetchrow(_LOCK, account_id)
    if row is None:
        raise NotFound(f"account {account_id}")
    return row


def _account(row: Any) -> Account:
    return Account(
        AccountId(row["account_id"]),
        row["username"],
        row["primary_address"],
        row["role"],
        row["status"],
        row["version"],
    )
