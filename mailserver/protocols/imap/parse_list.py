"""LIST's arguments, plain and extended (RFC 5258 §6), and STATUS items, which LIST may ask for too (RFC 5819)."""

from __future__ import annotations

from mailserver.protocols.imap.commands import List, ListOption, Lsub, Refused, StatusItem
from mailserver.protocols.imap.cursor import Cursor
from mailserver.protocols.imap.mailbox_name import Pattern, Wire, pattern

MAX_PATTERNS = 100

_STATUS_ITEMS = {item.value: item for item in StatusItem}
_SELECTING = {
    b"SUBSCRIBED": ListOption.SUBSCRIBED,
    b"REMOTE": ListOption.REMOTE,
    b"RECURSIVEMATCH": ListOption.RECURSIVEMATCH,
    b"SPECIAL-USE": ListOption.SPECIAL_USE,
}
_RETURNED = {
    b"SUBSCRIBED": ListOption.SUBSCRIBED,
    b"CHILDREN": ListOption.CHILDREN,
    b"SPECIAL-USE": ListOption.SPECIAL_USE,
}
_CRITERIA = ListOption.SUBSCRIBED | ListOption.SPECIAL_USE
"""What is a selection by itself; it implies the return option of its name."""


def list_arguments(c: Cursor, wire: Wire) -> List:
    """It is extended where it has selection options, patterns in parentheses or return options (RFC 5258 §1)."""
    c.space()
    only = _selection(c)
    reference = c.astring()
    c.space()
    several = c.looking_at(b"(")
    patterns = _patterns(c) if several else [c.list_mailbox()]
    returned = c.accept_word(b" RETURN ")
    show, status = _returns(c) if returned else (ListOption.NONE, ())
    return List(
        c.tag,
        _made(reference, patterns, wire),
        extended=only is not None or several or returned,
        only=only or ListOption.NONE,
        show=show | (only or ListOption.NONE) & _CRITERIA,
        status=status,
    )


def lsub_arguments(c: Cursor, wire: Wire) -> Lsub:
    c.space()
    reference = c.astring()
    c.space()
    return Lsub(c.tag, _made(reference, [c.list_mailbox()], wire))


def status_items(c: Cursor) -> tuple[StatusItem, ...]:
    """A list of at least one item; each once, in the client's order."""
    c.expect(b"(")
    items: dict[StatusItem, None] = {}
    while True:
        item = _STATUS_ITEMS.get(c.word())
        if item is None:
            c.fail("Unknown STATUS item")
        items[item] = None
        if c.accept(b")"):
            return tuple(items)
        c.space()


def _made(reference: bytes, patterns: list[bytes], wire: Wire) -> tuple[Pattern, ...]:
    """The patterns; an empty one matches nothing (RFC 5258 §3), in plain LIST it asks for the separator."""
    return tuple([pattern(reference, octets, wire) for octets in dict.fromkeys(patterns) if octets])


def _selection(c: Cursor) -> ListOption | None:
    """None where there are no parentheses."""
    if not c.accept(b"("):
        return None
    only = ListOption.NONE
    first = True
    while not c.accept(b")"):
        if not first:
            c.space()
        first = False
        option = _SELECTING.get(c.atom().upper())
        if option is None:
            c.fail("Unknown selection option")
        only |= option
    if ListOption.RECURSIVEMATCH in only and not only & _CRITERIA:
        c.fail("RECURSIVEMATCH needs another selection option")
    c.space()
    return only


def _patterns(c: Cursor) -> list[bytes]:
    c.expect(b"(")
    patterns = [c.list_mailbox()]
    while not c.accept(b")"):
        c.space()
        patterns.append(c.list_mailbox())
    if len(patterns) > MAX_PATTERNS:
        raise Refused(c.tag, "LIMIT", "Too many patterns")
    return patterns


def _returns(c: Cursor) -> tuple[ListOption, tuple[StatusItem, ...]]:
    c.expect(b"(")
    show = ListOption.NONE
    status: dict[StatusItem, None] = {}
    first = True
    while not c.accept(b")"):
        if not first:
            c.space()
        first = False
        name = c.atom().upper()
        if name == b"STATUS":
            c.space()
            status |= dict.fromkeys(status_items(c))
        elif name in _RETURNED:
            show |= _RETURNED[name]
        else:
            c.fail("Unknown return option")
    return show, tuple(status)
