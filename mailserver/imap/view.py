"""What one session knows of its mailbox, and what it must be told next. Pure: snapshots in, answers out.

A session's sequence numbers are those of the snapshot it was last told of. When the mailbox has moved on, `advance`
compares the two and says what to send: EXPUNGE, EXISTS, RECENT and FETCH with changed flags (RFC 3501 §7.3–§7.4).
Pages are compared by identity, so an unchanged page costs nothing, and whole runs of them are skipped at C speed.

While EXPUNGE may not be sent (during FETCH, STORE and SEARCH, RFC 3501 §7.4.1) messages that went stay as ghosts: the
session's next snapshot is the new one with the old entries kept in their places, so that every number goes on meaning
what it meant. It is an ordinary snapshot: once EXPUNGE is legal, comparing it with the mailbox finds the ghosts gone.

New messages always have higher UIDs than all before them, so ghosts never stand among unknown messages. A message
that came and went between two looks was never told of and is not mentioned.

A Memo belongs to one mailbox of the worker and is shared by its sessions: a thousand sessions that have seen the same
snapshot make the comparison, and the octets sent, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import compress
from operator import ne
from typing import NamedTuple
from weakref import WeakKeyDictionary, ref

from mailserver.imap import flags
from mailserver.protocols.imap.sequence_set import SequenceSet
from storage.pages import Page, Snapshot
from storage.records import Flag

Range = tuple[int, int]
"""First and last of a run, both included."""

_BLOCK = 64
_EXPUNGES_A_PIECE = 2000
PAGES_A_PIECE = 16
"""A write costs the kernel as much as the lines of half a page."""
_SHARED_MESSAGES = 500
"""Changes of up to this many messages are kept as ready-made text for the other sessions."""


class NoSuchMessage(Exception):
    """A sequence number beyond the last message: the client's mistake (RFC 3501 §9, seq-number)."""


class Flagged(NamedTuple):
    """Messages of one page whose flags changed: `before` messages stand ahead of the page."""

    page: Page
    before: int
    positions: list[int]


class Slice(NamedTuple):
    """Messages start ≤ position < stop of one page; `before` messages stand ahead of the page."""

    page: Page
    before: int
    start: int
    stop: int


class Changes:
    """What a client is told when its view moves on. Shared between sessions, so it never changes.

    expunged: old sequence numbers, highest first, so that none of them shifts another. arrived: new messages came.
    flagged: messages known before, numbered as after the expunges. keywords: the mailbox's, where they changed.
    """

    __slots__ = ("_head", "_lines", "arrived", "count", "expunged", "flagged", "keywords", "weight")

    def __init__(
        self,
        expunged: list[int],
        flagged: list[Flagged],
        *,
        arrived: bool,
        count: int,
        keywords: tuple[str, ...] | None,
    ) -> None:
        self.expunged = expunged
        self.flagged = flagged
        self.arrived = arrived
        self.count = count
        self.keywords = keywords
        self.weight = len(expunged) + sum(len(part.positions) for part in flagged)
        """How many lines there are to send, about."""
        self._head: bytes | None = None
        self._lines: dict[bool, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self.weight or self.arrived or self.keywords is not None)

    def only(self, flagged: list[Flagged]) -> Changes:
        """The same with other flag changes."""
        return Changes(self.expunged, flagged, arrived=self.arrived, count=self.count, keywords=self.keywords)

    def head(self) -> Iterator[bytes]:
        """EXPUNGE and EXISTS lines, in pieces."""
        exists = b"* %d EXISTS\r\n" % self.count if self.arrived else b""
        if self.weight <= _SHARED_MESSAGES:
            if self._head is None:
                self._head = _expunge_lines(self.expunged) + exists
            yield self._head
            return
        for at in range(0, len(self.expunged), _EXPUNGES_A_PIECE):
            yield _expunge_lines(self.expunged[at : at + _EXPUNGES_A_PIECE])
        yield exists

    def flag_lines(self, keywords: tuple[str, ...], recent: Recent, *, modseq: bool) -> Iterator[bytes]:
        """FETCH lines with the new flags, in pieces; modseq: with the mod-sequences (RFC 7162 §3.1)."""
        pieces = (
            b"".join([_flag_lines(part, keywords, recent, modseq) for part in self.flagged[at : at + PAGES_A_PIECE]])
            for at in range(0, len(self.flagged), PAGES_A_PIECE)
        )
        # \\Recent differs from session to session, so their lines are not the shared ones.
        if recent or self.weight > _SHARED_MESSAGES:
            yield from pieces
            return
        if modseq not in self._lines:
            self._lines[modseq] = b"".join(pieces)
        yield self._lines[modseq]


def _expunge_lines(numbers: list[int]) -> bytes:
    return b"".join([b"* %d EXPUNGE\r\n" % seq for seq in numbers])


def _flag_lines(part: Flagged, keywords: tuple[str, ...], recent: Recent, modseq: bool) -> bytes:
    page, before, positions = part
    texts = flags.texts(keywords)
    lines = []
    for i in positions:
        uid = page.uids[i]
        text = texts[page.flags[i] | recent.bit(uid)]
        if modseq:
            lines.append(
                b"* %d FETCH (UID %d MODSEQ (%d) FLAGS (%b))\r\n" % (before + i + 1, uid, page.modseqs[i], text)
            )
        else:
            lines.append(b"* %d FETCH (UID %d FLAGS (%b))\r\n" % (before + i + 1, uid, text))
    return b"".join(lines)


NOTHING = Changes([], [], arrived=False, count=0, keywords=None)


class Recent:
    """The UIDs that are \\Recent in one session: few ranges [first, end)."""

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: tuple[Range, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def add(self, first: int, end: int) -> None:
        """first is never below what was added before."""
        if first >= end:
            return
        if self._ranges and first <= self._ranges[-1][1]:
            last_first, last_end = self._ranges[-1]
            self._ranges = (*self._ranges[:-1], (last_first, max(last_end, end)))
        else:
            self._ranges = (*self._ranges, (first, end))

    def bit(self, uid: int) -> int:
        """flags.RECENT where the message is recent, else 0."""
        for first, end in self._ranges:
            if first <= uid < end:
                return flags.RECENT
        return 0

    def touches(self, first: int, last: int) -> bool:
        """May a message with first ≤ UID ≤ last be recent?"""
        return any(begin <= last and first < end for begin, end in self._ranges)

    def covers(self, first: int, last: int) -> bool:
        """Are all messages with first ≤ UID ≤ last recent?"""
        return any(begin <= first and last < end for begin, end in self._ranges)

    def count(self, snapshot: Snapshot) -> int:
        return sum(snapshot.count_below(end) - snapshot.count_below(first) for first, end in self._ranges)


_Steps = dict[bool, tuple[ref[Snapshot], Changes]]
"""By whether EXPUNGE is legal: the session's next snapshot, and what tells of it."""


class Memo:
    """What the sessions of one mailbox share: how it came from what one of them knows to what it is now.

    That is kept as long as both are: snapshots that nobody holds any more would be memory that nobody counts.
    claimed: the recent_uid that one of them has claimed last; the others need not try.
    """

    __slots__ = ("__weakref__", "_made", "claimed")

    def __init__(self) -> None:
        self._made: WeakKeyDictionary[Snapshot, WeakKeyDictionary[Snapshot, _Steps]] = WeakKeyDictionary()
        self.claimed = 0

    def forget(self) -> None:
        self._made.clear()

    def advance(self, old: Snapshot, new: Snapshot, expunge_ok: bool) -> tuple[Snapshot, Changes]:
        """`advance`, or its remembered answer."""
        steps = self._made.setdefault(new, WeakKeyDictionary()).setdefault(old, {})
        if expunge_ok in steps:
            reference, changes = steps[expunge_ok]
            result = reference()
            if result is not None:
                return result, changes
        result, changes = advance(old, new, expunge_ok)
        steps[expunge_ok] = ref(result), changes
        return result, changes


class SessionView:
    """A session's sequence numbers, and which messages are \\Recent to it."""

    __slots__ = ("_memo", "recent", "snapshot")

    def __init__(self, snapshot: Snapshot, memo: Memo) -> None:
        self.snapshot = snapshot
        self.recent = Recent()
        self._memo = memo

    def advance(self, new: Snapshot, *, expunge_ok: bool) -> Changes:
        """Moves on to what the mailbox is now; the answer must be sent before anything else is numbered."""
        if new is self.snapshot:
            return NOTHING
        self.snapshot, changes = self._memo.advance(self.snapshot, new, expunge_ok)
        return changes

    def pending(self, new: Snapshot) -> Changes:
        """What advance() would say where EXPUNGE is legal."""
        return NOTHING if new is self.snapshot else self._memo.advance(self.snapshot, new, True)[1]

    def ranges(self, messages: SequenceSet, by_uid: bool) -> list[Range]:
        """The messages that a set names, as ascending runs of sequence numbers.

        UIDs that are not there are passed over (RFC 3501 §6.4.8); sequence numbers that are not are NoSuchMessage.
        """
        snapshot = self.snapshot
        if by_uid:
            found = []
            for low, high in messages.resolve(snapshot.max_uid):
                first, last = snapshot.count_below(low) + 1, snapshot.count_below(high + 1)
                if first <= last:
                    found.append((first, last))
            return found
        if messages.largest > snapshot.count or not snapshot.count:
            raise NoSuchMessage
        return messages.resolve(snapshot.count)

    def slices(self, ranges: Iterable[Range]) -> Iterator[Slice]:
        """The messages of `ranges`, page by page."""
        snapshot = self.snapshot
        pages, starts = snapshot.pages, snapshot.starts
        for first, last in ranges:
            index, position = snapshot.locate(first)
            left = last - first + 1
            while left:
                page = pages[index]
                stop = min(len(page.uids), position + left)
                yield Slice(page, starts[index], position, stop)
                left -= stop - position
                index, position = index + 1, 0

    def changed(self, ranges: Iterable[Range], since: int) -> list[Range]:
        """The messages of `ranges` whose mod-sequence is greater than `since`."""
        found: list[Range] = []
        for page, before, start, stop in self.slices(ranges):
            if page.modseq <= since:
                continue
            for i in range(start, stop):
                if page.modseqs[i] > since:
                    seq = before + i + 1
                    first = found.pop()[0] if found and found[-1][1] == seq - 1 else seq
                    found.append((first, seq))
        return found

    def known(self, ranges: list[Range]) -> list[Range]:
        """The messages of `ranges` without those of which nothing is known any more but that they were there."""
        return self.changed(ranges, 0) if self.snapshot.vague else ranges

    def unseen(self, ranges: Iterable[Range], now: Snapshot) -> list[int]:
        """The UIDs of `ranges` that have no \\Seen in the mailbox as it is now, ascending."""
        seen = Flag.SEEN
        found: list[int] = []
        for page, _, start, stop in self.slices(ranges):
            index = now.page_index(page.number)
            if index >= 0 and now.pages[index] is page:
                found += [page.uids[i] for i in range(start, stop) if not page.flags[i] & seen]
            elif index >= 0:
                bits = dict(zip(now.pages[index].uids, now.pages[index].flags, strict=True))
                found += [uid for uid in page.uids[start:stop] if not bits.get(uid, seen) & seen]
        return found

    def uids(self, ranges: Iterable[Range]) -> list[int]:
        """The UIDs of `ranges`, ascending."""
        found: list[int] = []
        for page, _, start, stop in self.slices(ranges):
            found.extend(page.uids[start:stop])
        return found


def advance(old: Snapshot, new: Snapshot, expunge_ok: bool) -> tuple[Snapshot, Changes]:
    """The session's next snapshot, and what tells the client how it came from `old`."""
    if not expunge_ok:
        new = with_ghosts(old, new)
    return new, compare(old, new)


def with_ghosts(old: Snapshot, new: Snapshot) -> Snapshot:
    """`new` with the messages of `old` that are no longer in it kept in their places."""
    kept = []
    for before, _, after, _ in _differing(old, new):
        if before is None:
            continue
        if after is None:
            kept.append(before)
        elif before.uids != after.uids and not set(before.uids) <= set(after.uids):
            kept.append(_joined(before, after))
    if not kept:
        return new
    result = new.replaced(new.mailbox, kept)
    result.vague = old.vague
    return result


def _joined(before: Page, after: Page) -> Page:
    """All messages of both, as `after` has them where it does."""
    rows = {row[0]: row for row in _rows(before)}
    rows.update({row[0]: row for row in _rows(after)})
    return Page(after.number, after.modseq, *zip(*(rows[uid] for uid in sorted(rows)), strict=True))


def _rows(page: Page) -> Iterator[tuple[int, ...]]:
    columns = (page.uids, page.message_ids, page.flags, page.modseqs, page.sizes, page.received, page.saved)
    return zip(*columns, strict=True)


def compare(old: Snapshot, new: Snapshot) -> Changes:
    """What tells a client that knows `old` about `new`."""
    expunged: list[int] = []
    flagged: list[Flagged] = []
    for before, start, after, start_after in _differing(old, new):
        if before is None:
            continue
        if after is None:
            expunged.extend(range(start + 1, start + len(before.uids) + 1))
            continue
        positions = _compare_page(before, start, after, expunged)
        if positions:
            flagged.append(Flagged(after, start_after, positions))
    expunged.reverse()
    keywords = new.mailbox.keywords
    return Changes(
        expunged,
        flagged,
        arrived=new.count > old.count - len(expunged),
        count=new.count,
        keywords=keywords if keywords != old.mailbox.keywords else None,
    )


def _compare_page(before: Page, start: int, after: Page, expunged: list[int]) -> list[int]:
    """Adds the sequence numbers that went to `expunged`; returns where in `after` flags have changed.

    Every change of flags gives the message a mod-sequence of its own, one that was taken back since too.
    """
    known = len(before.uids)
    if before.uids == after.uids[:known]:
        if before.modseqs == after.modseqs[:known]:
            return []
        return list(compress(range(known), map(ne, before.modseqs, after.modseqs)))
    positions = []
    places = {uid: i for i, uid in enumerate(after.uids)}
    for i, uid in enumerate(before.uids):
        place = places.get(uid)
        if place is None:
            expunged.append(start + i + 1)
        elif before.modseqs[i] != after.modseqs[place]:
            positions.append(place)
    return positions


def _differing(old: Snapshot, new: Snapshot) -> Iterator[tuple[Page | None, int, Page | None, int]]:
    """Pairs of pages with one number that are not the same object, each with the messages before it; None: missing."""
    i = j = _common_start(old.pages, new.pages)
    common = _common_end(old.pages, new.pages, i)
    end_old, end_new = len(old.pages) - common, len(new.pages) - common
    while i < end_old or j < end_new:
        before = old.pages[i] if i < end_old else None
        after = new.pages[j] if j < end_new else None
        if before is not None and after is not None and before.number != after.number:
            if before.number < after.number:
                after = None
            else:
                before = None
        if before is not after:
            yield before, old.starts[i], after, new.starts[j]
        i += before is not None
        j += after is not None


def _common_start(old: tuple[Page, ...], new: tuple[Page, ...]) -> int:
    """How many pages at the beginning are the same objects."""
    limit = min(len(old), len(new))
    at = 0
    # Comparing tuples of pages compares identities, a block at a time in C.
    while at < limit and old[at : min(at + _BLOCK, limit)] == new[at : min(at + _BLOCK, limit)]:
        at = min(at + _BLOCK, limit)
    while at < limit and old[at] is new[at]:
        at += 1
    return at


def _common_end(old: tuple[Page, ...], new: tuple[Page, ...], start: int) -> int:
    """How many pages at the end are the same objects, none of the first `start` among them."""
    limit = min(len(old), len(new)) - start
    size_old, size_new = len(old), len(new)
    count = 0
    while count < limit:
        step = min(_BLOCK, limit - count)
        if old[size_old - count - step : size_old - count] != new[size_new - count - step : size_new - count]:
            break
        count += step
    while count < limit and old[size_old - count - 1] is new[size_new - count - 1]:
        count += 1
    return count
