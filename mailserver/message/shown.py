"""ENVELOPE and BODYSTRUCTURE read back as what people are shown: names, addresses, a subject, parts (RFC 3501 §7.4.2).

Only text that summary.py wrote is meant to be read here. It may be cut off anywhere: then what was whole counts.
Nothing raises, whatever the octets; linear in them.

The parts that are shown as the message's text and HTML are the first leaves of these types that are no attachment;
every other leaf is one. A message inside the message is a single attachment.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

from mailserver.message import decode
from mailserver.message.content_type import Parameters

MAX_DEPTH = 200
"""Levels of lists; deeper ones are left out."""

_TOKEN = re.compile(rb'([()])|([^ ()"{]+)|"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_LITERAL = re.compile(rb"\{(\d{1,9})\}\r\n")
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)

Value: TypeAlias = "bytes | list[Value] | None"


class Person(NamedTuple):
    """An entry of an address list; "" where it has no name."""

    name: str
    email: str


class Envelope(NamedTuple):
    subject: str
    from_: list[Person]
    sender: list[Person]
    reply_to: list[Person]
    to: list[Person]
    cc: list[Person]
    bcc: list[Person]
    in_reply_to: str
    message_id: str


class Headline(NamedTuple):
    """What a list shows of an Envelope."""

    subject: str
    from_: list[Person]
    to: list[Person]


class Leaf(NamedTuple):
    """A part without parts. path: its section numbers; size: octets as encoded; content_id: without its brackets."""

    path: tuple[int, ...]
    type: str
    subtype: str
    charset: bytes | None
    encoding: bytes
    size: int
    filename: str
    content_id: str
    disposition: str

    @property
    def part(self) -> str:
        return ".".join(map(str, self.path))

    @property
    def media_type(self) -> str:
        return f"{self.type}/{self.subtype}"


class Parts(NamedTuple):
    """The leaves of a message: what is shown of it, and the rest, in order."""

    text: Leaf | None
    html: Leaf | None
    attachments: Sequence[Leaf]


def envelope(text: bytes) -> Envelope:
    """An ENVELOPE."""
    fields = _read(text)
    fields += [None] * (10 - len(fields))
    from_, sender, reply_to, to, cc, bcc = map(_people, fields[2:8])
    return Envelope(_words(fields[1]), from_, sender, reply_to, to, cc, bcc, _text(fields[8]), _text(fields[9]))


def headline(text: bytes) -> Headline:
    """What a list shows of an ENVELOPE."""
    fields = _read(text)
    fields += [None] * (6 - len(fields))
    return Headline(_words(fields[1]), _people(fields[2]), _people(fields[5]))


def parts(text: bytes) -> Parts:
    """A BODYSTRUCTURE."""
    leaves = list(_leaves(_read(text), (), 0))
    plain = next((leaf for leaf in leaves if _is_shown(leaf, "plain")), None)
    html = next((leaf for leaf in leaves if _is_shown(leaf, "html")), None)
    return Parts(plain, html, [leaf for leaf in leaves if leaf is not plain and leaf is not html])


def _is_shown(leaf: Leaf, subtype: str) -> bool:
    return leaf.type == "text" and leaf.subtype == subtype and leaf.disposition != "attachment" and not leaf.filename


def _leaves(body: list[Value], path: tuple[int, ...], depth: int) -> Iterator[Leaf]:
    if depth > MAX_DEPTH:
        return
    if body and isinstance(body[0], list):
        for number, child in enumerate(body, 1):
            if not isinstance(child, list):
                break
            yield from _leaves(child, (*path, number), depth + 1)
    elif len(body) >= 7:
        yield _leaf(body, path or (1,))


def _leaf(body: list[Value], path: tuple[int, ...]) -> Leaf:
    type_, subtype = _text(body[0]), _text(body[1])
    params = _pairs(body[2])
    size = body[6]
    # Behind the seven basic fields, of text: lines; of a message: envelope, body, lines; then md5 and the disposition.
    specific = 1 if type_ == "text" else 3 if (type_, subtype) == ("message", "rfc822") else 0
    at = 8 + specific
    disposition = body[at] if len(body) > at and isinstance(body[at], list) else None
    kind = ""
    of_disposition: Parameters = ()
    if isinstance(disposition, list) and disposition:
        kind = _text(disposition[0])
        of_disposition = _pairs(disposition[1]) if len(disposition) > 1 else ()
    filename = decode.parameter(of_disposition, b"filename") or decode.parameter(params, b"name") or ""
    return Leaf(
        path,
        type_,
        subtype,
        next((value for name, value in params if name == b"charset"), None),
        body[5] if isinstance(body[5], bytes) else b"7bit",
        int(size) if isinstance(size, bytes) and size.isdigit() else 0,
        filename,
        _text(body[3]).strip("<> "),
        kind,
    )


def _pairs(value: Value) -> Parameters:
    if not isinstance(value, list):
        return ()
    words = [item if isinstance(item, bytes) else b"" for item in value]
    return tuple(zip(words[::2], words[1::2], strict=False))


def _people(value: Value) -> list[Person]:
    """Addresses; the marks of groups are left out."""
    if not isinstance(value, list):
        return []
    return [
        Person(_words(entry[0]), _address(entry[2], entry[3]))
        for entry in value
        if isinstance(entry, list) and len(entry) == 4 and isinstance(entry[3], bytes)
    ]


def _address(mailbox: Value, host: Value) -> str:
    local, domain = _text(mailbox), _text(host)
    return f"{local}@{domain}" if domain else local


def _words(value: Value) -> str:
    if not isinstance(value, bytes):
        return ""
    if value.isascii() and b"=?" not in value:
        text = value.decode("ascii")
        if text.isprintable():
            return text
    return decode.words(value)


def _text(value: Value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _read(text: bytes) -> list[Value]:
    """The elements of the outermost list."""
    root: list[Value] = []
    top, around = root, []
    for bracket, atom, quoted in _tokens(text):
        if atom:
            top.append(None if atom == b"NIL" else atom)
        elif not bracket:
            top.append(_QUOTED_PAIR.sub(rb"\1", quoted) if b"\\" in quoted else quoted)
        elif bracket == b"(":
            around.append(top)
            inner: list[Value] = []
            top.append(inner)
            top = inner
        elif len(around) < 2:
            break
        else:
            top = around.pop()
    found = root[0] if root else []
    return found if isinstance(found, list) else []


def _tokens(text: bytes) -> Iterable[tuple[bytes, bytes, bytes]]:
    """A bracket, an atom or a string each; an empty string is none of the others."""
    if b"{" not in text:
        return _TOKEN.findall(text)
    return _tokens_and_literals(text)


def _tokens_and_literals(text: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    at, size = 0, len(text)
    while at < size:
        literal = _LITERAL.match(text, at)
        if literal is not None:
            at = literal.end() + int(literal[1])
            yield b"", b"", text[literal.end() : at].replace(b"\\", rb"\\")
            continue
        token = _TOKEN.match(text, at)
        if token is None:
            at += 1
        else:
            at = token.end()
            yield token[1] or b"", token[2] or b"", token[3] or b""
