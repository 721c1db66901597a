"""Domains that this installation receives mail for."""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.administration import Refused, refusing
from storage import AlreadyExists, Store, addresses, domains
from storage.records import Domain


@dataclass(frozen=True, slots=True)
class Added:
    """created: it was not there before. changed: it was, and its registration was set to what was asked for."""

    domain: Domain
    created: bool
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """A domain and how many addresses of accounts and aliases are in it."""

    domain: Domain
    readable: str
    addresses: int
    aliases: int


async def add(store: Store, name: str, registration: str | None = None) -> Added:
    """Makes the domain ours. registration None: closed, and left alone where the domain exists."""
    if registration is not None and registration not in domains.REGISTRATIONS:
        raise Refused("registration is open or closed", "registration")
    with refusing("name"):
        if addresses.domain(name).startswith("["):
            raise ValueError("an address literal cannot be a domain of ours")
        try:
            return Added(await domains.add(store, name, registration or "closed"), created=True)
        except AlreadyExists:
            there = await domains.get(store, name)
        if registration in (None, there.registration):
            return Added(there, created=False)
        await domains.set_registration(store, name, str(registration))
        return Added(await domains.get(store, name), created=False, changed=True)


async def show(store: Store, name: str) -> Shown:
    with refusing("name"):
        domain = await domains.get(store, name)
        accounts, aliases = await domains.counts(store, name)
    return Shown(domain, addresses.readable_domain(domain.name), accounts, aliases)


async def list_all(store: Store) -> list[Domain]:
    return await domains.list_all(store)


async def remove(store: Store, name: str) -> None:
    """Refused while accounts or aliases have addresses in it."""
    with refusing("name"):
        await domains.remove(store, name)
