from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import content_type
from mailserver.message.content_type import TEXT_PLAIN, Parameters
from tests.message.messages import SETTINGS

CT = [
    (b"text/plain", b"text", b"plain", ()),
    (b" TEXT / HTML ;", b"text", b"html", ()),
    (b"text/html;charset=utf-8", b"text", b"html", ((b"charset", b"utf-8"),)),
    (b'a/b; x="1;2"; y = 3 ;Z=4', b"a", b"b", ((b"x", b"1;2"), (b"y", b"3"), (b"z", b"4"))),
    (b"a/b; x=1; X=2", b"a", b"b", ((b"x", b"1"),)),
    (b"a/b; x=; y", b"a", b"b", ((b"x", b""),)),
    (b"a/b (c) ; x=1 (d)", b"a", b"b", ((b"x", b"1"),)),
    (b'a/b; x="(not a comment)"', b"a", b"b", ((b"x", b"(not a comment)"),)),
    (b'a/b; x="\\"\\\\"', b"a", b"b", ((b"x", b'"\\'),)),
    (b'a/b; x="open', b"a", b"b", ((b"x", b"open"),)),
    (b'a/b; x="open\\', b"a", b"b", ((b"x", b"open"),)),
    (b"a/b x=1", b"a", b"b", ((b"x", b"1"),)),
    (b'multipart/mixed; boundary="=_x"', b"multipart", b"mixed", ((b"boundary", b"=_x"),)),
    (b"text", b"text", b"plain", ()),
    (b"html", b"text", b"plain", ()),
    (b"", b"text", b"plain", ()),
    (b"/", b"text", b"plain", ()),
    (b"a/b/c; x=1", b"a", b"b", ((b"x", b"1"),)),
]


@pytest.mark.parametrize(("value", "type_", "subtype", "params"), CT)
def test_parse(value: bytes, type_: bytes, subtype: bytes, params: Parameters) -> None:
    media = content_type.parse(value, TEXT_PLAIN)
    assert (media.type, media.subtype, media.params) == (type_, subtype, params)
    long = content_type.parse(b" " * 200 + value, TEXT_PLAIN)
    assert long == media, "long values take another way"


def test_the_default_is_the_contexts() -> None:
    assert content_type.parse(b"nonsense", content_type.MESSAGE_RFC822) is content_type.MESSAGE_RFC822


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"attachment", (b"attachment", ())),
        (b"INLINE; filename=x", (b"inline", ((b"filename", b"x"),))),
        (b"filename=x", (b"attachment", ((b"filename", b"x"),))),
        (b"; filename=x", (b"", ((b"filename", b"x"),))),
        (b"", None),
        (b"(nothing)", None),
    ],
)
def test_disposition(value: bytes, expected: object) -> None:
    assert content_type.parse_disposition(value) == expected


def test_bounds() -> None:
    many = b"a/b" + b"".join(b"; p%d=v" % n for n in range(1000))
    assert len(content_type.parse(many, TEXT_PLAIN).params) == content_type.MAX_PARAMETERS
    long = content_type.parse(b"a/b; x=" + b"y" * 100_000, TEXT_PLAIN)
    assert len(long.params[0][1]) < content_type.MAX_VALUE


@SETTINGS
@given(
    st.lists(
        st.tuples(st.from_regex(rb"[a-z][a-z0-9*-]{0,5}", fullmatch=True), st.binary(max_size=12)),
        max_size=5,
        unique_by=lambda pair: pair[0],
    )
)
def test_quoted_parameters_come_back(params: list[tuple[bytes, bytes]]) -> None:
    quoted = [(name, value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')) for name, value in params]
    text = b"a/b" + b"".join(b'; %b="%b"' % pair for pair in quoted)
    assert content_type.parse(text, TEXT_PLAIN).params == tuple(params)


@SETTINGS
@given(st.lists(st.sampled_from([b"(", b")", b'"', b"\\", b";", b"=", b"/", b"a", b" ", b"\xff", b"\0"]), max_size=30))
def test_anything_is_read(pieces: list[bytes]) -> None:
    value = b"".join(pieces)
    content_type.parse(value, TEXT_PLAIN)
    content_type.parse_disposition(value)
    content_type.without_comments(value)
