from __future__ import annotations

import re
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols.imap.mailbox_name import InvalidName, Name, Pattern, Wire, check, decode, encode, pattern

SLASH = Wire("/")
DOT = Wire(".")
UTF8 = Wire("/", utf8=True)
WIRES = [Wire(separator, utf8) for separator in "/." for utf8 in (False, True)]

EQUAL = [
    (b"INBOX", ("INBOX",)),
    (b"a", ("a",)),
    (b"a/b/c", ("a", "b", "c")),
    # RFC 3501 §5.1.3
    (b"~peter/mail/&U,BTFw-/&ZeVnLIqe-", ("~peter", "mail", "台北", "日本語")),
    (b"&Jjo-!", ("☺!",)),
    (b"a&-b", ("a&b",)),
    (b"&--&-", ("&-&",)),
    (b"&2D3eAA-", ("\U0001f600",)),
    (b"Entw&APw-rfe", ("Entwürfe",)),
    (b'a b%c*"\\', ('a b%c*"\\',)),
    # The separator itself, inside a component
    (b"a&AC8-b/c", ("a/b", "c")),
]


@pytest.mark.parametrize(("wire", "name"), EQUAL)
def test_both_ways(wire: bytes, name: Name) -> None:
    assert decode(wire, SLASH) == name
    assert encode(name, SLASH) == wire


@pytest.mark.parametrize("wire", [b"inbox", b"InBoX", b"INBOX"])
def test_inbox_is_one_mailbox(wire: bytes) -> None:
    assert decode(wire, SLASH) == ("INBOX",)
    assert decode(wire + b"/Sub", SLASH) == ("INBOX", "Sub")
    assert decode(b"x/" + wire, SLASH) == ("x", wire.decode())


@pytest.mark.parametrize(
    ("octets", "name"),
    [
        ("台北/日本語", ("台北", "日本語")),
        ("Entwürfe", ("Entwürfe",)),
        ("a&b/&-", ("a&b", "&-")),
        ("&Jjo-", ("&Jjo-",)),
        ("inbox/Ä", ("INBOX", "Ä")),
        ("\U0001f600", ("\U0001f600",)),
        # The separator itself, inside a component
        ("a\uf02fb/c", ("a/b", "c")),
    ],
)
def test_utf_8_both_ways(octets: str, name: Name) -> None:
    """RFC 6855 §3; `&` means nothing there."""
    assert decode(octets.encode(), UTF8) == name
    assert encode(name, UTF8) == octets.encode().replace(b"inbox", b"INBOX")


@pytest.mark.parametrize(
    "octets", ["", "/a", "a//b", "a\0", "ä\n", "a\u2028", "a\x85", "\ufeffa", "a/\uf02e", "ä" * 128, "é" * 3001]
)
def test_refused_as_utf_8(octets: str) -> None:
    with pytest.raises(InvalidName, match="Mailbox name"):
        decode(octets.encode(), UTF8)


def test_utf_8_is_understood_before_it_is_enabled() -> None:
    """RFC 6855 §3: a quoted string with octets above 127 is UTF-8."""
    assert decode("Entwürfe/a&b".encode(), SLASH) == ("Entwürfe", "a&b")
    assert pattern("Entwürfe/".encode(), b"%", SLASH).matches(("Entwürfe", "x"))
    with pytest.raises(InvalidName, match="UTF-8"):
        decode("Entwürfe".encode("latin-1"), SLASH)


def test_names_are_net_unicode() -> None:
    """RFC 5198 §2: form C; whatever form a client writes, it means the same mailbox."""
    composed, taken_apart = "Café/Å".encode(), unicodedata.normalize("NFD", "Café/Å").encode()
    assert decode(taken_apart, UTF8) == decode(composed, UTF8) == decode(taken_apart, SLASH) == ("Café", "Å")
    assert decode(b"Cafe&AwE-", SLASH) == decode(b"Caf&AOk-", SLASH) == ("Café",)
    assert pattern(b"", taken_apart[:6] + b"%", UTF8).matches(("Café",))


def test_taking_a_long_name_apart_is_quick() -> None:
    """Marks in the wrong order take the square of their number to be put into order."""
    started = time.process_time()
    for octets in (("a" + "\u0316\u0301" * 15_000).encode(), b"a&" + b"AxYDAQMWAwE" * 4000 + b"-"):
        with pytest.raises(InvalidName):
            decode(octets, SLASH)
    assert time.process_time() - started < 2


def test_the_separator_is_a_setting() -> None:
    assert decode(b"a.b/c", DOT) == ("a", "b/c")
    assert encode(("a.b", "c"), DOT) == b"a&AC4-b.c"
    assert decode(b"a&AC4-b.c", DOT) == ("a.b", "c")


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"/",
        b"/a",
        b"a/",
        b"a//b",
        b"a\0b",
        b"a\x01",
        b"a\x7f",
        b"a\nb",
        b"\xc3",
        b"\xc3\xa4\0",
        b"&",
        b"a&b",
        b"&AC",
        b"&AC4",
        b"&AC4-",  # a full stop is written directly
        b"&AGE-",  # so is a letter
        b"&U,BTFw",  # no end
        b"&U/BTFw-",  # a slash in base64
        b"&U,BTFx-",  # bits left over that are not zero
        b"&U,BTF-",
        b"&====-",
        b"&AA-",
        b"&2D0-",
        b"&3gA-",  # half a character, half a pair
        b"&AAo-",  # a line feed
        b"&Jjo-&Jjo-x&",
        b"&,,8-",  # U+FFFF
        b"&8C8-",  # U+F02F, which stands for a slash in UTF-8
        b"&,v8-a",  # U+FEFF in front
        b"x" * 256,
        b"x/" * 500 + b"x",
        b"/".join([b"y" * 250] * 4),
        b"a/" * 100 + b"a",
    ],
)
def test_refused(wire: bytes) -> None:
    with pytest.raises(InvalidName, match="Mailbox name"):
        decode(wire, SLASH)


def test_two_adjacent_runs_are_two_names_for_one() -> None:
    """`&Jjo-&Jjo-` means what `&JjomOg-` means (RFC 3501 §5.1.3 forbids it), yet some clients write it."""
    assert decode(b"&Jjo-&Jjo-", SLASH) == decode(b"&JjomOg-", SLASH) == ("☺☺",)


def test_a_separator_at_the_end_is_for_create_only() -> None:
    assert decode(b"a/b/", SLASH, creating=True) == ("a", "b")
    for wire in (b"a//", b"/", b""):
        with pytest.raises(InvalidName):
            decode(wire, SLASH, creating=True)


def test_longest_names() -> None:
    assert decode(b"x" * 255, SLASH) == ("x" * 255,)
    assert len(decode(b"/".join([b"x"] * 100), SLASH)) == 100


PARTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Cn"]), min_size=1, max_size=12)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(tuple)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(NAMES, st.sampled_from(WIRES))
def test_every_name_comes_back(name: Name, wire: Wire) -> None:
    name = tuple(unicodedata.normalize("NFC", re.sub("[\uf02e\uf02f\ufeff]", "x", part)) for part in name)
    if name[0].upper() == "INBOX":
        name = ("INBOX", *name[1:])
    check(name)
    octets = encode(name, wire)
    assert wire.utf8 or re.fullmatch(rb"[\x20-\x7e]+", octets)
    assert decode(octets, wire) == name


@settings(derandomize=True, max_examples=400, deadline=None)
@given(st.text(st.sampled_from("&-+,/AUa.Jjo=é "), max_size=12).map(lambda text: text.encode("latin-1")))
def test_what_is_accepted_has_one_spelling(wire: bytes) -> None:
    try:
        name = decode(wire, SLASH)
    except InvalidName:
        return
    assert decode(encode(name, SLASH), SLASH) == name
    if b"-&" not in wire and b"&+" not in wire:  # among U+F8xx are characters whose form C is another
        assert encode(name, SLASH) == wire


# Patterns


@pytest.mark.parametrize(
    ("reference", "wire", "yes", "no"),
    [
        (b"", b"*", ["INBOX", "a", "a/b"], []),
        (b"", b"%", ["INBOX", "a"], ["a/b"]),
        (b"", b"a%", ["a", "ab"], ["a/b", "b"]),
        (b"", b"a*", ["a", "ab", "a/b"], ["b"]),
        (b"", b"a/%", ["a/b"], ["a", "a/b/c"]),
        (b"", b"%/%", ["a/b"], ["a", "a/b/c"]),
        (b"", b"*b", ["b", "ab", "a/b"], ["ba"]),
        (b"", b"%b", ["b", "ab"], ["a/b"]),
        (b"", b"*/c", ["a/c", "a/b/c"], ["c"]),
        (b"", b"%*%", ["a", "a/b"], []),
        (b"", b"%%", ["a", "ab"], ["a/b"]),
        (b"a/", b"%", ["a/b"], ["a", "b", "a/b/c"]),
        (b"a", b"%", ["a", "ab"], ["a/b", "b"]),
        (b"", b"inbox", ["INBOX"], ["INBOX/a", "a/INBOX"]),
        (b"", b"iNb%", ["INBOX"], ["INBOX/a"]),
        (b"", b"inbox/%", ["INBOX/a"], ["INBOX"]),
        (b"", b"%x", ["INBOX", "x"], ["X"]),
        (b"", b"a", ["a"], ["A", "ab"]),
        (b"", b"&U,BTFw-%", ["台北", "台北x"], ["x台北"]),
        (b"", b"&ZeU-", ["日"], ["台"]),
        (b"", b"&", [], ["&", "a"]),
        (b"", "台北%".encode(), ["台北", "台北x"], ["x台北"]),
        (b"", b"a/", [], ["a", "a/b"]),
        (b"", b"(a)[b].+$^", ["(a)[b].+$^"], ["a"]),
    ],
)
def test_patterns(reference: bytes, wire: bytes, yes: list[str], no: list[str]) -> None:
    found = pattern(reference, wire, SLASH)
    assert [name for name in yes + no if found.matches(tuple(name.split("/")))] == yes


def test_a_separator_inside_a_component_separates_nothing() -> None:
    assert pattern(b"", b"%", SLASH).matches(("a/b",))
    assert pattern(b"", b"a&AC8-%", SLASH).matches(("a/b",))
    assert not pattern(b"", b"a/b", SLASH).matches(("a/b",))


TEXTS = st.text(st.sampled_from("ab/"), max_size=8)


@settings(derandomize=True, max_examples=500, deadline=None)
@given(st.text(st.sampled_from("ab/%*"), max_size=8), TEXTS)
def test_patterns_against_a_regular_expression(wild: str, text: str) -> None:
    regex = re.escape(wild).replace("%", "[^/]*").replace(r"\*", ".*")
    wanted = re.fullmatch(regex, text) is not None
    assert Pattern(wild.replace("/", "\0")).matches(tuple(text.split("/"))) == wanted


def test_no_pattern_takes_long() -> None:
    started = time.process_time()
    name = tuple(["a" * 99] * 10)
    for wild in ("*a" * 400 + "b", "%a" * 400 + "b", "*" * 60_000 + "b", "%*" * 30_000 + "b", "a" * 60_000):
        found = Pattern(wild)
        for _ in range(20):
            assert not found.matches(name)
    assert time.process_time() - started < 2


def test_many_mailboxes_are_matched_quickly() -> None:
    names = [("Archive", f"{year}", f"Folder {number}") for year in range(100) for number in range(100)]
    started = time.process_time()
    assert sum(map(pattern(b"", b"Archive/%/*7", SLASH).matches, names)) == 1000
    assert time.process_time() - started < 2
