"""What only a directory of blobs has: fsyncs, folders, broken writes, disks that stand still or are gone."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from storage import blobs, directory_blobs
from storage.directory_blobs import DirectoryBlobs
from storage.errors import Damaged, Unavailable
from tests.storage.blob_stores import all_listed, keys


async def test_the_way_to_a_blob_is_durable_whoever_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process made the folder and died, perhaps, before it made that durable."""
    root = tmp_path / "b"
    ref = await DirectoryBlobs(root, keys()).put(b"x")
    kept: list[Path] = []
    real = directory_blobs._fsync
    monkeypatch.setattr(directory_blobs, "_fsync", lambda path: (kept.append(path), real(path)))
    held = DirectoryBlobs(root, keys())
    await held.put(b"x")
    folder = held._path(ref).parent
    assert {folder, folder.parent, root, tmp_path} <= set(kept)


async def test_a_disk_that_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = DirectoryBlobs(tmp_path, keys())
    monkeypatch.setattr(directory_blobs, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(directory_blobs, "_fsync", lambda path: time.sleep(1))
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
    with pytest.raises(Damaged):
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

    monkeypatch.setattr("storage.directory_blobs.Path.rename", full)
    with pytest.raises(Unavailable):
        await held.put(b"x")
    monkeypatch.undo()
    assert await all_listed(held) == []
    assert await held.get(await held.put(b"x")) == b"x"


async def test_what_a_broken_put_left_goes_in_time(tmp_path: Path) -> None:
    held = DirectoryBlobs(tmp_path, keys())
    ref = await held.put(b"x")
    folder = held._path(ref).parent
    left, foreign = folder / f".{'a' * 64}.1.2", folder / ".foreign"
    left.write_bytes(b"half")
    foreign.write_bytes(b"")
    assert await all_listed(held) == [ref] and left.exists(), "to list is to write nothing"
    await held.clear(blobs.generation_of(ref))
    assert left.exists(), "its put may still go on"
    await held.clear(blobs.generation_of(ref) + 1)
    assert not left.exists() and foreign.exists()
    assert await held.get(ref) == b"x"


async def test_a_disk_that_is_not_there_has_lost_nothing(tmp_path: Path) -> None:
    held = DirectoryBlobs(tmp_path / "b", keys())
    ref = await held.put(b"x")
    (tmp_path / "b").rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        await held.get(ref)
    (tmp_path / "away").rename(tmp_path / "b")
    assert await held.get(ref) == b"x"
