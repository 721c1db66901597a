"""A search as it is carried out: each key made ready for one mailbox, the cheap ones first.

What a key needs is its level: the mailbox's pages in memory, the message's summary, its header, its whole text. Keys of
the first level are answered for a stretch of messages at once, as one integer with a bit for each message; of the whole
tree that gives which messages surely match and which possibly do. Only those that are possible and not sure go on,
level by level, message by message; there a key answers None while it has not been given what it needs.

A plan belongs to one search: page keys remember their last stretch. Text is compared as message/decode.py has it,
folded and with white space collapsed (RFC 3501 §6.4.4: substrings, without regard to case).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from enum import IntEnum
from itertools import count
from typing import Protocol

from mailserver.imap.view import Recent
from mailserver.message import dates, headers
from mailserver.message.folding import collapse, fold
from mailserver.protocols.imap import commands as c
from mailserver.protocols.imap.commands import Compare, SearchKey
from mailserver.protocols.imap.sequence_set import SequenceSet
from storage import Brief
from storage.pages import Page, Snapshot
from storage.records import KEYWORDS_AT

_DAY = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
_MESSAGES_A_STRETCH = 4096
_TESTS_A_STRETCH = 200_000
"""Messages times keys: some milliseconds of work."""


class Level(IntEnum):
    """What a key needs, each level with those below it."""

    PAGES = 0
    SUMMARY = 1
    HEADER = 2
    TEXT = 3


class Stretch:
    """Messages in a row, as parallel columns. The message at `position` has the sequence number first + position."""

    __slots__ = ("count", "first", "flags", "message_ids", "modseqs", "received", "sizes", "uids")

    def __init__(self, pages: Sequence[Page], before: int) -> None:
        self.first = before + 1
        self.uids = array("I")
        self.message_ids = array("q")
        self.flags = array("q")
        self.modseqs = array("q")
        self.sizes = array("I")
        self.received = array("q")
        for page in pages:
            self.uids += page.uids
            self.message_ids += page.message_ids
            self.flags += page.flags
            self.modseqs += page.modseqs
            self.sizes += page.sizes
            self.received += page.received
        self.count = len(self.uids)

    @property
    def all(self) -> int:
        return (1 << self.count) - 1


class Facts:
    """What is known of one message so far; None: not read yet.

    header: the octets of its header. found: the header and text keys (by their index) of which the text is known to be
    in it; header_read, read: its header, or all of it, was looked at, so that what was not found is not there.
    """

    __slots__ = ("found", "header", "header_read", "position", "read", "row")

    def __init__(self, position: int, row: Brief | None = None) -> None:
        self.position = position
        self.row = row
        self.header: bytes | None = None
        self.found: set[int] = set()
        self.header_read = False
        self.read = False


class Node(Protocol):
    """A key of the plan."""

    level: Level

    def look(self, stretch: Stretch) -> tuple[int, int]:
        """Which messages surely match by their pages alone, and which possibly do."""

    def decide(self, facts: Facts) -> bool | None:
        """Whether the message matches; None while that cannot be said."""


# Keys that the pages answer


class PageKey:
    """A key of the first level."""

    __slots__ = ("_bits", "_select")
    level = Level.PAGES

    def __init__(self, select: Callable[[Stretch], int]) -> None:
        self._select = select
        self._bits = 0

    def look(self, stretch: Stretch) -> tuple[int, int]:
        self._bits = self._select(stretch)
        return self._bits, self._bits

    def decide(self, facts: Facts) -> bool | None:
        return bool(self._bits >> facts.position & 1)


def _bits(marks: Iterable[str]) -> int:
    """The integer whose bit i is mark i; the marks come last first, as numbers are written."""
    return int("".join(marks) or "0", 2)


def positions(bits: int) -> list[int]:
    """Which bits are set, ascending."""
    return [at for at, mark in enumerate(reversed(f"{bits:b}")) if mark == "1"]


def _run(start: int, stop: int) -> int:
    return (1 << stop) - (1 << start) if start < stop else 0


def _flagged(bit: int) -> PageKey:
    """bit: a plain int; the operators of IntFlag take ten times as long."""
    return PageKey(lambda stretch: _bits(["1" if flags & bit else "0" for flags in reversed(stretch.flags)]))


def _of_size(low: int, high: int) -> PageKey:
    """low ≤ size < high."""
    return PageKey(lambda stretch: _bits(["1" if low <= size < high else "0" for size in reversed(stretch.sizes)]))


def _received(low: int, high: int) -> PageKey:
    """low ≤ internal date < high."""
    return PageKey(lambda stretch: _bits(["1" if low <= at < high else "0" for at in reversed(stretch.received)]))


def _modified(since: int) -> PageKey:
    return PageKey(lambda stretch: _bits(["1" if modseq >= since else "0" for modseq in reversed(stretch.modseqs)]))


def _recent(recent: Recent) -> PageKey:
    def select(stretch: Stretch) -> int:
        uids = stretch.uids
        if not uids or not recent.touches(uids[0], uids[-1]):
            return 0
        return _bits(["1" if recent.bit(uid) else "0" for uid in reversed(uids)])

    return PageKey(select)


def _in_set(numbers: SequenceSet, by_uid: bool, snapshot: Snapshot) -> PageKey:
    """Numbers that no message has are passed over, sequence numbers too: they match nothing."""
    ranges = numbers.resolve(snapshot.max_uid if by_uid else snapshot.count)
    ends = [high for _, high in ranges]

    def select(stretch: Stretch) -> int:
        if not stretch.count:
            return 0
        last = stretch.uids[-1] if by_uid else stretch.first + stretch.count - 1
        first = stretch.uids[0] if by_uid else stretch.first
        bits = 0
        for at in range(bisect_left(ends, first), len(ranges)):
            low, high = ranges[at]
            if low > last:
                break
            if by_uid:
                bits |= _run(bisect_left(stretch.uids, low), bisect_left(stretch.uids, high + 1))
            else:
                bits |= _run(max(low - first, 0), min(high - first + 1, stretch.count))
        return bits

    return PageKey(select)


# Keys that need the message


class _Deep:
    """A key about which the pages say nothing."""

    __slots__ = ()

    def look(self, stretch: Stretch) -> tuple[int, int]:
        return 0, stretch.all


class SentKey(_Deep):
    """SENTBEFORE, SENTON, SENTSINCE: the day as the Date field writes it, without regard to its zone.

    The summary has the moment, which is within a day of that; so the field itself is read only where the day is near.
    A message without a usable Date field was sent on the day that it arrived.
    """

    __slots__ = ("_compare", "_day")
    level = Level.HEADER

    def __init__(self, compare: Compare, day: int) -> None:
        self._compare = compare
        self._day = day

    def decide(self, facts: Facts) -> bool | None:
        if facts.header is not None:
            return self._holds(self._written(facts.header, facts.row))
        if facts.row is None:
            return None
        day = facts.row.sent // _DAY
        earliest, latest = self._holds(day - 1), self._holds(day + 1)
        same = earliest == latest and abs(day - self._day) > 1
        return earliest if same else None

    @staticmethod
    def _written(header: bytes, row: Brief | None) -> int:
        value = headers.value(header, b"date")
        moment = dates.parse_moment(value) if value is not None else None
        if moment is not None:
            return moment.day
        return row.sent // _DAY if row is not None else 0

    def _holds(self, day: int) -> bool:
        if self._compare is Compare.BEFORE:
            return day < self._day
        return day >= self._day if self._compare is Compare.SINCE else day == self._day


class HeaderKey(_Deep):
    """A field of the message's header holds the text; any such field will do where the text is empty.

    octets: the text as it can be looked for in what was not decoded; None where it cannot.
    """

    __slots__ = ("index", "octets", "term")
    level = Level.HEADER

    def __init__(self, index: int, text: str) -> None:
        self.index = index
        self.term = term(text)
        plain = self.term.isascii() and " " not in self.term
        self.octets = self.term.encode() if plain else None

    def decide(self, facts: Facts) -> bool | None:
        if self.index in facts.found:
            return True
        return False if facts.header_read else None


class TextKey(_Deep):
    """BODY, or TEXT where the header counts too. What is in a message is found by search_text.py."""

    __slots__ = ("header", "index", "term")
    level = Level.TEXT

    def __init__(self, index: int, text: str, *, header: bool) -> None:
        self.index = index
        self.term = term(text)
        self.header = header

    def decide(self, facts: Facts) -> bool | None:
        if self.index in facts.found:
            return True
        return False if facts.read else None


def term(text: str) -> str:
    """A text to look for: folded and collapsed as what it is looked for in; a space at either end is kept."""
    folded = fold(text)
    inner = collapse(folded)
    if not inner:
        return " " if folded else ""
    return " " * folded[0].isspace() + inner + " " * folded[-1].isspace()


# Keys made of keys


class _Group:
    """Keys in the order of their levels."""

    __slots__ = ("_nodes", "level")

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = sorted(nodes, key=lambda node: node.level)
        self.level = self._nodes[-1].level


class AllOf(_Group):
    __slots__ = ()

    def look(self, stretch: Stretch) -> tuple[int, int]:
        surely = possibly = stretch.all
        for node in self._nodes:
            sure, possible = node.look(stretch)
            surely &= sure
            possibly &= possible
        return surely, possibly

    def decide(self, facts: Facts) -> bool | None:
        answer: bool | None = True
        for node in self._nodes:
            found = node.decide(facts)
            if found is False:
                return False
            if found is None:
                answer = None
        return answer


class AnyOf(_Group):
    __slots__ = ()

    def look(self, stretch: Stretch) -> tuple[int, int]:
        surely = possibly = 0
        for node in self._nodes:
            sure, possible = node.look(stretch)
            surely |= sure
            possibly |= possible
        return surely, possibly

    def decide(self, facts: Facts) -> bool | None:
        answer: bool | None = False
        for node in self._nodes:
            found = node.decide(facts)
            if found is True:
                return True
            if found is None:
                answer = None
        return answer


class NoneOf:
    __slots__ = ("_node", "level")

    def __init__(self, node: Node) -> None:
        self._node = node
        self.level = node.level

    def look(self, stretch: Stretch) -> tuple[int, int]:
        surely, possibly = self._node.look(stretch)
        return stretch.all & ~possibly, stretch.all & ~surely

    def decide(self, facts: Facts) -> bool | None:
        found = self._node.decide(facts)
        return None if found is None else not found


# From a tree of keys to a plan


class Plan:
    """A search in one mailbox.

    keys: how many there are. sent, modseq: whether there are any of these; fields: the keys of header fields by their
    lower-case names; texts: the BODY and TEXT keys.
    """

    def __init__(self, key: SearchKey, snapshot: Snapshot, recent: Recent) -> None:
        self._snapshot = snapshot
        self._recent = recent
        self.keys = 0
        self.sent = False
        self.modseq = False
        self._indices = count()
        self.fields: dict[bytes, list[HeaderKey]] = {}
        self.texts: list[TextKey] = []
        self.root = self._node(key)
        self.names = frozenset(self.fields)

    def look_at_fields(self, facts: Facts, texts: Iterable[tuple[bytes, str]]) -> None:
        """Finds the header keys in the fields with their names, all of a message's, decoded and folded."""
        for name, text in texts:
            for key in self.fields[name]:
                if key.term in text:
                    facts.found.add(key.index)
        facts.header_read = True

    def stretches(self) -> Iterator[Stretch]:
        """The whole mailbox, in stretches that take a few milliseconds each."""
        wanted = max(64, min(_MESSAGES_A_STRETCH, _TESTS_A_STRETCH // self.keys))
        pages, starts = self._snapshot.pages, self._snapshot.starts
        begin = 0
        for end in range(1, len(pages) + 1):
            if starts[end] - starts[begin] >= wanted or end == len(pages):
                yield Stretch(pages[begin:end], starts[begin])
                begin = end

    def _node(self, key: SearchKey) -> Node:
        """The key made ready; the parser has bounded how deep keys nest."""
        self.keys += 1
        match key:
            case c.And(keys):
                return AllOf(map(self._node, dict.fromkeys(keys)))
            case c.Or(keys):
                return AnyOf(map(self._node, dict.fromkeys(keys)))
            case c.Not(inner):
                return NoneOf(self._node(inner))
            case c.Sent(compare, day):
                self.sent = True
                return SentKey(compare, day.toordinal() - _EPOCH)
            case c.HeaderHas(name, text):
                header_key = HeaderKey(next(self._indices), text)
                self.fields.setdefault(name.lower().encode(), []).append(header_key)
                return header_key
            case c.BodyHas(text) | c.TextHas(text):
                self.texts.append(TextKey(next(self._indices), text, header=isinstance(key, c.TextHas)))
                return self.texts[-1]
            case _:
                return self._page_key(key)

    def _page_key(self, key: SearchKey) -> PageKey:
        match key:
            case c.InSet(numbers, by_uid):
                return _in_set(numbers, by_uid, self._snapshot)
            case c.HasFlag(flag):
                return _flagged(int(flag))
            case c.HasKeyword(keyword):
                return _flagged(self._keyword_bit(keyword.lower()))
            case c.IsRecent():
                return _recent(self._recent)
            case c.Larger(octets):
                return _of_size(octets + 1, 1 << 64)
            case c.Smaller(octets):
                return _of_size(0, octets)
            case c.ModSeq(value):
                self.modseq = True
                return _modified(value)
            case c.Received(compare, day):
                return _received(*_span(compare, (day.toordinal() - _EPOCH) * _DAY))
        assert isinstance(key, c.Everything), key
        return PageKey(lambda stretch: stretch.all)

    def _keyword_bit(self, keyword: str) -> int:
        """0, which no message has, where the mailbox does not know the keyword."""
        for at, name in enumerate(self._snapshot.mailbox.keywords):
            if name.lower() == keyword:
                return 1 << KEYWORDS_AT + at
        return 0


def _span(compare: Compare, start: int) -> tuple[int, int]:
    """The seconds that a comparison with a day allows, INTERNALDATE being shown in UTC."""
    if compare is Compare.BEFORE:
        return -1 << 63, start
    return start, start + _DAY if compare is Compare.ON else 1 << 63
