"""Who is let in, how often, and who is exempt.

Everything here counts in one worker: with N workers an address may have up to N times as many connections. Counting is
by IPv4 address or IPv6 /64, the smallest network that one subscriber gets. Trusted networks are exempt from these
limits, and from nothing else: authentication and relay rules hold for everybody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from time import monotonic

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REMEMBERED = 10_000


class Limits:
    """The trusted networks of a worker, and where its counters come from."""

    def __init__(self, trusted_networks: Iterable[str] = ()) -> None:
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

    def connections(self, total: int, per_address: int) -> ConnectionLimit:
        """A counter for the connections of one kind of listener."""
        return ConnectionLimit(self, total, per_address)

    def _look_up(self, text: str) -> bool:
        address = _parse(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )


class ConnectionLimit:
    """Counts connections in all and per address; both bounds are exempted for trusted addresses."""

    def __init__(self, limits: Limits, total: int, per_address: int) -> None:
        self.total = total
        self.per_address = per_address
        self.open = 0
        self._limits = limits
        self._counts: dict[str, int] = {}

    def admit(self, address: str) -> bool:
        """Counts the connection; False, and nothing counted, where it is one too many."""
        key = address_key(address)
        count = self._counts.get(key, 0)
        if (count >= self.per_address or self.open >= self.total) and not self._limits.is_trusted(address):
            return False
        self._counts[key] = count + 1
        self.open += 1
        return True

    def release(self, address: str) -> None:
        """The end of a connection that admit() has counted."""
        key = address_key(address)
        self.open -= 1
        count = self._counts.pop(key, 0)
        if count > 1:
            self._counts[key] = count - 1


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
