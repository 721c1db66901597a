"""FETCH (RFC 3501 §6.4.5), by what the items need:

    pages      UID, FLAGS, INTERNALDATE, RFC822.SIZE, MODSEQ: the view in memory, no query; text of whole pages is kept
    summaries  ENVELOPE, BODYSTRUCTURE, BODY: ready-made text, one query a batch, one batch read ahead
    headers    BODY[HEADER…]: the front of the stored octets, one query more, where that is not too much at once
    contents   everything else: whole messages, streamed, or parts of large ones (sections.py)

No transaction is open while a slow client reads, and what is held of the messages is bounded by a batch and the one
ahead. A line is written only once all its parts are there, so a fault in between never breaks off inside a literal.

A message that others have expunged stays readable for a while; where its octets are gone it is left out, and the
tagged answer says EXPUNGEISSUED (RFC 5530). \\Seen is set after the octets were sent, for all messages in one change,
and reported like any other change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from enum import IntEnum
from itertools import groupby, islice
from typing import TYPE_CHECKING, TypeVar

from mailserver.imap import enable, sections
from mailserver.imap.errors import Done
from mailserver.imap.page_text import FORMATS, Columns, lines
from mailserver.imap.sections import Octets
from mailserver.imap.view import Range, Slice
from mailserver.message.bodystructure import without_extensions
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import Attribute, BodySection, FetchItem
from storage import FlagChange, MessageId, MessageRow, messages, reader
from storage.errors import NotFound
from storage.records import Flag

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands

T = TypeVar("T")
B = TypeVar("B")

_SUMMARIES_A_BATCH = 400
_HEADERS_AT_ONCE = 4 << 20
"""A batch's headers times the sections asked for: some milliseconds of work a section."""
_CONTENTS_A_BATCH = 200
_PIECE = 64 * 1024
_WRITE = 256 * 1024
"""Small texts are gathered to the first size, large ones are cut to the second."""


class Need(IntEnum):
    """What has to be read for an item, each level with those below it."""

    PAGES = 0
    SUMMARIES = 1
    HEADERS = 2
    CONTENTS = 3


def need(item: FetchItem) -> Need:
    if item in FORMATS:
        return Need.PAGES
    if isinstance(item, BodySection):
        return Need.HEADERS if not item.part and item.kind.startswith("HEADER") else Need.CONTENTS
    return Need.SUMMARIES


async def handle(s: Session, cmd: commands.Fetch) -> Done:
    selected = s.selected
    assert selected is not None
    ranges = selected.messages(cmd.messages, cmd.by_uid)
    items = _all_items(cmd)
    if Attribute.MODSEQ in items:
        enable.condstore(s)
    if cmd.changedsince is not None:
        ranges = selected.numbers.changed(ranges, cmd.changedsince)
    answer = _Answer(s, items)
    level = max(map(need, answer.items))
    if level is Need.PAGES:
        await answer.from_pages(ranges)
    elif level < Need.CONTENTS:
        await answer.from_summaries(ranges, with_headers=level is Need.HEADERS)
    else:
        await answer.from_contents(ranges)
    if cmd.sets_seen and not selected.read_only:
        await _set_seen(s, ranges)
    name = "UID FETCH" if cmd.by_uid else "FETCH"
    return Done(f"{name} completed", "EXPUNGEISSUED" if answer.missing else "")


def _all_items(cmd: commands.Fetch) -> tuple[FetchItem, ...]:
    """With UID where the command was UID FETCH (RFC 3501 §6.4.8), MODSEQ with CHANGEDSINCE (RFC 7162 §3.1.4.1)."""
    implied = [Attribute.UID] * cmd.by_uid + [Attribute.MODSEQ] * (cmd.changedsince is not None)
    return (*(item for item in implied if item not in cmd.items), *cmd.items)


async def _set_seen(s: Session, ranges: list[Range]) -> None:
    selected = s.selected
    assert selected is not None
    seen = Flag.SEEN
    uids: list[int] = []
    for page, _, start, stop in selected.numbers.slices(ranges):
        uids += [page.uids[i] for i in range(start, stop) if not page.flags[i] & seen]
    if uids:
        mailbox = selected.mailbox
        change = FlagChange("+", seen)
        result = await messages.store_flags(s.service.store, mailbox.account_id, mailbox.mailbox_id, uids, change)
        await selected.since(result.modseq)


class _Output:
    """Gathers texts into larger writes, cuts what is very large, and lets the session breathe between."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._parts: list[Octets] = []
        self._size = 0

    def add(self, text: Octets) -> None:
        """The caller asks for a flush where this was much."""
        self._parts.append(text)
        self._size += len(text)

    @property
    def full(self) -> bool:
        return self._size >= _PIECE

    async def flush(self) -> None:
        text = b"".join(self._parts)
        self._parts = []
        self._size = 0
        if len(text) <= _WRITE:
            self._session.write(text)
            await self._session.breathe()
            return
        for at in range(0, len(text), _WRITE):
            self._session.write(text[at : at + _WRITE])
            await self._session.breathe()


class _Answer:
    """The answer to one FETCH. missing: some message's octets were gone."""

    def __init__(self, session: Session, items: tuple[FetchItem, ...]) -> None:
        selected = session.selected
        assert selected is not None
        self.session = session
        self.items = items
        self.missing = False
        self._numbers = selected.numbers
        self._recent = selected.numbers.recent
        self._keywords = selected.mailbox.keywords
        self._account_id = selected.mailbox.account_id
        self._store = session.service.store
        self._kept = session.service.kept
        self._out = _Output(session)

    async def from_pages(self, ranges: list[Range]) -> None:
        for part in self._numbers.slices(ranges):
            self._out.add(lines(part, self.items, self._keywords, self._recent))
            if self._out.full:
                await self._out.flush()
        await self._out.flush()

    # Summaries and headers --------------------------------------------------------------------------------------------

    async def from_summaries(self, ranges: list[Range], *, with_headers: bool) -> None:
        """with_headers: to some items the header is the answer."""
        header_items = sum(isinstance(item, BodySection) for item in self.items)
        template = b"* %d FETCH (" + b" ".join(map(_template, self.items)) + b")\r\n"
        batches = _batches(self._numbers.slices(ranges), max(1, _SUMMARIES_A_BATCH // max(1, header_items)))
        async with aclosing(_ahead(batches, lambda batch: self._read(batch, header_items))) as loaded:
            async for columns, rows, fronts in loaded:
                self._drop_missing(columns, rows)
                if fronts is None:
                    await self._from_contents(columns, rows)
                    continue
                values = []
                for item in self.items:
                    values.append(self._column(item, columns, rows, fronts))
                    await self.session.breathe()
                for row in zip(columns.seqs, *values, strict=True):
                    self._out.add(template % row)
                    if self._out.full:
                        await self._out.flush()
        await self._out.flush()

    async def _read(
        self, columns: Columns, header_items: int
    ) -> tuple[dict[MessageId, MessageRow], dict[MessageId, bytes] | None]:
        """Summaries and headers; None for headers that are too much to be worked through together."""
        rows = await messages.summaries(self._store, self._account_id, columns.message_ids)
        octets = header_items * sum(len(row.header_prefix) + row.header_octets for row in rows.values())
        if octets > _HEADERS_AT_ONCE:
            return rows, None
        return rows, await reader.headers(self._store, self._account_id, columns.message_ids) if header_items else {}

    def _drop_missing(self, columns: Columns, found: dict[MessageId, MessageRow]) -> None:
        if any(message_id not in found for message_id in columns.message_ids):
            self.missing = True
            columns.keep(lambda message_id: message_id in found)

    def _column(
        self, item: FetchItem, columns: Columns, rows: dict[MessageId, MessageRow], fronts: dict[MessageId, bytes]
    ) -> Iterable[object]:
        if item in FORMATS:
            return columns.values(item, self._keywords, self._recent)
        ids = columns.message_ids
        if item is Attribute.ENVELOPE:
            return [rows[MessageId(message_id)].envelope for message_id in ids]
        if item is Attribute.BODYSTRUCTURE:
            return [rows[MessageId(message_id)].bodystructure for message_id in ids]
        if item is Attribute.BODY:
            return [without_extensions(rows[MessageId(message_id)].bodystructure) for message_id in ids]
        assert isinstance(item, BodySection)
        return [responses.literal(sections.section_value(fronts[MessageId(i)], item)) for i in ids]

    # Contents ---------------------------------------------------------------------------------------------------------

    async def from_contents(self, ranges: list[Range]) -> None:
        for columns in _batches(self._numbers.slices(ranges), _CONTENTS_A_BATCH):
            rows = await messages.summaries(self._store, self._account_id, columns.message_ids)
            self._drop_missing(columns, rows)
            await self._from_contents(columns, rows)
        await self._out.flush()

    async def _from_contents(self, columns: Columns, rows: dict[MessageId, MessageRow]) -> None:
        """Items that pages and summaries answer come first in a line, then what needs the octets."""
        small = [item for item in self.items if need(item) <= Need.SUMMARIES]
        large = [item for item in self.items if need(item) > Need.SUMMARIES]
        template = b"* %d FETCH (" + b"".join([_template(item) + b" " for item in small])
        values = [self._column(item, columns, rows, {}) for item in small]
        heads = [template % row for row in zip(columns.seqs, *values, strict=True)]
        wanted = [(MessageId(message_id), rows[MessageId(message_id)]) for message_id in columns.message_ids]
        async with aclosing(self._contents(wanted, large)) as contents:
            at = 0
            async for answers in contents:
                if answers is None:
                    self.missing = True
                else:
                    await self._line(heads[at], answers)
                at += 1
                await self.session.breathe()

    async def _contents(
        self, wanted: list[reader.Item], items: list[FetchItem]
    ) -> AsyncGenerator[list[list[Octets]] | None, None]:
        """Each message's answers to the items, in pieces; None for a message that is gone."""
        for by_ranges, group in groupby(wanted, lambda pair: sections.takes_ranges(pair[1], items)):
            if not by_ranges:
                async with aclosing(reader.stream(self._store, self._account_id, list(group))) as stream:
                    rows = dict(wanted)
                    async for message_id, pieces in stream:
                        yield None if pieces is None else await self._from_whole(rows[message_id], pieces, items)
                continue
            for _, row in group:
                try:
                    yield await sections.from_ranges(self._store, self._account_id, row, items, self._kept)
                except NotFound:
                    yield None

    async def _from_whole(self, row: MessageRow, pieces: list[bytes], items: list[FetchItem]) -> list[list[Octets]]:
        if row.size * len(items) > sections.AT_ONCE:
            return await self.session.in_thread(sections.from_whole, row, pieces, items)
        return sections.from_whole(row, pieces, items)

    async def _line(self, head: bytes, answers: list[list[Octets]]) -> None:
        add = self._out.add
        add(head)
        for number, pieces in enumerate(answers):
            if number:
                add(b" ")
            for piece in pieces:
                for at in range(0, len(piece), _WRITE):
                    add(piece if len(piece) <= _WRITE else memoryview(piece)[at : at + _WRITE])
                    if self._out.full:
                        await self._out.flush()
        add(b")\r\n")


def _template(item: FetchItem) -> bytes:
    """An item's place in a format."""
    if isinstance(item, BodySection):
        return item.label.replace(b"%", b"%%") + b" %b"
    return FORMATS.get(item) or item.value + b" %b"


def _batches(slices: Iterator[Slice], size: int) -> Iterator[Columns]:
    """The messages of the slices, about `size` at a time."""
    batch: list[Slice] = []
    count = 0
    for part in slices:
        start = part.start
        while part.stop - start > size - count:
            stop = start + size - count
            yield Columns([*batch, part._replace(start=start, stop=stop)])
            batch, count, start = [], 0, stop
        if start < part.stop:
            batch.append(part._replace(start=start))
            count += part.stop - start
    if batch:
        yield Columns(batch)


async def _ahead(
    batches: Iterator[Columns], read: Callable[[Columns], Awaitable[tuple[T, B]]]
) -> AsyncGenerator[tuple[Columns, T, B], None]:
    """Each batch with what was read for it; the next one is being read meanwhile."""
    waiting: list[tuple[Columns, asyncio.Future[tuple[T, B]]]] = []
    try:
        while True:
            waiting += [(batch, asyncio.ensure_future(read(batch))) for batch in islice(batches, 2 - len(waiting))]
            if not waiting:
                return
            batch, reading = waiting.pop(0)
            first, second = await reading
            yield batch, first, second
    finally:
        for _, reading in waiting:
            reading.cancel()
        await asyncio.gather(*(reading for _, reading in waiting), return_exceptions=True)
