"""Who is let in, how often, and who is exempt.

Connections of an address are counted in all workers of the node together (tally.py), everything else in one worker.
Counting is by IPv4 address or IPv6 /64, the smallest network that one subscriber gets. Trusted networks are exempt from
these limits, and from nothing else: authentication and relay rules hold for everybody.

One bound holds for trusted networks too: each connection is a descriptor, and a process that has none left can neither
turn a client away nor open a file. So some are kept for everything else.
"""

from __future__ import annotations

import ipaddress
import resource
import sys
from collections.abc import Callable, Iterable
from time import monotonic

from mailserver.net import tally
from mailserver.net.tally import Share

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REMEMBERED = 10_000

RESERVED_DESCRIPTORS = 256
"""For the database, Redis, blobs, logs, HTTP, and connections that are being turned away."""


class Limits:
    """The trusted networks of a worker, and where its counters come from."""

    def __init__(self, trusted_networks: Iterable[str] = (), share: Share | None = None) -> None:
        self.share = share or tally.alone()
        self.open = 0
        self.most = most_connections()
        self.set_trusted(trusted_networks)

    def set_trusted(self, networks: Iterable[str]) -> None:
        """Takes effect at once; ValueError where one is not a network."""
        self._networks: tuple[Network, ...] = tuple(ipaddress.ip_network(text, strict=False) for text in networks)
        self._known: dict[str, bool] = {}

    def is_trusted(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._look_up(address)
        return known

    def connections(self, total: int, per_address: int | None = None, *, kind: str = "") -> ConnectionLimit:
        """A counter for the connections of one kind of listener. per_address None: all of them may be of one."""
        return ConnectionLimit(self, total, per_address, kind)

    def _look_up(self, text: str) -> bool:
        address = _parse(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )


class ConnectionLimit:
    """Counts connections of this worker, and of each address on the node; trusted addresses are exempt from both.

    Both bounds may be set anew at any time.
    """

    def __init__(self, limits: Limits, total: int, per_address: int | None, kind: str = "") -> None:
        self.total = total
        self.per_address = per_address
        self.open = 0
        self._kind = kind
        self._limits = limits
        self._counts: dict[str, int] = {}

    def admit(self, address: str) -> bool:
        """Counts the connection; False, and nothing counted, where it is one too many."""
        key = address_key(address)
        if self._limits.open >= self._limits.most:
            return False
        if (self.open >= self.total or self._has_enough(key)) and not self._limits.is_trusted(address):
            return False
        self._counts[key] = self._counts.get(key, 0) + 1
        self._limits.share.add(f"{self._kind} address {key}")
        self.open += 1
        self._limits.open += 1
        return True

    def release(self, address: str) -> None:
        """The end of a connection that admit() has counted."""
        key = address_key(address)
        self.open -= 1
        self._limits.open -= 1
        self._limits.share.remove(f"{self._kind} address {key}")
        count = self._counts.pop(key, 0)
        if count > 1:
            self._counts[key] = count - 1

    def _has_enough(self, key: str) -> bool:
        bound = self.per_address
        if bound is None:
            return False
        here = self._counts.get(key, 0)
        return here >= bound or here + self._limits.share.elsewhere(f"{self._kind} address {key}") >= bound


class FailureWindow:
    """Counts failures per key: after `limit` of them within `seconds` the key is blocked until the window has passed.

    A window begins with a key's first failure. The number of keys is bounded; when it is reached, windows that have
    passed are forgotten, then the oldest.
    """

    def __init__(
        self,
        limit: int,
        seconds: float,
        *,
        max_keys: int = 100_000,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.limit = limit
        self.seconds = seconds
        self._max_keys = max_keys
        self._clock = clock
        self._windows: dict[str, tuple[float, int]] = {}  # in order of their beginning

    def blocked_for(self, key: str) -> float:
        """Seconds for which the key is blocked; 0 where it is not."""
        window = self._windows.get(key)
        if window is None or window[1] < self.limit:
            return 0.0
        return max(0.0, window[0] + self.seconds - self._clock())

    def failed(self, key: str) -> None:
        now = self._clock()
        began, count = self._windows.get(key, (now, 0))
        if now >= began + self.seconds:
            del self._windows[key]
            began, count = now, 0
        if key not in self._windows and len(self._windows) >= self._max_keys:
            self._make_room(now)
        self._windows[key] = (began, count + 1)

    def forget(self, key: str) -> None:
        """A success: the key starts anew."""
        self._windows.pop(key, None)

    def _make_room(self, now: float) -> None:
        while self._windows:
            oldest = next(iter(self._windows))
            passed = now >= self._windows[oldest][0] + self.seconds
            if not passed and len(self._windows) < self._max_keys:
                return
            del self._windows[oldest]


def raise_descriptor_limit() -> None:
    """As many sockets and files as the system lets this process have; many systems begin with 1024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_connections() -> int:
    """Connections that this process may have at a time."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(soft - RESERVED_DESCRIPTORS, soft // 2)


def address_key(address: str) -> str:
    """What addresses are counted by: the IPv4 address, or the IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    parsed = _parse(address)
    if parsed is None or parsed.version == 4:
        return address if parsed is None else str(parsed)
    return str(ipaddress.IPv6Address(int(parsed) >> 64 << 64)) + "/64"


def is_loopback(address: str) -> bool:
    """Is the peer on this host?"""
    parsed = _parse(address)
    return parsed is not None and parsed.is_loopback


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
