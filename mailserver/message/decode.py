"""Text out of messages: encoded words (RFC 2047), parameters (RFC 2231), bodies, and what SEARCH looks at.

Nothing here raises, whatever the octets; each function is linear in its input.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from mailserver.message import charsets, html_text, transfer
from mailserver.message.content_type import Parameters
from mailserver.message.folding import collapse, fold
from mailserver.message.structure import Part

__all__ = ["Searchable", "collapse", "fold", "parameter", "part_text", "searchable", "words"]

_WORD = re.compile(rb"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*)\?=")
_CONTROLS = re.compile("[\x00\r\n]+")
_FIELD = " \n "
_PART_FIELD = " \n\x01 "


class Searchable(NamedTuple):
    """A message as SEARCH compares it: folded, white space collapsed, NUL and LF kept for structure.

    header: `␣LF␣name:␣value` for each field of the message's header, then for each header field of its parts the same
    with U+0001 behind LF, so that `LF␣name:` finds fields of the message only. body: `␣LF␣text` for each text part
    and, for messages inside it, each header field. Both end in a space. A term that has no LF never matches across
    two fields or parts.
    """

    header: str
    body: str


def words(value: bytes) -> str:
    """An unfolded header value with its encoded words decoded; NUL and line ends become spaces.

    White space between two encoded words is dropped (RFC 2047 §6.2). The octets of adjacent words of one charset are
    joined first, because some senders cut a character in two. Octets above 127 are read as UTF-8, else windows-1252.
    """
    text = charsets.to_text(value) if b"=?" not in value else _decode_words(value)
    return text if text.isprintable() else _CONTROLS.sub(" ", text)


def parameter(params: Parameters, name: bytes) -> str | None:
    """A parameter's text: RFC 2231 charset and continuations joined, else the plain value with its encoded words."""
    whole = b""
    sections: dict[int, tuple[bytes, bool]] = {}
    plain: bytes | None = None
    for key, value in params:
        base, star, rest = key.partition(b"*")
        if base != name:
            continue
        if not star:
            plain = value
        elif not rest:
            whole = value
        else:
            number = rest.rstrip(b"*")
            if number.isdigit() and len(number) <= 3:
                sections.setdefault(int(number), (value, rest.endswith(b"*")))
    if whole:
        return _extended([(whole, True)])
    if 0 in sections:
        return _extended([sections[n] for n in range(len(sections)) if n in sections])
    return None if plain is None else words(plain)


def part_text(octets: bytes, part: Part) -> str:
    """The text of a text part: transfer encoding, charset and HTML undone."""
    body = transfer.decode(octets[part.header_end : part.end], part.encoding)
    text = charsets.to_text(body, part.param(b"charset"))
    return html_text.text_of(text) if part.subtype == b"html" else text


def searchable(octets: bytes, tree: Part) -> Searchable:
    """What SEARCH compares in a message."""
    header = _header_lines(octets, tree, _FIELD)
    part_fields: list[str] = []
    body: list[str] = []
    _collect(octets, tree, part_fields, body)
    return Searchable("".join(header) + "".join(part_fields) + " ", "".join(body) + " ")


def _decode_words(value: bytes) -> str:
    out: list[str] = []
    pending: list[bytes] = []
    charset = b""
    at = 0
    for word in _WORD.finditer(value):
        gap = value[at : word.start()]
        name = word[1].partition(b"*")[0].lower()  # RFC 2231 §5: charset*language
        if pending and (name != charset or (gap and not gap.isspace())):
            out.append(charsets.to_text(b"".join(pending), charset))
            pending = []
            if gap and not gap.isspace():
                out.append(charsets.to_text(gap))
        elif gap and not pending:
            out.append(charsets.to_text(gap))
        charset = name
        pending.append(_word_octets(word[2], word[3]))
        at = word.end()
    out.append(charsets.to_text(b"".join(pending), charset))
    out.append(charsets.to_text(value[at:]))
    return "".join(out)


def _word_octets(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"bB":
        return transfer.base64(text)
    return transfer.decode(text.replace(b"_", b" "), b"quoted-printable")


def _extended(sections: list[tuple[bytes, bool]]) -> str:
    """RFC 2231 §3 and §4: the first section names the charset if it is an extended one."""
    first, extended = sections[0]
    charset = b""
    if extended and first.count(b"'") >= 2:
        charset, _, text = first.split(b"'", 2)
        sections = [(text, True), *sections[1:]]
    octets = b"".join([unquote_to_bytes(value) if encoded else value for value, encoded in sections])
    text_ = charsets.to_text(octets, charset)
    return text_ if text_.isprintable() else _CONTROLS.sub(" ", text_)


def _collect(octets: bytes, part: Part, part_fields: list[str], body: list[str]) -> None:
    """The part headers and texts below a part, in order; nesting is bounded by structure.MAX_DEPTH."""
    for child in part.children:
        part_fields.extend(_header_lines(octets, child, _PART_FIELD))
        _collect(octets, child, part_fields, body)
    if part.message is not None:
        body.extend(_header_lines(octets, part.message, _FIELD))
        _collect(octets, part.message, part_fields, body)
    elif not part.children and part.type in (b"text", b"message", b"multipart"):
        body.append(_FIELD + collapse(fold(part_text(octets, part).replace("\0", " "))))


def _header_lines(octets: bytes, part: Part, separator: str) -> list[str]:
    """The fields of a part's header, folded, each behind the separator."""
    header = octets[part.start : part.header_end].replace(b"\r\n", b"\n")
    header = header.replace(b"\n ", b" ").replace(b"\n\t", b"\t")
    lines = []
    for line in header.split(b"\n"):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if colon and name[-1:] in b" \t":
            line = name.rstrip() + b":" + value
        # Line by line: one name with an accent would send the whole header the slow way through `fold`.
        text = line.decode("ascii").lower() if line.isascii() and b"=?" not in line else fold(words(line))
        lines.append(separator + collapse(text.replace("\0", " ")))
    return lines
