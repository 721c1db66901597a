"""Binding: all ports or none, one socket a worker slot, and clear words where it fails."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from mailserver.node import listeners as subject
from mailserver.node.listeners import Address, PortError

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def address(port: int, host: str = HOST) -> Address:
    return Address(subject.ENDPOINTS[0], socket.AF_INET6 if ":" in host else socket.AF_INET, host, port)


@pytest.fixture
def busy() -> Iterator[int]:
    """A port on which another server of the same user listens, with SO_REUSEPORT as ours does."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((HOST, 0))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.mark.parametrize(
    ("roles", "ports"),
    [
        (("smtp",), {"smtp": 1025}),
        (("submission",), {"submission": 1587, "submissions": 1465}),
        (("imap",), {"imap": 1143, "imaps": 1993}),
        (("api",), {"http": 1080, "https": 1443}),
        (("index",), {}),
    ],
)
def test_ports_of_a_role(roles: tuple[str, ...], ports: dict[str, int]) -> None:
    found = subject.addresses(roles, [HOST], 1000)
    assert {address.endpoint.name: address.port for address in found} == ports


def test_every_slot_has_a_socket_and_together_they_share_the_port() -> None:
    port = free_port()
    slots = subject.bind([address(port)], 3)
    try:
        assert [slot["smtp"][0].getsockname()[1] for slot in slots] == [port] * 3
        with pytest.raises(ConnectionRefusedError):  # bound, and not listening yet
            socket.create_connection((HOST, port), 1)
        subject.listen(slots)
        for _ in range(20):
            socket.create_connection((HOST, port), 1).close()
    finally:
        subject.close(slots)


def test_a_port_in_use_is_named_with_what_to_do(busy: int) -> None:
    free = free_port()
    with pytest.raises(PortError) as caught:
        subject.bind([address(busy), address(free)], 2)
    text = str(caught.value)
    assert f"127.0.0.1:{busy} (smtp): in use" in text and "--port-offset" in text and str(free) not in text
    # Nothing is left bound.
    with socket.socket() as probe:
        probe.bind((HOST, free))


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(PortError, match="no such address"):
        subject.bind([address(free_port(), "192.0.2.1")], 1)
    with pytest.raises(PortError, match=r"server.host: no.such.name.invalid"):
        subject.addresses(["smtp"], ["no.such.name.invalid"], 0)


def test_what_was_asked_for_is_the_offset(busy: int) -> None:
    assert subject.choose_offset(0, [HOST]) == 0
    assert subject.choose_offset(300, [HOST]) == 300


def test_the_offset_where_low_ports_may_not_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(subject.socket, "socket", Refused)
    assert subject.choose_offset(None, [HOST]) == 20_000


@pytest.mark.skipif(os.geteuid() != 0, reason="root may bind them")
def test_no_offset_for_root() -> None:
    assert subject.choose_offset(None, [HOST]) == 0


def test_ipv6_beside_ipv4_on_one_port() -> None:
    port = free_port()
    try:
        slots = subject.bind([address(port), address(port, "::1")], 1)
    except PortError:
        pytest.skip("no IPv6 here")
    assert str(address(25, "::1")) == "[::1]:25"
    subject.close(slots)
