"""Text out of messages: encoded words (RFC 2047), parameters (RFC 2231), bodies, and what SEARCH looks at.

Nothing here raises, whatever the octets; each function is linear in its input.

SEARCH compares text that is folded, with white space collapsed, and LF kept for structure: each field or part begins
with `␣LF␣` and all of it ends in a space, so that a term, which has no LF, never matches across two of them. It comes
in pieces of about PIECE characters, which joined are the text; many are shorter, or empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Final
from urllib.parse import unquote_to_bytes

from mailserver.message import charsets, headers, html_text, transfer
from mailserver.message.content_type import Parameters
from mailserver.message.folding import collapse, fold, folded
from mailserver.message.structure import Part

__all__ = ["body_texts", "collapse", "field_text", "fold", "header_texts", "parameter", "words"]

PIECE: Final = transfer.PIECE

_WORD = re.compile(rb"=\?([^?\s]{1,60})\?([bBqQ])\?([^?]*)\?=")
_CONTROLS = re.compile("[\x00\r\n]+")
_FIELD = " \n "


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


def header_texts(octets: bytes, tree: Part, piece: int = PIECE) -> Iterator[str]:
    """The fields of the message's header as `␣LF␣name:␣value`, then those of its parts' headers."""
    yield from _fields(octets, tree, piece)
    yield from _fields_of_parts(octets, tree, piece)
    yield " "


def body_texts(octets: bytes, tree: Part, piece: int = PIECE) -> Iterator[str]:
    """The text of each text part, and each header field of the messages inside the message."""
    yield from _body(octets, tree, piece)
    yield " "


def field_text(field: bytes) -> str:
    """A field, folded and collapsed, its name without white space before the colon."""
    field = headers.unfold(field)
    name, colon, value = field.partition(b":")
    if colon and name[-1:] in b" \t":
        field = name.rstrip() + b":" + value
    if field.isascii() and b"=?" not in field:
        return collapse(field.decode("ascii").lower().replace("\0", " "))
    text = words(field).replace("\0", " ")
    if len(text) <= PIECE:
        return collapse(fold(text))
    return "".join(folded(text[at : at + PIECE] for at in range(0, len(text), PIECE)))


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


def _fields(octets: bytes, part: Part, piece: int) -> Iterator[str]:
    for field in headers.lines(octets[part.start : part.header_end]):
        text = _FIELD + field_text(field)
        for at in range(0, len(text), piece):
            yield text[at : at + piece]


def _fields_of_parts(octets: bytes, part: Part, piece: int) -> Iterator[str]:
    """Nesting is bounded by structure.MAX_DEPTH."""
    for child in part.children:
        yield from _fields(octets, child, piece)
        yield from _fields_of_parts(octets, child, piece)
    if part.message is not None:
        yield from _fields_of_parts(octets, part.message, piece)


def _body(octets: bytes, part: Part, piece: int) -> Iterator[str]:
    for child in part.children:
        yield from _body(octets, child, piece)
    if part.message is not None:
        yield from _fields(octets, part.message, piece)
        yield from _body(octets, part.message, piece)
    elif not part.children and part.type in (b"text", b"message", b"multipart"):
        yield _FIELD
        yield from folded(text.replace("\0", " ") for text in _part_texts(octets, part, piece))


def _part_texts(octets: bytes, part: Part, piece: int) -> Iterator[str]:
    """The text of a text part: transfer encoding, charset and HTML undone."""
    again = partial(transfer.pieces, octets, part.header_end, part.end, part.encoding, piece)
    charset = part.param(b"charset")
    if part.end - part.header_end <= piece:
        texts: Iterator[str] = iter((charsets.to_text(b"".join(again()), charset),))
    else:
        texts = charsets.texts(again, charset)
    return html_text.texts(texts) if part.subtype == b"html" else texts
