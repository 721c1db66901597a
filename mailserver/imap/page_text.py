"""FETCH lines made from a mailbox's pages alone: UID, FLAGS, INTERNALDATE, RFC822.SIZE, MODSEQ.

Lines are made column by column: one format for all messages, and a column of values for each of its places. The text
of a whole page is kept with the page object. It is good as long as the same number of messages stands before the
page, and a page that changes becomes another object, so nothing ever has to be thrown out; a page that goes takes its
text along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mailserver.imap import flags
from mailserver.imap.view import Recent, Slice
from mailserver.message.dates import format_internal
from mailserver.protocols.imap.commands import Attribute, FetchItem
from storage.pages import Page

_KEPT_A_PAGE = 2
"""Kinds of lines whose text is kept with a page."""
_KEPT_OCTETS = 8 * 1024
"""Twice what storage counts for such a text; keywords can make it a hundred times longer."""

FORMATS: dict[FetchItem, bytes] = {
    Attribute.UID: b"UID %d",
    Attribute.FLAGS: b"FLAGS (%b)",
    Attribute.INTERNALDATE: b'INTERNALDATE "%b"',
    Attribute.SIZE: b"RFC822.SIZE %d",
    Attribute.MODSEQ: b"MODSEQ (%d)",
}


class Columns:
    """Some messages of a mailbox as parallel columns."""

    __slots__ = ("flags", "message_ids", "modseqs", "received", "seqs", "sizes", "uids")

    def __init__(self, parts: Iterable[Slice]) -> None:
        self.seqs: list[int] = []
        self.uids: list[int] = []
        self.message_ids: list[int] = []
        self.flags: list[int] = []
        self.modseqs: list[int] = []
        self.sizes: list[int] = []
        self.received: list[int] = []
        for page, before, start, stop in parts:
            self.seqs += range(before + start + 1, before + stop + 1)
            self.uids += page.uids[start:stop]
            self.message_ids += page.message_ids[start:stop]
            self.flags += page.flags[start:stop]
            self.modseqs += page.modseqs[start:stop]
            self.sizes += page.sizes[start:stop]
            self.received += page.received[start:stop]

    def __len__(self) -> int:
        return len(self.seqs)

    def values(self, item: FetchItem, keywords: tuple[str, ...], recent: Recent) -> Iterable[Any]:
        """The column of one of the items in FORMATS."""
        if item is Attribute.UID:
            return self.uids
        if item is Attribute.SIZE:
            return self.sizes
        if item is Attribute.MODSEQ:
            return self.modseqs
        if item is Attribute.INTERNALDATE:
            return map(format_internal, self.received)
        texts = flags.texts(keywords)
        if not self.uids or not recent.touches(self.uids[0], self.uids[-1]):
            return map(texts.__getitem__, self.flags)
        if not recent.covers(self.uids[0], self.uids[-1]):
            return [texts[bits | recent.bit(uid)] for uid, bits in zip(self.uids, self.flags, strict=True)]
        all_recent = {bits: texts[bits | flags.RECENT] for bits in set(self.flags)}
        return map(all_recent.__getitem__, self.flags)

    def keep(self, places: Callable[[int], bool]) -> None:
        """Drops the messages whose message id does not pass."""
        kept = [i for i, message_id in enumerate(self.message_ids) if places(message_id)]
        for name in self.__slots__:
            column = getattr(self, name)
            setattr(self, name, [column[i] for i in kept])


def line_format(items: Iterable[FetchItem]) -> bytes:
    """The format of a whole FETCH line of items in FORMATS; the sequence number comes first."""
    return b"* %d FETCH (" + b" ".join([FORMATS[item] for item in items]) + b")\r\n"


def lines(part: Slice, items: tuple[FetchItem, ...], keywords: tuple[str, ...], recent: Recent) -> bytes:
    """The FETCH lines of a slice; all items are in FORMATS."""
    page = part.page
    whole = part.stop - part.start == len(page.uids)
    if not whole or recent.touches(page.uids[0], page.uids[-1]):
        return _made(part, items, keywords, recent)
    kept = page.cache.get(items) if page.cache else None
    if kept is None or kept[0] != part.before or kept[1] != keywords:
        kept = (part.before, keywords, _made(part, items, keywords, recent))
        if len(kept[2]) <= _KEPT_OCTETS:
            _keep(page, items, kept)
    text: bytes = kept[2]
    return text


def _made(part: Slice, items: tuple[FetchItem, ...], keywords: tuple[str, ...], recent: Recent) -> bytes:
    columns = Columns((part,))
    values = [columns.values(item, keywords, recent) for item in items]
    template = line_format(items)
    return b"".join([template % row for row in zip(columns.seqs, *values, strict=True)])


def _keep(page: Page, items: tuple[FetchItem, ...], kept: tuple[int, tuple[str, ...], bytes]) -> None:
    if page.cache is None or (len(page.cache) >= _KEPT_A_PAGE and items not in page.cache):
        page.cache = {}
    page.cache[items] = kept
