"""What a session knew of its mailbox, worked out again from the database after its pages were given up.

A snapshot that was true at the mailbox's mod-sequence H is told by the mailbox's row as it was then. Its pages are:
those that no change after H has touched, as they are; of the others the messages with a UID that was given out by
then, and those that have vanished since. What was known of a message that was changed after H, or that has vanished, is
lost: it stands with mod-sequence 0, which none has, so that whoever compares finds it different. Whether all are there
again, the number of messages says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from storage.packed import UINT4, unpack
from storage.pages import PAGE_BITS, Page, Snapshot
from storage.records import Mailbox

VANISHED_SINCE = """
SELECT modseq, uids FROM vanished
WHERE account_id = $1 AND mailbox_id = $2 AND modseq > $3
"""
"""To be read in one snapshot of the database with all pages."""

_LOST = 0
_Row = tuple[int, ...]


def is_foldable(snapshot: Snapshot) -> bool:
    """Is it exactly what its mailbox's row tells? One with messages that are gone, or ahead of its row, is not."""
    mailbox = snapshot.mailbox
    return snapshot.count == mailbox.messages and all(page.modseq <= mailbox.highestmodseq for page in snapshot.pages)


class Known(NamedTuple):
    """The pages of a snapshot; vague: something of them is lost."""

    pages: list[Page]
    vague: bool


def as_known(known: Mailbox, pages: Sequence[Page], vanished: Iterable[Any]) -> Known | None:
    """What a folded snapshot held; None where it cannot be known any more. pages: all as they are now."""
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
        return None
    return Known(found, any(_LOST in page.modseqs for page in found))


def _still(page: Page, known: Mailbox) -> Iterable[_Row]:
    """Messages of a changed page that were there, as rows of its columns."""
    columns = (page.uids, page.message_ids, page.flags, page.modseqs, page.sizes, page.received, page.saved)
    for row in zip(*columns, strict=True):
        if row[0] < known.uidnext:
            yield row if row[3] <= known.highestmodseq else (*row[:3], _LOST, *row[4:])


def _gone(vanished: Iterable[Any], known: Mailbox) -> dict[int, list[_Row]]:
    """Messages that were there and have vanished since, as rows of a page's columns, by page."""
    found: dict[int, list[_Row]] = {}
    for modseq, uids in vanished:
        if modseq > known.highestmodseq:
            for uid in unpack(UINT4, uids):
                if uid < known.uidnext:
                    found.setdefault(uid >> PAGE_BITS, []).append((uid, 0, 0, _LOST, 0, 0, 0))
    return found


def _page(number: int, known: Mailbox, rows: list[_Row]) -> list[Page]:
    return [Page(number, known.highestmodseq, *zip(*sorted(rows), strict=True))] if rows else []
