"""Base64 in its canonical form, fast: lines of 76 digits with CRLF between them (RFC 2045 §6.8).

An attachment in this form is kept decoded, and comes back to the octet. The lines are cut by one Struct a block,
which is several times as quick as slicing line by line.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

import pybase64

LINE_DIGITS: Final = 76
"""Base64 digits of a full line; a CRLF parts the lines, none follows the last."""

_ROWS = 256
_BLOCK_DIGITS = LINE_DIGITS * _ROWS
_BLOCK_OCTETS = _BLOCK_DIGITS // 4 * 3
_LINE = LINE_DIGITS + 2
_LINE_OCTETS = LINE_DIGITS // 4 * 3
_SHORT = 3  # lines that are cheaper to slice


def encoded_length(octets: int) -> int:
    """How long octets are in base64 with full lines."""
    digits = (octets + 2) // 3 * 4
    return digits + 2 * ((digits - 1) // LINE_DIGITS) if digits else 0


def encode(data: bytes) -> bytes:
    """Base64 in lines of 76 digits with CRLF between them and none behind the last."""
    digits = pybase64.b64encode(data)
    size = len(digits)
    if size <= LINE_DIGITS * _SHORT:
        return b"\r\n".join([digits[at : at + LINE_DIGITS] for at in range(0, size, LINE_DIGITS)])
    blocks, rest = divmod(size, _BLOCK_DIGITS)
    out = [b"\r\n".join(_rows(_ROWS).unpack_from(digits, block * _BLOCK_DIGITS)) for block in range(blocks)]
    if rest:
        rows, last = divmod(rest, LINE_DIGITS)
        at = size - rest
        lines = _rows(rows).unpack_from(digits, at)
        out.append(b"\r\n".join((*lines, digits[size - last :]) if last else lines))
    return b"\r\n".join(out)


def encode_range(data: bytes, start: int, stop: int) -> bytes:
    """`encode(data)[start:stop]`, encoding only the lines that are in it."""
    first = start // _LINE
    text = encode(data[first * _LINE_OCTETS : (stop // _LINE + 1) * _LINE_OCTETS])
    if stop % _LINE > LINE_DIGITS and (stop // _LINE + 1) * _LINE_OCTETS < len(data):
        text += b"\r\n"
    return text[start - first * _LINE : stop - first * _LINE]


def decode(text: bytes) -> bytes | None:
    """What base64 text stands for, if `encode` gives exactly that text for it; else None."""
    size = len(text)
    lines, last = divmod(size, _LINE)
    if last == 0 or last > LINE_DIGITS or last % 4 or (lines and text[LINE_DIGITS:_LINE] != b"\r\n"):
        return None
    try:
        raw = pybase64.b64decode(text)
    except ValueError:
        return None
    if encoded_length(len(raw)) != size:
        return None
    # Block by block, so that a large part is not held twice.
    at = 0
    for begin in range(0, len(raw), _BLOCK_OCTETS):
        block = encode(raw[begin : begin + _BLOCK_OCTETS])
        if not text.startswith(block, at):
            return None
        at += len(block)
        if at < size:
            if not text.startswith(b"\r\n", at):
                return None
            at += 2
    return raw


@lru_cache(maxsize=_ROWS + 1)
def _rows(count: int) -> Struct:
    return Struct(f"{LINE_DIGITS}s" * count)
