"""The cache keeps what is used, within its bound, for all workers of a node, and is never the reason for a failure."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage.blob_cache import BlobCache, PatientCache
from storage.errors import NotFound
from tests.storage.blob_stores import fresh_place, s3_blobs
from tests.support.s3 import S3Server

ROOT = Path(__file__).parents[2]
BOUND = 100_000
SIZE = 10_000
CONTENT = random.Random(1).randbytes(300_000)


def ref(number: int) -> bytes:
    return (7).to_bytes(4, "big") + number.to_bytes(32, "little")


def octets(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("??/*"))


def kept(cache: BlobCache, count: int) -> list[int]:
    return [number for number in range(count) if cache.get(ref(number)) is not None]


def test_what_was_kept_is_got(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path / "c", BOUND)
    assert cache.get(ref(1)) is None
    cache.put(ref(1), b"one")
    cache.put(ref(1), b"another")
    assert cache.get(ref(1)) == b"one"
    cache.drop(ref(1))
    cache.drop(ref(1))
    assert cache.get(ref(1)) is None
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o700


def test_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, BOUND)
    for number in range(10):
        cache.put(ref(number), bytes(SIZE))
        os.utime(cache._path(ref(number)), (number, number))
    assert kept(cache, 1) == [0]  # used, so it is the youngest
    cache.put(ref(10), bytes(SIZE))
    assert octets(tmp_path) <= BOUND
    assert kept(cache, 11) == [0, 3, 4, 5, 6, 7, 8, 9, 10]


def test_a_large_one_is_not_kept(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, BOUND)
    cache.put(ref(1), bytes(BOUND // 2))
    assert cache.get(ref(1)) is None


def test_it_outlives_its_process_and_a_lower_bound_is_kept(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, BOUND)
    for number in range(8):
        cache.put(ref(number), bytes(SIZE))
    assert kept(BlobCache(tmp_path, BOUND), 8) == list(range(8))
    BlobCache(tmp_path, BOUND // 2).put(ref(8), bytes(BOUND // 20))
    assert octets(tmp_path) <= BOUND // 2


def test_a_lost_or_wrong_count_is_made_good(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, BOUND)
    for number in range(8):
        cache.put(ref(number), bytes(SIZE))
    (tmp_path / "size").unlink()
    for number in range(8, 12):
        cache.put(ref(number), bytes(SIZE))
    assert octets(tmp_path) <= BOUND
    (tmp_path / "size").write_bytes((1 << 40).to_bytes(8, "big"))
    cache.put(ref(20), bytes(SIZE))
    assert cache.get(ref(20)) is not None
    assert octets(tmp_path) > BOUND // 2


FILL = f"""
import sys
from pathlib import Path
from storage.blob_cache import BlobCache, PatientCache
cache = BlobCache(Path(sys.argv[1]), {BOUND})
content = lambda number: number.to_bytes(4, "big") * {SIZE // 4}
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 100):
    cache.put((7).to_bytes(4, "big") + number.to_bytes(32, "little"), content(number))
    for other in range(number - 5, number + 5):
        found = cache.get((7).to_bytes(4, "big") + max(0, other).to_bytes(32, "little"))
        assert found is None or found == content(max(0, other))
"""


def test_workers_share_it(tmp_path: Path) -> None:
    """Whole files or none, and never more than the bound."""
    workers = [
        subprocess.Popen([sys.executable, "-c", FILL, str(tmp_path), start], cwd=ROOT, stderr=subprocess.PIPE)
        for start in ("0", "50")
    ]
    while any(worker.poll() is None for worker in workers):
        with (tmp_path / "size").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # so that nothing changes while it is counted
            assert octets(tmp_path) <= BOUND
        time.sleep(0.01)
    for worker in workers:
        assert worker.communicate()[1] == b""
        assert worker.returncode == 0
    assert int.from_bytes((tmp_path / "size").read_bytes(), "big") <= BOUND
    assert octets(tmp_path) > 0


def test_who_finds_it_locked_goes_on(tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, BOUND)
    cache.put(ref(1), b"one")
    with (tmp_path / "size").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = threading.Thread(target=cache.put, args=(ref(2), b"two"))
        done.start()
        done.join(timeout=30)
        assert not done.is_alive()
        assert (cache.get(ref(1)), cache.get(ref(2))) == (b"one", None)
    cache.put(ref(2), b"two")
    assert cache.get(ref(2)) == b"two"


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    cache = BlobCache(tmp_path, BOUND)
    cache.put(ref(1), b"one")
    monkeypatch.setattr("storage.blob_cache.Path.write_bytes", full)
    for number in range(2, 50):
        cache.put(ref(number), bytes(SIZE))
    assert kept(cache, 50) in ([1], [])
    assert caplog.text.count("No space left on device") == 1, "said once a minute"
    monkeypatch.undo()
    cache.put(ref(2), b"two")
    assert cache.get(ref(2)) == b"two"


def test_no_folder_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    cache = BlobCache(tmp_path / "c", BOUND)
    cache.put(ref(1), b"one")
    assert cache.get(ref(1)) is None
    cache.drop(ref(1))


async def test_a_disk_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody waits for it long, one after another not at all, and it is used again when it goes on."""
    monkeypatch.setattr("storage.blob_cache._PATIENCE_SECONDS", 0.2)
    cache, goes_on, asked = BlobCache(tmp_path, BOUND), threading.Event(), 0
    cache.put(ref(1), b"one")
    real = cache.get

    def stuck(wanted: bytes) -> bytes | None:
        nonlocal asked
        asked += 1
        goes_on.wait(timeout=60)
        return real(wanted)

    monkeypatch.setattr(cache, "get", stuck)
    patient = PatientCache(cache)
    try:
        async with asyncio.timeout(30):
            assert await asyncio.gather(*(patient.get(ref(1)) for _ in range(5))) == [None] * 5
            assert asked == 2, "one a thread; the others were not begun"
            monkeypatch.setattr("storage.blob_cache._PATIENCE_SECONDS", 600)
            assert await patient.get(ref(1)) is None
            await patient.put(ref(2), b"two")
            await patient.drop(ref(1))
            assert asked == 2 and cache._path(ref(1)).exists() and not cache._path(ref(2)).exists()
            assert caplog.text.count("does not answer") == 1
            goes_on.set()
            while (found := await patient.get(ref(1))) is None:
                await asyncio.sleep(0.01)
        assert found == b"one"
    finally:
        goes_on.set()
        patient.close()


# Before a real store --------------------------------------------------------------------------------------------------


async def test_reads_cost_one_request(seaweedfs: S3Server, tmp_path: Path) -> None:
    where = fresh_place()
    async with s3_blobs(seaweedfs, where) as writer, s3_blobs(seaweedfs, where, tmp_path / "c") as reader:
        found = await writer.put(CONTENT)
        for _ in range(5):
            assert await reader.get(found) == CONTENT
        assert reader.counts.requests["get_object"] == 1
        stored = sum(path.stat().st_size for path in (tmp_path / "c").glob("??/*"))
        assert reader.counts.cache == {"misses": 1, "hits": 4, "octets": 4 * stored}
    async with s3_blobs(seaweedfs, where, tmp_path / "c") as again:
        assert await again.get(found) == CONTENT
        assert not again.counts.requests


async def test_what_was_put_is_in_it_sealed(seaweedfs: S3Server, tmp_path: Path) -> None:
    async with s3_blobs(seaweedfs, cache=tmp_path / "c") as held:
        secret = b"a very secret attachment " * 20_000
        assert await held.get(await held.put(secret)) == secret
        assert held.counts.requests["get_object"] == 0
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "c").glob("??/*"))


@pytest.mark.parametrize("damage", ["first", "middle", "short", "empty"])
async def test_a_damaged_file_is_never_served(seaweedfs: S3Server, tmp_path: Path, damage: str) -> None:
    content = b"compressible " * 30_000
    async with s3_blobs(seaweedfs, cache=tmp_path / "c") as held:
        found = await held.put(content)
        (path,) = (tmp_path / "c").glob("??/*")
        whole = path.read_bytes()
        at = {"first": 0, "middle": len(whole) // 2}.get(damage, 0)
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        path.write_bytes({"short": whole[:-1], "empty": b""}.get(damage, changed))
        assert await held.get(found) == content
        assert held.counts.cache["damaged"] == 1 and held.counts.requests["get_object"] == 1
        assert path.read_bytes() == whole
        assert await held.get(found) == content
        assert held.counts.requests["get_object"] == 1


async def test_reading_goes_on_without_it(seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with s3_blobs(seaweedfs, cache=tmp_path / "c") as held:
        monkeypatch.setattr("storage.blob_cache.os.open", full)
        found = await held.put(CONTENT)
        assert await held.get(found) == CONTENT
        assert held.counts.requests["get_object"] == 1


async def test_what_is_removed_leaves_it_too(seaweedfs: S3Server, tmp_path: Path) -> None:
    async with s3_blobs(seaweedfs, cache=tmp_path / "c") as held:
        found = await held.put(CONTENT)
        await held.remove([found])
        with pytest.raises(NotFound):
            await held.get(found)


async def test_it_can_be_left_out(seaweedfs: S3Server, tmp_path: Path) -> None:
    async with s3_blobs(seaweedfs, cache=tmp_path / "c", blob_cache_octets=0) as held:
        assert await held.get(await held.put(CONTENT)) == CONTENT
    assert not (tmp_path / "c").exists()


async def test_reading_goes_on_while_its_disk_stands_still(
    seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr("storage.blob_cache._PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("storage.blob_cache.BlobCache.get", lambda *_: goes_on.wait(timeout=60) and None)
    try:
        async with s3_blobs(seaweedfs, cache=tmp_path / "c") as held, asyncio.timeout(30):
            found = await held.put(CONTENT)
            assert await asyncio.gather(*(held.get(found) for _ in range(12))) == [CONTENT] * 12
            assert held.counts.requests["get_object"] == 12
    finally:
        goes_on.set()
