"""FETCH (RFC 3501 §6.4.5), by what the items need:

    pages     UID, FLAGS, INTERNALDATE, RFC822.SIZE, MODSEQ: the view in memory, no query; text of whole pages is kept
    texts     ENVELOPE, BODYSTRUCTURE, BODY, BODY[HEADER…]: ready-made texts, kept, or one query a batch (texts.py)
    contents  everything else: whole messages, streamed, or parts of large ones (sections.py)

No transaction is open while a slow client reads, and what is held of the messages is bounded by a batch and the one
ahead. A line is written only once all its parts are there, so a fault in between never breaks off inside a literal.

A message that others have expunged stays readable for a while; where its octets are gone it is left out, and the
tagged answer says EXPUNGEISSUED (RFC 5530). One that is damaged is left out, too: the others are answered, the tagged
answer is NO [CORRUPTION], and no \\Seen is set. Else \\Seen is set after the octets were sent, for all messages in one
change, and reported like any other change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from enum import IntEnum
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mailserver.imap import enable, sections, texts
from mailserver.imap.errors import Done, Refusal
from mailserver.imap.page_text import FORMATS, Columns, lines
from mailserver.imap.sections import Octets
from mailserver.imap.view import Range, Slice
from mailserver.protocols.imap.commands import Attribute, BodySection, FetchItem
from storage import Extent, FlagChange, MessageId, messages, reader, summaries
from storage.errors import Damaged, NotFound
from storage.records import Flag

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands

T = TypeVar("T")

_TEXTS_A_BATCH = 384
"""Messages whose texts are read at once; of those that many items are asked of, fewer."""
_CONTENTS_A_BATCH = 192
_HEADS_OCTETS = 1 << 20
"""What is held of lines whose octets are still to come."""
_PIECE = 128 * 1024
_WRITE = 256 * 1024
"""Small texts are gathered to the first size, large ones are cut to the second."""


class Need(IntEnum):
    """What has to be read for an item, each level with those below it."""

    PAGES = 0
    TEXTS = 1
    CONTENTS = 2


def need(item: FetchItem) -> Need:
    if item in FORMATS:
        return Need.PAGES
    if isinstance(item, BodySection) and (item.part or not item.kind.startswith("HEADER")):
        return Need.CONTENTS
    return Need.TEXTS


async def handle(s: Session, cmd: commands.Fetch) -> Done:
    selected = s.selected
    assert selected is not None
    await selected.look(s)
    asked = selected.messages(cmd.messages, cmd.by_uid)
    ranges = selected.numbers.known(asked)
    lost = ranges is not asked and _count(ranges) < _count(asked)
    items = _all_items(cmd)
    if Attribute.MODSEQ in items:
        enable.condstore(s)
    if cmd.changedsince is not None:
        ranges = selected.numbers.changed(ranges, cmd.changedsince)
    answer = _Answer(s, items)
    level = max(map(need, answer.items))
    if level is Need.PAGES:
        await answer.from_pages(ranges)
    elif level is Need.TEXTS:
        await answer.from_texts(ranges)
    else:
        await answer.from_contents(ranges)
    if answer.damaged:
        raise Refusal("Some messages are damaged and were left out", "CORRUPTION")
    if cmd.sets_seen and not selected.read_only:
        await _set_seen(s, ranges)
    name = "UID FETCH" if cmd.by_uid else "FETCH"
    return Done(f"{name} completed", "EXPUNGEISSUED" if answer.missing or lost else "")


def _count(ranges: list[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def _all_items(cmd: commands.Fetch) -> tuple[FetchItem, ...]:
    """With UID where the command was UID FETCH (RFC 3501 §6.4.8), MODSEQ with CHANGEDSINCE (RFC 7162 §3.1.4.1)."""
    implied = [Attribute.UID] * cmd.by_uid + [Attribute.MODSEQ] * (cmd.changedsince is not None)
    return (*(item for item in implied if item not in cmd.items), *cmd.items)


async def _set_seen(s: Session, ranges: list[Range]) -> None:
    selected = s.selected
    assert selected is not None
    await selected.look_again()
    uids = selected.numbers.unseen(ranges, selected.view.snapshot)
    if uids:
        mailbox = selected.mailbox
        change = FlagChange("+", Flag.SEEN)
        result = await messages.store_flags(s.service.store, mailbox.account_id, mailbox.mailbox_id, uids, change)
        await selected.since(result.modseq)


class _Output:
    """Gathers texts into larger writes, cuts what is very large, and lets the session breathe between."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._parts: list[Octets] = []
        self._size = 0

    def add(self, *texts: Octets) -> None:
        """The caller asks for a flush where this was much."""
        self._parts += texts
        self._size += sum(map(len, texts))

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


class _Head(NamedTuple):
    """How a message's line begins; None where the message is gone. size: of all its octets."""

    line: bytes | None
    message_id: int
    size: int


class _Answer:
    """The answer to one FETCH. missing: some message's octets were gone; damaged: some could not be read."""

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
        self._maker = texts.Maker(session, selected.mailbox.account_id, items)
        self._out = _Output(session)
        self._damaged = False

    @property
    def damaged(self) -> bool:
        return self._damaged or self._maker.damaged

    async def from_pages(self, ranges: list[Range]) -> None:
        for part in self._numbers.slices(ranges):
            self._out.add(lines(part, self.items, self._keywords, self._recent))
            if self._out.full:
                await self._out.flush()
        await self._out.flush()

    # Texts ------------------------------------------------------------------------------------------------------------

    async def from_texts(self, ranges: list[Range]) -> None:
        template = _template(self.items, b")\r\n")
        wanted = [item for item in self.items if need(item) is Need.TEXTS]
        batches = _batches(self._numbers.slices(ranges), max(1, _TEXTS_A_BATCH // len(wanted)))
        async with aclosing(_ahead(batches, lambda parts: self._load(parts, wanted))) as loaded:
            async for runs, source in loaded:
                for run in runs:
                    for line in await self._filled(template, self.items, run, source):
                        self._add(line)
                        if self._out.full:
                            await self._out.flush()
        await self._out.flush()

    async def _load(self, parts: list[Slice], items: list[FetchItem]) -> tuple[list[texts.Run], texts.Source]:
        return await texts.load(self._store, self.session.service.texts, self._account_id, parts, items)

    async def _filled(
        self, template: bytes, items: Sequence[FetchItem], run: texts.Run, source: texts.Source
    ) -> list[bytes | None]:
        """The template filled in for each message of a run; None for one that is gone."""
        columns = Columns((run.part,))
        values = []
        for item in items:
            if item in FORMATS:
                values.append(columns.values(item, self._keywords, self._recent))
            else:
                values.append(await self._maker.column(item, run, source))
        return [None if None in row else template % row for row in zip(columns.seqs, *values, strict=True)]

    def _add(self, line: bytes | None) -> None:
        if line is None:
            self.missing = True
        else:
            self._out.add(line)

    # Contents ---------------------------------------------------------------------------------------------------------

    async def from_contents(self, ranges: list[Range]) -> None:
        """Items that pages and texts answer come first in a line, then what needs the octets."""
        small = [item for item in self.items if need(item) is Need.PAGES or not isinstance(item, BodySection)]
        large = [item for item in self.items if item not in small]
        template = _template(small, b" " * bool(small))
        read = [item for item in small if need(item) is Need.TEXTS]
        add = self._with_whole if all(map(sections.is_whole, large)) else self._with_contents
        for parts in _batches(self._numbers.slices(ranges), _CONTENTS_A_BATCH):
            runs, source = await self._load(parts, read)
            heads: list[_Head] = []
            octets = 0
            for run in runs:
                lines = await self._filled(template, small, run, source)
                heads += map(_Head, lines, run.message_ids, run.sizes)
                octets += sum(len(line or b"") for line in lines)
                if octets > _HEADS_OCTETS:
                    await add(heads, large)
                    heads, octets = [], 0
            await add(heads, large)
        await self._out.flush()

    async def _with_whole(self, heads: list[_Head], items: list[FetchItem]) -> None:
        """The lines of messages, each begun by its head, to which all of the message is added."""
        there = [head for head in heads if head.line is not None]
        self.missing |= len(there) < len(heads)
        wanted = [(MessageId(head.message_id), head.size) for head in there]
        lines = iter(there)
        async with aclosing(reader.stream(self._store, self._account_id, wanted)) as stream:
            async for batch in stream:
                for _, pieces in batch:
                    head = next(lines).line or b""
                    if isinstance(pieces, list):
                        await self._line(head, sections.whole(pieces, items))
                    else:
                        self.missing = True
                        self._damaged |= isinstance(pieces, Damaged)

    async def _with_contents(self, heads: list[_Head], items: list[FetchItem]) -> None:
        """The lines of messages, each begun by its head, to which what needs the octets is added."""
        extents = await summaries.extents(self._store, self._account_id, [head.message_id for head in heads])
        there = [(h.line, extents[h.message_id]) for h in heads if h.line is not None and h.message_id in extents]
        self.missing |= len(there) < len(heads)
        wanted: list[tuple[MessageId, Extent]] = [(extent.message_id, extent) for _, extent in there]
        async with aclosing(self._contents(wanted, items)) as contents:
            at = 0
            async for answers in contents:
                if answers is None:
                    self.missing = True
                else:
                    await self._line(there[at][0], answers)
                at += 1
                await self.session.breathe()

    async def _contents(
        self, wanted: list[tuple[MessageId, Extent]], items: list[FetchItem]
    ) -> AsyncGenerator[list[list[Octets]] | None, None]:
        """Each message's answers to the items, in pieces; None for a message that is gone or damaged."""
        by_ranges = [await self._takes_ranges(row, items) for _, row in wanted]
        for ranges, pairs in groupby(zip(by_ranges, wanted, strict=True), itemgetter(0)):
            group = [item for _, item in pairs]
            if not ranges:
                items_of_stream = [(message_id, row.size) for message_id, row in group]
                async with aclosing(reader.stream(self._store, self._account_id, items_of_stream)) as stream:
                    rows = dict(wanted)
                    async for batch in stream:
                        for message_id, pieces in batch:
                            self._damaged |= isinstance(pieces, Damaged)
                            row = rows[message_id]
                            yield await self._from_whole(row, pieces, items) if isinstance(pieces, list) else None
                continue
            for _, row in group:
                try:
                    yield await sections.from_ranges(
                        self._store, self._account_id, row, items, self._kept, self.session.in_thread
                    )
                except NotFound:
                    yield None
                except Damaged:
                    self._damaged = True
                    yield None

    async def _takes_ranges(self, row: Extent, items: list[FetchItem]) -> bool:
        if sections.is_complex(row, items):
            return await self.session.in_thread(sections.takes_ranges, row, items)
        return sections.takes_ranges(row, items)

    async def _from_whole(self, row: Extent, pieces: list[bytes], items: list[FetchItem]) -> list[list[Octets]]:
        if sections.is_much(row, items):
            return await self.session.in_thread(sections.from_whole, row, pieces, items)
        return sections.from_whole(row, pieces, items)

    async def _line(self, head: bytes, answers: list[list[Octets]]) -> None:
        out = self._out
        out.add(head)
        for number, pieces in enumerate(answers):
            if number:
                out.add(b" ")
            if max(map(len, pieces)) <= _WRITE:
                out.add(*pieces)
                if out.full:
                    await out.flush()
            else:
                await self._add_large(pieces)
        out.add(b")\r\n")
        if out.full:
            await out.flush()

    async def _add_large(self, pieces: list[Octets]) -> None:
        for piece in pieces:
            for at in range(0, len(piece), _WRITE):
                self._out.add(memoryview(piece)[at : at + _WRITE])
                if self._out.full:
                    await self._out.flush()


def _template(items: Sequence[FetchItem], end: bytes) -> bytes:
    """The format of a line; the sequence number comes first."""
    return b"* %d FETCH (" + b" ".join(map(_place, items)) + end


def _place(item: FetchItem) -> bytes:
    """An item's place in a format."""
    if isinstance(item, BodySection):
        return item.label.replace(b"%", b"%%") + b" %b"
    return FORMATS.get(item) or item.value + b" %b"


def _batches(slices: Iterator[Slice], size: int) -> Iterator[list[Slice]]:
    """Slices of up to `size` messages together; one is cut only where it is larger."""
    batch: list[Slice] = []
    count = 0
    for part in slices:
        for start in range(part.start, part.stop, size):
            piece = part._replace(start=start, stop=min(start + size, part.stop))
            if count + piece.stop - piece.start > size:
                yield batch
                batch, count = [], 0
            batch.append(piece)
            count += piece.stop - piece.start
    if batch:
        yield batch


async def _ahead(
    batches: Iterator[list[Slice]], read: Callable[[list[Slice]], Awaitable[T]]
) -> AsyncGenerator[T, None]:
    """What was read for each batch; the next one is being read meanwhile."""
    waiting: list[asyncio.Future[T]] = []
    try:
        while True:
            waiting += [asyncio.ensure_future(read(batch)) for batch in islice(batches, 2 - len(waiting))]
            if not waiting:
                return
            yield await waiting.pop(0)
    finally:
        for reading in waiting:
            reading.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
