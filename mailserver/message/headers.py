"""Header fields as they lie in a header (RFC 5322 §2.2), and subsets of a header for HEADER.FIELDS.

A header is what structure.py takes for one: lines that end in CRLF or LF, up to and with the first empty line. A field
is a line and the lines behind it that begin with white space. A line without a colon is a field without a name: no
list of names selects it. All functions are linear in the header.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mailserver.message.decode import words

Field = tuple[bytes, int, int]
"""Lower-case name and the place of the whole field, its line end included."""

_EMPTY = (b"\r", b"")
_BREAK = re.compile(rb"\n(?![ \t])")


def fields(header: bytes) -> list[Field]:
    """The fields of a header in order; the empty line is none."""
    found = []
    at, size = 0, len(header)
    for line in _BREAK.split(header):
        if line in _EMPTY:
            break
        end = min(at + len(line) + 1, size)
        found.append((_name(line), at, end))
        at = end
    return found


def select(header: bytes, names: frozenset[bytes], exclude: bool = False) -> bytes:
    """The fields with one of the (lower-case) names, or all others, and the header's empty line.

    The octets are those of the header. A header without an empty line, which is that of a message without a body, has
    a subset without one (RFC 3501 §6.4.5).
    """
    lines = _BREAK.split(header)
    unfinished = lines.pop()  # what follows the last line end: nothing, mostly
    kept = []
    for line in lines:
        if line in _EMPTY:
            kept.append(line)
            break
        if (_name(line) in names) is not exclude:
            kept.append(line)
    else:
        if unfinished and (_name(unfinished) in names) is not exclude:
            kept.append(unfinished)
            return b"\n".join(kept)
    kept.append(b"")
    return b"\n".join(kept)


def values(header: bytes, name: bytes) -> Iterator[bytes]:
    """The unfolded values, without surrounding white space, of all fields with a (lower-case) name."""
    for key, start, end in fields(header):
        if key == name:
            yield unfold(header[start:end].partition(b":")[2]).strip()


def value(header: bytes, name: bytes) -> bytes | None:
    """The first of `values`."""
    return next(values(header, name), None)


def unfold(text: bytes) -> bytes:
    """RFC 5322 §2.2.3: line ends before white space go, the white space stays."""
    return text.replace(b"\r\n", b"\n").replace(b"\n ", b" ").replace(b"\n\t", b"\t")


def decode(text: bytes) -> str:
    """A field's value as text: unfolded, encoded words decoded (RFC 2047)."""
    return words(unfold(text).strip())


def _name(line: bytes) -> bytes:
    name, colon, _ = line.partition(b":")
    return name.rstrip(b" \t").lower() if colon else b""
