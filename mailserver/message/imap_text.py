"""Strings as IMAP writes them (RFC 3501 §4.3), in the one form that is legal in every mode of a session.

A string of printable US-ASCII is quoted; anything else becomes a literal `{n}`, which may hold any octet but NUL
(CHAR8, RFC 3501 §9), so NUL is dropped. A horizontal tab is legal inside quotes (TEXT-CHAR) and stays there.

Bound: a string is cut after MAX_STRING octets. Summaries are read by the thousand; a subject of a megabyte is not
worth the memory, and the whole header can still be fetched.
"""

from __future__ import annotations

MAX_STRING = 16_384

_PLAIN = bytes(octet for octet in range(0x20, 0x7F) if octet not in b'"\\') + b"\t"
_QUOTABLE = _PLAIN + b'"\\'


def string(value: bytes) -> bytes:
    """The value as a quoted string or a literal."""
    if not value.translate(None, _PLAIN) and len(value) <= MAX_STRING:
        return b'"%b"' % value
    return _awkward(value)


def nstring(value: bytes | None) -> bytes:
    """The value as a string, or NIL for None."""
    return b"NIL" if value is None else string(value)


def _awkward(value: bytes) -> bytes:
    value = value.replace(b"\0", b"")[:MAX_STRING]
    if value.translate(None, _QUOTABLE):
        return b"{%d}\r\n%b" % (len(value), value)
    return b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
