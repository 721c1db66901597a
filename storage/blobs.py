"""Large message parts, shared by all messages that hold them.

A blob's reference is its generation (the week it was put in, 4 octets) and the keyed hash of its content (32). States
of a blob, in the style of qmail's INTERNALS:

    absent      no object
    put         object durable, no row refers to it: garbage unless a transaction is about to commit a reference
    referenced  object durable, at least one row of blob_refs names it

put: absent → put, before the transaction; an object of the current generation is reused (made durable again). commit:
put → referenced, only if the generation is then the current or the previous one. The sweeper takes put → absent, only
three generations back and older, so it can never meet a transaction in flight. A crash leaves garbage, never a hole.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from cryptography.exceptions import InvalidTag

from storage import codec
from storage.errors import NotFound, Unavailable
from storage.keys import NONCE, Keys, WrongKey

T = TypeVar("T")

GENERATION_SECONDS = 604_800
_PATIENCE_SECONDS = 60.0
REF_OCTETS = 36


def generation(now: float) -> int:
    """The generation of a moment in epoch seconds."""
    return int(now) // GENERATION_SECONDS


def generation_of(ref: bytes) -> int:
    return int.from_bytes(ref[:4], "big")


class BlobStore(Protocol):
    """put returns the blob's reference once it is durable; Unavailable where the store does not serve."""

    async def put(self, content: bytes) -> bytes: ...
    async def get(self, ref: bytes) -> bytes: ...
    async def remove(self, refs: list[bytes]) -> None: ...
    async def listed(self, before_generation: int) -> list[bytes]: ...
    async def problem(self) -> str | None: ...
    async def close(self) -> None: ...


def open_blobs(where: str, keys: Keys) -> BlobStore:
    """The store that a setting names; ValueError for one we cannot serve."""
    if where.startswith("s3://"):
        raise ValueError("blobs: s3:// is not served by this version; give a directory")
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


class DirectoryBlobs:
    """DIR/<generation>/<two hex digits>/<hash>: written beside, fsynced, renamed, and the folder fsynced."""

    def __init__(self, root: Path, keys: Keys) -> None:
        self._root = root
        self._keys = keys
        self._pool = ThreadPoolExecutor(4, "blobs")
        self._durable: set[Path] = set()

    async def put(self, content: bytes) -> bytes:
        return await self._soon(self._put, content)

    async def get(self, ref: bytes) -> bytes:
        return await self._soon(self._get, ref)

    async def remove(self, refs: list[bytes]) -> None:
        await self._run(self._remove, refs)

    async def listed(self, before_generation: int) -> list[bytes]:
        """References of all blobs of older generations."""
        return await self._run(lambda: list(self._listed(before_generation)))

    async def problem(self) -> str | None:
        try:
            return await self._run(self._problem)
        except Unavailable as error:
            return str(error)

    async def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _soon(self, function: Callable[..., T], *arguments: object) -> T:
        """A disk that stands still holds up nobody for ever."""
        try:
            return await asyncio.wait_for(self._run(function, *arguments), _PATIENCE_SECONDS)
        except TimeoutError as error:
            raise Unavailable("blob store: no answer") from error

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        except FileNotFoundError as error:
            raise NotFound(f"blob {error.filename}") from error
        except OSError as error:
            raise Unavailable(f"blob store: {error}") from error

    def _path(self, ref: bytes) -> Path:
        name = ref[4:].hex()
        return self._root / str(generation_of(ref)) / name[:2] / name

    def _put(self, content: bytes) -> bytes:
        blob_hash = self._keys.blob_hash(content)
        ref = generation(time.time()).to_bytes(4, "big") + blob_hash
        path = self._path(ref)
        if not path.exists():
            _write(path, sealed(self._keys, blob_hash, content))
        else:
            _fsync(path)
        _fsync(path.parent)
        self._keep_folders(path.parent)
        return ref

    def _keep_folders(self, folder: Path) -> None:
        """Makes the way to a folder durable, once a process: whoever made it may not have come so far yet."""
        if folder not in self._durable:
            for above in (folder.parent, self._root, self._root.parent):
                _fsync(above)
            self._durable.add(folder)

    def _get(self, ref: bytes) -> bytes:
        return opened(self._keys, ref[4:], self._path(ref).read_bytes())

    def _remove(self, refs: list[bytes]) -> None:
        for ref in refs:
            self._path(ref).unlink(missing_ok=True)

    def _listed(self, before: int) -> Iterator[bytes]:
        if not self._root.exists():
            return
        for folder in self._root.iterdir():
            if folder.name.isdigit() and int(folder.name) < before:
                number = int(folder.name).to_bytes(4, "big")
                for path in folder.glob("??/*"):
                    if path.name.startswith("."):
                        path.unlink(missing_ok=True)  # a put that broke off
                    elif len(path.name) == 64:
                        yield number + bytes.fromhex(path.name)

    def _problem(self) -> str | None:
        self._root.mkdir(parents=True, exist_ok=True)
        return None if os.access(self._root, os.W_OK) else f"{self._root} may not be written"


def _write(path: Path, stored: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        with temporary.open("wb") as file:
            file.write(stored)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
