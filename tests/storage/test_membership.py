from __future__ import annotations

from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import membership
from storage.errors import LimitReached
from storage.packed import INT8, UINT4
from storage.records import Flag
from tests.storage.test_pages import UIDS, mailbox


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
    new = membership.stretch(first, 9, 5, (values, values, values, values))
    made = list(new.pages(9))
    assert [(page.number, page.uids.tolist()) for page in made] == pages
    assert [value for page in made for value in page.message_ids] == values
    assert all(set(page.modseqs) == {9} and set(page.saved) == {5} and page.modseq == 9 for page in made)


def test_growing_and_shrinking_are_inverse() -> None:
    flags = array(INT8, [0, Flag.SEEN, Flag.DELETED, Flag.SEEN | Flag.DELETED])
    before = mailbox(uidnext=1, unseen=0)
    tally = membership.tally(flags, [1, 10, 100, 1000])
    grown = membership.grown(before, 2, tally)
    assert (grown.uidnext, grown.messages, grown.unseen, grown.recent) == (5, 4, 2, 4)
    assert (grown.deleted, grown.octets, grown.deleted_octets) == (2, 1111, 1100)
    shrunk = membership.shrunk(grown, 3, tally, 4)
    assert (shrunk.messages, shrunk.unseen, shrunk.recent, shrunk.deleted, shrunk.octets) == (0, 0, 0, 0, 0)
    assert (shrunk.uidnext, shrunk.highestmodseq) == (5, 3)


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1)), max_size=20))
@settings(max_examples=100, derandomize=True)
def test_a_tally_counts(messages: list[tuple[int, int]]) -> None:
    flags, sizes = array(INT8, [kind for kind, _ in messages]), [size for _, size in messages]
    deleted = [size for kind, size in messages if kind & Flag.DELETED]
    unseen = [kind for kind in flags if not kind & Flag.SEEN]
    assert membership.tally(flags, sizes) == (len(flags), len(unseen), len(deleted), sum(sizes), sum(deleted))


def stretch_of(uids: list[int]) -> membership.Stretch:
    """Messages whose columns can be told apart."""
    wide = [array(INT8, [uid << column for uid in uids]) for column in range(5)]
    return membership.Stretch(array(UINT4, uids), *wide[:3], array(UINT4, uids), *wide[3:])


@given(UIDS)
@settings(max_examples=100, derandomize=True)
def test_cuts_are_the_pages(uids: list[int]) -> None:
    uids.sort()
    parts = membership.cuts(array(UINT4, uids))
    assert [number for number, _, _ in parts] == sorted({uid >> 6 for uid in uids}) == membership.numbers_of(uids)
    assert [uid for _, start, stop in parts for uid in uids[start:stop]] == uids
    assert all({uid >> 6 for uid in uids[start:stop]} == {number} for number, start, stop in parts)


@given(UIDS, UIDS, st.booleans())
@settings(max_examples=200, derandomize=True)
def test_messages_are_found_by_uid(held: list[int], wanted: list[int], together: bool) -> None:
    """Also where they are a run, where some of them are not there, and where none are."""
    held.sort()
    wanted.sort()
    if together and held:
        wanted = held[len(held) // 3 : len(held) // 2]
    stretch = stretch_of(held)
    found = stretch.at(stretch.places(wanted))
    assert found.uids.tolist() == [uid for uid in held if uid in set(wanted)]
    assert found.received.tolist() == [uid << 3 for uid in found.uids]
    assert stretch.at(stretch.places(None)) == stretch


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
