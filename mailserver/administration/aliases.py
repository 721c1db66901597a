"""Aliases: addresses that lead to others, here or elsewhere; `@domain` catches what nobody else has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mailserver.administration import Refused, refusing
from storage import LimitReached, Store, addresses, aliases, directory
from storage.aliases import Alias


@dataclass(frozen=True, slots=True)
class Added:
    """added: the targets that were not there before. warnings: sentences about targets that lead nowhere."""

    alias: Alias
    added: tuple[str, ...]
    warnings: tuple[str, ...]


async def add(store: Store, address: str, targets: Sequence[str]) -> Added:
    """Makes the alias, or adds targets to it."""
    with refusing("address"):
        name = addresses.pattern(address)
    with refusing("targets"):
        if any(addresses.canonical(target) == name for target in targets):
            raise Refused(f"{name} cannot lead to itself", "targets")
    with refusing("address"):
        added = await aliases.add(store, name, targets)
        alias = await aliases.get(store, name)
    warnings = [warning for target in alias.targets if (warning := await _warning(store, target))]
    return Added(alias, added, tuple(warnings))


async def show(store: Store, address: str) -> Alias:
    with refusing("address"):
        return await aliases.get(store, address)


async def list_all(store: Store, domain: str | None = None) -> list[Alias]:
    with refusing("domain"):
        return await aliases.list_all(store, domain=domain)


async def remove(store: Store, address: str, targets: Sequence[str] = ()) -> tuple[str, ...]:
    """Takes these targets away, or the whole alias; the targets that went."""
    with refusing("address"):
        return await aliases.remove(store, address, targets)


async def _warning(store: Store, target: str) -> str | None:
    try:
        found = await directory.resolve(store, target)
    except LimitReached as error:
        return str(error)
    return f"{target} leads nowhere" if found.status == "unknown" else None
