from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from mailserver.net.limits import ConnectionLimit, FailureWindow, Limits, address_key, is_loopback, most_connections
from mailserver.net.tally import Share, Tally


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::2", False),
        ("10.1.2.3", False),
        ("192.0.2.7", True),
        ("192.0.2.129", False),
        ("2001:db8:5::1", True),
        ("2001:db8:6::1", False),
        ("fe80::1%eth0", True),
        ("", False),
        ("not an address", False),
    ],
)
def test_trusted_networks(address: str, trusted: bool) -> None:
    limits = Limits(["127.0.0.0/8", "::1/128", "192.0.2.0/25", "2001:db8:5::/48", "fe80::/10"])
    assert limits.is_trusted(address) is trusted
    assert limits.is_trusted(address) is trusted  # from memory


def test_trust_can_change() -> None:
    limits = Limits(["127.0.0.0/8"])
    assert limits.is_trusted("127.0.0.1")
    limits.set_trusted([])
    assert not limits.is_trusted("127.0.0.1")
    with pytest.raises(ValueError):
        limits.set_trusted(["127.0.0.0/99"])


def test_connections_per_address() -> None:
    counter = Limits().connections(total=100, per_address=2)
    assert [counter.admit("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert counter.admit("192.0.2.2")
    counter.release("192.0.2.1")
    assert counter.admit("192.0.2.1")
    assert not counter.admit("192.0.2.1")


def test_connections_in_all() -> None:
    counter = Limits().connections(total=3, per_address=100)
    assert [counter.admit(f"192.0.2.{i}") for i in range(4)] == [True, True, True, False]
    assert counter.open == 3
    for i in range(3):
        counter.release(f"192.0.2.{i}")
    assert (counter.open, counter._counts) == (0, {})


def test_trusted_addresses_are_exempt_from_both() -> None:
    counter = ConnectionLimit(Limits(["127.0.0.0/8"]), total=1, per_address=1)
    assert all(counter.admit("127.0.0.1") for _ in range(5))
    assert not counter.admit("192.0.2.1")


def test_ipv6_is_counted_by_its_64_bit_network() -> None:
    counter = Limits().connections(total=100, per_address=1)
    assert counter.admit("2001:db8::1")
    assert not counter.admit("2001:db8::ffff:2")
    assert counter.admit("2001:db8:0:1::1")


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("rubbish:", "rubbish:"),
    ],
)
def test_keys(address: str, key: str) -> None:
    assert address_key(address) == key


@pytest.mark.parametrize(
    ("address", "loopback"), [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.2", True), ("10.0.0.1", False)]
)
def test_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_failure_window() -> None:
    clock = Clock()
    window = FailureWindow(3, 60, clock=clock)
    for _ in range(2):
        window.failed("a")
    assert window.blocked_for("a") == 0
    clock.now += 20
    window.failed("a")
    assert window.blocked_for("a") == 40
    assert window.blocked_for("b") == 0
    clock.now += 40
    assert window.blocked_for("a") == 0
    window.failed("a")  # a new window
    assert window.blocked_for("a") == 0


def test_success_forgets_failures() -> None:
    window = FailureWindow(1, 60)
    window.failed("a")
    assert window.blocked_for("a") > 0
    window.forget("a")
    assert window.blocked_for("a") == 0


def test_remembered_failures_are_bounded() -> None:
    clock = Clock()
    window = FailureWindow(1, 60, max_keys=3, clock=clock)
    for key in "abc":
        window.failed(key)
        clock.now += 1
    window.failed("d")
    assert window.blocked_for("a") == 0  # the oldest went
    assert [window.blocked_for(key) > 0 for key in "bcd"] == [True, True, True]
    clock.now += 58.5  # b has passed, c and d have not
    window.failed("e")
    assert [window.blocked_for(key) > 0 for key in "bcde"] == [False, True, True, True]


def test_some_descriptors_are_kept_whoever_asks() -> None:
    """SMTP's and IMAP's connections count together, those of trusted networks too."""
    limits = Limits(["127.0.0.0/8"])
    limits.most = 3
    smtp, imap = limits.connections(100, 100), limits.connections(100)
    assert smtp.admit("127.0.0.1") and smtp.admit("192.0.2.1") and imap.admit("127.0.0.1")
    assert not imap.admit("127.0.0.1") and not smtp.admit("127.0.0.1")
    smtp.release("192.0.2.1")
    assert imap.admit("192.0.2.2")


def test_connections_that_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, most in ((1024, 768), (256, 128), (resource.RLIM_INFINITY, sys.maxsize)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert most_connections() == most


def test_as_many_descriptors_as_the_system_lets_us_have() -> None:
    code = """
import resource
from mailserver.net.limits import most_connections, raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (300, 900))
raise_descriptor_limit()
print(most_connections())
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "644\n"


def test_kinds_of_listeners_are_counted_apart() -> None:
    """Whoever reads mail by many connections, on whichever worker, may still send some."""
    tally = Tally(2)
    imap = Limits((), Share(tally, 0)).connections(100, kind="imap")
    smtp = Limits((), Share(tally, 1)).connections(100, 3, kind="smtp")
    assert all(imap.admit("192.0.2.1") for _ in range(50))
    assert [smtp.admit("192.0.2.1") for _ in range(4)] == [True, True, True, False]
