"""The one form of an address, as tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import addresses

CANONICAL = [
    ("Alice@Example.ORG", "alice@example.org"),
    ("alice+Tag@example.org", "alice+tag@example.org"),
    ("alice@example.org.", "alice@example.org"),
    ('"alice"@example.org', "alice@example.org"),
    ('"a\\lice"@example.org', "alice@example.org"),
    ('"a b"@example.org', '"a b"@example.org'),
    ('"a@b"@example.org', '"a@b"@example.org'),
    ('"A\\"\\\\"@example.org', '"a\\"\\\\"@example.org'),
    ('"a..b"@example.org', '"a..b"@example.org'),
    ('""@example.org', '""@example.org'),
    ("JOSÉ@example.org", "josé@example.org"),
    ("jose\u0301@example.org", "josé@example.org"),
    ("用户@例え.jp", "用户@xn--r8jz45g.jp"),
    ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
    ("a@bücher。example", "a@xn--bcher-kva.example"),
    ("a@XN--BCHER-KVA.example", "a@xn--bcher-kva.example"),
    ("a@[192.0.2.1]", "a@[192.0.2.1]"),
    ("a@[IPv6:2001:DB8:0::1]", "a@[ipv6:2001:db8::1]"),
    ("a@localhost", "a@localhost"),
    ("!#$%&'*+-/=?^_`{|}~@x.org", "!#$%&'*+-/=?^_`{|}~@x.org"),
]

NO_ADDRESS = [
    "",
    "alice",
    "@example.org",
    "alice@",
    "al ice@example.org",
    "alice..b@example.org",
    ".alice@example.org",
    "alice.@example.org",
    '"alice@example.org',
    'ali"ce@example.org',
    '"a"b"@example.org',
    '"a\\"@example.org',
    "alice@exa mple.org",
    "alice@-example.org",
    "alice@example..org",
    "alice@.",
    "alice@[300.1.1.1]",
    "alice@[192.0.2.1",
    "alice@[x:y]",
    "a\r\nb@example.org",
    "a\x00@example.org",
    "a\x85@example.org",
    "a\ud800@example.org",
    "<a@example.org>",
    "a,b@example.org",
    "a" * 300 + "@example.org",
    "a@" + "a" * 64 + ".org",
    "a@" + "a." * 130 + "org",
    "a@\u2024example.\u2024",
]


@pytest.mark.parametrize(("given_form", "stored"), CANONICAL)
def test_canonical(given_form: str, stored: str) -> None:
    assert addresses.canonical(given_form) == stored
    assert addresses.canonical(stored) == stored


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError) as refusal:
        addresses.canonical(text)
    assert str(refusal.value).isprintable()


def test_outside_addresses_keep_the_case_of_their_local_part() -> None:
    assert addresses.spelled('"MixedCase"@Example.ORG') == "MixedCase@example.org"


def test_patterns() -> None:
    assert addresses.pattern("@Bücher.example") == "@xn--bcher-kva.example"
    assert addresses.pattern("A@Example.org") == "a@example.org"
    with pytest.raises(ValueError):
        addresses.pattern("@")


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        ("a@x.org", "a@x.org"),
        ("a+b@x.org", "a@x.org"),
        ("a+b+c@x.org", "a@x.org"),
        ("+b@x.org", "+b@x.org"),
        ("+b+c@x.org", "+b@x.org"),
        ("a+@x.org", "a@x.org"),
        ('"a b+c"@x.org', '"a b"@x.org'),
        ('"a+b c"@x.org', "a@x.org"),
    ],
)
def test_without_tag(address: str, bare: str) -> None:
    assert addresses.without_tag(address) == bare


@pytest.mark.parametrize(
    ("name", "stored"),
    [("Alice", "alice"), ("a.b-c_d", "a.b-c_d"), ("JOSÉ", "josé"), ("A@X.org", "a@x.org"), ("a+b", "a+b")],
)
def test_usernames(name: str, stored: str) -> None:
    assert addresses.username(name) == stored


@pytest.mark.parametrize("name", ["", "a b", "a@", "a\n", ".a", 'a"b', "a" * 129, "é" * 65, "\u0301" * 1_000_000])
def test_no_usernames(name: str) -> None:
    with pytest.raises(ValueError):
        addresses.username(name)


def test_domains_are_readable_again() -> None:
    assert addresses.readable_domain("xn--bcher-kva.example") == "bücher.example"
    assert addresses.readable_domain("xn--.example") == "xn--.example"
    assert addresses.readable_domain("example.org") == "example.org"


@given(st.text(max_size=40), st.sampled_from(["example.org", "BÜCHER.example", "例え.jp"]))
def test_canonical_is_a_fixed_point(local: str, domain: str) -> None:
    try:
        once = addresses.canonical(f"{local}@{domain}")
    except ValueError:
        return
    assert addresses.canonical(once) == once
    assert addresses.canonical(addresses.spelled(f"{local}@{domain}")) == once
    bare = addresses.without_tag(once)
    assert addresses.canonical(bare) == bare


@given(st.text(max_size=20))
def test_quoting_goes_around_any_text(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    try:
        once = addresses.canonical(f'"{escaped}"@example.org')
    except ValueError:
        return
    assert addresses.canonical(f'"{addresses.local_text(once)}"@example.org' if text.isalnum() else once) == once
