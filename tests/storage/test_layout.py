from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import base64_lines, layout
from storage.layout import BLOB_BASE64, BLOB_RAW, INLINE_BASE64, Piece, Span

KINDS = st.sampled_from([INLINE_BASE64, BLOB_BASE64, BLOB_RAW])
PIECES = st.lists(st.tuples(st.binary(max_size=20), KINDS, st.binary(min_size=1, max_size=300)), max_size=6)


def test_pieces_are_packed() -> None:
    pieces = [Piece(0, INLINE_BASE64, 1), Piece(127, BLOB_RAW, 128), Piece(300, BLOB_BASE64, 10**7)]
    packed = layout.pack(pieces)
    assert layout.unpack(packed) == pieces
    assert layout.pack([]) is None and layout.unpack(None) == []


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        layout.unpack(b"\x09")


@given(PIECES, st.binary(max_size=20))
@settings(max_examples=150, derandomize=True)
def test_rebuilding_puts_everything_in_its_place(parts: list[tuple[bytes, int, bytes]], end: bytes) -> None:
    whole = front = tail = b""
    blobs, pieces = [], []
    for gap, kind, octets in parts:
        front += gap
        whole += gap + (octets if kind == BLOB_RAW else base64_lines.encode(octets))
        pieces.append(Piece(len(gap), kind, len(octets)))
        if kind == INLINE_BASE64:
            tail += octets
        else:
            blobs.append(octets)
    packed = layout.pack(pieces)
    assert b"".join(layout.rebuild(packed, front + end, tail, blobs)) == whole + end
    spans = layout.spans(packed, len(front + end))
    assert [span.start for span in spans[1:]] == [span.stop for span in spans[:-1]]
    assert (spans[-1].stop if spans else 0) == len(whole + end)


def test_stored_form() -> None:
    assert layout.pack([Piece(5, INLINE_BASE64, 300), Piece(0, BLOB_RAW, 127)]) == b"\x01\x01\x05\xac\x02\x03\x00\x7f"


def test_spans() -> None:
    packed = layout.pack(
        [Piece(10, INLINE_BASE64, 57), Piece(0, BLOB_RAW, 5), Piece(3, INLINE_BASE64, 3), Piece(0, BLOB_BASE64, 58)]
    )
    assert layout.spans(packed, 20) == [
        Span(0, 10, "front", 0, 10, False),
        Span(10, 86, "tail", 0, 57, True),
        Span(86, 91, "blob", 0, 5, False),
        Span(91, 94, "front", 10, 3, False),
        Span(94, 98, "tail", 57, 3, True),
        Span(98, 180, "blob", 1, 58, True),
        Span(180, 187, "front", 13, 7, False),
    ]
    assert layout.spans(None, 7) == [Span(0, 7, "front", 0, 7, False)]
    assert layout.spans(None, 0) == []
