"""The contract of a blob store, and what the sweeper may and may not remove."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage import blobs, housekeeping
from storage.blobs import BlobStore, DirectoryBlobs
from storage.errors import NotFound, Unavailable
from storage.keys import Keys, WrongKey
from storage.store import Store
from tests.storage.conftest import deliver

CONTENTS = [b"", b"x", b"text " * 20_000, bytes(range(256)) * 4096]


def keys(install: bytes = b"i" * 32) -> Keys:
    return Keys(None, install, b"m" * 32)  # type: ignore[arg-type]


@pytest.fixture(params=["directory"])
async def store_of_blobs(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[BlobStore]:
    held = DirectoryBlobs(tmp_path / "b", keys())
    yield held
    await held.close()


@pytest.mark.parametrize("content", CONTENTS, ids=["empty", "one", "text", "binary"])
async def test_what_was_put_is_got(store_of_blobs: BlobStore, content: bytes) -> None:
    ref = await store_of_blobs.put(content)
    assert len(ref) == blobs.REF_OCTETS
    assert await store_of_blobs.get(ref) == content


async def test_equal_contents_meet(store_of_blobs: BlobStore) -> None:
    refs = await asyncio.gather(*(store_of_blobs.put(b"same") for _ in range(20)))
    assert len(set(refs)) == 1
    assert await store_of_blobs.put(b"other") != refs[0]


async def test_removed_and_absent(store_of_blobs: BlobStore) -> None:
    ref = await store_of_blobs.put(b"x")
    await store_of_blobs.remove([ref, ref])
    with pytest.raises(NotFound):
        await store_of_blobs.get(ref)


async def test_listing_by_generation(store_of_blobs: BlobStore) -> None:
    ref = await store_of_blobs.put(b"x")
    now = blobs.generation_of(ref)
    assert await store_of_blobs.listed(now) == []
    assert await store_of_blobs.listed(now + 1) == [ref]


async def test_the_way_to_a_blob_is_durable_whoever_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process made the folder and died, perhaps, before it made that durable."""
    root = tmp_path / "b"
    ref = await DirectoryBlobs(root, keys()).put(b"x")
    kept: list[Path] = []
    real = blobs._fsync
    monkeypatch.setattr(blobs, "_fsync", lambda path: (kept.append(path), real(path)))
    held = DirectoryBlobs(root, keys())
    await held.put(b"x")
    folder = held._path(ref).parent
    assert {folder, folder.parent, root, tmp_path} <= set(kept)


async def test_a_disk_that_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = DirectoryBlobs(tmp_path, keys())
    monkeypatch.setattr(blobs, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(blobs, "_fsync", lambda path: time.sleep(1))
    with pytest.raises(Unavailable):
        await held.put(b"x")


async def test_nothing_readable_lies_on_disk(tmp_path: Path) -> None:
    held = DirectoryBlobs(tmp_path, keys())
    await held.put(b"a very secret attachment" * 100)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 1 and b"secret" not in files[0].read_bytes()
    assert files[0].stat().st_size < 1000


async def test_another_install_key_names_and_opens_nothing(tmp_path: Path) -> None:
    ref = await DirectoryBlobs(tmp_path, keys()).put(b"x")
    stranger = DirectoryBlobs(tmp_path, keys(b"o" * 32))
    assert await stranger.put(b"x") != ref
    with pytest.raises(WrongKey):
        await stranger.get(ref)


async def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    held = DirectoryBlobs(tmp_path / "file" / "b", keys())
    with pytest.raises(Unavailable):
        await held.put(b"x")
    assert await held.problem()


async def test_a_crash_leaves_garbage_never_a_hole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A put that dies before its rename leaves no blob under its name."""
    held = DirectoryBlobs(tmp_path, keys())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storage.blobs.Path.rename", full)
    with pytest.raises(Unavailable):
        await held.put(b"x")
    monkeypatch.undo()
    assert await held.listed(10**6) == []
    assert await held.get(await held.put(b"x")) == b"x"


async def test_what_a_broken_put_left_goes_in_time(tmp_path: Path) -> None:
    held = DirectoryBlobs(tmp_path, keys())
    ref = await held.put(b"x")
    left = next(tmp_path.glob("*/??")) / ".left.1.2"
    left.write_bytes(b"half")
    assert await held.listed(blobs.generation_of(ref)) == [] and left.exists()
    assert await held.listed(blobs.generation_of(ref) + 1) == [ref] and not left.exists()


async def test_the_sweeper_takes_old_garbage_only(store: Store) -> None:
    await deliver(store, blobs=(b"kept" * 50_000,))
    await store.blobs.put(b"garbage")
    later = time.time() + 3 * blobs.GENERATION_SECONDS
    assert await housekeeping.sweep_blobs(store) == 0
    assert await housekeeping.sweep_blobs(store, later - blobs.GENERATION_SECONDS) == 0
    assert await housekeeping.sweep_blobs(store, later) == 1
    assert len(await store.blobs.listed(10**6)) == 1


async def test_the_sweeper_waits_for_old_transactions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "LONG_SECONDS", -60)
    await store.blobs.put(b"garbage")
    later = time.time() + 3 * blobs.GENERATION_SECONDS
    async with store.transaction() as conn:
        await conn.execute("SELECT 1")
        assert await housekeeping.sweep_blobs(store, later) == 0
    assert await housekeeping.sweep_blobs(store, later) == 1


async def test_blobs_that_grew_old_while_waiting_are_put_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("storage.blobs.time.time", lambda: now - 5 * blobs.GENERATION_SECONDS)
    old = await store.blobs.put(b"kept" * 50_000)
    monkeypatch.setattr("storage.blobs.time.time", lambda: now)
    put = store.blobs.put
    calls: list[bytes] = []

    async def first_is_old(content: bytes) -> bytes:
        calls.append(content)
        return old if len(calls) == 1 else await put(content)

    monkeypatch.setattr(store.blobs, "put", first_is_old)
    await deliver(store, blobs=(b"kept" * 50_000,))
    async with store.acquire() as conn:
        refs = [row[0] for row in await conn.fetch("SELECT blob FROM blob_refs")]
    assert [blobs.generation_of(ref) for ref in refs] == [blobs.generation(now)]
    assert len(calls) == 2
