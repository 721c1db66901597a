"""Blobs in a directory: DIR/<generation>/<two hex digits>/<hash>.

A blob is written beside its place, fsynced, renamed, and the folder fsynced; the way to the folder is made durable
once a process. Reusing a file fsyncs it and its folder, too: whoever wrote it may not have come so far yet.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from storage.blobs import BlobCounts, generation_named, name_of, opened, ref_now, ref_of, sealed
from storage.errors import BlobsUnavailable, Damaged, NotFound, Unavailable
from storage.keys import Keys

T = TypeVar("T")

_PATIENCE_SECONDS = 60.0
_A_PAGE = 500
_TEMPORARY = re.compile(r"\.[0-9a-f]{64}\.[0-9]+\.[0-9]+")


class DirectoryBlobs:
    """The store of one process; several may share a directory."""

    threshold_octets = 64 * 1024

    def __init__(self, root: Path, keys: Keys) -> None:
        self.counts = BlobCounts()
        self._root = root
        self._keys = keys
        self._pool = ThreadPoolExecutor(4, "blobs")
        self._durable: set[Path] = set()

    async def put(self, content: bytes) -> bytes:
        return await self._run(self._put, content)

    async def get(self, ref: bytes) -> bytes:
        return await self._run(self._get, ref)

    async def get_some(self, refs: Sequence[bytes]) -> dict[bytes, bytes]:
        return await self._run(self._get_some, refs)

    async def missing(self, refs: list[bytes]) -> list[bytes]:
        return await self._run(self._missing, refs)

    async def remove(self, refs: list[bytes]) -> None:
        await self._run(self._unlink, map(name_of, refs))

    async def listed(self, before_generation: int) -> AsyncGenerator[list[bytes], None]:
        async for page in self._pages(before_generation):
            refs = [ref for name in page if (ref := ref_of(name)) is not None]
            if refs:
                yield refs

    async def clear(self, before_generation: int) -> None:
        async for page in self._pages(before_generation):
            await self._run(self._unlink, [name for name in page if _TEMPORARY.fullmatch(name.rpartition("/")[2])])

    async def _pages(self, before: int) -> AsyncGenerator[list[str], None]:
        names = self._names(before)
        while page := await self._run(lambda: list(islice(names, _A_PAGE))):
            yield page

    async def problem(self) -> str | None:
        try:
            return await self._run(self._problem)
        except Unavailable as error:
            return str(error)

    async def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _run(self, function: Callable[..., T], *arguments: object) -> T:
        """A disk that stands still holds up nobody for ever."""
        work = asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        try:
            return await asyncio.wait_for(work, _PATIENCE_SECONDS)
        except TimeoutError as error:
            raise BlobsUnavailable("blob store: no answer") from error
        except OSError as error:
            raise BlobsUnavailable(f"blob store: {error}") from error

    def _path(self, ref: bytes) -> Path:
        return self._root / name_of(ref)

    def _put(self, content: bytes) -> bytes:
        blob_hash = self._keys.blob_hash(content)
        ref = ref_now(blob_hash)
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
        try:
            stored = self._path(ref).read_bytes()
        except FileNotFoundError as error:
            if not self._root.is_dir():
                raise  # a disk that is not mounted has lost nothing
            raise NotFound(f"blob {error.filename}") from error
        return opened(self._keys, ref, stored)

    def _get_some(self, refs: Iterable[bytes]) -> dict[bytes, bytes]:
        found = {}
        for ref in refs:
            with suppress(NotFound, Damaged):
                found[ref] = self._get(ref)
        return found

    def _missing(self, refs: list[bytes]) -> list[bytes]:
        self._root.stat()  # a disk that is not mounted has lost nothing
        return [ref for ref in refs if not self._path(ref).exists()]

    def _unlink(self, names: Iterable[str]) -> None:
        for name in names:
            (self._root / name).unlink(missing_ok=True)

    def _names(self, before: int) -> Iterator[str]:
        """All files in the folders of older generations."""
        if not self._root.exists():
            return
        for folder in self._root.iterdir():
            number = generation_named(folder.name)
            if number is not None and number < before:
                for part in folder.glob("??/"):
                    with os.scandir(part) as entries:
                        yield from (f"{folder.name}/{part.name}/{entry.name}" for entry in entries)

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
