"""The text of HTML, for searching and previews: no parser, one look at each tag.

Comments, style and script elements and tags become a space each; the values of href, src, alt and title are kept,
entities are resolved. What is never closed reaches to the end; a tag or entity of more than MAX_TAG characters is none.
Linear in the text, which may come in pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import unescape
from itertools import chain
from typing import Final

MAX_TAG: Final = 64 * 1024

_HIDDEN = re.compile(r"<(?:!--|(style|script)(?=[\s>/]))", re.IGNORECASE)
_ENDS = {
    "style": re.compile(r"</style[^<>]*>?", re.IGNORECASE),
    "script": re.compile(r"</script[^<>]*>?", re.IGNORECASE),
    "": re.compile(r"-->"),
}
_END_GOES_ON = re.compile(r"[^<>]*>?")
_LONGEST_BEGINNING = len("</script")
_CLOSED_TAG = re.compile(rf"<[a-zA-Z/!?][^<>]{{0,{MAX_TAG}}}>")
_LAST_TAG = re.compile(rf"<[a-zA-Z/!?][^<>]{{0,{MAX_TAG}}}\Z")
_OPEN_ENTITY = re.compile(r"&(?:#[xX]?[0-9a-fA-F]*|[^\t\n\f <&#;]{0,32})")
_ATTRIBUTE = re.compile(r"""[\s"'/](?:href|src|alt|title)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{9,};?")


def text_of(html: str, attributes: bool = True) -> str:
    """The text of HTML; without `attributes` only what a reader sees."""
    return "".join(texts((html,), attributes))


def texts(pieces: Iterable[str], attributes: bool = True) -> Iterator[str]:
    """As `text_of`, piece by piece; many of the texts are empty."""
    held = ""
    for piece in _without_hidden(pieces):
        held += piece
        at = _border(held)
        yield _text(held[:at], attributes)
        held = held[at:]
    tag = _LAST_TAG.search(held)
    yield _text(held if tag is None else held + ">", attributes)


def _text(html: str, attributes: bool) -> str:
    """The text of HTML in which no tag is cut through."""
    text = _CLOSED_TAG.sub(_kept if attributes else " ", html)
    if "&" not in text:
        return text
    # No character has so long a number, and int() raises for thousands of digits.
    return unescape(_LONG_NUMBER.sub(" ", text))


def _border(html: str) -> int:
    """Up to where what follows changes nothing: not into the last tag or entity if they may go on."""
    size = len(html)
    tag = html.rfind("<")
    if tag >= 0 and size - tag <= MAX_TAG + 2 and html.find(">", tag) < 0:
        return tag
    entity = html.rfind("&", max(0, size - MAX_TAG))
    return entity if entity >= 0 and _OPEN_ENTITY.fullmatch(html, entity) else size


def _without_hidden(pieces: Iterable[str]) -> Iterator[str]:
    """HTML with a space for each comment, style and script element."""
    held = ""
    inside: str | None = None  # which end is looked for; "/": the rest of an end tag
    for piece, last in chain(((piece, False) for piece in pieces), (("", True),)):
        held += piece
        shown = []
        while True:
            if inside is None:
                begin = _HIDDEN.search(held)
                if begin is None:
                    break
                shown.append(held[: begin.start()])
                held, inside = held[begin.end() :], (begin[1] or "").lower()
            end = _END_GOES_ON.match(held) if inside == "/" else _ENDS[inside].search(held)
            if end is None:
                held = held[-_LONGEST_BEGINNING:]
                break
            goes_on = bool(inside) and end.end() == len(held) and not end[0].endswith(">")
            held = held[end.end() :]
            if inside != "/":
                shown.append(" ")
            inside = "/" if goes_on else None
            if goes_on:
                break
        if inside is None:
            begin_at = -1 if last else held.rfind("<", max(0, len(held) - _LONGEST_BEGINNING))
            at = begin_at if begin_at >= 0 else len(held)
            shown.append(held[:at])
            held = held[at:]
        yield "".join(shown)


def _kept(tag: re.Match[str]) -> str:
    text = tag[0]
    if "=" not in text:
        return " "
    values = [double or single or bare for double, single, bare in _ATTRIBUTE.findall(text)]
    return f" {' '.join(values)} " if values else " "
