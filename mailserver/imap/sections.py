"""BODY[section]<partial> of a message (RFC 3501 §6.4.5): where it lies, and its octets.

Offsets here are those of the message as the client sees it, with the prefix that we put in front. Small messages, and
those that are asked for whole, are read whole; of a large one only the range that a section needs, so that its text is
shown without reading its attachments.

What is answered is cut out of the message's octets, not copied: however many sections are asked for, one message is
held. Only selected header fields are made anew, within a bound.

Clients fetch a large part piece by piece. The part is then kept for a moment, within a bound for the worker, so that it
is not put together anew for each piece.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

from mailserver.imap.errors import Refusal
from mailserver.message import headers, structure
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import BodySection, FetchItem
from storage import Extent, reader

if TYPE_CHECKING:
    from storage import AccountId, Store

RANGES_FROM = 128 * 1024
"""Messages of this size or more are not read whole for a part of them."""
KEPT_OCTETS = 64 << 20
KEPT_SECONDS = 30.0
SELECTED_OCTETS = 64 << 20
"""Header fields are selected from so much of one message for one answer."""
_AT_ONCE = 1 << 20
"""A message's size times the items asked for: more of it is worked through in a thread."""
_SELECTED_AT_ONCE = 64 * 1024
"""Octets of a header whose fields are selected in the event loop."""
_PARTS_AT_ONCE = 4 * 1024
"""Octets of a packed structure: more of it is taken apart in a thread."""

P = ParamSpec("P")
T = TypeVar("T")

Key = tuple[int, int, int, int]
Octets = bytes | memoryview


class InThread(Protocol):
    """Does work in a thread and waits for its result."""

    async def __call__(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


class Sections:
    """What is asked of one message, by items."""

    def __init__(self, row: Extent) -> None:
        self.row = row
        self._tree: structure.Part | None = None

    @property
    def size(self) -> int:
        return len(self.row.header_prefix) + self.row.size

    def place(self, item: BodySection) -> tuple[int, int] | None:
        """Where a section lies, its partial left aside; None where the message has no such part."""
        prefix = len(self.row.header_prefix)
        kind = "HEADER" if item.kind.startswith("HEADER") else item.kind
        if item.part:
            if self._tree is None:
                self._tree = structure.unpack(self.row.parts, self.row.size, self.row.header_octets)
            found = structure.locate(self._tree, item.part, kind)
            return None if found is None else (prefix + found[0], prefix + found[1])
        header_end = prefix + self.row.header_octets
        if kind == "TEXT":
            return header_end, self.size
        return 0, header_end if kind == "HEADER" else self.size

    def octets(self, item: BodySection) -> int:
        """How much of the message an answer takes."""
        place = self.place(item)
        length = 0 if place is None else place[1] - place[0]
        if item.partial is None or item.kind.startswith("HEADER."):
            return length
        first, count = item.partial
        return max(0, min(length - first, count))


def section_value(octets: bytes, item: BodySection) -> bytes:
    """What a section's octets are after selecting header fields and cutting to the partial; beyond the end: nothing."""
    if item.kind.startswith("HEADER."):
        octets = headers.select(octets, item.fields, item.kind == "HEADER.FIELDS.NOT")
    return octets if item.partial is None else bytes(_cut(octets, item))


def _cut(octets: Octets, item: BodySection) -> Octets:
    if item.partial is None:
        return octets
    first, count = item.partial
    return octets[first : first + count]


def answer(item: FetchItem, value: Octets | None) -> Iterator[Octets]:
    """Label and value of a section, in pieces."""
    assert isinstance(item, BodySection)
    yield item.label + b" "
    if value is None:
        yield b"NIL"
    else:
        yield responses.literal_head(len(value), binary=b"\0" in bytes(value))
        yield value


def is_whole(item: FetchItem) -> bool:
    """Is all of the message asked for, in one piece?"""
    return isinstance(item, BodySection) and not item.part and not item.kind and item.partial is None


def whole(pieces: list[bytes], items: Iterable[FetchItem]) -> list[list[Octets]]:
    """The answers to items that ask for all of the message."""
    head = responses.literal_head(sum(map(len, pieces)), binary=any(b"\0" in piece for piece in pieces))
    return [[item.label + b" " + head, *pieces] for item in items if isinstance(item, BodySection)]


def is_much(row: Extent, items: Sequence[FetchItem]) -> bool:
    """Does it take long to find the items' sections in the message?"""
    return row.size * len(items) > _AT_ONCE or is_complex(row, items)


def is_complex(row: Extent, items: Iterable[FetchItem]) -> bool:
    """Does it take long to find out where the items' sections lie?"""
    return len(row.parts or b"") > _PARTS_AT_ONCE and any(isinstance(item, BodySection) and item.part for item in items)


def takes_ranges(row: Extent, items: Sequence[FetchItem]) -> bool:
    """Is it better to read only parts of the message? They may not come to more than all of it."""
    if row.size < RANGES_FROM:
        return False
    wanted = [item for item in items if isinstance(item, BodySection) and (item.part or item.kind or item.partial)]
    sections = Sections(row)
    return len(wanted) == len(items) and sum(map(sections.octets, wanted)) < sections.size


def from_whole(row: Extent, pieces: list[bytes], items: list[FetchItem]) -> list[list[Octets]]:
    """The answers to the items, each in pieces, from all of the message's octets. Refusal where they are too much."""
    sections = Sections(row)
    selected = 0
    found: list[list[Octets]] = []
    for item in items:
        assert isinstance(item, BodySection)
        if is_whole(item):
            found += whole(pieces, [item])
            continue
        if len(pieces) > 1:
            pieces[:] = [b"".join(pieces)]
        place = sections.place(item)
        value: Octets | None = None
        if place is not None and item.kind.startswith("HEADER."):
            if selected > SELECTED_OCTETS:
                raise Refusal("Too much is asked of one header", "LIMIT")
            selected += place[1] - place[0]
            value = section_value(pieces[0][slice(*place)], item)
        elif place is not None:
            value = _cut(memoryview(pieces[0])[slice(*place)], item)
        found.append(list(answer(item, value)))
    return found


async def from_ranges(
    store: Store, account_id: AccountId, row: Extent, items: Sequence[FetchItem], kept: Kept, in_thread: InThread
) -> list[list[Octets]]:
    """The same, reading only what the items need. NotFound where the octets are gone."""
    places = await in_thread(_places, row, items) if is_complex(row, items) else _places(row, items)
    found = []
    for item, place in zip(items, places, strict=True):
        assert isinstance(item, BodySection)
        value = None if place is None else await _read(store, account_id, row, item, place, kept, in_thread)
        found.append(list(answer(item, value)))
    return found


def _places(row: Extent, items: Iterable[FetchItem]) -> list[tuple[int, int] | None]:
    sections = Sections(row)
    return [sections.place(item) for item in items if isinstance(item, BodySection)]


async def _read(
    store: Store,
    account_id: AccountId,
    row: Extent,
    item: BodySection,
    place: tuple[int, int],
    kept: Kept,
    in_thread: InThread,
) -> bytes:
    start, stop = place
    if item.partial is None or stop - start < RANGES_FROM or item.kind.startswith("HEADER."):
        octets = await reader.octets(store, account_id, row, start, stop)
        much = item.kind.startswith("HEADER.") and stop - start > _SELECTED_AT_ONCE
        return await in_thread(section_value, octets, item) if much else section_value(octets, item)
    if stop - start > KEPT_OCTETS:
        first, count = item.partial
        return await reader.octets(store, account_id, row, min(start + first, stop), min(start + first + count, stop))
    key = (account_id, row.message_id, start, stop)
    part = kept.get(key)
    if part is None:
        part = await reader.octets(store, account_id, row, start, stop)
        kept.put(key, part)
    return section_value(part, item)


class Kept:
    """Parts that are being fetched piece by piece; bounded in octets and time."""

    def __init__(self) -> None:
        self._parts: OrderedDict[Key, bytes] = OrderedDict()
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def get(self, key: Key) -> bytes | None:
        octets = self._parts.get(key)
        if octets is not None:
            self._parts.move_to_end(key)
            self._forget_later()
        return octets

    def put(self, key: Key, octets: bytes) -> None:
        if key not in self._parts:
            self._size += len(octets)
        self._parts[key] = octets
        while self._size > KEPT_OCTETS:
            self._size -= len(self._parts.popitem(last=False)[1])
        self._forget_later()

    def clear(self) -> None:
        self._parts.clear()
        self._size = 0

    def _forget_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(KEPT_SECONDS, self.clear)
