from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import address
from mailserver.message.address import GROUP_END, Address
from tests.message.messages import SETTINGS


def mailbox(name: bytes | None, local: bytes, host: bytes, route: bytes | None = None) -> Address:
    return Address(name, route, local, host)


def group(name: bytes) -> Address:
    return Address(None, None, name, None)


# What the corpus does not show already.
LISTS = [
    (b"", []),
    (b" , ,", []),
    (b"(only a comment)", []),
    (b"a@b", [mailbox(None, b"a", b"b")]),
    (b"A  B\tC <a@b>", [mailbox(b"A B C", b"a", b"b")]),
    (b'"A"   "B" <a@b>', [mailbox(b"A B", b"a", b"b")]),
    (b'"A\\\\B" <a@b>', [mailbox(b"A\\B", b"a", b"b")]),
    (b'"" <a@b>', [mailbox(None, b"a", b"b")]),
    (b'""@b', [mailbox(None, b"", b"b")]),
    (b'"a b"."c"@d', [mailbox(None, b"a b.c", b"d")]),
    (b"a@b@c", [mailbox(None, b"a@b", b"c")]),
    (b"<a@b@c>", [mailbox(None, b"a@b", b"c")]),
    (b"Joe joe@x.example", [mailbox(b"Joe", b"joe", b"x.example")]),
    (b"joe@x.example Joe", [mailbox(b"Joe", b"joe", b"x.example")]),
    (b"<joe@x.example> Joe", [mailbox(b"Joe", b"joe", b"x.example")]),
    (b"a@b (c) (d)", [mailbox(b"d", b"a", b"b")]),
    (b"G: ;", [group(b"G"), GROUP_END]),
    (
        b"G: a@b;, H: c@d",
        [group(b"G"), mailbox(None, b"a", b"b"), GROUP_END, group(b"H"), mailbox(None, b"c", b"d"), GROUP_END],
    ),
    (b"G: H: a@b;", [group(b"G"), mailbox(b"H", b"a", b"b"), GROUP_END]),
    (b":;", []),
    (b"<@a,@b:c@d>", [mailbox(None, b"c", b"d", b"@a,@b")]),
    (b"<@a, @b : c@d>", [mailbox(None, b"c", b"d", b"@a,@b")]),
    (b"<@a,b@c>", [mailbox(None, b"@a,b", b"c")]),
    (b"=?utf-8?q?a=2Cb?= <a@b>", [mailbox(b"=?utf-8?q?a=2Cb?=", b"a", b"b")]),
    (b"mailto:a@b", [group(b"mailto"), mailbox(None, b"a", b"b"), GROUP_END]),
    (b'"unclosed, a@b', [mailbox(None, b"unclosed", b""), mailbox(None, b"a", b"b")]),
    (b"(unclosed, a@b", [mailbox(None, b"a", b"b")]),
    (b"a@[1.2.3.4", [mailbox(None, b"a", b"[1.2.3.4")]),
    (b"\\", [mailbox(None, b"\\", b"")]),
]


@pytest.mark.parametrize(("value", "expected"), LISTS)
def test_lists(value: bytes, expected: list[Address]) -> None:
    assert address.parse(value) == expected


ATOM = st.from_regex(rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\x80-\xff-]{1,6}", fullmatch=True)


@SETTINGS
@given(st.lists(st.tuples(st.binary(max_size=8), ATOM, ATOM), max_size=6), st.booleans())
def test_both_ways_read_the_same(people: list[tuple[bytes, bytes, bytes]], commented: bool) -> None:
    expected, texts = [], []
    for name, local, host in people:
        quoted = name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
        texts.append(b'"%b" <%b@%b>' % (quoted, local, host))
        expected.append(mailbox(name or None, local, host))
    # A comment in front makes the tokeniser read what the pattern reads otherwise.
    assert address.parse((b"() " if commented else b"") + b", ".join(texts)) == expected


@SETTINGS
@given(st.lists(st.sampled_from([*b'()<>@,:;"\\[] .ab', 0, 233]), max_size=30).map(bytes))
def test_anything_is_read(value: bytes) -> None:
    found = address.parse(value)
    depth = 0
    for entry in found:
        if entry.host is None:  # groups open and close in turn
            depth += 1 if entry.mailbox is not None else -1
            assert depth in (0, 1)
        else:
            assert entry.mailbox is not None
    assert depth == 0


def test_bounds() -> None:
    assert len(address.parse(b"a@b," * 20_000)) == address.MAX_ADDRESSES
    assert len(address.parse(b"(), " + b"a@b," * 20_000)) == address.MAX_ADDRESSES
    assert len(address.parse(b"some.long.name@some.long.host.example, " * 100_000)) == address.MAX_ADDRESSES


@pytest.mark.parametrize(
    ("text", "spelled"),
    [("a.b", "a.b"), ("a..b", "a..b"), ("grün", "grün"), ("a b", '"a b"'), ('a"\\b', '"a\\"\\\\b"'), ("", '""')],
)
def test_a_local_part_has_the_quotes_that_it_needs(text: str, spelled: str) -> None:
    assert address.local_part(text) == spelled
