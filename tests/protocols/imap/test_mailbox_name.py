from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols.imap.mailbox_name import InvalidName, Name, Pattern, check, decode, encode, pattern

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
    assert decode(wire, "/") == name
    assert encode(name, "/") == wire


@pytest.mark.parametrize("wire", [b"inbox", b"InBoX", b"INBOX"])
def test_inbox_is_one_mailbox(wire: bytes) -> None:
    assert decode(wire, "/") == ("INBOX",)
    assert decode(wire + b"/Sub", "/") == ("INBOX", "Sub")
    assert decode(b"x/" + wire, "/") == ("x", wire.decode())


def test_the_separator_is_a_setting() -> None:
    assert decode(b"a.b/c", ".") == ("a", "b/c")
    assert encode(("a.b", "c"), ".") == b"a&AC4-b.c"
    assert decode(b"a&AC4-b.c", ".") == ("a.b", "c")


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
        b"\xc3\xa4",
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
        b"x" * 256,
        b"x/" * 500 + b"x",
        b"/".join([b"y" * 250] * 4),
        b"a/" * 100 + b"a",
    ],
)
def test_refused(wire: bytes) -> None:
    with pytest.raises(InvalidName, match="Mailbox name"):
        decode(wire, "/")


def test_two_adjacent_runs_are_two_names_for_one() -> None:
    """`&Jjo-&Jjo-` means what `&JjomOg-` means (RFC 3501 §5.1.3 forbids it), yet some clients write it."""
    assert decode(b"&Jjo-&Jjo-", "/") == decode(b"&JjomOg-", "/") == ("☺☺",)


def test_a_separator_at_the_end_is_for_create_only() -> None:
    assert decode(b"a/b/", "/", creating=True) == ("a", "b")
    for wire in (b"a//", b"/", b""):
        with pytest.raises(InvalidName):
            decode(wire, "/", creating=True)


def test_longest_names() -> None:
    assert decode(b"x" * 255, "/") == ("x" * 255,)
    assert len(decode(b"/".join([b"x"] * 100), "/")) == 100


PARTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp", "Cn"]), min_size=1, max_size=12)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map(tuple)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(NAMES, st.sampled_from("/."))
def test_every_name_comes_back(name: Name, separator: str) -> None:
    if name[0].upper() == "INBOX":
        name = ("INBOX", *name[1:])
    check(name)
    wire = encode(name, separator)
    assert re.fullmatch(rb"[\x20-\x7e]+", wire)
    assert decode(wire, separator) == name


@settings(derandomize=True, max_examples=400, deadline=None)
@given(st.text(st.sampled_from("&-+,/AUa.Jjo=é "), max_size=12).map(lambda text: text.encode("latin-1")))
def test_what_is_accepted_has_one_spelling(wire: bytes) -> None:
    try:
        name = decode(wire, "/")
    except InvalidName:
        return
    assert decode(encode(name, "/"), "/") == name
    if b"-&" not in wire:
        assert encode(name, "/") == wire


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
        (b"", b"a/", [], ["a", "a/b"]),
        (b"", b"(a)[b].+$^", ["(a)[b].+$^"], ["a"]),
    ],
)
def test_patterns(reference: bytes, wire: bytes, yes: list[str], no: list[str]) -> None:
    found = pattern(reference, wire, "/")
    assert [name for name in yes + no if found.matches(tuple(name.split("/")))] == yes


def test_a_separator_inside_a_component_separates_nothing() -> None:
    assert pattern(b"", b"%", "/").matches(("a/b",))
    assert pattern(b"", b"a&AC8-%", "/").matches(("a/b",))
    assert not pattern(b"", b"a/b", "/").matches(("a/b",))


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
    assert sum(map(pattern(b"", b"Archive/%/*7", "/").matches, names)) == 1000
    assert time.process_time() - started < 2
