"""Purging: what nothing holds any more goes, with its octets; what something holds stays."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from storage import housekeeping, mailboxes, messages
from storage.directory_blobs import DirectoryBlobs
from storage.records import INBOX, Flag, FlagChange
from storage.store import Store
from tests.storage.blob_stores import all_listed
from tests.storage.conftest import ALICE, deliver
from tests.storage.test_messages import check_all, fill

LATER = time.time() + 1e9


async def counts(store: Store) -> dict[str, int]:
    async with store.acquire() as conn:
        tables = ("messages", "message_contents", "blob_refs")
        return {table: await conn.fetchval(f"SELECT count(*) FROM {table}") for table in tables}


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping, "GRACE_SECONDS", -100)


async def expunge_all(store: Store) -> None:
    everything = range(1, 1000)
    await messages.store_flags(store, ALICE, INBOX, everything, FlagChange("+", Flag.DELETED))
    await messages.expunge(store, ALICE, INBOX, None)


@pytest.mark.usefixtures("no_grace")
async def test_expunged_messages_go_and_their_uids_stay(store: Store) -> None:
    await deliver(store, blobs=(b"b" * 70_000,))
    await fill(store, 9)
    await expunge_all(store)
    assert await housekeeping.purge(store, ALICE, time.time() - 100) == 0
    assert await housekeeping.purge(store, ALICE, LATER) == 10
    assert await counts(store) == {"messages": 0, "message_contents": 0, "blob_refs": 0}
    async with store.acquire() as conn:
        assert await conn.fetchval("SELECT length(uids) FROM vanished") == 40
        assert await conn.fetchval("SELECT undelete_octets FROM account_state WHERE account_id = 1") == 0
    await check_all(store)


@pytest.mark.usefixtures("no_grace")
async def test_a_copy_holds_the_message(store: Store) -> None:
    await fill(store, 2)
    drafts = await mailboxes.find(store, ALICE, ("Drafts",))
    await messages.copy(store, ALICE, INBOX, [1], drafts.mailbox_id)
    await expunge_all(store)
    assert await housekeeping.purge(store, ALICE, LATER) == 1
    assert (await counts(store))["messages"] == 1


@pytest.mark.usefixtures("no_grace")
async def test_a_moved_message_holds_nothing_behind(store: Store) -> None:
    await fill(store, 1)
    drafts = await mailboxes.find(store, ALICE, ("Drafts",))
    await messages.move(store, ALICE, INBOX, [1], drafts.mailbox_id)
    assert await housekeeping.purge(store, ALICE, LATER) == 0
    assert (await counts(store))["messages"] == 1


@pytest.mark.usefixtures("no_grace")
async def test_a_deleted_mailbox_goes_with_its_messages(store: Store) -> None:
    box = await mailboxes.create(store, ALICE, ("x",))
    await fill(store, 3)
    await messages.move(store, ALICE, INBOX, [1, 2], box.mailbox_id)
    await mailboxes.delete(store, ALICE, box.mailbox_id)
    assert await housekeeping.purge(store, ALICE, LATER) == 2
    async with store.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM mailboxes WHERE deleted_at IS NOT NULL") == 0
    await check_all(store)


async def test_a_young_message_is_left_to_its_readers(store: Store) -> None:
    await fill(store, 1)
    await expunge_all(store)
    assert await housekeeping.purge(store, ALICE, LATER) == 0
    assert (await counts(store))["messages"] == 1


async def test_one_housekeeper_at_a_time(store: Store) -> None:
    async with store.acquire() as conn:
        await conn.fetchval("SELECT pg_advisory_lock($1)", housekeeping._LOCK_KEY)
        assert await housekeeping.once(store) == (0, 0)
        await conn.fetchval("SELECT pg_advisory_unlock($1)", housekeeping._LOCK_KEY)
    assert await housekeeping.once(store) == (0, 0)


async def test_blobs_that_are_elsewhere(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not await housekeeping.blobs_are_elsewhere(store)
    for number in range(8):
        await deliver(store, blobs=(b"%d" % number * 70_000,))
    assert not await housekeeping.blobs_are_elsewhere(store)
    assert not caplog.records
    listed = sorted(await all_listed(store.blobs))
    await store.blobs.remove([listed[0], *listed[2:]])
    assert not await housekeeping.blobs_are_elsewhere(store), "some are lost, but the place is right"
    assert "5 of 6 blobs are missing" in caplog.text
    store.blobs, right = DirectoryBlobs(tmp_path / "wrong", store.keys), store.blobs
    (tmp_path / "wrong").mkdir()
    assert await housekeeping.blobs_are_elsewhere(store)
    store.blobs = right
