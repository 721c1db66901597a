"""The text of HTML, for searching and previews: no parser, one look at each tag.

Comments, style and script elements and tags become a space each; the values of href, src, alt and title are kept,
entities are resolved. What is never closed reaches to the end. Linear in the text.
"""

from __future__ import annotations

import re
from html import unescape

_HIDDEN = re.compile(r"<(?:!--|(style|script)(?=[\s>/]))", re.IGNORECASE)
_ENDS = {
    "style": re.compile(r"</style[^<>]*>?", re.IGNORECASE),
    "script": re.compile(r"</script[^<>]*>?", re.IGNORECASE),
    "": re.compile(r"-->"),
}
_TAG = re.compile(r"<[a-zA-Z/!?][^<>]*(?:>|\Z)")
_ATTRIBUTE = re.compile(r"""[\s"'/](?:href|src|alt|title)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'>]+))""", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"&#[xX]?[0-9a-fA-F]{9,};?")


def text_of(html: str, attributes: bool = True) -> str:
    """The text of HTML; without `attributes` only what a reader sees."""
    text = _TAG.sub(_kept if attributes else " ", _without_hidden(html))
    if "&" not in text:
        return text
    # No character has so long a number, and int() raises for thousands of digits.
    return unescape(_LONG_NUMBER.sub(" ", text))


def _without_hidden(html: str) -> str:
    pieces = []
    at = 0
    while (found := _HIDDEN.search(html, at)) is not None:
        pieces.append(html[at : found.start()])
        end = _ENDS[(found[1] or "").lower()].search(html, found.end())
        if end is None:
            return " ".join(pieces)
        at = end.end()
    if not pieces:
        return html
    pieces.append(html[at:])
    return " ".join(pieces)


def _kept(tag: re.Match[str]) -> str:
    text = tag[0]
    if "=" not in text:
        return " "
    values = [double or single or bare for double, single, bare in _ATTRIBUTE.findall(text)]
    return f" {' '.join(values)} " if values else " "
