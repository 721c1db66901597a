"""Blobs that nothing refers to go when they are old enough, and none that is referred to goes with them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from mailserver.cli.context import Given, node
from mailserver.embedded import account as accounts
from mailserver.node import secret_keys
from storage import Store, housekeeping
from storage.blobs import generation

_LATER_SECONDS = 4 * 7 * 86_400
"""By then all blobs of today are old."""
_REFERRED = "SELECT DISTINCT blob FROM blob_refs"


@dataclass(frozen=True, slots=True)
class Swept:
    """left: blobs that are still there and that nothing refers to."""

    removed: int
    referred: int
    missing: int
    left: int


async def sweep(data: Path, settings: Path) -> Swept:
    """As housekeeping does four weeks from now; nobody may be putting blobs meanwhile."""
    async with node(Given(data, settings)) as found:
        owner = accounts.owner_of(found.directory.run) if accounts.running_as_root() else None
        keys = secret_keys.load_or_make(found.config.storage, found.directory, owner)
        store = await Store.open(
            found.config.storage,
            mail=found.config.mail,
            dsn=found.dsn,
            redis_url=None,
            blobs=found.blobs,
            install_key=keys.install,
            master_key=keys.master,
            worker="chaos",
        )
        try:
            return await _sweep(store)
        finally:
            await store.close()


async def _sweep(store: Store) -> Swept:
    later = time.time() + _LATER_SECONDS
    removed = await housekeeping.sweep_blobs(store, later)
    async with store.acquire() as conn:
        referred = {row[0] for row in await conn.fetch(_REFERRED)}
    there = {ref async for page in store.blobs.listed(generation(later)) for ref in page}
    return Swept(removed, len(referred), len(referred - there), len(there - referred))
