"""Content-Transfer-Encodings undone (RFC 2045 §6), as far as the octets allow and never an error.

Base64 skips what is not of its alphabet (RFC 2045 §6.8) and goes on behind padding, since some senders encode in
pieces; an unfinished last group gives the octets that are whole. Linear in the octets.

Large bodies are decoded in pieces of about PIECE octets, so that nobody has to wait for, or hold, all of one. The
pieces are those of the whole, except that a line of quoted-printable or uuencode longer than PIECE is read as several.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from typing import Final

import pybase64

PIECE: Final = 32 * 1024

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_JUNK = bytes(set(range(256)) - set(_ALPHABET))
_UUENCODE = frozenset((b"x-uuencode", b"x-uue", b"uuencode"))
_UU_LINE = re.compile(rb"[^\r\n]+")


def decode(octets: bytes, encoding: bytes) -> bytes:
    """The octets of a body without its transfer encoding, whose name is in lower case."""
    return b"".join(pieces(octets, 0, len(octets), encoding))


def pieces(octets: bytes, start: int, end: int, encoding: bytes, piece: int = PIECE) -> Iterator[bytes]:
    """The body at [start, end) decoded, in pieces of at most about `piece` octets."""
    if encoding == b"base64":
        yield from _base64_pieces(octets, start, end, piece)
    elif encoding == b"quoted-printable":
        yield from map(binascii.a2b_qp, _lines(octets, start, end, piece))
    elif encoding in _UUENCODE:
        yield from map(_uuencode, _lines(octets, start, end, piece))
    else:
        for at in range(start, end, piece):
            yield octets[at : min(at + piece, end)]


def base64(octets: bytes) -> bytes:
    """Base64, however broken."""
    return b"".join(_base64_pieces(octets, 0, len(octets), PIECE))


def _base64_pieces(octets: bytes, start: int, end: int, piece: int) -> Iterator[bytes]:
    digits = b""  # what is not yet a whole group
    for at in range(start, end, piece):
        *padded, digits = (digits + octets[at : min(at + piece, end)].translate(None, _JUNK)).split(b"=")
        whole = len(digits) & -4
        yield b"".join(map(_group, padded)) + _group(digits[:whole])
        digits = digits[whole:]
    if digits:
        yield _group(digits)


def _group(digits: bytes) -> bytes:
    """The whole octets that base64 digits stand for; of a lone last digit there is none."""
    spare = len(digits) % 4
    if spare == 1:
        digits = digits[:-1]
    elif spare:
        digits += b"=" * (4 - spare)
    return pybase64.b64decode(digits)


def _uuencode(octets: bytes) -> bytes:
    out = []
    for line in _UU_LINE.findall(octets):
        if line.startswith(b"begin ") or line == b"end":
            continue
        try:
            out.append(binascii.a2b_uu(line))
        except binascii.Error:
            continue
    return b"".join(out)


def _lines(octets: bytes, start: int, end: int, piece: int) -> Iterator[bytes]:
    """The octets in pieces that end where a line does, or where at least no `=XX` is cut."""
    while start < end:
        stop = min(start + piece, end)
        if stop < end:
            newline = octets.rfind(b"\n", start, stop)
            escape = octets.rfind(b"=", max(start + 1, stop - 2), stop)
            stop = newline + 1 if newline >= 0 else escape if escape >= 0 else stop
        yield octets[start:stop]
        start = stop
