"""Content-Transfer-Encodings undone (RFC 2045 §6), as far as the octets allow and never an error.

Base64 skips what is not of its alphabet (RFC 2045 §6.8) and goes on behind padding, since some senders encode in
pieces; an unfinished last group gives the octets that are whole. Linear in the octets.
"""

from __future__ import annotations

import binascii
import re

import pybase64

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_JUNK = bytes(set(range(256)) - set(_ALPHABET))
_MAX_PIECES = 10_000
_UU_LINE = re.compile(rb"[^\r\n]+")


def decode(octets: bytes, encoding: bytes) -> bytes:
    """The octets of a body without its transfer encoding, whose name is in lower case."""
    if encoding == b"base64":
        return base64(octets)
    if encoding == b"quoted-printable":
        return binascii.a2b_qp(octets)
    if encoding in (b"x-uuencode", b"x-uue", b"uuencode"):
        return _uuencode(octets)
    return octets


def base64(octets: bytes) -> bytes:
    """Base64, however broken."""
    octets = octets.translate(None, _JUNK)
    body = octets.rstrip(b"=")
    if b"=" not in body:
        return _group(body)
    return b"".join([_group(piece) for piece in body.split(b"=", _MAX_PIECES) if piece])


def _group(digits: bytes) -> bytes:
    """The whole octets that base64 digits stand for; of a lone last digit there is none."""
    digits = digits.replace(b"=", b"")
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
