"""Accounts: making, changing and removing them.

An administrator may set any password; a weak one is reported. Whoever changes a password, disables or removes an
account ends its sessions and cached logins on all workers: storage announces it in the same transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailserver import passwords
from mailserver.administration import Refused, refusing
from mailserver.passwords import Hasher
from storage import Account, AlreadyExists, NotFound, Quota, Store, accounts, addresses, mailboxes

MAX_QUOTA_OCTETS = 2**62


@dataclass(frozen=True, slots=True)
class Wish:
    """An account that is asked for. password and password_hash None: one is made up."""

    address: str
    username: str | None = None
    password: str | None = None
    password_hash: str | None = None
    role: str = "user"
    quota_octets: int = 0
    quota_messages: int = 0
    further: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Added:
    """created False: the account was there, and was left as it is. password: the one that was made up."""

    account: Account
    created: bool
    password: str | None = None
    weakness: str | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of setting a password."""

    account: Account
    password: str | None = None
    weakness: str | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    account: Account
    addresses: list[str]
    quota: Quota | None


@dataclass(frozen=True, slots=True)
class Removed:
    """aliases: those that led to this account alone, and went with it."""

    account: Account
    aliases: list[str] = field(default_factory=list)


async def add(store: Store, hasher: Hasher, wish: Wish) -> Added:
    """Makes an account with its mailboxes."""
    check_quota(wish.quota_octets, wish.quota_messages)
    if wish.role not in accounts.ROLES:
        raise Refused(f"a role is one of {', '.join(accounts.ROLES)}", "role")
    with refusing("address"):
        address = addresses.canonical(wish.address)
        there = await _existing(store, address, wish)
    if there is not None:
        return Added(there, created=False)
    chosen = await _choose(hasher, wish.password, wish.password_hash, _own_names(address, wish.username))
    with refusing("address"):
        try:
            account = await accounts.add(
                store,
                wish.username,
                address,
                chosen.hashed,
                wish.role,
                wish.quota_octets,
                wish.quota_messages,
                wish.further,
            )
        except AlreadyExists:
            # Somebody else may have made the same account in this instant.
            there = await _existing(store, address, wish)
            if there is None:
                raise
            return Added(there, created=False)
    return Added(account, created=True, password=chosen.generated, weakness=chosen.weakness)


async def find(store: Store, name: str) -> Account:
    """By username or any address."""
    with refusing("name"):
        return await accounts.find(store, name)


async def show(store: Store, name: str) -> Shown:
    account = await find(store, name)
    try:
        quota = await mailboxes.quota(store, account.account_id)
    except NotFound:
        quota = None
    return Shown(account, await accounts.addresses_of(store, account.account_id), quota)


async def list_all(store: Store, domain: str | None = None) -> list[Account]:
    with refusing("domain"):
        return await accounts.list_all(store, domain=domain)


async def set_password(
    store: Store, hasher: Hasher, name: str, password: str | None = None, password_hash: str | None = None
) -> Changed:
    """A new password; one is made up where none is given."""
    account = await _present(store, name)
    chosen = await _choose(hasher, password, password_hash, _own_names(account.primary_address, account.username))
    with refusing("name"):
        await accounts.set_password_hash(store, account.account_id, chosen.hashed)
    return Changed(account, chosen.generated, chosen.weakness)


async def set_enabled(store: Store, name: str, enabled: bool) -> tuple[Account, bool]:
    """Lets the account in again, or keeps it out while its mail still arrives; was anything changed?"""
    account = await _present(store, name)
    status = "active" if enabled else "disabled"
    if account.status == status:
        return account, False
    if not enabled:
        await _keep_one_superadmin(store, account)
    with refusing("name"):
        await accounts.set_status(store, account.account_id, status)
        return await accounts.get(store, account.account_id), True


async def set_role(store: Store, name: str, role: str) -> tuple[Account, bool]:
    if role not in accounts.ROLES:
        raise Refused(f"a role is one of {', '.join(accounts.ROLES)}", "role")
    account = await _present(store, name)
    if account.role == role:
        return account, False
    await _keep_one_superadmin(store, account)
    with refusing("name"):
        await accounts.set_role(store, account.account_id, role)
        return await accounts.get(store, account.account_id), True


async def set_quota(store: Store, name: str, octets: int | None, messages: int | None) -> Quota:
    """0: no limit; None: as it is. What is there already stays, however much it is."""
    account = await _present(store, name)
    check_quota(octets or 0, messages or 0)
    with refusing("name"):
        await accounts.ensure_state(store, account.account_id)
        now = await mailboxes.quota(store, account.account_id)
        await mailboxes.set_quota(
            store,
            account.account_id,
            now.quota_octets if octets is None else octets,
            now.quota_messages if messages is None else messages,
        )
        return await mailboxes.quota(store, account.account_id)


async def add_address(store: Store, name: str, address: str) -> bool:
    """Gives the account a further address; False: it has it already."""
    account = await _present(store, name)
    with refusing("address"):
        try:
            await accounts.add_address(store, account.account_id, address)
        except AlreadyExists:
            if addresses.canonical(address) not in await accounts.addresses_of(store, account.account_id):
                raise
            return False
    return True


async def remove_address(store: Store, name: str, address: str) -> None:
    account = await _present(store, name)
    with refusing("address"):
        await accounts.remove_address(store, account.account_id, address)


async def remove(store: Store, name: str) -> Removed:
    """Removes the account with all its mail. May be repeated after a failure on the way."""
    account = await find(store, name)
    if account.status == "active":
        await _keep_one_superadmin(store, account)
    with refusing("name"):
        return Removed(account, await accounts.remove(store, account.account_id))


def check_quota(octets: int, messages: int) -> None:
    if not 0 <= octets <= MAX_QUOTA_OCTETS:
        raise Refused("a quota is 0 (none) or a number of MiB", "quota")
    if not 0 <= messages <= MAX_QUOTA_OCTETS:
        raise Refused("a quota of messages is 0 (none) or more", "quota_messages")


async def _existing(store: Store, address: str, wish: Wish) -> Account | None:
    """The account that is meant, where it is there already; its mail state is made good if a crash left it unmade."""
    try:
        account = await accounts.find(store, address)
    except NotFound:
        return None
    if account.status == "removing":
        raise Refused(f"the account {account.username} is being removed; remove it again to finish that", "address")
    if wish.username is not None and addresses.username(wish.username) != account.username:
        raise Refused(f"{address} belongs to the account {account.username}", "username")
    await accounts.ensure_state(store, account.account_id, wish.quota_octets, wish.quota_messages)
    return account


async def _present(store: Store, name: str) -> Account:
    account = await find(store, name)
    if account.status == "removing":
        raise Refused(f"the account {account.username} is being removed", "name")
    return account


async def _keep_one_superadmin(store: Store, account: Account) -> None:
    if account.role != "superadmin" or account.status != "active":
        return
    if not await accounts.other_superadmins(store, account.account_id):
        raise Refused("this is the last active superadmin; make another one first", "name")


@dataclass(frozen=True, slots=True)
class _Chosen:
    hashed: str
    generated: str | None
    weakness: str | None


async def _choose(hasher: Hasher, password: str | None, password_hash: str | None, own: Sequence[str]) -> _Chosen:
    """The hash to store: of the password given, or as given, or of one that is made up."""
    with refusing("password"):
        if password_hash is not None:
            hashed = passwords.imported(password_hash)
            if hashed is None:
                raise ValueError("a password hash begins with {ARGON2ID}, {BCRYPT} or {SHA512-CRYPT}")
            return _Chosen(hashed, None, None)
        if password == "":
            raise ValueError("the password is empty")
        generated = None if password is not None else passwords.generate()
        text = password if password is not None else str(generated)
        hashed = await asyncio.to_thread(hasher.hash, text)
        return _Chosen(hashed, generated, None if generated else hasher.weakness(text, own))


def _own_names(address: str, username: str | None) -> list[str]:
    return [address, addresses.local_text(address), addresses.domain_of(address), *([username] if username else [])]
