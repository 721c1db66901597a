"""The listeners: which role has which ports, and binding them before root is dropped.

Each worker slot has a socket of its own for every listener (SO_REUSEPORT), and the supervisor keeps all of them open:
when a worker dies, connections that wait in its backlog are served by its successor.

SO_REUSEPORT would let two servers of one user share a port in silence, so a port is first bound without it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Tls = Literal["starttls", "implicit", "none"]

UNPRIVILEGED_OFFSET = 20_000
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of listener."""

    name: str
    role: str
    standard_port: int
    tls: Tls
    title: str


ENDPOINTS = (
    Endpoint("smtp", "smtp", 25, "starttls", "SMTP, mail from other servers"),
    Endpoint("submission", "submission", 587, "starttls", "SMTP submission"),
    Endpoint("submissions", "submission", 465, "implicit", "SMTP submission"),
    Endpoint("imap", "imap", 143, "starttls", "IMAP"),
    Endpoint("imaps", "imap", 993, "implicit", "IMAP"),
    Endpoint("http", "api", 80, "none", "HTTP"),
    Endpoint("https", "api", 443, "implicit", "HTTPS"),
)


class PortError(Exception):
    """Some ports cannot be had; the text says which and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """One endpoint on one address of ours."""

    endpoint: Endpoint
    family: int
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


Slot = dict[str, list[socket.socket]]
"""The sockets of one worker, by the endpoint's name."""


def endpoints(roles: Iterable[str]) -> list[Endpoint]:
    """Those that the roles have."""
    wanted = set(roles)
    return [endpoint for endpoint in ENDPOINTS if endpoint.role in wanted]


def choose_offset(wanted: int | None, hosts: Sequence[str]) -> int:
    """The port offset: what was asked for, else 0 where low ports may be bound and 20000 where not."""
    if wanted is not None:
        return wanted
    for family, host in _resolve(hosts):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, ENDPOINTS[0].standard_port))
            except PermissionError:
                return UNPRIVILEGED_OFFSET
            except OSError:
                continue  # taken or no such address: said when the ports are bound
    return 0


def addresses(roles: Iterable[str], hosts: Sequence[str], offset: int) -> list[Address]:
    """Everything to listen on. PortError where a host is no address."""
    resolved = _resolve(hosts)
    return [
        Address(endpoint, family, host, endpoint.standard_port + offset)
        for endpoint in endpoints(roles)
        for family, host in resolved
    ]


def bind(wanted: Sequence[Address], slots: int) -> list[Slot]:
    """The sockets of each worker slot, bound and not listening yet. PortError names every port that cannot be had."""
    problems: list[str] = []
    bound: list[Slot] = [{address.endpoint.name: [] for address in wanted} for _ in range(slots)]
    for address in wanted:
        try:
            _bind_one(address, reuse=False).close()
            for slot in bound:
                slot[address.endpoint.name].append(_bind_one(address, reuse=True))
        except OSError as error:
            problems.append(f"{address} ({address.endpoint.name}): {_reason(error)}")
    if problems:
        close(bound)
        raise PortError(_advice(problems))
    return bound


def listen(slots: Sequence[Slot]) -> None:
    """From now on clients are let in; the backlog waits for the workers."""
    for slot in slots:
        for sockets in slot.values():
            for sock in sockets:
                sock.listen(BACKLOG)


def close(slots: Iterable[Slot]) -> None:
    for slot in slots:
        for sockets in slot.values():
            for sock in sockets:
                sock.close()


def _bind_one(address: Address, *, reuse: bool) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if address.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address.host, address.port))
    except OSError:
        sock.close()
        raise
    return sock


def _resolve(hosts: Sequence[str]) -> list[tuple[int, str]]:
    found: dict[tuple[int, str], None] = {}
    for host in hosts:
        try:
            for family, _, _, _, place in socket.getaddrinfo(
                host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                found[family, str(place[0])] = None
        except OSError as error:
            raise PortError(f"server.host: {host} is no address of this host: {error.strerror}") from error
    return list(found)


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "in use by another program"
        case errno.EACCES:
            return "only root may bind it"
        case errno.EADDRNOTAVAIL:
            return "this host has no such address"
        case _:
            return error.strerror or str(error)


def _advice(problems: Sequence[str]) -> str:
    lines = ["cannot listen on", *(f"  {problem}" for problem in problems)]
    if any("in use" in problem for problem in problems):
        lines.append("stop the program that uses the port (`ss -ltnp` shows it), or choose others: --port-offset N")
    elif any("only root" in problem for problem in problems):
        lines.append(f"start as root, or choose ports above 1023: --port-offset {UNPRIVILEGED_OFFSET}")
    return "\n".join(lines)
