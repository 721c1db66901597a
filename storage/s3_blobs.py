"""Blobs in S3: s3://bucket/prefix/<generation>/<two hex digits>/<hash>.

A put asks first whether the object is there (its name says its content, so that is enough); else it is sent, in parts
where it is large, and is durable when the store has answered. Whoever puts the same content at the same time sends what
opens to the same. A failed put leaves nothing, or parts that the sweeper clears away after a day.

Reads go through a cache on local disk, which holds the objects as they are stored. What comes from either opens under
the key of its name or is not used; a damaged file of the cache is dropped and the object fetched again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from storage.blob_cache import BlobCache, PatientCache
from storage.blobs import S3_SCHEME, BlobCounts, generation_named, name_of, opened, ref_now, ref_of, sealed
from storage.errors import Damaged, NotFound, StorageError, Unavailable
from storage.keys import Keys
from storage.s3_requests import Requests, S3Error
from storage.tasks import together

if TYPE_CHECKING:
    from config.schema import StorageConfig

T = TypeVar("T")

_A_PAGE = 1000
_PARTS_AT_ONCE = 3
_ASKED_AT_ONCE = 16
_ABANDONED = timedelta(days=1)
_PROBE = "pillarbox"
"""An object of this name shows that the bucket may be written."""
_PROBE_SECONDS = 4.0


class S3Blobs:
    """The store of one process."""

    threshold_octets = 256 * 1024

    def __init__(self, url: str, keys: Keys, config: StorageConfig, cache_folder: Path | None = None) -> None:
        bucket, _, prefix = url.removeprefix(S3_SCHEME).partition("/")
        self.counts = BlobCounts()
        self._root = f"{prefix.strip('/')}/".lstrip("/")
        self._keys = keys
        self._part_octets = config.s3_part_octets
        self._requests = Requests(config, bucket, self.counts)
        self._pool = ThreadPoolExecutor(4, "blobs")
        self._cache: PatientCache | None = None
        if cache_folder is not None and config.blob_cache_octets:
            self._cache = PatientCache(BlobCache(cache_folder, config.blob_cache_octets))
        self._writable = False

    async def close(self) -> None:
        self._pool.shutdown(wait=False)
        if self._cache is not None:
            self._cache.close()
        await self._requests.close()

    # Putting ----------------------------------------------------------------------------------------------------------

    async def put(self, content: bytes) -> bytes:
        blob_hash = await self._work(self._keys.blob_hash, content)
        ref = ref_now(blob_hash)
        if not await self._exists(self._key(ref)):
            stored = await self._work(sealed, self._keys, blob_hash, content)
            await self._upload(self._key(ref), stored)
            await self._keep(ref, stored)
        return ref

    def _key(self, ref: bytes) -> str:
        return self._root + name_of(ref)

    def _ref(self, key: str) -> bytes | None:
        """The way back; None for what is not ours."""
        return ref_of(key.removeprefix(self._root)) if key.startswith(self._root) else None

    async def _exists(self, key: str) -> bool:
        try:
            await self._requests.send("head_object", Key=key)
        except NotFound:
            return False
        except S3Error as error:
            if error.code != "403":
                raise
            return False  # no reason is given here, where a refusal has no body; the put will say it
        return True

    async def _upload(self, key: str, stored: bytes) -> None:
        try:
            if len(stored) > self._part_octets:
                await self._upload_parts(key, stored)
            else:
                await self._requests.send("put_object", octets=len(stored), Key=key, Body=stored)
        except S3Error:
            self._writable = False  # health will look again
            raise

    async def _upload_parts(self, key: str, stored: bytes) -> None:
        upload = (await self._requests.send("create_multipart_upload", Key=key))["UploadId"]
        try:
            tags = await self._send_parts(key, upload, stored)
            parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
            await self._complete(key, upload, parts)
        except BaseException:
            await asyncio.shield(self._abandon(key, upload))
            raise

    async def _send_parts(self, key: str, upload: str, stored: bytes) -> list[str]:
        """The parts' tags, in order; a few are sent at a time."""
        size = self._part_octets
        numbers = iter(range((len(stored) + size - 1) // size))
        tags: dict[int, str] = {}

        async def send() -> None:
            for at in numbers:
                part = stored[at * size : (at + 1) * size]
                answer = await self._requests.send(
                    "upload_part", octets=len(part), Key=key, UploadId=upload, PartNumber=at + 1, Body=part
                )
                tags[at] = answer["ETag"]

        await together(send() for _ in range(_PARTS_AT_ONCE))
        return [tags[at] for at in sorted(tags)]

    async def _complete(self, key: str, upload: str, parts: list[dict[str, Any]]) -> None:
        try:
            await self._requests.send(
                "complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            )
        except S3Error as error:
            # An earlier try of this request may have been carried out and its answer lost.
            if error.code != "NoSuchUpload" or not await self._exists(key):
                raise

    async def _abandon(self, key: str, upload: str) -> None:
        try:
            await self._requests.send("abort_multipart_upload", attempts=1, Key=key, UploadId=upload)
        except StorageError:
            return  # `clear` tries again

    # Getting ----------------------------------------------------------------------------------------------------------

    async def get(self, ref: bytes) -> bytes:
        content = await self._cached(ref)
        if content is None:
            stored = (await self._requests.send("get_object", Key=self._key(ref)))["Body"]
            content = await self._work(opened, self._keys, ref, stored)
            await self._keep(ref, stored)
        return content

    async def get_some(self, refs: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}

        async def get(ref: bytes) -> None:
            with suppress(NotFound, Damaged):
                found[ref] = await self.get(ref)

        await together(map(get, set(refs)))
        return found

    async def _cached(self, ref: bytes) -> bytes | None:
        if self._cache is None:
            return None
        stored = await self._cache.get(ref)
        if stored is None:
            self.counts.cache["misses"] += 1
            return None
        try:
            content = await self._work(opened, self._keys, ref, stored)
        except Damaged:
            self.counts.cache["damaged"] += 1
            await self._cache.drop(ref)
            return None
        self.counts.cache["hits"] += 1
        self.counts.cache["octets"] += len(stored)
        return content

    async def _keep(self, ref: bytes, stored: bytes) -> None:
        if self._cache is not None:
            await self._cache.put(ref, stored)

    async def missing(self, refs: list[bytes]) -> list[bytes]:
        absent: list[bytes] = []
        for start in range(0, len(refs), _ASKED_AT_ONCE):
            part = refs[start : start + _ASKED_AT_ONCE]
            there = await together(self._answers_for(self._key(ref)) for ref in part)
            absent += [ref for ref, exists in zip(part, there, strict=True) if not exists]
        if absent:  # or the bucket is missing, which HEAD does not say
            await self._requests.send("list_objects_v2", Prefix=self._root, MaxKeys=1)
        return absent

    async def _answers_for(self, key: str) -> bool:
        """Is the object there? A refusal is not taken for an answer."""
        try:
            await self._requests.send("head_object", Key=key)
        except NotFound:
            return False
        return True

    # Removing ---------------------------------------------------------------------------------------------------------

    async def remove(self, refs: list[bytes]) -> None:
        for start in range(0, len(refs), _A_PAGE):
            part = list(dict.fromkeys(refs[start : start + _A_PAGE]))
            objects = [{"Key": self._key(ref)} for ref in part]
            answer = await self._requests.send("delete_objects", Delete={"Objects": objects, "Quiet": True})
            errors = [error for error in answer.get("Errors", ()) if error.get("Code") != "NoSuchKey"]
            if errors:
                first = f"{errors[0].get('Key')}: {errors[0].get('Code')} {errors[0].get('Message')}"
                raise Unavailable(f"{len(errors)} of {len(part)} objects were not removed; {first}")
            if self._cache is not None:
                for ref in part:
                    await self._cache.drop(ref)

    async def listed(self, before_generation: int) -> AsyncGenerator[list[bytes], None]:
        for number in await self._generations():
            if number < before_generation:
                async for page in self._pages("list_objects_v2", f"{self._root}{number}/"):
                    refs = [ref for found in page.get("Contents", ()) if (ref := self._ref(found["Key"])) is not None]
                    if refs:
                        yield refs

    async def _generations(self) -> list[int]:
        """One for each week in which something was put."""
        found = []
        async for page in self._pages("list_objects_v2", self._root, Delimiter="/"):
            for common in page.get("CommonPrefixes", ()):
                number = generation_named(common["Prefix"].removeprefix(self._root).rstrip("/"))
                if number is not None:
                    found.append(number)
        return sorted(found)

    async def _pages(self, operation: str, prefix: str, **params: Any) -> AsyncIterator[dict[str, Any]]:
        token: dict[str, Any] = {}
        while True:
            page = await self._requests.send(operation, Prefix=prefix, MaxKeys=_A_PAGE, **params, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    async def clear(self, before_generation: int) -> None:
        """Aborts uploads in parts that nobody finishes any more, of our blobs, whatever their generation."""
        before = datetime.now(UTC) - _ABANDONED
        markers: dict[str, Any] = {}
        while True:
            page = await self._requests.send("list_multipart_uploads", Prefix=self._root, **markers)
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] < before and self._ref(upload["Key"]) is not None:
                    await self._abandon(upload["Key"], upload["UploadId"])
            if not page.get("IsTruncated"):
                return
            markers = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    # ------------------------------------------------------------------------------------------------------------------

    async def problem(self) -> str | None:
        """Lists; and writes, until that has succeeded, and again after it has failed."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                if not self._writable:
                    await self._requests.probe("put_object", Key=self._root + _PROBE, Body=b"pillarbox\n")
                await self._requests.probe("list_objects_v2", Prefix=self._root, MaxKeys=1)
        except Unavailable as error:
            return str(error)
        except TimeoutError as error:
            return str(self._requests.failure("list_objects_v2", error))
        self._writable = True
        return None

    async def _work(self, function: Callable[..., T], *arguments: object) -> T:
        """Hashing and sealing, away from the loop."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
