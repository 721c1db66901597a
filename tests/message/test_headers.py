from __future__ import annotations

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import headers, structure
from tests.message.messages import SETTINGS, soup

HEADER = b"From: a@b\r\nSubject: one\r\n\ttwo\r\nX: 1\r\nsubject : again\r\nno colon\r\n\r\n"


def test_fields() -> None:
    assert [(name, HEADER[start:stop]) for name, start, stop in headers.fields(HEADER)] == [
        (b"from", b"From: a@b\r\n"),
        (b"subject", b"Subject: one\r\n\ttwo\r\n"),
        (b"x", b"X: 1\r\n"),
        (b"subject", b"subject : again\r\n"),
        (b"", b"no colon\r\n"),
    ]


@pytest.mark.parametrize(
    ("header", "names", "exclude", "expected"),
    [
        (HEADER, [b"subject"], False, b"Subject: one\r\n\ttwo\r\nsubject : again\r\n\r\n"),
        (HEADER, [b"subject"], True, b"From: a@b\r\nX: 1\r\nno colon\r\n\r\n"),
        (HEADER, [b"absent"], False, b"\r\n"),
        (HEADER, [b"sub", b"subject2", b""], False, b"no colon\r\n\r\n"),
        (HEADER, [], True, HEADER),
        (b"A: 1\nB: 2\n\n", [b"b"], False, b"B: 2\n\n"),
        (b"A: 1\nB: 2\r\n\r\n", [b"a"], False, b"A: 1\n\r\n"),
        # A message that has no body and no blank line (RFC 3501 §6.4.5).
        (b"A: 1\r\nB: 2\r\n", [b"a"], False, b"A: 1\r\n"),
        (b"A: 1\r\nB: 2", [b"b"], False, b"B: 2"),
        (b"A: 1\r\nB: 2", [b"a"], False, b"A: 1\r\n"),
        (b"A: 1\r\nB: 2", [b"c"], False, b""),
        (b"\r\n", [b"a"], False, b"\r\n"),
        (b"\n", [b"a"], True, b"\n"),
        (b"", [b"a"], True, b""),
        # A line of white space continues the field before it.
        (b"A: 1\r\n \r\nB: 2\r\n\r\n", [b"a"], False, b"A: 1\r\n \r\n\r\n"),
        # A continuation before any field belongs to no field.
        (b" x: 1\r\nA: 2\r\n\r\n", [b"a"], True, b" x: 1\r\n\r\n"),
    ],
)
def test_select(header: bytes, names: list[bytes], exclude: bool, expected: bytes) -> None:
    assert headers.select(header, frozenset(names), exclude) == expected


@SETTINGS
@given(soup, st.frozensets(st.sampled_from([b"from", b"to", b"content-type", b"subject", b""])))
def test_a_selection_and_its_opposite_are_the_header(octets: bytes, names: frozenset[bytes]) -> None:
    header = octets[: structure.parse(octets).header_end]
    fields = list(headers.fields(header))
    end = fields[-1][2] if fields else 0
    assert [start for _, start, _ in fields] == [0, *[stop for _, _, stop in fields[:-1]]][: len(fields)]
    empty_line = header[end:]
    assert empty_line in (b"", b"\n", b"\r\n")
    with pytest.MonkeyPatch.context() as patch:
        for piece in (headers.PIECE, 0):
            patch.setattr(headers, "PIECE", piece)
            assert list(headers.fields(header)) == fields
            for exclude in (False, True):
                kept = b"".join(header[start:stop] for name, start, stop in fields if (name in names) is not exclude)
                assert headers.select(header, names, exclude) == kept + empty_line


@pytest.mark.parametrize("unit", [b"x\n", b"To: x\n", b"X: y\r\n z\r\n"])
def test_a_header_of_many_lines(unit: bytes) -> None:
    header = unit * (3_000_000 // len(unit)) + b"\r\n"
    start = process_time()
    assert headers.select(header, frozenset((b"from", b"to", b"subject"))) in (b"\r\n", header)
    assert headers.select(header, frozenset((b"from", b"subject")), exclude=True) == header
    assert list(headers.values(header, b"from")) == []
    assert process_time() - start < 20


def test_values() -> None:
    assert list(headers.values(HEADER, b"subject")) == [b"one\ttwo", b"again"]
    assert headers.value(HEADER, b"x") == b"1"
    assert headers.value(HEADER, b"y") is None
