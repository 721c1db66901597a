"""How a message was taken apart: which pieces stand where between the octets of its front.

The front is the message with some parts of bodies taken out. Each piece taken out is described by how many octets of
the front stand between it and the piece before, where it is kept, in which form, and how long it is in that form.

A packed layout is a version octet and, for each piece, its kind and two numbers in base 128 (least significant digits
first, the top bit set on all but the last). None stands for a message that is all front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from storage import base64_lines

INLINE_BASE64: Final = 1
BLOB_BASE64: Final = 2
BLOB_RAW: Final = 3

_VERSION = 1


class Piece(NamedTuple):
    """`gap` octets of the front, then this piece, `length` octets in the form in which it is kept."""

    gap: int
    kind: int
    length: int

    @property
    def encoded_length(self) -> int:
        """Its octets in the message."""
        return self.length if self.kind == BLOB_RAW else base64_lines.encoded_length(self.length)


class Span(NamedTuple):
    """Octets [start, stop) of a message and where they are kept.

    source is "front", "tail" or "blob". offset and length: where in the front or the tail, in octets as they are kept;
    for a blob, offset is its number. base64: what is kept must be encoded.
    """

    start: int
    stop: int
    source: str
    offset: int
    length: int
    base64: bool


def pack(pieces: list[Piece]) -> bytes | None:
    """The stored form."""
    if not pieces:
        return None
    out = bytearray((_VERSION,))
    for piece in pieces:
        out.append(piece.kind)
        for number in (piece.gap, piece.length):
            while number > 127:
                out.append(number & 127 | 128)
                number >>= 7
            out.append(number)
    return bytes(out)


def unpack(packed: bytes | None) -> list[Piece]:
    """The pieces of a stored layout."""
    if packed is None:
        return []
    if packed[:1] != bytes((_VERSION,)):
        raise ValueError("layout is of an unknown version")
    pieces = []
    at, size = 1, len(packed)
    while at < size:
        kind = packed[at]
        gap, at = _number(packed, at + 1)
        length, at = _number(packed, at)
        pieces.append(Piece(gap, kind, length))
    return pieces


def spans(packed: bytes | None, front_octets: int) -> list[Span]:
    """The whole message as spans, in order: what a reader needs to fetch for a range of octets."""
    found = []
    at = front = tail = blob = 0
    for piece in unpack(packed):
        if piece.gap:
            found.append(Span(at, at + piece.gap, "front", front, piece.gap, False))
            at += piece.gap
            front += piece.gap
        stop = at + piece.encoded_length
        if piece.kind == INLINE_BASE64:
            found.append(Span(at, stop, "tail", tail, piece.length, True))
            tail += piece.length
        else:
            found.append(Span(at, stop, "blob", blob, piece.length, piece.kind == BLOB_BASE64))
            blob += 1
        at = stop
    if front < front_octets:
        found.append(Span(at, at + front_octets - front, "front", front, front_octets - front, False))
    return found


def rebuild(packed: bytes | None, front: bytes, tail: bytes, blobs: Sequence[bytes]) -> list[bytes]:
    """The message's octets as pieces to be written one after another; tail: the inline parts, joined."""
    if packed is None:
        return [front]
    out = []
    for span in spans(packed, len(front)):
        if span.source == "blob":
            kept = blobs[span.offset]
        else:
            kept = (front if span.source == "front" else tail)[span.offset : span.offset + span.length]
        out.append(base64_lines.encode(kept) if span.base64 else kept)
    return out


def _number(packed: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        digit = packed[at]
        at += 1
        number |= (digit & 127) << shift
        if digit < 128:
            return number, at
        shift += 7
