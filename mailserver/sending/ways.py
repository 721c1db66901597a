"""How this node sends, out of its settings: where to, how to talk, when again, and what it must not connect to."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from config.schema import Config
from mailserver.sending.retry import Policy
from mailserver.sending.session import Manner
from mailserver.sending.targets import Resolver, Routes, ThisHost, host_port

SMARTHOST_PORT = 587
_IPV4_ROUTES = Path("/proc/net/fib_trie")
_IPV6_ADDRESSES = Path("/proc/net/if_inet6")


@dataclass(frozen=True, slots=True)
class Ways:
    """direct: how to talk to mail exchangers and fixed routes; smart: to the smarthost, where there is one."""

    routes: Routes
    smarthost: tuple[str, int] | None
    direct: Manner
    smart: Manner
    policy: Policy
    this_host: ThisHost
    port: int

    def route(self, domain: str) -> tuple[str, int] | None:
        """Host and port that take a domain's mail; None where its mail exchangers do."""
        return self.routes.find(domain)

    def manner(self, route: tuple[str, int] | None) -> Manner:
        return self.smart if route is not None and route == self.smarthost else self.direct


def of_config(config: Config, listening: Sequence[tuple[str, int]], instance: str) -> Ways:
    """listening: addresses and ports of the SMTP listeners; instance: the id in their greeting."""
    send = config.send
    direct = Manner(
        hello_name=send.hello_name or config.server.hostname,
        instance=instance,
        tls=send.tls,
        sources=send.source_addresses,
        connect_seconds=send.connect_seconds,
    )
    policy = Policy(
        pauses_seconds=send.retry_pauses_seconds,
        give_up_seconds=send.give_up_seconds,
        notice_seconds=send.delay_notice_seconds,
        first_backoff_seconds=send.first_backoff_seconds,
        longest_backoff_seconds=send.longest_backoff_seconds,
    )
    routes = dict(_pair(route) for route in send.routes)
    smarthost = None
    if send.smarthost:
        smarthost = host_port(send.smarthost, SMARTHOST_PORT)
        routes.setdefault("*", _written(*smarthost))
    names = frozenset({config.server.hostname.lower()})
    return Ways(
        Routes(routes),
        smarthost,
        direct,
        _smart(config, direct),
        policy,
        ThisHost(names, tuple(listening), local_addresses(), ipv6=_IPV6_ADDRESSES.exists(), loopback=send.loopback),
        send.port,
    )


def resolver(config: Config) -> Resolver:
    return Resolver(config.send.resolvers)


def _smart(config: Config, direct: Manner) -> Manner:
    send = config.send
    secure = send.smarthost_tls != "opportunistic"
    manner = replace(
        direct,
        tls="required" if secure else "opportunistic",
        implicit_tls=send.smarthost_tls == "implicit",
        verify=secure,
    )
    if send.smarthost_username is None or send.smarthost_password is None:
        return manner
    return replace(manner, username=send.smarthost_username, password=send.smarthost_password)


def _written(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _pair(route: str) -> tuple[str, str]:
    domain, _, host = route.partition("=")
    return domain.strip(), host.strip()


def local_addresses() -> frozenset[str]:
    """Addresses of this host's interfaces, as far as the system tells."""
    found = set()
    with suppress(OSError):
        for line in _IPV6_ADDRESSES.read_text(encoding="ascii").splitlines():
            found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])))
    with suppress(OSError):
        last = ""
        for line in _IPV4_ROUTES.read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[1:3] == ["host", "LOCAL"]:
                found.add(last)
            elif words[:1] == ["|--"]:
                last = words[1]
    return frozenset(found)
