"""Large message parts, shared by all messages that hold them.

A blob's reference is its generation (the week it was put in, 4 octets) and the keyed hash of its content (32). States
of a blob, in the style of qmail's INTERNALS:

    absent      no object
    put         object durable, no row refers to it: garbage unless a transaction is about to commit a reference
    referenced  object durable, at least one row of blob_refs names it

put: absent → put, before the transaction; an object of the current generation is reused (made durable again, or found
durable). commit: put → referenced, only if the generation is then the current or the previous one. The sweeper takes
put → absent, only three generations back and older, so it can never meet a transaction in flight. A crash leaves
garbage, never a hole.

There are two stores, a directory (storage/directory_blobs.py) and S3 (storage/s3_blobs.py). They keep the same octets
under the same names, so that moving from one to the other is copying files.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag

from storage import codec
from storage.keys import NONCE, Keys, WrongKey

if TYPE_CHECKING:
    from config.schema import StorageConfig

GENERATION_SECONDS = 604_800
REF_OCTETS = 36
S3_SCHEME = "s3://"

_FILE_NAME = re.compile(r"[0-9a-f]{64}")


def generation(now: float) -> int:
    """The generation of a moment in epoch seconds."""
    return int(now) // GENERATION_SECONDS


def generation_of(ref: bytes) -> int:
    return int.from_bytes(ref[:4], "big")


def ref_now(blob_hash: bytes) -> bytes:
    """The reference of a blob that is put at this moment."""
    return generation(time.time()).to_bytes(4, "big") + blob_hash


def name_of(ref: bytes) -> str:
    """Where a store keeps it: generation/two digits/hash."""
    name = ref[4:].hex()
    return f"{generation_of(ref)}/{name[:2]}/{name}"


def ref_of(number: int, file_name: str) -> bytes | None:
    """The way back from a generation and the last part of a name; None for what is no blob."""
    if _FILE_NAME.fullmatch(file_name) is None:
        return None
    return number.to_bytes(4, "big") + bytes.fromhex(file_name)


@dataclass(slots=True)
class BlobCounts:
    """What a store has done since it was opened: requests to an object store by operation, and its read cache."""

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    cache: Counter[str] = field(default_factory=Counter)
    """hits, misses, octets (of the hits), damaged."""


class BlobStore(Protocol):
    """All of it raises Unavailable where the store does not serve."""

    threshold_octets: int
    """Parts of this size or more are worth a blob here, where no setting says otherwise."""
    counts: BlobCounts

    async def put(self, content: bytes) -> bytes:
        """The blob's reference, once it is durable."""
        ...

    async def get(self, ref: bytes) -> bytes:
        """The content. NotFound: the store serves, and has no such blob. WrongKey."""
        ...

    async def missing(self, refs: list[bytes]) -> list[bytes]:
        """Those that it does not have."""
        ...

    async def remove(self, refs: list[bytes]) -> None:
        """Absent ones count as removed."""
        ...

    def listed(self, before_generation: int) -> AsyncGenerator[list[bytes], None]:
        """References of all blobs of older generations, some hundred at a time, which may be removed meanwhile.

        What puts that broke off have left is cleared away on the way.
        """
        ...

    async def problem(self) -> str | None:
        """Why it does not serve, in a sentence that says what to do; None where all is well."""
        ...

    async def close(self) -> None: ...


def open_blobs(where: str, keys: Keys, config: StorageConfig, cache_folder: Path | None = None) -> BlobStore:
    """The store that a setting names; cache_folder: for reading from S3, bounded by a setting; None: without."""
    if where.startswith(S3_SCHEME):
        from storage.s3_blobs import S3Blobs

        return S3Blobs(where, keys, config, cache_folder)
    from storage.directory_blobs import DirectoryBlobs

    return DirectoryBlobs(Path(where), keys)


def sealed(keys: Keys, blob_hash: bytes, content: bytes) -> bytes:
    """A blob's stored form. One key seals exactly one content, so a constant nonce is safe and equal blobs are
    equal."""
    form, octets = codec.compress(content)
    return bytes([form | codec.SEALED]) + keys.blob_cipher(blob_hash).encrypt(bytes(NONCE), octets, None)


def opened(keys: Keys, blob_hash: bytes, stored: bytes) -> bytes:
    try:
        octets = keys.blob_cipher(blob_hash).decrypt(bytes(NONCE), stored[1:], None)
    except InvalidTag as error:
        raise WrongKey("a blob does not open under its key") from error
    return codec.expand(stored[0], octets)
