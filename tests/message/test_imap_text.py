from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import imap_text
from tests.message.imap_reader import Reader
from tests.message.messages import SETTINGS


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", b'""'),
        (b"plain text.", b'"plain text."'),
        (b'a"b\\c', b'"a\\"b\\\\c"'),
        (b"tab\there", b'"tab\there"'),
        (b"two\r\nlines", b"{10}\r\ntwo\r\nlines"),
        ("ü".encode(), b"{2}\r\n\xc3\xbc"),
        (b"a\0b", b'"ab"'),
        (b"\0", b'""'),
        (b"\xff\0", b"{1}\r\n\xff"),
        (b"\x07", b"{1}\r\n\x07"),
        (b"\x7f", b"{1}\r\n\x7f"),
    ],
)
def test_string(value: bytes, expected: bytes) -> None:
    assert imap_text.string(value) == expected
    assert imap_text.nstring(value) == expected


def test_nil() -> None:
    assert imap_text.nstring(None) == b"NIL"


@SETTINGS
@given(st.binary(max_size=40))
def test_any_value_is_read_back(value: bytes) -> None:
    reader = Reader(imap_text.string(value))
    assert reader.string() == value.replace(b"\0", b"")
    assert reader.at == len(reader.text)


def test_long_values_are_cut() -> None:
    for octet in (b"x", b"\xff", b'"'):
        reader = Reader(imap_text.string(octet * 50_000))
        assert reader.string() == octet * imap_text.MAX_STRING
