"""What people may do by themselves: make an account in a domain that is open for registration.

Names that speak for a system or a domain (RFC 2142, administrators) are refused, in any case and with any +tag, and so
is every address with a tag: it belongs to whoever has the address without it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Protocol

from mailserver.administration import Refused, refusing
from storage import Account, NotFound, Store, accounts, addresses, domains


class Closed(Refused):
    """The domain is not one where people register by themselves."""


class Taken(Refused):
    """An account has the address or the user name."""


class Passwords(Protocol):
    """The password check of the worker; see mailserver/login.py."""

    def weakness(self, password: str, own: Iterable[str]) -> str | None: ...

    async def hash_new(self, password: str, *, peer: str) -> str: ...


async def register(
    store: Store,
    passwords: Passwords,
    *,
    username: str,
    email: str,
    password: str,
    peer: str,
    reserved: Iterable[str],
) -> Account:
    """Makes the account. Closed, Taken, Refused; login.Throttled. peer: the client's address, for the throttle."""
    with refusing("email"):
        address = addresses.canonical(email)
    with refusing("username"):
        name = addresses.username(username)
    await _check_open(store, addresses.domain_of(address))
    _check_names(address, name, reserved)
    weakness = passwords.weakness(
        password, (address, name, addresses.local_text(address), addresses.domain_of(address))
    )
    if weakness is not None:
        raise Refused(f"the password is too weak: {weakness}", "password")
    await _check_free(store, address, name)
    with refusing("password"):
        hashed = await passwords.hash_new(password, peer=peer)
    return await _add(store, name, address, hashed)


async def _check_open(store: Store, domain: str) -> None:
    try:
        found = await domains.get(store, domain)
    except NotFound:
        found = None
    if found is None or found.registration != "open":
        raise Closed(f"nobody can register in {addresses.readable_domain(domain)}", "email")


def _check_names(address: str, name: str, reserved: Iterable[str]) -> None:
    refused = set(map(_folded, reserved))
    local = addresses.local_text(address)
    for field, text in (("email", local), ("username", name.partition("@")[0])):
        if _folded(text.partition("+")[0]) in refused:
            raise Refused(f"the name {text} is reserved", field)
    if "+" in local[1:]:
        raise Refused("an address with a +tag belongs to the one without it", "email")
    if "@" in name and name != address:
        raise Refused("a user name with an @ is the account's own address", "username")


def _folded(name: str) -> str:
    """Letters that look the same are the same here."""
    return unicodedata.normalize("NFKC", name).casefold()


async def _check_free(store: Store, address: str, name: str) -> None:
    """Before a password is hashed for nothing."""
    if await accounts.taken(store, [address]):
        raise Taken("the address exists already", "email")
    try:
        await accounts.find(store, name)
    except NotFound:
        return
    raise Taken("the user name exists already", "username")


async def _add(store: Store, name: str, address: str, hashed: str) -> Account:
    [outcome] = await accounts.add_many(store, [accounts.NewAccount(address, hashed, name)])
    if isinstance(outcome, Account):
        return outcome
    if isinstance(outcome, NotFound):
        raise Closed(str(outcome), "email") from outcome
    # Somebody else was quicker: then the address or the name is found now.
    await _check_free(store, address, name)
    raise outcome
