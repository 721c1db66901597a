"""What FETCH asks for (RFC 3501 §6.4.5): `fetch-att` items, macros, sections and partials."""

from __future__ import annotations

from mailserver.protocols.imap.commands import Attribute, BodySection, FetchItem, Refused
from mailserver.protocols.imap.cursor import Cursor
from mailserver.protocols.imap.responses import astring

MAX_ITEMS = 1000
"""Each item is answered for each message, so a short command could ask for very much."""

_FAST = (Attribute.FLAGS, Attribute.INTERNALDATE, Attribute.SIZE)
_MACROS: dict[bytes, tuple[FetchItem, ...]] = {
    b"FAST": _FAST,
    b"ALL": (*_FAST, Attribute.ENVELOPE),
    b"FULL": (*_FAST, Attribute.ENVELOPE, Attribute.BODY),
}
_SIMPLE: dict[bytes, FetchItem] = {
    **{attribute.value: attribute for attribute in Attribute},
    # RFC 3501 §6.4.5: like BODY[], BODY.PEEK[HEADER] and BODY[TEXT], but answered under the name they were asked by.
    b"RFC822": BodySection(b"RFC822"),
    b"RFC822.HEADER": BodySection(b"RFC822.HEADER", kind="HEADER", peek=True),
    b"RFC822.TEXT": BodySection(b"RFC822.TEXT", kind="TEXT"),
}
_TEXTS = {
    b"HEADER": "HEADER",
    b"HEADER.FIELDS": "HEADER.FIELDS",
    b"HEADER.FIELDS.NOT": "HEADER.FIELDS.NOT",
    b"TEXT": "TEXT",
}


def fetch_items(c: Cursor) -> tuple[FetchItem, ...]:
    """A macro, one item, or a list of items in parentheses."""
    if not c.accept(b"("):
        name = c.word()
        return _MACROS.get(name) or (_item(c, name),)
    # By label: what is asked for twice is answered once, and sets \Seen if either would.
    items: dict[bytes, FetchItem] = {}
    while True:
        item = _item(c, c.word())
        if isinstance(item, Attribute):
            items[item.value] = item
        else:
            known = items.get(item.label)
            if not isinstance(known, BodySection) or known.peek:
                items[item.label] = item
        if c.accept(b")"):
            break
        c.space()
    if len(items) > MAX_ITEMS:
        raise Refused(c.tag, "LIMIT", "Too many FETCH items")
    return tuple(items.values())


def _item(c: Cursor, name: bytes) -> FetchItem:
    if name in (b"BODY", b"BODY.PEEK") and c.accept(b"["):
        return _body(c, peek=name == b"BODY.PEEK")
    if name not in _SIMPLE:
        c.fail("Unknown FETCH item")
    return _SIMPLE[name]


def _body(c: Cursor, *, peek: bool) -> BodySection:
    """The rest of `BODY[section]<partial>`."""
    part, kind, names = _section(c)
    c.expect(b"]")
    partial = None
    if c.accept(b"<"):
        first = c.number()
        c.expect(b".")
        partial = (first, c.nz_number())
        c.expect(b">")
    fields = frozenset(name.lower() for name in names)
    return BodySection(_label(part, kind, names, partial), part, kind, fields, partial, peek)


def _section(c: Cursor) -> tuple[tuple[int, ...], str, list[bytes]]:
    """Part numbers, what of the part, and header names: BODY[2.1.HEADER.FIELDS (To)] is (2, 1), HEADER.FIELDS, [To]."""
    words = c.word()
    numbers, text = _split(c, words)
    part = tuple(numbers)
    if text == b"":
        return part, "", []
    if text == b"MIME" and part:
        return part, "MIME", []
    kind = _TEXTS.get(text)
    if kind is None:
        c.fail("Unknown section")
    return part, kind, _header_list(c) if kind.startswith("HEADER.FIELDS") else []


def _split(c: Cursor, words: bytes) -> tuple[list[int], bytes]:
    """`2.1.HEADER.FIELDS` is [2, 1] and `HEADER.FIELDS`."""
    numbers: list[int] = []
    texts = words.split(b".")
    for digits in texts:
        if not digits[:1].isdigit():
            break
        if not digits.isdigit() or len(digits) > 10 or digits[:1] == b"0":
            c.fail("Invalid section")
        numbers.append(int(digits))
    rest = texts[len(numbers) :]
    if numbers and rest == [b""]:
        c.fail("Invalid section")
    return numbers, b".".join(rest)


def _header_list(c: Cursor) -> list[bytes]:
    c.space()
    c.expect(b"(")
    names = [c.astring()]
    while not c.accept(b")"):
        c.space()
        names.append(c.astring())
    return names


def _label(part: tuple[int, ...], kind: str, names: list[bytes], partial: tuple[int, int] | None) -> bytes:
    """The item's name in the response (RFC 3501 §7.4.2): the section as asked, and of the partial its origin."""
    section = ".".join([*map(str, part), *([kind] if kind else [])]).encode()
    if names:
        section += b" (" + b" ".join(map(astring, names)) + b")"
    origin = b"<%d>" % partial[0] if partial else b""
    return b"BODY[" + section + b"]" + origin
