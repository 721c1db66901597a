"""The membership of a mailbox in memory: immutable pages, shared by every session of the worker.

A page holds up to 64 messages (page number = UID >> 6) as parallel arrays in UID order, just as its row does. A
snapshot is the whole mailbox at one moment: a tuple of pages and, for finding, the number of each and how many messages
stand before it. A change makes new page objects for the pages it touched and keeps the others, so two snapshots are
compared by the identity of their pages, and a thousand sessions that have seen the same state hold it once.

Sequence numbers here are 1-based and belong to the snapshot they are asked of (RFC 3501 §2.3.1.2).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from storage.packed import INT8, UINT4
from storage.records import Flag, Mailbox

PAGE_BITS = 6


class Entry(NamedTuple):
    """One message in one mailbox. received and saved are epoch seconds, size is RFC822.SIZE in octets."""

    seq: int
    uid: int
    message_id: int
    flags: int
    modseq: int
    size: int
    received: int
    saved: int


class Page:
    """Up to 64 messages. Never changed once made; `cache` is the readers' place for ready-made text of this page.

    Columns that are arrays, which then have the right type, are kept as they are, not copied.
    """

    __slots__ = ("cache", "flags", "message_ids", "modseq", "modseqs", "number", "received", "saved", "sizes", "uids")

    def __init__(
        self,
        number: int,
        modseq: int,
        uids: Iterable[int],
        message_ids: Iterable[int],
        flags: Iterable[int],
        modseqs: Iterable[int],
        sizes: Iterable[int],
        received: Iterable[int],
        saved: Iterable[int],
    ) -> None:
        self.number = number
        self.modseq = modseq
        self.uids = uids if isinstance(uids, array) else array(UINT4, uids)
        self.message_ids = message_ids if isinstance(message_ids, array) else array(INT8, message_ids)
        self.flags = flags if isinstance(flags, array) else array(INT8, flags)
        self.modseqs = modseqs if isinstance(modseqs, array) else array(INT8, modseqs)
        self.sizes = sizes if isinstance(sizes, array) else array(UINT4, sizes)
        self.received = received if isinstance(received, array) else array(INT8, received)
        self.saved = saved if isinstance(saved, array) else array(INT8, saved)
        self.cache: dict[Any, Any] | None = None

    def __len__(self) -> int:
        return len(self.uids)

    def __repr__(self) -> str:
        return f"Page({self.number}, modseq={self.modseq}, uids={self.uids.tolist()})"

    def index(self, uid: int) -> int:
        """The position of `uid`, -1 where it is not here."""
        i = bisect_left(self.uids, uid)
        return i if i < len(self.uids) and self.uids[i] == uid else -1

    def entry(self, index: int, seq: int) -> Entry:
        return Entry(
            seq,
            self.uids[index],
            self.message_ids[index],
            self.flags[index],
            self.modseqs[index],
            self.sizes[index],
            self.received[index],
            self.saved[index],
        )


class Snapshot:
    """A mailbox at one moment. `starts[i]` is how many messages stand before page i; its last item is the count.

    It never changes, but it may be folded: then only the mailbox's row is left of it, until it gets its pages back. It
    may be vague then: of messages with mod-sequence 0 nothing is sure but the UID.
    """

    __slots__ = ("__weakref__", "folded", "mailbox", "numbers", "pages", "starts", "vague")

    def __init__(self, mailbox: Mailbox, pages: Iterable[Page]) -> None:
        self.mailbox = mailbox
        self.unfold(pages)

    def unfold(self, pages: Iterable[Page], *, vague: bool = False) -> None:
        self.pages = tuple(pages)
        self.numbers = [page.number for page in self.pages]
        self.starts = [0]
        self._count_from(0)
        self.folded = False
        self.vague = vague

    def fold(self) -> None:
        """Gives up the pages; storage/folding.py says when that may be done, and makes them anew."""
        self.unfold(())
        self.folded = True

    def _count_from(self, index: int) -> None:
        total = self.starts[index]
        del self.starts[index + 1 :]
        for page in self.pages[index:]:
            total += len(page.uids)
            self.starts.append(total)

    @property
    def count(self) -> int:
        return self.starts[-1]

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def max_uid(self) -> int:
        """The highest UID present, 0 in an empty mailbox."""
        return self.pages[-1].uids[-1] if self.pages else 0

    def locate(self, seq: int) -> tuple[int, int]:
        """Page index and position in it of a sequence number; IndexError where there is none."""
        if not 1 <= seq <= self.starts[-1]:
            raise IndexError(seq)
        index = bisect_right(self.starts, seq - 1) - 1
        return index, seq - 1 - self.starts[index]

    def uid_at(self, seq: int) -> int:
        index, position = self.locate(seq)
        return self.pages[index].uids[position]

    def seq_of(self, uid: int) -> int:
        """The sequence number of `uid`, 0 where it is not here."""
        index = self.page_index(uid >> PAGE_BITS)
        if index < 0:
            return 0
        position = self.pages[index].index(uid)
        return self.starts[index] + position + 1 if position >= 0 else 0

    def page_index(self, number: int) -> int:
        """The index of a page by its number, -1 where it is not here."""
        index = bisect_left(self.numbers, number)
        return index if index < len(self.numbers) and self.numbers[index] == number else -1

    def at(self, seq: int) -> Entry:
        index, position = self.locate(seq)
        return self.pages[index].entry(position, seq)

    def entry(self, uid: int) -> Entry | None:
        seq = self.seq_of(uid)
        return self.at(seq) if seq else None

    def uids(self) -> list[int]:
        found: list[int] = []
        for page in self.pages:
            found.extend(page.uids)
        return found

    def entries(self) -> Iterator[Entry]:
        """Every message in order."""
        for page, start in zip(self.pages, self.starts, strict=False):
            for position in range(len(page.uids)):
                yield page.entry(position, start + position + 1)

    def count_below(self, uid: int) -> int:
        """How many messages have a UID less than `uid`."""
        index = bisect_left(self.numbers, uid >> PAGE_BITS)
        if index == len(self.pages):
            return self.count
        return self.starts[index] + bisect_left(self.pages[index].uids, uid)

    def first_unseen(self) -> int:
        """The sequence number of the first message without \\Seen, 0 where there is none."""
        seen = Flag.SEEN
        if not self.mailbox.unseen:
            return 0
        for page, start in zip(self.pages, self.starts, strict=False):
            for position, flags in enumerate(page.flags):
                if not flags & seen:
                    return start + position + 1
        return 0

    def replaced(self, mailbox: Mailbox, changed: Sequence[Page], gone: Sequence[int] = ()) -> Snapshot:
        """The snapshot after pages came in (`changed`, new or in place of old ones) and went (`gone`, by number).

        A page older than the one held is ignored: notices may overtake each other.
        """
        pages = list(self.pages)
        numbers = list(self.numbers)
        first = len(pages)
        for page in changed:
            index = bisect_left(numbers, page.number)
            if index < len(numbers) and numbers[index] == page.number:
                if page.modseq < pages[index].modseq:
                    continue
                pages[index] = page
            else:
                pages.insert(index, page)
                numbers.insert(index, page.number)
            first = min(first, index)
        for number in gone:
            index = bisect_left(numbers, number)
            if index < len(numbers) and numbers[index] == number:
                del pages[index], numbers[index]
                first = min(first, index)
        new = Snapshot.__new__(Snapshot)
        new.folded, new.vague = self.folded, self.vague
        new.mailbox = mailbox
        new.pages = tuple(pages)
        new.numbers = numbers
        new.starts = self.starts[: first + 1]
        new._count_from(first)
        return new
