"""The contract of a blob store, which each of them must fulfil, and what the sweeper may and may not remove."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.schema import StorageConfig
from storage import blobs, housekeeping
from storage.blobs import BlobStore
from storage.directory_blobs import DirectoryBlobs
from storage.errors import Damaged, NotFound
from storage.s3_blobs import S3Blobs
from storage.store import Store
from tests.storage.blob_stores import KINDS, all_listed, blobs_of_kind, keys, s3_blobs
from tests.storage.conftest import deliver
from tests.support.s3 import BUCKET, S3Server

CONTENTS = {
    "empty": b"",
    "one": b"x",
    "text": b"text " * 20_000,
    "binary": bytes(range(256)) * 4096,
    "of several parts": random.Random(1).randbytes(11 << 20),
}


@pytest.fixture(params=KINDS)
async def held(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[BlobStore]:
    async with blobs_of_kind(request.param, tmp_path, request) as store:
        yield store


# The contract ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
async def test_what_was_put_is_got(held: BlobStore, content: bytes) -> None:
    ref = await held.put(content)
    assert len(ref) == blobs.REF_OCTETS
    assert await held.get(ref) == content
    assert await held.get(ref) == content


async def test_those_that_can_be_had_are_got_together(held: BlobStore) -> None:
    one, two, absent = await held.put(b"one"), await held.put(b""), blobs.ref_now(b"n" * 32)
    assert await held.get_some([one, absent, two, one]) == {one: b"one", two: b""}
    assert await held.get_some([absent]) == {}


async def test_those_that_are_missing_are_named(held: BlobStore) -> None:
    there, absent = await held.put(b"x"), blobs.ref_now(b"n" * 32)
    assert await held.missing([there, absent]) == [absent]
    await held.remove([there])
    assert await held.missing([there]) == [there]


async def test_equal_contents_meet(held: BlobStore) -> None:
    refs = await asyncio.gather(*(held.put(b"same") for _ in range(20)))
    assert len(set(refs)) == 1
    assert await held.put(b"other") != refs[0]
    assert sorted(await all_listed(held)) == sorted({refs[0], await held.put(b"other")})


async def test_another_generation_is_another_blob(held: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    ref = await held.put(b"x")
    monkeypatch.setattr("storage.blobs.time.time", lambda: now + blobs.GENERATION_SECONDS)
    later = await held.put(b"x")
    assert blobs.generation_of(later) == blobs.generation_of(ref) + 1
    await held.remove([ref])
    assert await held.get(later) == b"x"


async def test_removed_and_absent(held: BlobStore) -> None:
    ref = await held.put(b"x")
    await held.remove([ref, ref])
    await held.remove([ref])
    with pytest.raises(NotFound):
        await held.get(ref)
    assert await held.put(b"x") == ref
    assert await held.get(ref) == b"x"


async def test_listing_by_generation(held: BlobStore) -> None:
    assert await all_listed(held) == []
    ref = await held.put(b"x")
    now = blobs.generation_of(ref)
    assert await all_listed(held, now) == []
    assert await all_listed(held, now + 1) == [ref]


async def test_listing_in_pages_while_they_are_removed(held: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("directory_blobs", "s3_blobs"):
        monkeypatch.setattr(f"storage.{module}._A_PAGE", 3)
    now = time.time()
    expected = set()
    for week in (0, 1):
        monkeypatch.setattr("storage.blobs.time.time", lambda week=week: now + week * blobs.GENERATION_SECONDS)
        expected |= set(await asyncio.gather(*(held.put(b"%d" % number) for number in range(10))))
    seen: list[bytes] = []
    async for page in held.listed(10**6):
        assert 0 < len(page) <= 3
        seen += page
        await held.remove(page)
    assert set(seen) == expected and len(seen) == 20
    assert await all_listed(held) == []


async def test_no_problem(held: BlobStore) -> None:
    assert await held.problem() is None
    assert await held.problem() is None
    assert await all_listed(held) == []


@pytest.mark.parametrize(("where", "threshold"), [("s3://mail/x", 256 << 10), ("/tmp/none", 64 << 10)])
async def test_the_place_says_which_store_and_what_is_large(where: str, threshold: int) -> None:
    store = blobs.open_blobs(where, keys(), StorageConfig())
    assert (type(store) is S3Blobs, store.threshold_octets) == (where.startswith("s3:"), threshold)
    await store.close()


@pytest.mark.parametrize("at", [0, 5, 20, -1])
def test_a_stored_form_of_which_one_octet_is_wrong_does_not_open(at: int) -> None:
    install = keys()
    content = b"content " * 100
    ref = blobs.ref_now(install.blob_hash(content))
    stored = blobs.sealed(install, ref[4:], content)
    assert blobs.opened(install, ref, stored) == content
    wrong = bytearray(stored)
    wrong[at] ^= 1
    for damaged in (bytes(wrong), stored[:-1], stored[:5], b""):
        with pytest.raises(Damaged, match=blobs.name_of(ref)):
            blobs.opened(install, ref, damaged)


def test_no_nonce_is_used_twice_under_one_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another release of the compressor makes other octets of the same content, which has the same key."""
    install, content = keys(), b"content " * 100
    blob_hash = install.blob_hash(content)
    one = blobs.sealed(install, blob_hash, content)
    monkeypatch.setattr("storage.codec.lz4.block.compress", lambda octets: octets)
    other = blobs.sealed(install, blob_hash, content)
    assert one[0] != other[0] and one[1:13] != other[1:13]


HASH = "ab" + "0" * 62
NAMES = dict.fromkeys((f"2900/ab/{HASH}", f"0/ab/{HASH}", f"{(1 << 32) - 1}/ab/{HASH}"), True)
NAMES |= dict.fromkeys((f"x/ab/{HASH}", f"2900/ac/{HASH}", f"02900/ab/{HASH}", f"{1 << 32}/ab/{HASH}"), False)
NAMES |= dict.fromkeys((f"2900/ab/{HASH[1:]}", f"²/ab/{HASH}", f"a/2900/ab/{HASH}", "pillarbox", ""), False)


@pytest.mark.parametrize(("name", "ours"), NAMES.items())
def test_a_name_leads_back_to_its_reference(name: str, ours: bool) -> None:
    ref = blobs.ref_of(name)
    assert (ref is not None) is ours
    if ref is not None:
        assert blobs.name_of(ref) == name


@pytest.mark.real
async def test_moving_is_copying_files(tmp_path: Path, seaweedfs: S3Server) -> None:
    directory = DirectoryBlobs(tmp_path, keys())
    ref = await directory.put(b"x" * 70_000)
    async with s3_blobs(seaweedfs) as held:
        (path,) = tmp_path.glob("*/*/*")
        async with seaweedfs.client() as client:
            key = held._root + str(path.relative_to(tmp_path))
            await client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        assert await held.get(ref) == b"x" * 70_000
        assert await held.put(b"x" * 70_000) == ref
        assert held.counts.requests["put_object"] == 0


# The sweeper ----------------------------------------------------------------------------------------------------------


async def test_the_sweeper_takes_old_garbage_only(store: Store) -> None:
    await deliver(store, blobs=(b"kept" * 50_000,))
    await store.blobs.put(b"garbage")
    later = time.time() + 3 * blobs.GENERATION_SECONDS
    assert await housekeeping.sweep_blobs(store) == 0
    assert await housekeeping.sweep_blobs(store, later - blobs.GENERATION_SECONDS) == 0
    assert await housekeeping.sweep_blobs(store, later) == 1
    assert len(await all_listed(store.blobs)) == 1


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
