"""Snapshots: finding by sequence number and UID, and replacing pages, against a plain list."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.pages import Page, Snapshot
from storage.records import AccountId, Flag, Mailbox, MailboxId


def mailbox(**changes: object) -> Mailbox:
    values: dict[str, object] = {
        "account_id": AccountId(1),
        "mailbox_id": MailboxId(1),
        "name": ("INBOX",),
        "uidvalidity": 1,
        "uidnext": 1,
        "highestmodseq": 1,
        "modseq": 1,
        "recent": 0,
        "recent_uid": 1,
        "special_use": None,
        "keywords": (),
        "messages": 0,
        "unseen": 1,
        "deleted": 0,
        "octets": 0,
        "deleted_octets": 0,
    }
    return Mailbox(**{**values, **changes})  # type: ignore[arg-type]


def pages_of(uids: list[int], modseq: int = 1, flags: int = 0) -> list[Page]:
    numbers = sorted({uid >> 6 for uid in uids})
    return [
        Page(n, modseq, u, [uid * 10 for uid in u], [flags] * len(u), [modseq] * len(u), u, u, u)
        for n in numbers
        if (u := sorted(uid for uid in uids if uid >> 6 == n))
    ]


def snapshot(uids: list[int]) -> Snapshot:
    return Snapshot(mailbox(), pages_of(uids))


UIDS = st.lists(st.integers(1, 400), unique=True, max_size=80)


@given(UIDS)
@settings(max_examples=60, derandomize=True)
def test_finds_what_a_sorted_list_finds(uids: list[int]) -> None:
    held, expected = snapshot(uids), sorted(uids)
    assert held.count == len(held) == len(expected)
    assert held.uids() == expected
    assert [held.uid_at(seq) for seq in range(1, len(expected) + 1)] == expected
    assert [entry.uid for entry in held.entries()] == expected
    assert [entry.seq for entry in held.entries()] == list(range(1, len(expected) + 1))
    assert held.max_uid == max(expected, default=0)
    for uid in range(1, 402):
        assert held.seq_of(uid) == (expected.index(uid) + 1 if uid in expected else 0)
        assert held.count_below(uid) == sum(1 for other in expected if other < uid)


@given(UIDS, UIDS)
@settings(max_examples=60, derandomize=True)
def test_replacing_pages_is_like_loading_anew(before: list[int], after: list[int]) -> None:
    old = snapshot(before)
    new_pages = pages_of(after, modseq=2)
    gone = {page.number for page in old.pages} - {page.number for page in new_pages}
    new = old.replaced(mailbox(highestmodseq=2), new_pages, sorted(gone))
    assert new.uids() == sorted(after)
    assert new.starts == Snapshot(mailbox(), new_pages).starts
    assert old.uids() == sorted(before)


def test_untouched_pages_are_the_same_objects() -> None:
    old = snapshot([1, 64, 128])
    new = old.replaced(mailbox(), pages_of([65], modseq=2))
    assert [a is b for a, b in zip(old.pages, new.pages, strict=True)] == [True, False, True]


def test_an_older_page_does_not_replace_a_newer_one() -> None:
    old = Snapshot(mailbox(), pages_of([1, 2], modseq=9))
    assert old.replaced(mailbox(), pages_of([1], modseq=8)).uids() == [1, 2]


def test_positions_outside_are_refused() -> None:
    held = snapshot([5])
    for seq in (0, 2, -1):
        try:
            held.at(seq)
        except IndexError:
            continue
        raise AssertionError(seq)
    assert held.entry(6) is None


def test_first_unseen() -> None:
    seen, unseen = pages_of([1, 2], flags=Flag.SEEN), pages_of([64, 65])
    assert Snapshot(mailbox(), [*seen, *unseen]).first_unseen() == 3
    assert Snapshot(mailbox(unseen=0), [*seen, *unseen]).first_unseen() == 0
