"""A disk that can be full: a small tmpfs, for root, in a mount namespace of our own that goes with our processes."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1024 * 1024
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_BALLAST = "ballast"
_libc = ctypes.CDLL(None, use_errno=True)


class Disk:
    """folder: where it is mounted."""

    def __init__(self, folder: Path, octets: int) -> None:
        """OSError where this process may not mount. Call it before any thread is started."""
        self.folder = folder
        _check(_libc.unshare(_CLONE_NEWNS))
        _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
        options = f"size={octets},mode=0755".encode()
        _check(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), options))

    @contextmanager
    def full(self, left: int) -> Iterator[None]:
        """Has only so many octets left, for as long as `with` lasts."""
        ballast = self.folder / _BALLAST
        try:
            with ballast.open("wb") as file:
                self._fill(file.fileno(), left)
            yield
        finally:
            ballast.unlink(missing_ok=True)

    def _fill(self, descriptor: int, left: int) -> None:
        """Others write meanwhile, so what is asked for may be more than there is."""
        for _ in range(20):
            about = os.statvfs(self.folder)
            wanted = about.f_bavail * about.f_frsize - left
            if wanted <= 0:
                return
            try:
                os.posix_fallocate(descriptor, os.fstat(descriptor).st_size, wanted)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def unmount(self) -> None:
        _libc.umount2(os.fsencode(self.folder), 2)  # MNT_DETACH


def memory_for(octets: int) -> bool:
    """Is there memory for a tmpfs of this size, twice over?"""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 > 2 * octets
    return False


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
