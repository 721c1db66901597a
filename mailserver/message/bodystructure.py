"""BODY out of BODYSTRUCTURE: the same text without its extension data (RFC 3501 §7.4.2), so that no message is read.

Only text that summary.py wrote is understood; anything else raises ValueError.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(rb'(\()|(\))|"[^"\\]*(?:\\.[^"\\]*)*"|\{(\d+)\}\r\n|[^ ()"{]+', re.DOTALL)
_BASIC_FIELDS = 7


def without_extensions(text: bytes) -> bytes:
    """The BODY that belongs to a BODYSTRUCTURE."""
    out: list[bytes] = []
    if _body(text, 0, out) != len(text):
        raise ValueError("something follows the body structure")
    return b"".join(out)


def _body(text: bytes, at: int, out: list[bytes]) -> int:
    """Writes the body that begins at `at` without its extension data; where it ends."""
    if text[at : at + 1] != b"(":
        raise ValueError("no body structure")
    out.append(b"(")
    at += 1
    if text[at : at + 1] == b"(":
        while text[at : at + 1] == b"(":
            at = _body(text, at, out)
        at = _copy(text, at, 1, out)
    else:
        kind = text[at : at + 18].lower()
        at = _copy(text, at, _BASIC_FIELDS, out)
        if kind.startswith(b'"text" '):
            at = _copy(text, at, 1, out)
        elif kind == b'"message" "rfc822"':
            at = _copy(text, at, 1, out)
            out.append(b" ")
            at = _body(text, at + 1, out)
            at = _copy(text, at, 1, out)
    out.append(b")")
    return _end_of_list(text, at)


def _copy(text: bytes, at: int, count: int, out: list[bytes]) -> int:
    """Writes elements, each with the space before it."""
    start = at
    for _ in range(count):
        at = _end_of_element(text, at + (text[at : at + 1] == b" "))
    out.append(text[start:at])
    return at


def _end_of_element(text: bytes, at: int) -> int:
    token = _TOKEN.match(text, at)
    if token is None or token[2]:
        raise ValueError("the body structure lacks an element")
    if token[1]:
        return _end_of_list(text, token.end())
    return token.end() + int(token[3] or 0)


def _end_of_list(text: bytes, at: int) -> int:
    """Past the parenthesis that closes the list in which `at` is."""
    depth = 1
    while depth:
        token = _TOKEN.match(text, at + (text[at : at + 1] == b" "))
        if token is None:
            raise ValueError("the body structure is cut off")
        at = token.end() + int(token[3] or 0)
        if token[1]:
            depth += 1
        elif token[2]:
            depth -= 1
    return at
