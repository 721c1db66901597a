"""Where mail goes, asked of a real name server on loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.rdatatype
import dns.resolver
import pytest
import uvloop

from mailserver.sending import targets as subject
from mailserver.sending.outcome import Deferred, Failed
from mailserver.sending.targets import (
    LookupFailed,
    NoSuchName,
    NoTargets,
    Resolver,
    Routes,
    Target,
    ThisHost,
    host_port,
    is_own,
    targets,
)
from tests.support.dns import DnsServer

ROOT = Path(__file__).parents[2]

US = ThisHost(
    names=frozenset({"mail.here.example", "alias.here.example"}),
    listening=(("0.0.0.0", 25), ("::", 25)),
    local=frozenset({"192.0.2.200", "2001:db8::200"}),
)

ZONE = {
    # One exchanger, and one with addresses of both families.
    "plain.example": ["MX 10 mx.plain.example."],
    "mx.plain.example": ["A 192.0.2.1"],
    "dual.example": ["MX 10 mx.dual.example."],
    "mx.dual.example": ["A 192.0.2.1", "A 192.0.2.2", "A 192.0.2.3", "AAAA 2001:db8::1", "AAAA 2001:db8::2"],
    # By preference; the same host twice; the same address twice.
    "order.example": ["MX 30 c.order.example.", "MX 10 A.order.example.", "MX 20 b.order.example."],
    "a.order.example": ["A 192.0.2.1"],
    "b.order.example": ["A 192.0.2.2"],
    "c.order.example": ["A 192.0.2.3"],
    "twice.example": ["MX 1 a.order.example.", "MX 5 b.order.example.", "MX 10 a.order.example."],
    "shared.example": ["MX 10 a.order.example.", "MX 20 also-a.example."],
    "also-a.example": ["A 192.0.2.1"],
    # No MX: the domain itself.
    "implicit.example": ["A 192.0.2.1", "AAAA 2001:db8::1"],
    "nothing.example": ["TXT none"],
    # Where servers listen that trust this host; and a private network.
    "inside.example": ["A 127.0.0.1", "AAAA ::1"],
    "link-local.example": ["A 169.254.1.1", "AAAA fe80::1"],
    "private.example": ["A 10.0.0.1"],
    "only6.example": ["AAAA 2001:db8::1"],
    "mx6.example": ["MX 10 only6.example."],
    # Null MX (RFC 7505), and one among others, which is no null MX.
    "null.example": ["MX 0 ."],
    "null10.example": ["MX 10 ."],
    "null-and-more.example": ["MX 0 .", "MX 10 mx.plain.example."],
    # Exchangers that are none.
    "literal.example": ["MX 10 192.0.2.9.", "MX 20 mx.plain.example."],
    "only-literal.example": ["MX 10 192.0.2.9."],
    "192.0.2.9": ["A 192.0.2.9"],
    "odd.example": ["MX 10 bad\\032host.example.", "MX 20 mx.plain.example."],
    "gone.example": ["MX 10 not-there.example.", "MX 20 nothing.example."],
    "half-gone.example": ["MX 10 not-there.example.", "MX 20 mx.plain.example."],
    "any.example": ["MX 10 any-address.example.", "MX 20 mx.plain.example."],
    "any-address.example": ["A 0.0.0.0", "A 224.0.0.1", "AAAA ::"],
    # Aliases of the domain and of the exchanger.
    "alias.example": ["CNAME plain.example."],
    "mx-alias.example": ["MX 10 mx.alias.example."],
    "mx.alias.example": ["CNAME mx.plain.example."],
    "dangling.example": ["CNAME not-there.example."],
    "circle.example": ["CNAME circle.example."],
    # Ourselves, by name and by address.
    "backup.example": [
        "MX 10 a.order.example.",
        "MX 20 mail.here.example.",
        "MX 20 b.order.example.",
        "MX 30 c.order.example.",
    ],
    "ours.example": ["MX 10 mail.here.example.", "MX 10 a.order.example."],
    "mail.here.example": ["A 192.0.2.200"],
    "backup-address.example": ["MX 10 a.order.example.", "MX 20 other-name.example.", "MX 30 c.order.example."],
    "ours-address.example": ["MX 10 other-name.example.", "MX 20 c.order.example."],
    "other-name.example": ["A 192.0.2.77", "AAAA 2001:db8::200"],
    "loopback.example": ["MX 10 loop.example."],
    "loop.example": ["A 127.0.0.1"],
    "here.example": ["A 192.0.2.200"],
    # Internationalized.
    "xn--bcher-kva.example": ["MX 10 mx.plain.example."],
    # Name servers that fail.
    "partly.example": ["MX 10 fails.example.", "MX 20 mx.plain.example."],
    "wholly.example": ["MX 10 fails.example.", "MX 20 not-there.example."],
    "truncated.example": ["MX 10 mx.plain.example."],
    "fails-aaaa.example": ["A 192.0.2.1"],
    # Large.
    "many.example": [f"MX {n} h{n}.many.example." for n in range(1, 31)],
    **{f"h{n}.many.example": [f"A 198.51.100.{n}"] for n in range(1, 31)},
    "wide.example": [f"MX 10 h{n}.wide.example." for n in range(1, 6)],
    **{f"h{n}.wide.example": [f"A 198.51.{n}.{m}" for m in range(1, 31)] for n in range(1, 6)},
    "flood.example": [f"MX 10 h{n}.flood.example." for n in range(300)],
    # The hosts of routes.
    "relay.example": ["A 192.0.2.50", "AAAA 2001:db8::50"],
}

BEHAVIOUR = {
    "servfail.example": "servfail",
    "refused.example": "refuse",
    "garbage.example": "garbage",
    "silent.example": "silent",
    "fails.example": "servfail",
    "truncated.example": "truncate",
}

# Domain, and "host address" of each target.
FOUND = [
    ("plain.example", ["mx.plain.example 192.0.2.1"]),
    ("PLAIN.Example", ["mx.plain.example 192.0.2.1"]),
    ("plain.example.", ["mx.plain.example 192.0.2.1"]),
    (
        "dual.example",
        [f"mx.dual.example {a}" for a in ("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "192.0.2.3")],
    ),
    ("order.example", ["a.order.example 192.0.2.1", "b.order.example 192.0.2.2", "c.order.example 192.0.2.3"]),
    ("twice.example", ["a.order.example 192.0.2.1", "b.order.example 192.0.2.2"]),
    ("shared.example", ["a.order.example 192.0.2.1"]),
    ("implicit.example", ["implicit.example 2001:db8::1", "implicit.example 192.0.2.1"]),
    ("null-and-more.example", ["mx.plain.example 192.0.2.1"]),
    ("literal.example", ["mx.plain.example 192.0.2.1"]),
    ("odd.example", ["mx.plain.example 192.0.2.1"]),
    ("half-gone.example", ["mx.plain.example 192.0.2.1"]),
    ("any.example", ["mx.plain.example 192.0.2.1"]),
    ("alias.example", ["mx.plain.example 192.0.2.1"]),
    ("mx-alias.example", ["mx.alias.example 192.0.2.1"]),
    ("backup.example", ["a.order.example 192.0.2.1"]),
    ("backup-address.example", ["a.order.example 192.0.2.1"]),
    ("bücher.example", ["mx.plain.example 192.0.2.1"]),
    ("BÜCHER.example", ["mx.plain.example 192.0.2.1"]),
    ("xn--bcher-kva.example", ["mx.plain.example 192.0.2.1"]),
    ("partly.example", ["mx.plain.example 192.0.2.1"]),
    ("truncated.example", ["mx.plain.example 192.0.2.1"]),
    ("many.example", [f"h{n}.many.example 198.51.100.{n}" for n in range(1, 11)]),
    ("[192.0.2.9]", ["[192.0.2.9] 192.0.2.9"]),
    ("[IPv6:2001:DB8::9]", ["[ipv6:2001:db8::9] 2001:db8::9"]),
]

# Domain, class, code, enhanced code.
REFUSED = [
    ("not-there.example", Failed, 550, "5.1.2"),
    ("dangling.example", Failed, 550, "5.1.2"),
    ("nothing.example", Failed, 550, "5.1.2"),
    ("", Failed, 550, "5.1.2"),
    ("a..b", Failed, 550, "5.1.2"),
    ("bad domain.example", Failed, 550, "5.1.2"),
    ("x" * 64 + ".example", Failed, 550, "5.1.2"),
    ("x." * 500, Failed, 550, "5.1.2"),
    ("ü" * 100_000, Failed, 550, "5.1.2"),
    ("☃\u202e.example", Failed, 550, "5.1.2"),
    ("\udcff.example", Failed, 550, "5.1.2"),
    ("[192.0.2.300]", Failed, 550, "5.1.2"),
    ("[example.org]", Failed, 550, "5.1.2"),
    ("[224.0.0.1]", Failed, 550, "5.4.4"),
    ("[0.0.0.0]", Failed, 550, "5.4.4"),
    ("null.example", Failed, 556, "5.1.10"),
    ("null10.example", Failed, 556, "5.1.10"),
    ("only-literal.example", Failed, 550, "5.4.4"),
    ("gone.example", Failed, 550, "5.4.4"),
    ("ours.example", Failed, 554, "5.4.6"),
    ("ours-address.example", Failed, 554, "5.4.6"),
    ("loopback.example", Failed, 554, "5.4.6"),
    ("here.example", Failed, 554, "5.4.6"),
    ("mail.here.example", Failed, 554, "5.4.6"),
    ("[192.0.2.200]", Failed, 554, "5.4.6"),
    ("[127.0.0.2]", Failed, 554, "5.4.6"),
    ("[IPv6:::1]", Failed, 554, "5.4.6"),
    ("servfail.example", Deferred, 451, "4.4.3"),
    ("refused.example", Deferred, 451, "4.4.3"),
    ("garbage.example", Deferred, 451, "4.4.3"),
    ("silent.example", Deferred, 451, "4.4.3"),
    ("circle.example", Deferred, 451, "4.4.3"),
    ("wholly.example", Deferred, 451, "4.4.3"),
]


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(ZONE) as server:
        server.behaviour.update(BEHAVIOUR)  # type: ignore[arg-type]
        yield server


def resolver_of(server: DnsServer, **more: Any) -> Resolver:
    return Resolver([server.address], **{"query_seconds": 2.0, "lifetime_seconds": 5.0, **more})


async def find(domain: str, server: DnsServer, seconds: float = 5.0, **more: Any) -> list[Target]:
    return await targets(domain, resolver_of(server, lifetime_seconds=seconds), **{"this_host": US, **more})


async def outcome(domain: str, server: DnsServer, **more: Any) -> Deferred | Failed:
    with pytest.raises(NoTargets) as caught:
        await find(domain, server, **more)
    return caught.value.outcome


def shown(found: list[Target]) -> list[str]:
    return [f"{target.host} {target.address}" for target in found]


# Domains


@pytest.mark.parametrize(("domain", "expected"), FOUND)
async def test_targets(server: DnsServer, domain: str, expected: list[str]) -> None:
    found = await find(domain, server)
    assert shown(found) == expected
    assert {target.port for target in found} == {25}


@pytest.mark.parametrize(("domain", "kind", "code", "enhanced"), REFUSED, ids=[row[0][:20] for row in REFUSED])
async def test_no_targets(server: DnsServer, domain: str, kind: type, code: int, enhanced: str) -> None:
    made = await outcome(domain, server, seconds=0.5 if kind is Deferred else 5.0)
    assert (type(made), made.code, made.enhanced, made.host) == (kind, code, enhanced, "")
    assert made.text and len(made.text) < 400


async def test_what_is_no_domain_asks_nobody(server: DnsServer) -> None:
    for domain in ("", "a..b", "[192.0.2.9", "[192.0.2.300]"):
        await outcome(domain, server)
    await find("[192.0.2.9]", server)
    assert server.queries == []


async def test_an_mx_leaves_the_domains_own_addresses_alone(server: DnsServer) -> None:
    await find("plain.example", server)
    assert server.count("plain.example", "A") == server.count("plain.example", "AAAA") == 0


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ([2, 1, 0, 3], "c b a d"),
        ([0, 1, 2, 3], "a b c d"),
        ([3, 1, 0, 2], "b a c d"),
    ],
)
async def test_equal_preference_goes_by_chance(server: DnsServer, order: list[int], expected: str) -> None:
    server.records["equal.example"] = ["MX 10 a.example.", "MX 10 b.example.", "MX 10 c.example.", "MX 20 d.example."]
    for n, host in enumerate("abcd"):
        server.records[f"{host}.example"] = [f"A 192.0.2.{n}"]

    def shuffle(exchangers: list[tuple[int, str]]) -> None:
        exchangers.sort(key=lambda exchanger: order.index("abcd".index(exchanger[1][0])))

    found = await find("equal.example", server, shuffle=shuffle)
    assert " ".join(target.host[0] for target in found) == expected


async def test_chance_comes_to_all(server: DnsServer) -> None:
    resolver = resolver_of(server)
    firsts = {(await targets("wide.example", resolver, this_host=US))[0].host for _ in range(200)}
    assert len(firsts) == 5


async def test_addresses_are_bounded(server: DnsServer) -> None:
    found = await find("wide.example", server)
    hosts = [target.host for target in found]
    assert [hosts.count(host) for host in dict.fromkeys(hosts)] == [8, 8, 4]


async def test_a_flood_of_exchangers_is_bounded(server: DnsServer) -> None:
    assert (await outcome("flood.example", server)).enhanced == "5.4.4"
    assert len({name for name, _, _ in server.queries}) == 1 + subject.MAX_HOSTS


@pytest.mark.parametrize(
    ("domain", "enhanced"),
    [
        ("inside.example", "5.1.2"),
        ("link-local.example", "5.1.2"),
        ("[127.0.0.1]", "5.4.4"),
        ("[169.254.1.1]", "5.4.4"),
        ("[10.0.0.1]", "5.4.4"),
        ("[IPv6:::1]", "5.4.4"),
        ("[IPv6:fd00::1]", "5.4.4"),
        ("[IPv6:::ffff:127.0.0.1]", "5.4.4"),
    ],
)
async def test_what_others_may_not_lead_to(server: DnsServer, domain: str, enhanced: str) -> None:
    assert (await outcome(domain, server, this_host=ThisHost(loopback=False))).enhanced == enhanced
    assert await find(domain, server, this_host=ThisHost())


async def test_what_others_may_lead_to_and_routes_to_anything(server: DnsServer) -> None:
    here = ThisHost(loopback=False)
    assert [target.address for target in await find("private.example", server, this_host=here)] == ["10.0.0.1"]
    assert [target.address for target in await find("[8.8.8.8]", server, this_host=here)] == ["8.8.8.8"]
    routes = Routes({"a.example": "127.0.0.1:2525", "b.example": "inside.example:2525"})
    for domain in ("a.example", "b.example"):
        assert await find(domain, server, this_host=here, routes=routes)


@pytest.mark.parametrize(
    ("domain", "families", "expected"),
    [
        ("dual.example", {"ipv6": False}, ["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
        ("dual.example", {"ipv4": False}, ["2001:db8::1", "2001:db8::2"]),
        ("[192.0.2.9]", {"ipv6": False}, ["192.0.2.9"]),
    ],
)
async def test_only_families_that_we_have(server: DnsServer, domain: str, families: Any, expected: list[str]) -> None:
    found = await find(domain, server, this_host=ThisHost(**families))
    assert [target.address for target in found] == expected
    kinds = {kind for name, kind, _ in server.queries if name == "mx.dual.example"}
    assert len(kinds) <= 1


@pytest.mark.parametrize(
    ("domain", "enhanced"),
    [("only6.example", "5.1.2"), ("mx6.example", "5.4.4"), ("[IPv6:2001:db8::1]", "5.4.4")],
)
async def test_what_only_the_other_family_reaches(server: DnsServer, domain: str, enhanced: str) -> None:
    assert (await outcome(domain, server, this_host=ThisHost(ipv6=False))).enhanced == enhanced


async def test_another_port(server: DnsServer) -> None:
    found = await find("ours-address.example", server, port=2525)  # where we do not listen
    assert {target.port for target in found} == {2525} and len(found) == 3


async def test_a_domain_that_answers_for_one_family_only(server: DnsServer) -> None:
    """A name server that fails for AAAA is common, and its A is good."""
    resolver = resolver_of(server)
    real = resolver._look_up

    async def look_up(name: str, kind: dns.rdatatype.RdataType) -> Any:
        return await real("fails.example" if kind == dns.rdatatype.AAAA else name, kind)

    resolver._look_up = look_up  # type: ignore[method-assign]
    assert await resolver.addresses("fails-aaaa.example") == ("192.0.2.1",)
    with pytest.raises(LookupFailed):
        await resolver.addresses("mx.dual.example", ipv4=False)


# Fixed routes

ROUTES = Routes(
    {
        "remote.test": "127.0.0.1:2525",
        "*.example": "relay.example",
        "plain.example": "[2001:DB8::7]:26",
        "*.deep.example": "192.0.2.60",
        "Bücher.example": "192.0.2.61:27",
        "[192.0.2.9]": "192.0.2.62",
        "gone.test": "not-there.test:25",
        "down.test": "servfail.example:25",
        "loop.test": "192.0.2.200:25",
        "loop-by-name.test": "mail.here.example:25",
    }
)

ROUTED = [
    ("remote.test", [("127.0.0.1", "127.0.0.1", 2525)]),
    ("REMOTE.test", [("127.0.0.1", "127.0.0.1", 2525)]),
    ("plain.example", [("2001:db8::7", "2001:db8::7", 26)]),
    ("other.example", [("relay.example", "2001:db8::50", 25), ("relay.example", "192.0.2.50", 25)]),
    ("x.plain.example", [("relay.example", "2001:db8::50", 25), ("relay.example", "192.0.2.50", 25)]),
    ("deep.example", [("relay.example", "2001:db8::50", 25), ("relay.example", "192.0.2.50", 25)]),
    ("x.deep.example", [("192.0.2.60", "192.0.2.60", 25)]),
    ("y.x.deep.example", [("192.0.2.60", "192.0.2.60", 25)]),
    ("bücher.example", [("192.0.2.61", "192.0.2.61", 27)]),
    ("[192.0.2.9]", [("192.0.2.62", "192.0.2.62", 25)]),
    ("[192.0.2.8]", [("[192.0.2.8]", "192.0.2.8", 25)]),
]


@pytest.mark.parametrize(("domain", "expected"), ROUTED)
async def test_fixed_routes(server: DnsServer, domain: str, expected: list[tuple[str, str, int]]) -> None:
    assert await find(domain, server, routes=ROUTES) == [Target(*target) for target in expected]
    assert all(kind != "MX" for _, kind, _ in server.queries)


@pytest.mark.parametrize("domain", ["plain.example", "nowhere.test", "[192.0.2.9]"])
async def test_a_smarthost_takes_everything(server: DnsServer, domain: str) -> None:
    found = await find(domain, server, routes=Routes({"*": "relay.example:587"}))
    assert found == [Target("relay.example", "2001:db8::50", 587), Target("relay.example", "192.0.2.50", 587)]


@pytest.mark.parametrize(
    ("domain", "enhanced"),
    [("gone.test", "4.3.5"), ("down.test", "4.4.3"), ("loop.test", "4.4.6"), ("loop-by-name.test", "4.4.6")],
)
async def test_a_route_that_leads_nowhere_keeps_mail_waiting(server: DnsServer, domain: str, enhanced: str) -> None:
    made = await outcome(domain, server, routes=ROUTES)
    assert (type(made), made.code, made.enhanced) == (Deferred, 451, enhanced)


async def test_a_route_to_our_own_address_and_another_port_is_no_loop(server: DnsServer) -> None:
    routes = Routes({"*": "mail.here.example:2525"})
    assert await find("plain.example", server, routes=routes) == [Target("mail.here.example", "192.0.2.200", 2525)]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"": "relay.example"}, {"*.": "relay.example"}, {"*x.example": "relay.example"}, {"a.*": "relay.example"}),
        *({"**": "relay.example"}, {"a b": "relay.example"}, {"a": ""}, {"a": "relay example"}, {"a": ":25"}),
        *({"a": "relay.example:0"}, {"a": "relay.example:65536"}, {"a": "[::1"}, {"a": "[relay.example]:25"}),
    ],
)
def test_routes_that_are_none(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        Routes(wrong)


# Text forms

HOST_PORTS = [
    ("mx.host", ("mx.host", 25)),
    ("MX.Host.:26", ("mx.host", 26)),
    ("192.0.2.1", ("192.0.2.1", 25)),
    ("192.0.2.1:2525", ("192.0.2.1", 2525)),
    ("2001:DB8::1", ("2001:db8::1", 25)),
    ("[2001:db8::1]", ("2001:db8::1", 25)),
    ("[2001:db8::1]:2525", ("2001:db8::1", 2525)),
    ("[192.0.2.1]:2525", ("192.0.2.1", 2525)),
    ("bücher.example:1", ("xn--bcher-kva.example", 1)),
]
NO_HOST_PORTS = [
    "",
    ":",
    ":25",
    "a:",
    "a:b",
    "a:25:25",
    "a:99999",
    "a:0",
    "a:-1",
    "[a]:25",
    "[]",
    "[::1]:",
    "a b",
    "\n",
]


@pytest.mark.parametrize(("text", "expected"), HOST_PORTS)
def test_host_port(text: str, expected: tuple[str, int]) -> None:
    assert host_port(text, 25) == expected


@pytest.mark.parametrize("text", NO_HOST_PORTS)
def test_no_host_port(text: str) -> None:
    with pytest.raises(ValueError):
        host_port(text, 25)


# Ourselves

OWN = [
    # listening, address, port, expected
    ("192.0.2.1:25", "192.0.2.1", 25, True),
    ("192.0.2.1:25", "192.0.2.1", 2525, False),
    ("192.0.2.1:25", "192.0.2.2", 25, False),
    ("192.0.2.1:25", "127.0.0.1", 25, False),
    ("192.0.2.1:25", "::ffff:192.0.2.1", 25, True),
    ("127.0.0.1:25", "127.0.0.1", 25, True),
    ("127.0.0.1:25", "127.0.0.2", 25, False),
    ("127.0.0.1:25", "0.0.0.0", 25, True),
    ("127.0.0.1:25", "192.0.2.200", 25, False),
    ("0.0.0.0:25", "192.0.2.200", 25, True),
    ("0.0.0.0:25", "127.0.0.1", 25, True),
    ("0.0.0.0:25", "127.99.0.1", 25, True),
    ("0.0.0.0:25", "127.0.0.1", 2525, False),
    ("0.0.0.0:25", "0.0.0.0", 25, True),
    ("0.0.0.0:25", "192.0.2.1", 25, False),
    ("0.0.0.0:25", "::1", 25, False),
    ("[::]:25", "::1", 25, True),
    ("[::]:25", "::", 25, True),
    ("[::]:25", "2001:db8::200", 25, True),
    ("[::]:25", "2001:0DB8:0::200", 25, True),
    ("[::]:25", "2001:db8::201", 25, False),
    ("[::]:25", "127.0.0.1", 25, False),
    ("[::1]:25", "::1", 25, True),
    ("[::1]:25", "::", 25, True),
]


@pytest.mark.parametrize(("listening", "address", "port", "expected"), OWN)
def test_is_own(listening: str, address: str, port: int, expected: bool) -> None:
    local = ["192.0.2.200", "2001:db8::200"]
    assert is_own(address, port, [("198.51.100.1", 99), host_port(listening, 0)], local) is expected


def test_who_listens_nowhere_owns_nothing() -> None:
    assert not is_own("127.0.0.1", 25, [])


# Name servers


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_what_was_said_is_remembered_for_its_time(server: DnsServer) -> None:
    clock = Clock()
    resolver = resolver_of(server, clock=clock)
    server.ttls = {"plain.example": 30, "order.example": 100_000}
    asked = [("plain.example", 29.0, 30.0), ("order.example", 3599.0, 3600.0)]
    for name, still, no_more in asked:
        start = clock.now
        for after, count in [(0.0, 1), (still, 1), (no_more, 2)]:
            clock.now = start + after
            assert await resolver.mx(name)
            assert server.count(name, "MX") == count


@pytest.mark.parametrize("name", ["not-there.example", "nothing.example"])
async def test_what_is_not_there_is_remembered_for_a_minute(server: DnsServer, name: str) -> None:
    clock = Clock()
    resolver = resolver_of(server, clock=clock)
    for after, count in [(0.0, 1), (59.0, 1), (1.0, 2)]:
        clock.now += after
        if name == "nothing.example":
            assert await resolver.mx(name) == ()
        else:
            with pytest.raises(NoSuchName):
                await resolver.mx(name)
        assert server.count(name, "MX") == count


async def test_failures_are_not_remembered(server: DnsServer) -> None:
    resolver = resolver_of(server)
    server.behaviour["plain.example"] = "servfail"
    with pytest.raises(LookupFailed):
        await resolver.mx("plain.example")
    del server.behaviour["plain.example"]
    assert await resolver.mx("plain.example") == ((10, "mx.plain.example"),)


async def test_an_answer_without_time_to_live_is_not_remembered(server: DnsServer) -> None:
    resolver = resolver_of(server)
    server.ttls["plain.example"] = 0
    for count in (1, 2):
        assert await resolver.mx("plain.example")
        assert server.count("plain.example", "MX") == count


async def test_what_was_used_longest_ago_is_forgotten_first(server: DnsServer) -> None:
    resolver = resolver_of(server, max_cached=2)
    for name in ("plain.example", "order.example", "plain.example", "null.example", "plain.example", "order.example"):
        await resolver.mx(name)
    asked = [name for name, _, _ in server.queries]
    assert asked == ["plain.example", "order.example", "null.example", "order.example"]


async def test_equal_questions_at_the_same_time_are_asked_once(server: DnsServer) -> None:
    resolver = resolver_of(server)
    server.delay = 0.05
    answers = await asyncio.gather(*(targets("dual.example", resolver, this_host=US) for _ in range(50)))
    assert len(answers) == 50 and all(answer == answers[0] for answer in answers)
    assert sorted(server.queries) == [
        ("dual.example", "MX", "udp"),
        ("mx.dual.example", "A", "udp"),
        ("mx.dual.example", "AAAA", "udp"),
    ]


async def test_equal_questions_fail_together(server: DnsServer) -> None:
    resolver = resolver_of(server)
    server.delay = 0.05
    failures = await asyncio.gather(*(resolver.mx("servfail.example") for _ in range(5)), return_exceptions=True)
    assert [type(failure) for failure in failures] == [LookupFailed] * 5
    assert server.count("servfail.example", "MX") == 1


async def test_who_is_cancelled_leaves_the_others_their_answer(server: DnsServer) -> None:
    resolver = resolver_of(server)
    server.delay = 0.1
    first, second = (asyncio.create_task(resolver.mx("plain.example")) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    assert await second == ((10, "mx.plain.example"),)
    assert first.cancelled() and server.count("plain.example", "MX") == 1


async def test_closing_ends_what_is_being_asked(server: DnsServer) -> None:
    resolver = resolver_of(server, lifetime_seconds=60.0, query_seconds=60.0)
    asking = asyncio.create_task(resolver.mx("silent.example"))
    await asyncio.sleep(0.05)
    async with asyncio.timeout(1):
        await resolver.close()
        assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], asyncio.CancelledError)
    assert await resolver.mx("plain.example")


async def test_silence_is_waited_out_for_so_long(server: DnsServer) -> None:
    resolver = resolver_of(server, query_seconds=0.1, lifetime_seconds=0.4)
    started = asyncio.get_running_loop().time()
    with pytest.raises(LookupFailed):
        await resolver.mx("silent.example")
    assert 0.3 < asyncio.get_running_loop().time() - started < 2
    assert server.count("silent.example", "MX") >= 2


async def test_queries_at_once_are_bounded(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MAX_QUERIES", 3)
    resolver = resolver_of(server, lifetime_seconds=60.0, query_seconds=60.0)
    server.behaviour.update({f"h{n}.many.example": "silent" for n in range(1, 11)})
    asking = [asyncio.create_task(resolver.addresses(f"h{n}.many.example", ipv6=False)) for n in range(1, 11)]
    await asyncio.sleep(0.1)
    assert len(server.queries) == 3
    await resolver.close()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_another_name_server_is_asked_where_the_first_fails(server: DnsServer) -> None:
    with DnsServer() as broken:
        broken.behaviour["plain.example"] = "servfail"
        resolver = Resolver([broken.address, server.address], query_seconds=0.3, lifetime_seconds=3)
        assert await resolver.mx("plain.example") == ((10, "mx.plain.example"),)
        broken.behaviour["order.example"] = "silent"
        assert len(await resolver.mx("order.example")) == 3


async def test_a_long_answer_comes_by_tcp(server: DnsServer) -> None:
    assert len(await resolver_of(server).mx("flood.example")) == subject.MAX_RECORDS
    assert server.queries == [("flood.example", "MX", "udp"), ("flood.example", "MX", "tcp")]


@pytest.mark.parametrize("wrong", ["dns.example", "", "127.0.0.1:0", "127.0.0.1:x", "[::1"])
def test_name_servers_that_are_none(wrong: str) -> None:
    with pytest.raises(ValueError):
        Resolver([wrong])


def test_without_name_servers_the_systems_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(self: object, f: object) -> None:
        raise dns.resolver.NoResolverConfiguration

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", absent)
    assert Resolver()._stub.nameservers == ["127.0.0.1"]


LATER = """
import asyncio, sys
from mailserver.sending.targets import NoTargets, Resolver, ThisHost, targets

sys.meta_path[:] = []  # from now on nothing is found

async def main(address):
    resolver = Resolver([address], query_seconds=2.0, lifetime_seconds=5.0)
    for domain in ("dual.example", "alias.example", "truncated.example", "not-there.example", "servfail.example"):
        try:
            print(len(await targets(domain, resolver, this_host=ThisHost())))
        except NoTargets as failure:
            print(failure.outcome.enhanced)

asyncio.run(main(sys.argv[1]))
"""


def test_nothing_is_left_to_be_imported_when_a_worker_asks(server: DnsServer) -> None:
    command = [sys.executable, "-c", LATER, server.address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["5", "1", "1", "5.1.2", "4.4.3"], done.stderr


def test_on_the_loop_of_the_workers(server: DnsServer) -> None:
    async def main() -> None:
        resolver = resolver_of(server, lifetime_seconds=1.0)
        for domain in ("dual.example", "truncated.example"):
            assert shown(await targets(domain, resolver, this_host=US)) == dict(FOUND)[domain]
        with pytest.raises(NoTargets):
            await targets("silent.example", resolver, this_host=US)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
