"""Writers against the sweeper: what a committed message refers to is never swept.

Time is pressed together: a generation lasts a second. Writers put a handful of contents over and over, so that most
are reused, and wait between put and commit for anything up to three generations; meanwhile two sweepers go round
without a pause, and wait between finding garbage and removing it.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from storage import blobs, housekeeping
from storage.blobs import BlobStore
from storage.errors import StorageError
from storage.packed import INT8, unpack
from storage.records import INBOX
from storage.store import Store
from tests.storage.blob_stores import all_listed, blobs_of_kind
from tests.storage.conftest import ALICE, deliver
from tests.support.rows import message_rows

SECONDS = 5.0
WRITER = ContextVar("WRITER", default=False)


@pytest.fixture
def group_commit() -> str:
    """The database's function counts generations in weeks."""
    return "statements"


class Hesitant:
    """A store whose writers and sweepers take their time; the committer, which puts again what grew old, does not."""

    def __init__(self, real: BlobStore) -> None:
        self._real = real
        self._chooser = random.Random(1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def put(self, content: bytes) -> bytes:
        ref = await self._real.put(content)
        if WRITER.get():
            await asyncio.sleep(self._chooser.choice((0, 0, 0, 0.1, 0.1, 0.5, 1.2, 2.5)))
        return ref

    async def remove(self, refs: list[bytes]) -> None:
        await asyncio.sleep(self._chooser.choice((0, 0.1, 0.5)))
        await self._real.remove(refs)


async def write(store: Store, number: int, until: float) -> int:
    WRITER.set(True)
    chooser = random.Random(number)
    written = 0
    while time.monotonic() < until:
        contents = tuple(b"%d " % chooser.randrange(4) * 100 for _ in range(2))
        try:
            await deliver(store, blobs=contents)
            written += 1
        except StorageError:
            continue
    return written


async def sweep(store: Store, until: float) -> int:
    removed = 0
    while time.monotonic() < until:
        removed += await housekeeping.sweep_blobs(store)
        await asyncio.sleep(0.01)
    return removed


@pytest.mark.parametrize("kind", ["directory", pytest.param("seaweedfs", marks=pytest.mark.real)])
async def test_no_committed_blob_is_swept(
    store: Store, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(blobs, "GENERATION_SECONDS", 1)
    async with blobs_of_kind(kind, tmp_path / "raced", request) as held:
        monkeypatch.setattr(store, "blobs", Hesitant(held))
        until = time.monotonic() + SECONDS
        garbage = asyncio.create_task(_litter(held, until))
        written = asyncio.gather(*(write(store, number, until) for number in range(6)))
        removed = asyncio.gather(sweep(store, until), sweep(store, until))
        async with asyncio.timeout(90):
            await asyncio.gather(garbage, written, removed)
        assert sum(written.result()) > 5, "writers came through"
        assert sum(removed.result()) > 5, "sweepers found something"
        async with store.acquire() as conn:
            refs = [row[0] for row in await conn.fetch("SELECT DISTINCT blob FROM blob_refs")]
        assert refs
        assert set(refs) <= set(await all_listed(held, 1 << 31))
        await asyncio.gather(*map(held.get, refs))
    rows = await message_rows(store, ALICE, await _message_ids(store))
    assert len(rows) == sum(written.result())


async def _litter(held: BlobStore, until: float) -> None:
    """Puts that no message ever refers to."""
    number = 0
    while time.monotonic() < until:
        number += 1
        await held.put(b"garbage %d" % number)
        await asyncio.sleep(0.02)


async def _message_ids(store: Store) -> list[int]:
    async with store.acquire() as conn:
        pages = await conn.fetch(
            "SELECT message_ids FROM mailbox_pages WHERE account_id = $1 AND mailbox_id = $2", ALICE, INBOX
        )
    return [message_id for page in pages for message_id in unpack(INT8, page["message_ids"])]
