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

There are two stores, a directory (storage/directory_blobs.py) and S3 (storage/s3_blobs.py). Both keep a blob in the
same form under the same name, so that moving from one to the other is copying files.

Stored form: an octet for the codec (storage/codec.py), a random nonce, and the sealed octets. The codec is bound to
them, and the key is that of the name: what opens is what was put under it.
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from storage import codec
from storage.errors import Damaged
from storage.keys import Keys

if TYPE_CHECKING:
    from config.schema import StorageConfig

GENERATION_SECONDS = 604_800
REF_OCTETS = 36
S3_SCHEME = "s3://"

_NAME = re.compile(r"([0-9]+)/([0-9a-f]{2})/(\2[0-9a-f]{62})")
_GENERATION = re.compile("0|[1-9][0-9]{0,9}")


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


def ref_of(name: str) -> bytes | None:
    """The way back; None for what is no blob of ours."""
    found = _NAME.fullmatch(name)
    number = None if found is None else generation_named(found[1])
    return None if found is None or number is None else number.to_bytes(4, "big") + bytes.fromhex(found[3])


def generation_named(name: str) -> int | None:
    """The generation whose folder has this name; None for a folder of something else."""
    return int(name) if _GENERATION.fullmatch(name) and int(name) < 1 << 32 else None


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
        """The content. NotFound: the store serves, and has no such blob. Damaged."""
        ...

    async def get_some(self, refs: Sequence[bytes]) -> dict[bytes, bytes]:
        """The contents of those that can be had, for one message after another; of the others `get` says why not."""
        ...

    async def missing(self, refs: list[bytes]) -> list[bytes]:
        """Those that it does not have."""
        ...

    async def remove(self, refs: list[bytes]) -> None:
        """Absent ones count as removed."""
        ...

    def listed(self, before_generation: int) -> AsyncGenerator[list[bytes], None]:
        """References of all blobs of older generations, some hundred at a time, which may be removed meanwhile."""
        ...

    async def clear(self, before_generation: int) -> None:
        """Takes away what puts that broke off have left, those of older generations at least. For the sweeper alone."""
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
    """A blob's stored form. Another release of the compressor may make other octets of the same content, and one key
    must not seal both under one nonce: so it is random."""
    form, octets = codec.compress(content)
    head = bytes([form | codec.SEALED])
    return head + codec.seal(keys.blob_cipher(blob_hash), octets, head)


def opened(keys: Keys, ref: bytes, stored: bytes) -> bytes:
    """The content that the reference names; Damaged."""
    try:
        octets = codec.unseal(keys.blob_cipher(ref[4:]), memoryview(stored)[1:], stored[:1])
    except Damaged as error:
        raise Damaged(f"blob {name_of(ref)} does not open under its key") from error
    return codec.expand(stored[0], octets)
