"""Free ports on loopback, found by binding them."""

from __future__ import annotations

import random
import socket
import time

from benchmark.errors import BenchError

LOOPBACK = "127.0.0.1"
STANDARD_PORTS = (25, 80, 143, 443, 465, 587, 993)
_LOWEST, _HIGHEST = 12_000, 30_000  # below the kernel's range for outgoing connections, which would steal them


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A port that nothing listens on."""
    for _ in range(1000):
        port = random.randrange(_LOWEST, _HIGHEST)
        if is_free(port):
            return port
    raise BenchError("no free port found on loopback")


def free_offset() -> int:
    """An offset at which all the standard mail ports are free."""
    for _ in range(1000):
        offset = random.randrange(_LOWEST, _HIGHEST)
        if all(is_free(port + offset) for port in STANDARD_PORTS):
            return offset
    raise BenchError("no offset found at which all ports are free on loopback")


def wait_for_port(port: int, seconds: float) -> None:
    """Return when something accepts connections there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((LOOPBACK, port), timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise BenchError(f"nothing answers on port {port} after {seconds:.0f} s")
