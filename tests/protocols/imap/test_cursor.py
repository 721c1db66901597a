"""What the readers of commands build on; the grammar as a whole is tested with the commands."""

from __future__ import annotations

import pytest

from mailserver.protocols.imap.commands import BadSyntax
from mailserver.protocols.imap.cursor import Cursor


def cursor(*pieces: bytes) -> Cursor:
    return Cursor(pieces, "a7")


def test_a_literal_stands_between_two_texts() -> None:
    c = cursor(b"x ", b"y\r\nz", b" w")
    assert c.literal_if() is None
    assert c.atom() == b"x"
    assert c.literal_if() is None
    c.space()
    assert not c.at_end
    assert c.literal_if() == b"y\r\nz"
    assert c.literal_if() is None
    c.space()
    assert c.atom() == b"w"
    c.end()


def test_no_token_reaches_over_a_literal() -> None:
    c = cursor(b"ab", b"c", b"de")
    assert c.atom() == b"ab"
    with pytest.raises(BadSyntax):
        c.atom()
    assert c.string() == b"c"
    assert not c.accept(b"dee")
    assert c.accept(b"de")
    assert c.at_end


def test_an_empty_literal_at_the_end_is_something() -> None:
    c = cursor(b"", b"", b"")
    assert not c.at_end
    with pytest.raises(BadSyntax):
        c.end()
    assert c.string_if() == b""
    assert c.at_end


def test_errors_carry_the_tag() -> None:
    with pytest.raises(BadSyntax, match="number") as caught:
        cursor(b"x").number()
    assert caught.value.tag == "a7"


@pytest.mark.parametrize(("text", "number"), [(b"0", 0), (b"007", 7), (b"4294967295", 4294967295), (b"5)", 5)])
def test_number(text: bytes, number: int) -> None:
    assert cursor(text).number() == number


@pytest.mark.parametrize("text", [b"", b"-1", b"4294967296", b"1" * 5000, b"x"])
def test_no_number(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        cursor(text).number()


def test_zero_is_no_nz_number() -> None:
    with pytest.raises(BadSyntax, match="zero"):
        cursor(b"0").nz_number()


@pytest.mark.parametrize(
    ("text", "octets"),
    [(b'"a"', b"a"), (b'"a\\"b"', b'a"b'), (b'"a\\\\"', b"a\\"), (b'""', b""), (b'"\xc3\xa4{5}"', b"\xc3\xa4{5}")],
)
def test_quoted(text: bytes, octets: bytes) -> None:
    assert cursor(text).string() == octets


@pytest.mark.parametrize("text", [b'"', b'"a', b'"a\\"', b'"a\\n"', b'"a\rb"', b'"a\0"', b'"' + b"\\\\" * 50_000])
def test_not_quoted(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        cursor(text).string()


def test_nstring() -> None:
    assert cursor(b"nil").nstring() is None
    assert cursor(b'"NIL"').nstring() == b"NIL"
    with pytest.raises(BadSyntax):
        cursor(b"nils").nstring()


def test_words_are_in_upper_case_and_have_no_case_to_accept() -> None:
    c = cursor(b"Rfc822.Size not now")
    assert c.word() == b"RFC822.SIZE"
    assert not c.accept_word(b"NOT ")
    assert c.accept_word(b" NOT ")
    assert not c.accept(b"NOW")
    assert c.accept(b"now")
