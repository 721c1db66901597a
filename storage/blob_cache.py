"""A cache of blobs on local disk, as they are stored, shared by the workers of a node and bounded in octets.

    FOLDER/<two hex digits>/<reference>    a blob; its time of change is that of its last use
    FOLDER/size                            octets held, at least; locked by whoever adds something

Files are written beside their place and renamed, so none is ever half there; they are not fsynced: after a crash of the
machine one may be damaged, which its reader finds out. When the bound is reached, those that were not used for longest
go until an eighth is free. A process that finds the lock taken adds nothing this time. Whatever is wrong with the disk,
reading goes on without the cache; where it stands still, until it has gone on.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

_COMPLAIN_SECONDS = 60.0
_PATIENCE_SECONDS = 5.0
_THREADS = 2
_LARGEST = 8
"""A blob that would take more than this fraction is not kept."""


class BlobCache:
    """Calls block on the disk: make them in a thread."""

    def __init__(self, folder: Path, bound: int) -> None:
        self._folder = folder
        self._bound = bound
        self._size = folder / "size"
        self._complained = -_COMPLAIN_SECONDS

    def get(self, ref: bytes) -> bytes | None:
        """What was kept under this reference; the caller checks it, and drops it where it is damaged."""
        path = self._path(ref)
        try:
            stored = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.complain(error)
            return None
        return stored

    def put(self, ref: bytes, stored: bytes) -> None:
        """Keeps it if that is possible now."""
        if len(stored) > self._bound // _LARGEST:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            ledger = os.open(self._size, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(ledger, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._add(ledger, self._path(ref), stored)
            finally:
                os.close(ledger)
        except BlockingIOError:
            return
        except OSError as error:
            self.complain(error)

    def drop(self, ref: bytes) -> None:
        try:
            self._path(ref).unlink(missing_ok=True)
        except OSError as error:
            self.complain(error)

    def _path(self, ref: bytes) -> Path:
        return self._folder / ref[4:5].hex() / ref.hex()

    def _add(self, ledger: int, path: Path, stored: bytes) -> None:
        """Counted first, so that a crash leaves the count too high, never too low; the next clearing counts anew."""
        if path.exists():
            return
        written = os.pread(ledger, 8, 0)
        held = int.from_bytes(written, "big") if len(written) == 8 else self._clear(self._bound)
        if held + len(stored) > self._bound:
            held = self._clear(self._bound - max(len(stored), self._bound // _LARGEST))
        os.pwrite(ledger, (held + len(stored)).to_bytes(8, "big"), 0)
        _write(path, stored)

    def _clear(self, goal: int) -> int:
        """Removes what was not used for longest until `goal` octets are left; how many are."""
        files = sorted(self._files())
        held = sum(size for _, size, _ in files)
        for _, size, path in files:
            if held <= goal:
                break
            path.unlink(missing_ok=True)
            held -= size
        return held

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for folder in self._folder.iterdir():
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    for entry in entries:
                        try:
                            about = entry.stat()
                        except FileNotFoundError:
                            continue  # dropped just now
                        yield about.st_mtime, about.st_size, Path(entry.path)

    def complain(self, error: OSError) -> None:
        if time.monotonic() - self._complained >= _COMPLAIN_SECONDS:
            self._complained = time.monotonic()
            log.warning("the cache of blobs is left aside: %s", error)


class PatientCache:
    """The same for the event loop, in threads of its own. Nobody waits for the disk for more than five seconds."""

    def __init__(self, cache: BlobCache) -> None:
        self._cache = cache
        self._pool = ThreadPoolExecutor(_THREADS, "blob-cache")
        self._stuck: set[Future[Any]] = set()

    async def get(self, ref: bytes) -> bytes | None:
        return await self._work(self._cache.get, ref)

    async def put(self, ref: bytes, stored: bytes) -> None:
        await self._work(self._cache.put, ref, stored)

    async def drop(self, ref: bytes) -> None:
        await self._work(self._cache.drop, ref)

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _work(self, function: Callable[..., T], *arguments: object) -> T | None:
        """Its result; None where the disk stands still."""
        if self._stuck:
            return None
        work: Future[T] = self._pool.submit(function, *arguments)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), _PATIENCE_SECONDS)
        except TimeoutError:
            self._leave_aside(work)
            return None

    def _leave_aside(self, work: Future[T]) -> None:
        """Until it has ended; work that was not begun is cancelled."""
        if not work.done():
            self._stuck.add(work)
            work.add_done_callback(self._stuck.discard)
            self._cache.complain(TimeoutError("its disk does not answer"))


def _write(path: Path, stored: bytes) -> None:
    path.parent.mkdir(exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".new")
    try:
        temporary.write_bytes(stored)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
