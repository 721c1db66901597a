"""ENVELOPE and BODYSTRUCTURE read back as what people are shown: names, addresses, a subject, parts (RFC 3501 §7.4.2).

Only text that summary.py wrote is meant to be read here. It may be cut off anywhere: then what was whole counts.
Nothing raises, whatever the octets; linear in them.

The parts that are shown as the message's text and HTML are the first leaves of these types that are no attachment;
every other leaf is one. A message inside the message is a single attachment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from mailserver.message import decode
from mailserver.message.content_type import Parameters

MAX_DEPTH = 200
"""Levels of lists; deeper ones are left out."""

_TOKEN = re.compile(rb'(\()|(\))|"([^"\\]*(?:\\.[^"\\]*)*)"|\{(\d+)\}\r\n|([^ ()"{]+)', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)

Value: TypeAlias = "bytes | list[Value] | None"


class Person(NamedTuple):
    """An entry of an address list; "" where it has no name."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Envelope:
    subject: str
    from_: list[Person]
    sender: list[Person]
    reply_to: list[Person]
    to: list[Person]
    cc: list[Person]
    bcc: list[Person]
    in_reply_to: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part without parts. path: its section numbers; size: octets as encoded; attachment: it is none of the texts.

    content_id: without its brackets.
    """

    path: tuple[int, ...]
    type: str
    subtype: str
    charset: bytes | None
    encoding: bytes
    size: int
    filename: str
    content_id: str
    disposition: str
    attachment: bool = True

    @property
    def part(self) -> str:
        return ".".join(map(str, self.path))

    @property
    def media_type(self) -> str:
        return f"{self.type}/{self.subtype}"


@dataclass(frozen=True, slots=True)
class Parts:
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
    return decode.words(value) if isinstance(value, bytes) else ""


def _text(value: Value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _read(text: bytes) -> list[Value]:
    """The elements of the outermost list."""
    root: list[Value] = []
    stack: list[list[Value]] = [root]
    at, size = 0, len(text)
    match = _TOKEN.match
    while at < size:
        token = match(text, at + (text[at] == 32))
        if token is None:
            break
        at = token.end()
        opens, closes, quoted, literal, atom = token.groups()
        if quoted is not None:
            stack[-1].append(_QUOTED_PAIR.sub(rb"\1", quoted) if b"\\" in quoted else quoted)
        elif opens:
            inner: list[Value] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif closes:
            stack.pop()
            if len(stack) <= 1:
                break
        elif literal:
            end = at + int(literal[:9])
            stack[-1].append(text[at:end])
            at = end
        else:
            stack[-1].append(None if atom == b"NIL" else atom)
    found = root[0] if root else []
    return found if isinstance(found, list) else []
