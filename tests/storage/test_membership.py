from __future__ import annotations

import pytest

from storage import membership
from storage.errors import LimitReached
from storage.records import Flag
from tests.storage.test_pages import mailbox


@pytest.mark.parametrize(
    ("first", "count", "pages"),
    [
        (1, 1, [(0, [1])]),
        (1, 64, [(0, list(range(1, 64))), (1, [64])]),
        (63, 3, [(0, [63]), (1, [64, 65])]),
        (64, 64, [(1, list(range(64, 128)))]),
        (100, 100, [(1, list(range(100, 128))), (2, list(range(128, 192))), (3, list(range(192, 200)))]),
    ],
)
def test_new_memberships_are_cut_into_pages(first: int, count: int, pages: list[tuple[int, list[int]]]) -> None:
    values = list(range(count))
    made = membership.new_pages(first, 9, 5, (values, values, values, values))
    assert [(page.number, page.uids) for page in made] == pages
    assert [value for page in made for value in page.message_ids] == values
    assert all(page.modseqs == [9] * len(page.uids) and page.saved == [5] * len(page.uids) for page in made)


def test_growing_and_shrinking_are_inverse() -> None:
    flags = [0, Flag.SEEN, Flag.DELETED, Flag.SEEN | Flag.DELETED]
    sizes = [1, 10, 100, 1000]
    before = mailbox(uidnext=1, unseen=0)
    grown = membership.grown(before, 2, flags, sizes)
    assert (grown.uidnext, grown.messages, grown.unseen, grown.recent) == (5, 4, 2, 4)
    assert (grown.deleted, grown.octets, grown.deleted_octets) == (2, 1111, 1100)
    shrunk = membership.shrunk(grown, 3, [1, 2, 3, 4], flags, sizes)
    assert (shrunk.messages, shrunk.unseen, shrunk.recent, shrunk.deleted, shrunk.octets) == (0, 0, 0, 0, 0)
    assert (shrunk.uidnext, shrunk.highestmodseq) == (5, 3)


def test_uids_end() -> None:
    assert membership.take_uids(mailbox(uidnext=2**31 - 1), 1) == 2**31 - 1
    with pytest.raises(LimitReached):
        membership.take_uids(mailbox(uidnext=2**31 - 1), 2)


@pytest.mark.parametrize(
    ("flags", "there"),
    [(Flag.SEEN, Flag.SEEN), (1 << 5, 1 << 7), (Flag.SEEN | 0b11 << 5, Flag.SEEN | 1 << 7), (1 << 6, 0)],
)
def test_keywords_are_translated(flags: int, there: int) -> None:
    assert membership.translate_keywords(flags, mailbox(keywords=("Work", "home")), {"work": 1 << 7}) == there
