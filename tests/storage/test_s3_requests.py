"""What an object store does on bad days: every failure that may pass is survived, every other one is told in words
that say what to do, and nothing that failed counts as put."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth

from storage.errors import NotFound, Unavailable
from storage.s3_blobs import S3Blobs
from tests.storage.blob_stores import all_listed, fresh_place, s3_blobs
from tests.support.faulty_proxy import FaultyProxy, answer, faulty_proxy
from tests.support.s3 import BUCKET, KEY_ID, SECRET, S3Server

CONTENT = random.Random(1).randbytes(300_000)
LARGE = random.Random(2).randbytes((5 << 20) + 100_000)
FAULTS = ["503", "reset", "silence", "half answer", "lost answer"]


@pytest.fixture
async def proxy(seaweedfs: S3Server) -> AsyncIterator[FaultyProxy]:
    async with faulty_proxy(seaweedfs.port) as running:
        yield running


@pytest.fixture
async def held(seaweedfs: S3Server, proxy: FaultyProxy) -> AsyncIterator[S3Blobs]:
    """A store behind the proxy that waits for nothing for long."""
    settings = {"s3_endpoint_url": proxy.url, "s3_timeout_seconds": 2, "s3_attempts": 3, "s3_part_octets": 5 << 20}
    async with s3_blobs(seaweedfs, **settings) as store:
        yield store


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.s3_requests._FIRST_PAUSE_SECONDS", 0.01)


def put_of(request: str) -> bool:
    return request.startswith("PUT")


def get_of(request: str) -> bool:
    return request.startswith("GET")


def get_of_blob(request: str) -> bool:
    return get_of(request) and "list-type" not in request


# What may pass --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_put_survives(held: S3Blobs, proxy: FaultyProxy, fault: str) -> None:
    proxy.applies, proxy.faults = put_of, [fault]
    ref = await held.put(CONTENT)
    assert not proxy.faults
    assert await held.get(ref) == CONTENT


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_get_survives(held: S3Blobs, proxy: FaultyProxy, fault: str) -> None:
    ref = await held.put(CONTENT)
    proxy.applies, proxy.faults = get_of, [fault]
    assert await held.get(ref) == CONTENT
    assert not proxy.faults


async def test_it_is_counted(held: S3Blobs, proxy: FaultyProxy) -> None:
    ref = await held.put(CONTENT)
    proxy.applies, proxy.faults = get_of, ["503", "503"]
    assert await held.get(ref) == CONTENT
    assert held.counts.requests == {"head_object": 1, "put_object": 1, "get_object": 3}
    assert held.counts.errors == {"get_object": 2}
    assert all(seconds > 0 for seconds in held.counts.seconds.values())


@pytest.mark.parametrize("fault", ["503", "lost answer"])
@pytest.mark.parametrize("step", ["POST", "partNumber=2", "uploadId"])
async def test_an_upload_in_parts_survives(held: S3Blobs, proxy: FaultyProxy, fault: str, step: str) -> None:
    proxy.applies, proxy.faults = lambda request: step in request, [fault]
    ref = await held.put(LARGE)
    assert not proxy.faults
    assert await held.get(ref) == LARGE


async def test_an_upload_whose_completion_was_carried_out_unheard(held: S3Blobs, proxy: FaultyProxy) -> None:
    """The second try finds no such upload; that the object is there settles it."""
    proxy.applies, proxy.faults = lambda request: request.startswith("POST") and "uploadId" in request, ["lost answer"]
    assert await held.get(await held.put(LARGE)) == LARGE


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_lasts_is_not_acknowledged_and_heals(held: S3Blobs, proxy: FaultyProxy, fault: str) -> None:
    held._requests._config = held._requests._config.model_copy(update={"s3_timeout_seconds": 0.3})
    proxy.applies, proxy.always = put_of, fault
    if fault != "half answer":  # the head of the answer is whole, and it has no body
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable):
                await held.put(CONTENT)
        # The HTTP client sends a request once more by itself where the connection was closed before it was answered.
        assert 3 <= sum(map(put_of, proxy.requests)) <= 6
    proxy.always = None
    assert await held.get(await held.put(CONTENT)) == CONTENT


async def test_a_part_that_cannot_be_sent_leaves_nothing(
    seaweedfs: S3Server, held: S3Blobs, proxy: FaultyProxy
) -> None:
    proxy.applies, proxy.always = lambda request: "partNumber=2" in request, "503"
    with pytest.raises(Unavailable):
        await held.put(LARGE)
    assert await all_listed(held) == []
    async with seaweedfs.client() as client:
        assert not (await client.list_multipart_uploads(Bucket=BUCKET, Prefix=held._root)).get("Uploads")


async def test_uploads_that_nobody_finishes_are_cleared_away(
    seaweedfs: S3Server, held: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, foreign = f"{held._root}1/aa/{'a' * 64}", f"{held._root}photos/{'a' * 64}"
    async with seaweedfs.client() as client:

        async def uploads() -> set[str]:
            found = await client.list_multipart_uploads(Bucket=BUCKET, Prefix=held._root)
            return {upload["Key"] for upload in found.get("Uploads", ())}

        for key in (ours, foreign):
            await client.create_multipart_upload(Bucket=BUCKET, Key=key)
        await held.clear(10**6)
        assert await uploads() == {ours, foreign}, "they may still go on"
        monkeypatch.setattr("storage.s3_blobs._ABANDONED", timedelta(days=-1))
        assert await all_listed(held) == []
        assert await uploads() == {ours, foreign}, "to list is to write nothing"
        await held.clear(10**6)
        assert await uploads() == {foreign}


async def test_what_others_keep_in_the_bucket_is_not_listed(seaweedfs: S3Server, held: S3Blobs) -> None:
    ref = await held.put(CONTENT)
    async with seaweedfs.client() as client:
        for name in ("1/aa/" + "b" * 64, "1/notes", "²/aa/" + "a" * 64, "photos/1"):
            await client.put_object(Bucket=BUCKET, Key=held._root + name, Body=b"")
    assert await all_listed(held) == [ref]


async def test_no_more_connections_than_allowed(seaweedfs: S3Server, proxy: FaultyProxy) -> None:
    async with s3_blobs(seaweedfs, s3_endpoint_url=proxy.url, s3_connections=2) as held:
        refs = await asyncio.gather(*(held.put(b"%d" % number) for number in range(12)))
        await asyncio.gather(*map(held.get, refs))
    assert proxy.most_open == 2


async def test_mail_under_way_does_not_keep_health_waiting(seaweedfs: S3Server, proxy: FaultyProxy) -> None:
    """All connections but the probe's own are taken."""
    proxy.applies, proxy.always = get_of_blob, "silence"
    async with s3_blobs(seaweedfs, s3_endpoint_url=proxy.url, s3_connections=2) as held:
        reads = [asyncio.create_task(held.get(bytes(35) + bytes([number]))) for number in range(6)]
        async with asyncio.timeout(20):
            while sum(map(get_of_blob, proxy.requests)) < 2:
                await asyncio.sleep(0.01)
            assert await held.problem() is None
        assert sum(map(get_of_blob, proxy.requests)) == 2
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)


async def test_what_is_much_is_hashed_beside_the_loop(held: S3Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = threading.get_ident()
    here, beside = [], []
    by_client = SigV4Auth.payload

    def ours(octets: bytes) -> str:
        (here if threading.get_ident() == loop else beside).append(len(octets))
        return hashlib.sha256(octets).hexdigest()

    def of_client(signer: SigV4Auth, request: Any) -> Any:
        body = request.body or b""
        here.append(len(body if isinstance(body, bytes) else body.getvalue()))
        return by_client(signer, request)

    monkeypatch.setattr("storage.s3_requests._sha256", ours)
    monkeypatch.setattr(SigV4Auth, "payload", of_client)
    assert await held.get(await held.put(LARGE)) == LARGE
    assert beside == [5 << 20] and max(here) < 1 << 20


async def test_nobody_waits_for_ever_for_a_turn(
    seaweedfs: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.s3_requests._WAIT_SECONDS", 0.2)
    async with s3_blobs(seaweedfs, s3_endpoint_url=proxy.url, s3_connections=1, s3_timeout_seconds=2) as held:
        proxy.always = "silence"
        first = asyncio.create_task(held.get(bytes(36)))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="wait for their turn"):
            await held.get(bytes(36))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


# What does not pass ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "place", "said"),
    [
        ({"s3_access_key_id": "nobody"}, f"s3://{BUCKET}/x", "InvalidAccessKeyId.*check storage.s3_access_key_id"),
        ({"s3_access_key_id": KEY_ID + "x"}, f"s3://{BUCKET}/x", "refuses our credentials for the bucket mail"),
        ({}, "s3://absent-bucket/x", "has no bucket absent-bucket: make it, or correct storage.blobs"),
        ({"s3_endpoint_url": "http://127.0.0.1:9"}, f"s3://{BUCKET}/x", "127.0.0.1:9 does not answer .*see whether"),
    ],
    ids=["key", "other key", "bucket", "server"],
)
async def test_mistakes_are_said_in_words(seaweedfs: S3Server, settings: dict[str, str], place: str, said: str) -> None:
    async with s3_blobs(seaweedfs, place, **settings) as held:
        with pytest.raises(Unavailable, match=said):
            await held.put(b"x")
        with pytest.raises(Unavailable):
            await held.get(bytes(36))
        with pytest.raises(Unavailable):
            await all_listed(held)
        with pytest.raises(Unavailable):
            await held.missing([bytes(36)])
        assert re.search(said, await held.problem() or "")


async def test_another_dialect_has_no_bucket_either(ministack: S3Server) -> None:
    async with s3_blobs(ministack, "s3://absent-bucket/x") as held:
        assert "has no bucket absent-bucket" in (await held.problem() or "")
        with pytest.raises(Unavailable, match="has no bucket"):
            await held.get(bytes(36))
        with pytest.raises(Unavailable, match="has no bucket"):
            await held.missing([bytes(36)])


async def test_no_credentials_at_all(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    async with s3_blobs(seaweedfs, s3_access_key_id=None, s3_secret_access_key=None) as held:
        assert "no usable credentials" in (await held.problem() or "")


async def test_a_silent_server_is_named(held: S3Blobs, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.s3_blobs._PROBE_SECONDS", 0.2)
    proxy.always = "silence"
    assert "does not answer (TimeoutError): see whether it runs" in (await held.problem() or "")


async def test_credentials_of_the_environment(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with s3_blobs(seaweedfs, s3_access_key_id=None, s3_secret_access_key=None) as held:
        assert await held.problem() is None


async def test_a_bucket_that_may_only_be_read(held: S3Blobs, proxy: FaultyProxy) -> None:
    """Health looks again after a put failed, and takes it back when one succeeds."""
    denied = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
    assert await held.problem() is None
    proxy.applies, proxy.always = put_of, answer("403 Forbidden", denied)
    assert await held.problem() is None
    with pytest.raises(Unavailable, match="AccessDenied"):
        await held.put(CONTENT)
    assert sum(map(put_of, proxy.requests)) == 2, "another try is of no use"
    assert "AccessDenied" in (await held.problem() or "")
    proxy.always = None
    assert await held.problem() is None


async def test_objects_that_are_not_removed_are_noticed(held: S3Blobs, proxy: FaultyProxy) -> None:
    refs = [await held.put(b"x"), await held.put(b"y")]
    body = b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code><Message>No</Message></Error></DeleteResult>"
    proxy.applies, proxy.faults = lambda request: "delete" in request, [answer("200 OK", body)]
    with pytest.raises(Unavailable, match="1 of 2 objects were not removed; k: AccessDenied No"):
        await held.remove(refs)
    await held.remove(refs)
    assert await all_listed(held) == []


async def test_an_absent_blob_is_not_an_outage(held: S3Blobs, proxy: FaultyProxy) -> None:
    with pytest.raises(NotFound):
        await held.get(bytes(36))
    assert len(proxy.requests) == 1 and not held.counts.errors


async def test_the_secret_is_never_shown(held: S3Blobs, proxy: FaultyProxy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await held.put(CONTENT)
    proxy.always = "reset"
    with pytest.raises(Unavailable) as failure:
        await held.put(CONTENT)
    assert SECRET not in caplog.text + repr(failure.value) + repr(failure.value.__cause__) + repr(held.__dict__)
    assert "botocore" not in caplog.text


# In a process that can read nothing any more --------------------------------------------------------------------------

CLOSED = """
import asyncio, sys
from config.schema import StorageConfig
from config.secret import Secret
from mailserver.node import preimport
from storage import s3_requests
preimport.import_ours()
preimport.import_all(*preimport.S3)
s3_requests.prepare()
packages = [path for path in sys.path if "site-packages" in path]

def refuse(event, arguments):
    if event == "open" and any(str(arguments[0]).startswith(path) for path in packages):
        raise PermissionError(13, "closed", arguments[0])

sys.addaudithook(refuse)
from storage.keys import Keys
from storage.s3_blobs import S3Blobs

async def main(where, url, key, secret):
    config = StorageConfig(s3_endpoint_url=url, s3_access_key_id=key, s3_secret_access_key=Secret(secret))
    held = S3Blobs(where, Keys(None, b"i" * 32, b"m" * 32), config)
    assert await held.problem() is None
    assert await held.get(await held.put(b"x")) == b"x"
    try:
        await held.get(bytes(36))
    except Exception as error:
        print(type(error).__name__)
    await held.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_prepared_it_needs_no_file_of_a_package(seaweedfs: S3Server) -> None:
    """Workers may run as an account that cannot enter the virtual environment."""
    command = [sys.executable, "-c", CLOSED, fresh_place(), seaweedfs.url, KEY_ID, SECRET]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "NotFound\n", done.stderr
