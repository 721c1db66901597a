"""What SEARCH asks for (RFC 3501 §6.4.4): a tree of keys.

Keys nest, by parentheses, NOT and OR, and a client may nest them ten thousand deep. So there is no recursion here: what
waits for a key is a frame on a list. Nesting that means nothing is dissolved on the way (a key alone in parentheses, an
OR in an OR, a NOT of a NOT), so that the long chains of OR that real clients send are one flat Or; what is then still
deeper than MAX_DEPTH is refused. Whoever walks the tree may therefore do so by recursion.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from encodings.aliases import aliases
from functools import lru_cache, reduce

from mailserver.protocols.imap.commands import (
    And,
    BodyHas,
    Compare,
    Everything,
    HasFlag,
    HasKeyword,
    HeaderHas,
    InSet,
    IsRecent,
    Larger,
    ModSeq,
    Not,
    Or,
    Received,
    Refused,
    SearchKey,
    Sent,
    Smaller,
    SystemFlag,
    TextHas,
)
from mailserver.protocols.imap.cursor import Cursor
from mailserver.protocols.imap.parse_date import search_date

MAX_DEPTH = 50

_FLAGS = {flag.name.encode(): flag for flag in SystemFlag if flag.name}
_HEADERS = {name: name.decode().lower() for name in (b"BCC", b"CC", b"FROM", b"SUBJECT", b"TO")}
_NOT_TEXT = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"}
_CODECS = {*aliases, *aliases.values(), "utf_8_sig"} - _NOT_TEXT


def search_program(c: Cursor, *, utf8: bool) -> SearchKey:
    """An optional CHARSET, then keys that must all hold.

    utf8: the client has said that all it sends is UTF-8, and may not name a charset (RFC 6855 §3).
    """
    charset = "utf-8"
    if c.accept_word(b"CHARSET "):
        if utf8:
            c.fail("CHARSET after ENABLE UTF8=ACCEPT")
        charset = _charset(c, c.astring())
        c.space()
    return _Reader(c, charset).read()


def _charset(c: Cursor, name: bytes) -> str:
    codec = _codec(name.decode("ascii", "replace").lower().replace("-", "_"))
    if codec is None:
        raise Refused(c.tag, "BADCHARSET (US-ASCII UTF-8)", "Unknown charset")
    return codec


@lru_cache(maxsize=64)
def _codec(name: str) -> str | None:
    # Python remembers every name it is asked for, so it is asked only for those that it has.
    if name not in _CODECS:
        return None
    try:
        "a".encode(name)
        return codecs.lookup(name).name
    except (LookupError, UnicodeError, TypeError):
        return None


# Keys under construction


@dataclass(slots=True)
class _Group:
    """An And or an Or that may still grow."""

    kind: type[And] | type[Or]
    keys: deque[SearchKey]


@dataclass(slots=True)
class _Part:
    """A key that waits for its place; depth is that of the tree under it. A negation is noted, not yet made."""

    key: SearchKey | _Group
    depth: int = 1
    negated: bool = False

    def frozen(self) -> SearchKey:
        key = self.key.kind(tuple(self.key.keys)) if isinstance(self.key, _Group) else self.key
        return Not(key) if self.negated else key


@dataclass(slots=True)
class _Frame:
    """What waits for keys: everything up to the end or a parenthesis (And), OR's two, or NOT's one (None)."""

    kind: type[And] | type[Or] | None
    parenthesis: bool = False
    parts: list[_Part] = field(default_factory=list)


class _Reader:
    def __init__(self, c: Cursor, charset: str) -> None:
        self.c = c
        self.charset = charset
        self.frames = [_Frame(And)]

    def read(self) -> SearchKey:
        """Opens frames until a key is read, then hands it to the frames that it completes."""
        c = self.c
        while True:
            if c.accept(b"("):
                self.frames.append(_Frame(And, parenthesis=True))
                continue
            name = b"" if c.looking_at_set() else c.word()
            if name in (b"NOT", b"OR"):
                self.frames.append(_Frame(None if name == b"NOT" else Or))
                c.space()
                continue
            whole = self._hand_up(_part(self._key(name)))
            if whole is not None:
                return whole
            c.space()

    def _hand_up(self, part: _Part) -> SearchKey | None:
        """Gives a key to the innermost frame, and each that is completed so to the next; at last the whole tree."""
        while True:
            frame = self.frames[-1]
            frame.parts.append(part)
            if not self._complete(frame):
                return None
            part = _made(frame)
            if part.depth + part.negated > MAX_DEPTH:
                self.c.fail("Search is nested too deeply")
            self.frames.pop()
            if not self.frames:
                return part.frozen()

    def _complete(self, frame: _Frame) -> bool:
        if frame.kind is None:
            return True
        if frame.kind is Or:
            return len(frame.parts) == 2
        return self.c.accept(b")") if frame.parenthesis else self.c.at_end

    # One key

    def _key(self, name: bytes) -> SearchKey:
        if not name:
            return InSet(self.c.sequence_set(), by_uid=False)
        simple = _SIMPLE.get(name)
        if simple is not None:
            return simple
        reader = _WITH_ARGUMENT.get(name)
        if reader is None:
            self.c.fail("Unknown search key")
        self.c.space()
        return reader(self)

    def text(self) -> str:
        try:
            return self.c.astring().decode(self.charset)
        except (UnicodeError, ValueError):
            self.c.fail("Search text is not in its charset")

    def header(self) -> SearchKey:
        name = self.c.astring().decode("latin-1").lower()
        self.c.space()
        return HeaderHas(name, self.text())


def _mod_sequence(reader: _Reader) -> SearchKey:
    """MODSEQ; which metadata item is meant is not told apart here (RFC 7162 §3.1.5)."""
    c = reader.c
    if c.looking_at(b'"'):
        c.string()
        c.space()
        if c.word() not in _ENTRY_TYPES:
            c.fail("Unknown type of a metadata item")
        c.space()
    return ModSeq(c.mod_sequence())


def _part(key: SearchKey) -> _Part:
    """A key as it was read; of the simple ones, some are small trees."""
    if isinstance(key, Not):
        return _Part(key.key, negated=True)
    if isinstance(key, And):
        return _Part(_Group(And, deque(key.keys)), depth=3)
    return _Part(key)


def _made(frame: _Frame) -> _Part:
    """What a complete frame comes to."""
    first, kind = frame.parts[0], frame.kind
    if kind is None:
        return _Part(first.key, first.depth, not first.negated)
    if len(frame.parts) == 1:
        return first
    return reduce(_joined, [_group(kind, part) for part in frame.parts])


def _group(kind: type[And] | type[Or], part: _Part) -> _Part:
    """The part as a group of `kind`: itself if it is one, else a group of one."""
    if isinstance(part.key, _Group) and part.key.kind is kind and not part.negated:
        return part
    return _Part(_Group(kind, deque([part.frozen()])), part.depth + part.negated + 1)


def _joined(first: _Part, second: _Part) -> _Part:
    """Two groups of one kind poured together; the smaller one is moved, so that a long chain costs no square of it."""
    one, other = first.key, second.key
    assert isinstance(one, _Group)
    assert isinstance(other, _Group)
    depth = max(first.depth, second.depth)
    if len(one.keys) >= len(other.keys):
        one.keys.extend(other.keys)
        return _Part(one, depth)
    other.keys.extendleft(reversed(one.keys))
    return _Part(other, depth)


def _simple_keys() -> dict[bytes, SearchKey]:
    keys: dict[bytes, SearchKey] = {
        b"ALL": Everything(),
        b"RECENT": IsRecent(),
        b"OLD": Not(IsRecent()),
        b"NEW": And((IsRecent(), Not(HasFlag(SystemFlag.SEEN)))),
    }
    for name, flag in _FLAGS.items():
        keys[name] = HasFlag(flag)
        keys[b"UN" + name] = Not(HasFlag(flag))
    return keys


def _dated(kind: Callable[[Compare, date], SearchKey], compare: Compare) -> Callable[[_Reader], SearchKey]:
    return lambda reader: kind(compare, search_date(reader.c))


def _named_header(name: str) -> Callable[[_Reader], SearchKey]:
    return lambda reader: HeaderHas(name, reader.text())


_ENTRY_TYPES = (b"ALL", b"PRIV", b"SHARED")
_SIMPLE = _simple_keys()
_WITH_ARGUMENT: dict[bytes, Callable[[_Reader], SearchKey]] = {
    b"BODY": lambda reader: BodyHas(reader.text()),
    b"TEXT": lambda reader: TextHas(reader.text()),
    b"HEADER": _Reader.header,
    b"KEYWORD": lambda reader: HasKeyword(reader.c.atom().decode()),
    b"UNKEYWORD": lambda reader: Not(HasKeyword(reader.c.atom().decode())),
    b"LARGER": lambda reader: Larger(reader.c.number()),
    b"SMALLER": lambda reader: Smaller(reader.c.number()),
    b"MODSEQ": _mod_sequence,
    b"UID": lambda reader: InSet(reader.c.sequence_set(), by_uid=True),
    **{name: _named_header(header) for name, header in _HEADERS.items()},
    **{compare.value.encode(): _dated(Received, compare) for compare in Compare},
    **{b"SENT" + compare.value.encode(): _dated(Sent, compare) for compare in Compare},
}
