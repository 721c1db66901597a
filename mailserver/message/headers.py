"""Header fields as they lie in a header (RFC 5322 §2.2), and subsets of a header for HEADER.FIELDS.

A header is what structure.py takes for one: lines that end in CRLF or LF, up to and with the first empty line. A field
is a line and the lines behind it that begin with white space. A line without a colon is a field without a name: no
list of names selects it. All functions are linear in the header, and hold no more of it than PIECE octets' fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

PIECE: Final = 64 * 1024

Field = tuple[bytes, int, int]
"""Lower-case name and the place of the whole field, its line end included."""

_EMPTY = (b"\r", b"")
_BREAK = re.compile(rb"\n(?![ \t])")


def lines(header: bytes) -> Iterator[bytes]:
    """The fields of a header as they are, without the LF at their ends; the empty line is none."""
    for piece in _pieces(header):
        *whole, unfinished = _BREAK.split(piece)  # what follows the last line end: nothing, mostly
        for line in whole:
            if line in _EMPTY:
                return
            yield line
        if unfinished:
            yield unfinished


def fields(header: bytes) -> Iterator[Field]:
    """The fields of a header in order; the empty line is none."""
    at, size = 0, len(header)
    for line in lines(header):
        end = min(at + len(line) + 1, size)
        yield name_of(line), at, end
        at = end


def select(header: bytes, names: frozenset[bytes], exclude: bool = False) -> bytes:
    """The fields with one of the (lower-case) names, or all others, and the header's empty line.

    The octets are those of the header. A header without an empty line, which is that of a message without a body, has
    a subset without one (RFC 3501 §6.4.5).
    """
    selected = []
    for piece in _pieces(header):
        text, ended = _select(piece, names, exclude)
        selected.append(text)
        if ended:
            break
    return b"".join(selected)


def _select(piece: bytes, names: frozenset[bytes], exclude: bool) -> tuple[bytes, bool]:
    """The same for a piece, and whether the empty line is in it."""
    *whole, unfinished = _BREAK.split(piece)
    kept: list[bytes] = []
    for line in whole:
        if line in _EMPTY:
            return b"\n".join([*kept, line, b""]), True
        if (name_of(line) in names) is not exclude:
            kept.append(line)
    if unfinished and (name_of(unfinished) in names) is not exclude:
        kept.append(unfinished)
    else:
        kept.append(b"")
    return b"\n".join(kept), False


def named(header: bytes, name: bytes) -> Iterator[bytes]:
    """All fields with a (lower-case) name as they are."""
    return (header[start:stop] for start, stop in _places(header, b"\n" + header.lower(), name))


def values(header: bytes, name: bytes) -> Iterator[bytes]:
    """The unfolded values, without surrounding white space, of all fields with a (lower-case) name."""
    for field in named(header, name):
        yield unfold(field.partition(b":")[2]).strip()


def value(header: bytes, name: bytes) -> bytes | None:
    """The first of `values`."""
    return next(values(header, name), None)


def unfold(text: bytes) -> bytes:
    """RFC 5322 §2.2.3: line ends before white space go, the white space stays."""
    return text.replace(b"\r\n", b"\n").replace(b"\n ", b" ").replace(b"\n\t", b"\t")


def name_of(line: bytes) -> bytes:
    """The lower-case name of a field; RFC 5322 §4.5 allows white space before its colon."""
    name, colon, _ = line.partition(b":")
    return name.rstrip(b" \t").lower() if colon else b""


def _places(header: bytes, lowered: bytes, name: bytes) -> Iterator[tuple[int, int]]:
    """Where the fields with a name are; lowered: the header in lower case behind a LF."""
    if not name or name[:1].isspace():  # such a line goes on with the field before it, or has no name
        return
    at = lowered.find(b"\n" + name)
    while at >= 0:
        end = _BREAK.search(header, at)
        stop = end.end() if end else len(header)
        if name_of(header[at:stop]) == name:
            yield at, stop
        at = lowered.find(b"\n" + name, at + 1)


def _pieces(header: bytes) -> Iterator[bytes]:
    """The header in pieces that end with a field."""
    at, size = 0, len(header)
    while size - at > PIECE:
        found = _BREAK.search(header, at + PIECE)
        if found is None or found.end() == size:
            break
        yield header[at : found.end()]
        at = found.end()
    yield header[at:] if at else header
