"""Pages of a mailbox, newest first, and where a message is."""

from __future__ import annotations

import pytest

from storage import inbox, mailboxes, messages
from storage.errors import NotFound
from storage.records import INBOX, Flag, FlagChange, MailboxId, MessageId
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, deliver, place

NEWEST = 2**31


async def fill(store: Store, count: int) -> None:
    for number in range(count):
        await deliver(store, text=b"Subject: %d\r\n\r\nhello\r\n" % number)


async def uids(store: Store, limit: int) -> list[list[int]]:
    """All pages of Alice's INBOX."""
    pages, before = [], NEWEST
    while True:
        listed = await inbox.page(store, ALICE, INBOX, before, limit)
        pages.append([entry.uid for entry in listed.entries])
        if not listed.more:
            return pages
        before = listed.entries[-1].uid


async def expunge(store: Store, numbers: list[int]) -> None:
    await messages.store_flags(store, ALICE, INBOX, numbers, FlagChange("+", Flag.DELETED))
    await messages.expunge(store, ALICE, INBOX, numbers)


async def test_an_empty_mailbox(store: Store) -> None:
    listed = await inbox.page(store, ALICE, INBOX, NEWEST, 10)
    assert (listed.entries, listed.more, listed.messages) == ([], False, 0)


@pytest.mark.parametrize("limit", [1, 7, 64, 100])
async def test_pages_hold_every_message_once_newest_first(store: Store, limit: int) -> None:
    await fill(store, 150)
    await expunge(store, [1, 2, 64, 65, 149])
    pages = await uids(store, limit)
    assert [uid for page in pages for uid in page] == [u for u in range(150, 0, -1) if u not in (1, 2, 64, 65, 149)]
    assert all(len(page) == limit for page in pages[:-1])


async def test_sparse_pages(store: Store) -> None:
    await fill(store, 700)
    await expunge(store, [uid for uid in range(1, 701) if uid % 70])
    assert await uids(store, 4) == [[700, 630, 560, 490], [420, 350, 280, 210], [140, 70]]


async def test_flags_and_counts(store: Store) -> None:
    await fill(store, 3)
    await messages.store_flags(store, ALICE, INBOX, [2], FlagChange("+", Flag.SEEN | Flag.FLAGGED, ("$Work",)))
    listed = await inbox.page(store, ALICE, INBOX, NEWEST, 10)
    assert (listed.messages, listed.unseen, listed.more) == (3, 2, False)
    flags = [inbox.flag_names(entry.flags, listed.keywords) for entry in listed.entries]
    assert flags == [(), ("\\Seen", "\\Flagged", "$Work"), ()]


async def test_a_mailbox_that_is_not_there(store: Store) -> None:
    with pytest.raises(NotFound):
        await inbox.page(store, ALICE, MailboxId(99), NEWEST, 10)


async def test_a_message_is_found_in_all_its_mailboxes_and_by_its_owner_alone(store: Store) -> None:
    await fill(store, 70)
    (placed,) = await deliver(store)
    await fill(store, 3)
    sent = await mailboxes.find(store, ALICE, ("Sent",))
    await messages.copy(store, ALICE, INBOX, [placed.uid], sent.mailbox_id)
    await messages.store_flags(store, ALICE, sent.mailbox_id, [1], FlagChange("+", Flag.SEEN))
    detail, places = await inbox.detail(store, ALICE, placed.message_id)
    assert detail.message_id == placed.message_id
    assert [(place.mailbox_id, place.uid, place.flags) for place in places] == [
        (INBOX, 71, ()),
        (sent.mailbox_id, 1, ("\\Seen",)),
    ]
    for account, message_id in ((BOB, placed.message_id), (ALICE, MessageId(placed.message_id + 1))):
        with pytest.raises(NotFound):
            await inbox.detail(store, account, message_id)


async def test_an_expunged_message_is_gone(store: Store) -> None:
    (placed,) = await deliver(store, [place(ALICE)])
    await expunge(store, [placed.uid])
    with pytest.raises(NotFound):
        await inbox.detail(store, ALICE, placed.message_id)
    sent = await mailboxes.find(store, ALICE, ("Sent",))
    (placed,) = await deliver(store, [place(ALICE, sent.mailbox_id)])
    await mailboxes.delete(store, ALICE, sent.mailbox_id)
    with pytest.raises(NotFound):
        await inbox.detail(store, ALICE, placed.message_id)


async def test_overviews(store: Store) -> None:
    (placed,) = await deliver(store, text=b"Subject: x\r\n\r\nhello\r\n")
    found = await inbox.overviews(store, ALICE, [placed.message_id, 5])
    assert list(found) == [placed.message_id]
    assert (found[placed.message_id].size, found[placed.message_id].preview) == (21, "hello")
