"""What a session knew of its mailbox, worked out again from the database after its pages were given up.

A snapshot that was true at the mailbox's mod-sequence H is told by the mailbox's row as it was then. Its pages are:
those that no change after H has touched, as they are; of the others the messages with a UID that was given out by
then, and those that have vanished since. A message changed after H stands with mod-sequence 0, which none has, so that
whoever compares finds it different. Whether all are there again, the number of messages says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from storage.packed import INT8, UINT4, unpack
from storage.pages import PAGE_BITS, Page, Snapshot
from storage.records import Mailbox

VANISHED_SINCE = """
SELECT modseq, uids, message_ids, flags, sizes, received FROM vanished
WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3
"""
"""To be read in one snapshot of the database with all pages."""

_CHANGED = 0
_Row = tuple[int, ...]


def is_foldable(snapshot: Snapshot) -> bool:
    """Is it exactly what its mailbox's row tells? One with messages that are gone, or ahead of its row, is not."""
    mailbox = snapshot.mailbox
    return snapshot.count == mailbox.messages and all(page.modseq <= mailbox.highestmodseq for page in snapshot.pages)


def unfold(snapshot: Snapshot, pages: Sequence[Page], vanished: Iterable[Any]) -> bool:
    """Gives a folded snapshot its pages back; False where they cannot be known any more. pages: all as they are now."""
    known = snapshot.mailbox
    gone = _gone(vanished, known)
    found: list[Page] = []
    for page in pages:
        rows = gone.pop(page.number, [])
        if page.modseq <= known.highestmodseq and not rows:
            found.append(page)
        else:
            found += _page(page.number, known, [*_still(page, known), *rows])
    for number, rows in gone.items():
        found += _page(number, known, rows)
    found.sort(key=lambda page: page.number)
    if sum(map(len, found)) != known.messages:
        return False
    snapshot.unfold(found)
    return True


def _still(page: Page, known: Mailbox) -> Iterable[_Row]:
    """Messages of a changed page that were there, as rows of its columns."""
    columns = (page.uids, page.message_ids, page.flags, page.modseqs, page.sizes, page.received, page.saved)
    for row in zip(*columns, strict=True):
        if row[0] < known.uidnext:
            yield row if row[3] <= known.highestmodseq else (*row[:3], _CHANGED, *row[4:])


def _gone(vanished: Iterable[Any], known: Mailbox) -> dict[int, list[_Row]]:
    """Messages that were there and have vanished since, as rows of a page's columns, by page. Moved ones have no id."""
    found: dict[int, list[_Row]] = {}
    for modseq, uids, *rest in vanished:
        if modseq > known.highestmodseq:
            for uid, *values in _columns(uids, rest):
                if uid < known.uidnext:
                    message_id, flags, size, received = values
                    row = (uid, message_id, flags, _CHANGED, size, received, 0)
                    found.setdefault(uid >> PAGE_BITS, []).append(row)
    return found


def _columns(uids: bytes, rest: Sequence[bytes | None]) -> Iterable[_Row]:
    numbers = unpack(UINT4, uids)
    empty = [0] * len(numbers)
    columns = [
        empty if octets is None else unpack(typecode, octets)
        for typecode, octets in zip((INT8, INT8, UINT4, INT8), rest, strict=True)
    ]
    return zip(numbers, *columns, strict=True)


def _page(number: int, known: Mailbox, rows: list[_Row]) -> list[Page]:
    return [Page(number, known.highestmodseq, *zip(*sorted(rows), strict=True))] if rows else []
