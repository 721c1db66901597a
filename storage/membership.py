"""Which messages a mailbox holds: reading and writing its pages, under the account's lock.

Writers read the pages they touch under the lock as one `Stretch`, work out what shall stand there, and write it: many
pages by one statement that names one account and takes whole columns, from which the database cuts each page's part.
What they changed is a `Change`: after COMMIT it is applied to the views that this worker holds open and becomes the
notice for the others.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from operator import sub
from typing import Any, NamedTuple, TypeAlias, cast

from storage.account_state import State
from storage.errors import LimitReached
from storage.packed import INT8, UINT4, integers, listed, pack, unpack
from storage.pages import PAGE_BITS, Page
from storage.records import KEYWORDS_AT, MAX_KEYWORDS, AccountId, Flag, Mailbox, MailboxId, Notice, Uid
from storage.store import Store

MAX_UID = 2**31 - 1

NAMES = ("uids", "message_ids", "flags", "modseqs", "sizes", "received", "saved")
TYPECODES = (UINT4, INT8, INT8, INT8, UINT4, INT8, INT8)
_COLUMNS = f"page, modseq, {', '.join(NAMES)}"
READ = f"""
SELECT {_COLUMNS} FROM mailbox_pages
WHERE account_id = $1 AND mailbox_id = $2 AND page = ANY($3::text::bigint[]) ORDER BY page
"""
READ_ALL = f"SELECT {_COLUMNS} FROM mailbox_pages WHERE account_id = $1 AND mailbox_id = $2 ORDER BY page"
READ_SINCE = f"""
SELECT {_COLUMNS} FROM mailbox_pages
WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3 ORDER BY page
"""
APPEND = f"""
INSERT INTO mailbox_pages AS p (account_id, mailbox_id, {_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
$11) ON CONFLICT (account_id, mailbox_id, page) DO UPDATE SET modseq = excluded.modseq, uids = p.uids ||
excluded.uids,
    message_ids = p.message_ids || excluded.message_ids, flags = p.flags || excluded.flags,
    modseqs = p.modseqs || excluded.modseqs, sizes = p.sizes || excluded.sizes,
    received = p.received || excluded.received, saved = p.saved || excluded.saved
"""
# Pages to be written: their numbers, and where in the columns each begins and how many messages it has.
_CUTS = "unnest($4::text::bigint[], $5::text::int[], $6::text::int[]) AS cut (number, start, count)"


def _part(argument: int, typecode: str, start: str = "cut.start") -> str:
    """SQL: a page's part of a column."""
    octets = array(typecode).itemsize
    return f"substr(${argument}::bytea, {octets} * {start} + 1, {octets} * cut.count)"


_PARTS = [_part(argument, typecode) for argument, typecode in enumerate(TYPECODES, 7)]
# modseqs and saved say the same of all new messages, so they are as long as one page.
_NEW_PARTS = [*_PARTS[:3], _part(10, INT8, "0"), *_PARTS[4:6], _part(13, INT8, "0")]
_ADD = f"""
INSERT INTO mailbox_pages (account_id, mailbox_id, {_COLUMNS}) SELECT $1, $2, cut.number, $3, {", ".join(_NEW_PARTS)}
FROM {_CUTS}
"""
_REWRITE = f"""
UPDATE mailbox_pages SET modseq = $3, {", ".join(f"{name} = {part}" for name, part in zip(NAMES, _PARTS, strict=True))}
FROM {_CUTS} WHERE account_id = $1 AND mailbox_id = $2 AND page = cut.number
"""
_REFLAG = f"""
UPDATE mailbox_pages SET modseq = $3, flags = {_part(7, INT8)}, modseqs = {_part(8, INT8)}
FROM {_CUTS} WHERE account_id = $1 AND mailbox_id = $2 AND page = cut.number
"""
_REMOVE = "DELETE FROM mailbox_pages WHERE account_id = $1 AND mailbox_id = $2 AND page = ANY($3::text::bigint[])"
# \\Recent may be claimed without the account's lock: all messages then lose it, those that leave among them.
COUNTERS = """
UPDATE mailboxes SET uidnext = $3, highestmodseq = $4, modseq = $4, keywords = $5, messages = $6, unseen = $7,
    deleted = $8, octets = $9, deleted_octets = $10,
    recent = greatest(0, recent + $11 - CASE WHEN recent_uid = $12 THEN $13 ELSE 0 END)
WHERE account_id = $1 AND mailbox_id = $2
"""
_USED_FLAGS = f"""
SELECT coalesce(bit_or(n), 0) FROM ({integers("flags", "mailbox_pages", "account_id = $1 AND mailbox_id = $2")}) AS used
"""
_USED_FLAGS_VANISHED = f"""
SELECT coalesce(bit_or(n), 0)
FROM ({integers("flags", "vanished", "account_id = $1 AND mailbox_id = $2 AND message_ids IS NOT NULL")}) AS used
"""

Places: TypeAlias = "range | list[int]"
"""Where in a stretch some messages stand, ascending; a range where they stand together."""

Cut: TypeAlias = tuple[int, int, int]
"""A page's part of a stretch: its number, and where it starts and stops."""

_PAGE = 1 << PAGE_BITS


@dataclass(slots=True)
class Stretch:
    """Messages of a mailbox in UID order, as parallel columns across page borders."""

    uids: array[int]
    message_ids: array[int]
    flags: array[int]
    modseqs: array[int]
    sizes: array[int]
    received: array[int]
    saved: array[int]

    def __len__(self) -> int:
        return len(self.uids)

    def columns(self) -> tuple[array[int], ...]:
        return (self.uids, self.message_ids, self.flags, self.modseqs, self.sizes, self.received, self.saved)

    def at(self, places: Places) -> Stretch:
        return Stretch(*(pick(column, places) for column in self.columns()))

    def extend(self, other: Stretch) -> None:
        """Adds messages with higher UIDs."""
        for column, more in zip(self.columns(), other.columns(), strict=True):
            column.extend(more)

    def places(self, uids: Sequence[int] | None) -> Places:
        """Where those of `uids` are that are here; None: all."""
        if uids is None or not uids:
            return range(len(self.uids) if uids is None else 0)
        wanted = array(UINT4, uids)
        start = bisect_left(self.uids, wanted[0])
        stop = start + len(wanted)
        if self.uids[start:stop] == wanted:
            return range(start, stop)
        known = set(uids)
        return [place for place, uid in enumerate(self.uids) if uid in known]

    def pages(self, modseq: int, parts: Sequence[Cut] | None = None) -> Iterator[Page]:
        """The pages of these messages (only `parts` of them), all at one version."""
        uids, message_ids, flags, modseqs, sizes, received, saved = self.columns()
        for number, start, stop in cuts(self.uids) if parts is None else parts:
            part = slice(start, stop)
            yield Page(
                number,
                modseq,
                uids[part],
                message_ids[part],
                flags[part],
                modseqs[part],
                sizes[part],
                received[part],
                saved[part],
            )


@dataclass(frozen=True, slots=True)
class Effect:
    """One mailbox before and after a transaction, with the pages it rewrote and those it emptied.

    pages: read once at most, so that they may be made where a view wants them.
    """

    before: Mailbox
    after: Mailbox
    pages: Iterable[Page]
    gone: Sequence[int] = ()
    appended: bool = False
    """The pages hold only what was appended; what stood in them before is not repeated."""
    stale: bool = False
    """The pages are not told: views have to read them."""


@dataclass(slots=True)
class Change:
    """What one transaction did to one account's mail; `source` and `uids` are COPYUID's two lists."""

    account_id: AccountId
    modseq: int
    effects: list[Effect]
    source: Sequence[Uid] = ()
    uids: Sequence[Uid] = ()

    def publish(self, store: Store) -> Notice:
        """After COMMIT: brings this worker's open views up to date and returns the notice for the others."""
        pages: dict[MailboxId, tuple[int, ...]] = {}
        for effect in self.effects:
            store.views.apply(effect)
            pages[effect.after.mailbox_id] = ()
        return Notice("mail", self.account_id, self.modseq, pages)


class Tally(NamedTuple):
    """What some messages add to a mailbox's counters."""

    messages: int
    unseen: int
    deleted: int
    octets: int
    deleted_octets: int


NOTHING = Tally(0, 0, 0, 0, 0)


def tally(flags: array[int], sizes: Sequence[int]) -> Tally:
    """The counters of messages with these flags and sizes."""
    system = pack(flags)[flags.itemsize - 1 :: flags.itemsize]  # the octets that hold the system flags
    unseen = system.translate(_LACKING[Flag.SEEN]).count(1)
    kept = system.translate(_LACKING[Flag.DELETED])
    deleted, octets = kept.count(0), sum(sizes)
    deleted_octets = octets - sum(compress(sizes, kept)) if deleted else 0
    return Tally(len(flags), unseen, deleted, octets, deleted_octets)


_LACKING = {flag: bytes(not octet & flag for octet in range(256)) for flag in (Flag.SEEN, Flag.DELETED)}
"""For each octet of flags 1 where it lacks a flag, else 0."""


def pick(column: array[int], places: Places) -> array[int]:
    """The values at these places."""
    if isinstance(places, range):
        return column[places.start : places.stop]
    return array(column.typecode, [column[place] for place in places])


def put(column: array[int], places: Places, values: array[int]) -> None:
    """Sets the values at these places."""
    if isinstance(places, range):
        column[places.start : places.stop] = values
    else:
        for place, value in zip(places, values, strict=True):
            column[place] = value


def as_uids(uids: Sequence[int]) -> Sequence[Uid]:
    """Ascending UIDs as results have them: a range where they follow each other."""
    together = bool(uids) and uids[-1] - uids[0] == len(uids) - 1
    return cast("Sequence[Uid]", range(uids[0], uids[-1] + 1) if together else tuple(uids))


def cuts(uids: Sequence[int]) -> list[Cut]:
    """Where ascending UIDs are cut into pages."""
    total = len(uids)
    if total and uids[-1] - uids[0] == total - 1:
        number, last = uids[0] >> PAGE_BITS, uids[-1] >> PAGE_BITS
        borders = range(((number + 1) << PAGE_BITS) - uids[0], total, _PAGE)
        return list(zip(range(number, last + 1), (0, *borders), (*borders, total), strict=True))
    found = []
    start = 0
    while start < total:
        number = uids[start] >> PAGE_BITS
        stop = bisect_left(uids, (number + 1) << PAGE_BITS, start)
        found.append((number, start, stop))
        start = stop
    return found


def numbers_of(uids: Sequence[int]) -> list[int]:
    """The pages of ascending UIDs."""
    return [number for number, _, _ in cuts(uids)]


def pages_of(rows: Sequence[Any]) -> list[Page]:
    """Rows of the page columns as shared, immutable pages."""
    return [Page(row[0], row[1], *map(unpack, TYPECODES, row[2:])) for row in rows]


async def read(conn: Any, mailbox: Mailbox, uids: Sequence[int] | None) -> Stretch:
    """All messages of the pages that may hold `uids`, which ascend; None: of all pages."""
    key = (mailbox.account_id, mailbox.mailbox_id)
    if uids is None:
        rows = await conn.fetch(READ_ALL, *key)
    else:
        rows = await conn.fetch(READ, *key, listed(numbers_of(uids)))
    octets = [b"".join([row[name] for row in rows]) for name in NAMES]
    held = Stretch(*map(unpack, TYPECODES, octets))
    if any(len(column) != len(held) for column in held.columns()):
        raise ValueError(f"mailbox {mailbox.mailbox_id} of account {mailbox.account_id}: its pages' columns do not fit")
    return held


def _cut_arguments(mailbox: Mailbox, modseq: int, parts: Sequence[Cut]) -> tuple[Any, ...]:
    """The first six arguments of the statements that write many pages."""
    numbers, starts, stops = zip(*parts, strict=True)
    counts = map(sub, stops, starts)
    return (mailbox.account_id, mailbox.mailbox_id, modseq, listed(numbers), listed(starts), listed(counts))


async def write_flags(
    conn: Any, mailbox: Mailbox, modseq: int, parts: Sequence[Cut], flags: array[int], modseqs: array[int]
) -> None:
    """Writes flags and modseqs of these pages, which are there; their version becomes `modseq`."""
    await conn.execute(_REFLAG, *_cut_arguments(mailbox, modseq, parts), pack(flags), pack(modseqs))


async def remove(
    conn: Any, mailbox: Mailbox, held: Stretch, leaving: Stretch, modseq: int
) -> tuple[Stretch, list[int]]:
    """Takes `leaving` out of the pages `held`: what is left of the pages that lost some, and which lost all."""
    lost = {number: slice(start, stop) for number, start, stop in cuts(leaving.uids)}
    gone, left = [], []
    for number, start, stop in cuts(held.uids):
        part = lost.get(number)
        if part is None:
            continue
        if part.stop - part.start == stop - start:
            gone.append(number)
        else:
            went = set(leaving.uids[part])
            left += [place for place in range(start, stop) if held.uids[place] not in went]
    rest = held.at(left)
    if left:
        arguments = _cut_arguments(mailbox, modseq, cuts(rest.uids))
        await conn.execute(_REWRITE, *arguments, *map(pack, rest.columns()))
    if gone:
        await conn.execute(_REMOVE, mailbox.account_id, mailbox.mailbox_id, listed(gone))
    return rest, gone


def append_arguments(mailbox: Mailbox, new: Stretch, modseq: int) -> Iterator[tuple[Any, ...]]:
    """The arguments of APPEND, page by page."""
    for number, start, stop in cuts(new.uids):
        columns = (pack(column[start:stop]) for column in new.columns())
        yield (mailbox.account_id, mailbox.mailbox_id, number, modseq, *columns)


async def append(conn: Any, mailbox: Mailbox, new: Stretch, modseq: int) -> None:
    """Adds new messages of one modseq; the first may belong to a page that is there."""
    first, *others = cuts(new.uids)
    (arguments,) = append_arguments(mailbox, new.at(range(first[2])), modseq)
    await conn.execute(APPEND, *arguments)
    if others:
        columns = replace(new, modseqs=new.modseqs[:_PAGE], saved=new.saved[:_PAGE]).columns()
        await conn.execute(_ADD, *_cut_arguments(mailbox, modseq, others), *map(pack, columns))


async def write_counters(conn: Any, after: Mailbox, *, added: int = 0, lost: int = 0) -> None:
    await conn.execute(COUNTERS, *counters(after, added=added, lost=lost))


def counters(after: Mailbox, *, added: int = 0, lost: int = 0) -> tuple[Any, ...]:
    """The arguments of COUNTERS; added and lost: how many messages with \\Recent came and went."""
    return (
        after.account_id,
        after.mailbox_id,
        after.uidnext,
        after.highestmodseq,
        list(after.keywords),
        after.messages,
        after.unseen,
        after.deleted,
        after.octets,
        after.deleted_octets,
        added,
        after.recent_uid,
        lost,
    )


def take_uids(mailbox: Mailbox, count: int) -> int:
    """The first of `count` new UIDs; LimitReached at the end of the UID space (RFC 3501 §2.3.1.1)."""
    if mailbox.uidnext + count - 1 > MAX_UID:
        raise LimitReached("the mailbox has used up its UIDs; copy its messages to a new one")
    return mailbox.uidnext


def stretch(
    first_uid: int, modseq: int, saved: int, columns: tuple[Iterable[int], Iterable[int], Sequence[int], Iterable[int]]
) -> Stretch:
    """New memberships with rising UIDs; columns: message_ids, flags, sizes, received."""
    message_ids, flags, sizes, received = columns
    count = len(sizes)
    return Stretch(
        array(UINT4, range(first_uid, first_uid + count)),
        array(INT8, message_ids),
        array(INT8, flags),
        array(INT8, [modseq]) * count,
        array(UINT4, sizes),
        array(INT8, received),
        array(INT8, [saved]) * count,
    )


def grown(mailbox: Mailbox, modseq: int, more: Tally) -> Mailbox:
    """The mailbox's row after these messages were appended."""
    return replace(
        counted(mailbox, modseq, more),
        uidnext=mailbox.uidnext + more.messages,
        recent=mailbox.recent + more.messages,
    )


def shrunk(mailbox: Mailbox, modseq: int, less: Tally, lost: int) -> Mailbox:
    """The mailbox's row after these messages left it; lost: how many of them had \\Recent."""
    return replace(counted(mailbox, modseq, NOTHING, less), recent=max(0, mailbox.recent - lost))


def counted(mailbox: Mailbox, modseq: int, more: Tally, less: Tally = NOTHING) -> Mailbox:
    """The mailbox's row with its counters raised by `more` and lowered by `less`."""
    return replace(
        mailbox,
        highestmodseq=modseq,
        modseq=modseq,
        messages=mailbox.messages + more.messages - less.messages,
        unseen=mailbox.unseen + more.unseen - less.unseen,
        deleted=mailbox.deleted + more.deleted - less.deleted,
        octets=mailbox.octets + more.octets - less.octets,
        deleted_octets=mailbox.deleted_octets + more.deleted_octets - less.deleted_octets,
    )


def recent_of(mailbox: Mailbox, uids: Sequence[int]) -> int:
    """How many of these UIDs, which ascend, are \\Recent."""
    return len(uids) - bisect_left(uids, mailbox.recent_uid)


async def keyword_bits(
    conn: Any, state: State, mailbox: Mailbox, names: Sequence[str], allot: bool, reserved: int = 0
) -> tuple[int, Mailbox]:
    """Flag bits of keywords, case-insensitively; `allot` gives a bit to a name that has none (LimitReached).

    reserved: bits that messages hold though the database does not show it yet.
    """
    keywords = list(mailbox.keywords)
    known = {name.lower(): i for i, name in enumerate(keywords) if name}
    wanted = {name.lower(): name for name in reversed(names)}
    bits = sum(1 << (KEYWORDS_AT + known[lower]) for lower in wanted if lower in known)
    for name in [name for lower, name in reversed(wanted.items()) if lower not in known and allot]:
        index = await _free_bit(conn, mailbox, keywords, bits | reserved)
        keywords[index : index + 1] = [name]
        bits |= 1 << (KEYWORDS_AT + index)
    if tuple(keywords) != mailbox.keywords:
        mailbox = replace(mailbox, keywords=tuple(keywords))
    return bits, mailbox


async def _free_bit(conn: Any, mailbox: Mailbox, keywords: list[str], reserved: int) -> int:
    if len(keywords) < MAX_KEYWORDS:
        return len(keywords)
    key = (mailbox.account_id, mailbox.mailbox_id)
    used = await conn.fetchval(_USED_FLAGS, *key) | await conn.fetchval(_USED_FLAGS_VANISHED, *key) | reserved
    for index in range(len(keywords)):
        if not used >> (KEYWORDS_AT + index) & 1:
            return index
    raise LimitReached(f"a mailbox holds at most {MAX_KEYWORDS} keywords")


def translate_keywords(flags: int, source: Mailbox, bits: dict[str, int]) -> int:
    """A message's flags in another mailbox, whose keyword bits are `bits` by lower-case name."""
    own = flags >> KEYWORDS_AT
    if not own:
        return flags
    translated = flags & ((1 << KEYWORDS_AT) - 1)
    for index, name in enumerate(source.keywords):
        if own >> index & 1:
            translated |= bits.get(name.lower(), 0)
    return translated
