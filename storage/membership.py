"""Which messages a mailbox holds: reading and writing its pages, under the account's lock.

Writers read the pages they touch under the lock, work out whole new pages, and write them by single-row statements,
each naming one account. What they changed is a `Change`: after COMMIT it is applied to the views that this worker
holds open and becomes the notice for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from storage.account_state import State
from storage.errors import LimitReached
from storage.pages import PAGE_BITS, Page
from storage.records import KEYWORDS_AT, MAX_KEYWORDS, AccountId, Flag, Mailbox, MailboxId, Notice
from storage.store import Store

MAX_UID = 2**31 - 1

_COLUMNS = "page, modseq, uids, message_ids, flags, modseqs, sizes, received, saved"
READ = f"""
SELECT {_COLUMNS} FROM mailbox_pages
WHERE account_id = $1 AND mailbox_id = $2 AND page = ANY($3) ORDER BY page
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
_REWRITE = """
UPDATE mailbox_pages SET modseq = $4, uids = $5, message_ids = $6, flags = $7, modseqs = $8, sizes = $9, received = $10,
    saved = $11
WHERE account_id = $1 AND mailbox_id = $2 AND page = $3
"""
_REFLAG = """
UPDATE mailbox_pages SET modseq = $4, flags = $5, modseqs = $6 WHERE account_id = $1 AND mailbox_id = $2 AND page = $3
"""
_REMOVE = "DELETE FROM mailbox_pages WHERE account_id = $1 AND mailbox_id = $2 AND page = ANY($3)"
COUNTERS = """
UPDATE mailboxes SET uidnext = $3, highestmodseq = $4, modseq = $4, recent = recent + $5, keywords = $6, messages = $7,
    unseen = $8, deleted = $9, octets = $10, deleted_octets = $11
WHERE account_id = $1 AND mailbox_id = $2
"""
# \\Recent may be claimed without the account's lock, so it changes only relatively, by recent_uid as it stands now.
_LESS_RECENT = """
UPDATE mailboxes SET recent = greatest(0, recent - (SELECT count(*) FROM unnest($3::int[]) AS u WHERE u >= recent_uid))
WHERE account_id = $1 AND mailbox_id = $2
"""
_USED_FLAGS = """
SELECT coalesce(bit_or(f), 0) FROM mailbox_pages, unnest(flags) AS f WHERE account_id = $1 AND mailbox_id = $2
"""
_USED_FLAGS_VANISHED = """
SELECT coalesce(bit_or(f), 0) FROM vanished, unnest(flags) AS f
WHERE account_id = $1 AND mailbox_id = $2 AND message_ids IS NOT NULL
"""


@dataclass(slots=True)
class Lists:
    """A page as it comes from and goes to the database: plain lists, free to be changed."""

    number: int
    modseq: int
    uids: list[int]
    message_ids: list[int]
    flags: list[int]
    modseqs: list[int]
    sizes: list[int]
    received: list[int]
    saved: list[int]

    def columns(self) -> tuple[list[int], ...]:
        return (self.uids, self.message_ids, self.flags, self.modseqs, self.sizes, self.received, self.saved)

    def page(self) -> Page:
        return Page(self.number, self.modseq, *self.columns())


@dataclass(frozen=True, slots=True)
class Effect:
    """One mailbox before and after a transaction, with the pages it rewrote and those it emptied."""

    before: Mailbox
    after: Mailbox
    pages: Sequence[Page]
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
    source: tuple[int, ...] = ()
    uids: tuple[int, ...] = ()

    def publish(self, store: Store) -> Notice:
        """After COMMIT: brings this worker's open views up to date and returns the notice for the others."""
        pages: dict[MailboxId, tuple[int, ...]] = {}
        for effect in self.effects:
            store.views.apply(effect)
            pages[effect.after.mailbox_id] = (*(page.number for page in effect.pages), *effect.gone)
        return Notice("mail", self.account_id, self.modseq, pages)


def lists(row: Any) -> Lists:
    return Lists(*row)


def page_of(row: Any) -> Page:
    """A row of the page columns as a shared, immutable page."""
    return Page(*row)


def numbers_of(uids: Iterable[int]) -> list[int]:
    return sorted({uid >> PAGE_BITS for uid in uids})


async def read(conn: Any, mailbox: Mailbox, uids: Sequence[int] | None) -> list[Lists]:
    """The pages that may hold `uids`, in order; None: all."""
    key = (mailbox.account_id, mailbox.mailbox_id)
    if uids is None:
        rows = await conn.fetch(READ_ALL, *key)
    else:
        rows = await conn.fetch(READ, *key, numbers_of(uids))
    return [lists(row) for row in rows]


async def write_flags(conn: Any, mailbox: Mailbox, pages: Iterable[Lists]) -> None:
    key = (mailbox.account_id, mailbox.mailbox_id)
    await conn.executemany(_REFLAG, [(*key, p.number, p.modseq, p.flags, p.modseqs) for p in pages])


async def write_rest(conn: Any, mailbox: Mailbox, pages: Sequence[Lists], expunged: list[int]) -> list[int]:
    """Writes pages that lost messages and deletes the emptied ones, whose numbers it returns."""
    key = (mailbox.account_id, mailbox.mailbox_id)
    kept = [(*key, p.number, p.modseq, *p.columns()) for p in pages if p.uids]
    gone = [p.number for p in pages if not p.uids]
    if kept:
        await conn.executemany(_REWRITE, kept)
    if gone:
        await conn.execute(_REMOVE, *key, gone)
    await conn.execute(_LESS_RECENT, *key, expunged)
    return gone


async def append(conn: Any, mailbox: Mailbox, pages: Iterable[Lists]) -> None:
    key = (mailbox.account_id, mailbox.mailbox_id)
    await conn.executemany(APPEND, [(*key, p.number, p.modseq, *p.columns()) for p in pages])


async def write_counters(conn: Any, after: Mailbox, recent: int) -> None:
    await conn.execute(COUNTERS, *counters(after, recent))


def counters(after: Mailbox, recent: int) -> tuple[Any, ...]:
    """The arguments of COUNTERS; recent is what is added to it."""
    return (
        after.account_id,
        after.mailbox_id,
        after.uidnext,
        after.highestmodseq,
        recent,
        list(after.keywords),
        after.messages,
        after.unseen,
        after.deleted,
        after.octets,
        after.deleted_octets,
    )


def take_uids(mailbox: Mailbox, count: int) -> int:
    """The first of `count` new UIDs; LimitReached at the end of the UID space (RFC 3501 §2.3.1.1)."""
    if mailbox.uidnext + count - 1 > MAX_UID:
        raise LimitReached("the mailbox has used up its UIDs; copy its messages to a new one")
    return mailbox.uidnext


def new_pages(first_uid: int, modseq: int, saved: int, columns: tuple[Sequence[int], ...]) -> list[Lists]:
    """New memberships with rising UIDs, cut into pages; columns: message_ids, flags, sizes, received."""
    message_ids, flags, sizes, received = columns
    pages = []
    position, total = 0, len(message_ids)
    while position < total:
        uid = first_uid + position
        end = min(total, position + (((uid >> PAGE_BITS) + 1) << PAGE_BITS) - uid)
        count = end - position
        pages.append(
            Lists(
                uid >> PAGE_BITS,
                modseq,
                list(range(uid, uid + count)),
                list(message_ids[position:end]),
                list(flags[position:end]),
                [modseq] * count,
                list(sizes[position:end]),
                list(received[position:end]),
                [saved] * count,
            )
        )
        position = end
    return pages


def grown(mailbox: Mailbox, modseq: int, flags: Sequence[int], sizes: Sequence[int]) -> Mailbox:
    """The mailbox's row after messages with these flags and sizes were appended."""
    deleted = [size for flag, size in zip(flags, sizes, strict=True) if flag & Flag.DELETED]
    return replace(
        mailbox,
        uidnext=mailbox.uidnext + len(flags),
        highestmodseq=modseq,
        modseq=modseq,
        recent=mailbox.recent + len(flags),
        messages=mailbox.messages + len(flags),
        unseen=mailbox.unseen + sum(1 for flag in flags if not flag & Flag.SEEN),
        deleted=mailbox.deleted + len(deleted),
        octets=mailbox.octets + sum(sizes),
        deleted_octets=mailbox.deleted_octets + sum(deleted),
    )


def shrunk(mailbox: Mailbox, modseq: int, uids: Sequence[int], flags: Sequence[int], sizes: Sequence[int]) -> Mailbox:
    """The mailbox's row after messages with these UIDs, flags and sizes left it."""
    deleted = [size for flag, size in zip(flags, sizes, strict=True) if flag & Flag.DELETED]
    return replace(
        mailbox,
        highestmodseq=modseq,
        modseq=modseq,
        recent=max(0, mailbox.recent - sum(1 for uid in uids if uid >= mailbox.recent_uid)),
        messages=mailbox.messages - len(flags),
        unseen=mailbox.unseen - sum(1 for flag in flags if not flag & Flag.SEEN),
        deleted=mailbox.deleted - len(deleted),
        octets=mailbox.octets - sum(sizes),
        deleted_octets=mailbox.deleted_octets - sum(deleted),
    )


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
