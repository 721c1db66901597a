"""Each thing that may be wrong with an account is damaged by SQL: the check names exactly it, the repair heals it."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from storage import blobs, consistency, content, housekeeping, layout, mailboxes, messages
from storage.layout import Piece
from storage.records import INBOX, AccountId, Flag, FlagChange, MailboxId
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, Split, Summary, deliver, place

BLOB = b"attachment " * 8_000
TEXT = b"Subject: hi\r\n\r\n"

Fault = tuple[str, str]


@pytest.fixture
async def used(store: Store) -> Store:
    """An account in which everything has happened: 70 deliveries, a blob, keywords, copies, moves, expunges."""
    await asyncio.gather(*(deliver(store, msgids=(b"<a@x>", b"<%d@x>" % i)) for i in range(70)))
    await _deliver_with_blob(store)
    await deliver(store, [place(BOB)])
    drafts = (await mailboxes.find(store, ALICE, ("Drafts",))).mailbox_id
    junk = (await mailboxes.find(store, ALICE, ("Junk",))).mailbox_id
    await messages.store_flags(store, ALICE, INBOX, range(60, 72), FlagChange("+", Flag.SEEN, ("Work",)))
    await messages.store_flags(store, ALICE, INBOX, [3, 4, 5, 6], FlagChange("+", Flag.DELETED))
    await messages.copy(store, ALICE, INBOX, range(1, 11), drafts)
    await messages.move(store, ALICE, INBOX, [10, 11], drafts)
    await messages.expunge(store, ALICE, INBOX, [3, 4])
    await mailboxes.claim_recent(store, await mailboxes.get(store, ALICE, INBOX))
    await deliver(store)
    await mailboxes.delete(store, ALICE, junk)
    return store


async def _deliver_with_blob(store: Store) -> None:
    split = Split(TEXT, blobs=(BLOB,), layout=layout.pack([Piece(len(TEXT), layout.BLOB_RAW, len(BLOB))]))
    message = await content.prepare(store, split, Summary(), len(TEXT) + len(BLOB))
    await store.committer.deliver(message, [place(ALICE)], trace_id=uuid.uuid4(), quota="share")


async def faults(store: Store, account: AccountId = ALICE, *, octets: bool = True) -> list[Fault]:
    return [(fault.kind, fault.where) for fault in (await consistency.check(store, account, octets=octets)).faults]


async def damage(store: Store, *statements: str) -> None:
    async with store.acquire() as conn:
        for statement in statements:
            await conn.execute(statement)


async def test_a_sound_account_is_clean(used: Store) -> None:
    found = await consistency.check(used, ALICE, octets=True)
    assert (found.faults, found.more_faults, +found.garbage) == ([], 0, {})
    assert found.looked_at["messages"] == 68 + 12
    assert (found.looked_at["mailboxes"], found.looked_at["expunges"], found.looked_at["blobs"]) == (6, 2, 1)
    assert found.looked_at["octets"] > len(BLOB)


BOX = "UPDATE mailboxes SET {} WHERE account_id = 1 AND mailbox_id = 1"
PAGE = "UPDATE mailbox_pages SET {} WHERE account_id = 1 AND mailbox_id = 1 AND page = 1"
STATE = "UPDATE account_state SET {} WHERE account_id = 1"

DERIVED = {
    "messages": (BOX.format("messages = messages + 1"), ("counters", "INBOX")),
    "unseen": (BOX.format("unseen = 0"), ("counters", "INBOX")),
    "deleted": (BOX.format("deleted = 7"), ("counters", "INBOX")),
    "octets": (BOX.format("octets = octets - 5"), ("counters", "INBOX")),
    "deleted octets": (BOX.format("deleted_octets = 0"), ("counters", "INBOX")),
    "recent": (BOX.format("recent = 9"), ("counters", "INBOX")),
    "uidnext": (BOX.format("uidnext = 72"), ("uidnext", "INBOX")),
    "modseq of a mailbox": (BOX.format("highestmodseq = 5"), ("modseq", "INBOX")),
    "modseq of a page": (PAGE.format("modseq = 1"), ("modseq", "INBOX, page 1")),
    "modseq of an account": (STATE.format("modseq = 3"), ("modseq", "account")),
    "used octets": (STATE.format("used_octets = 1"), ("sums", "account")),
    "used messages": (STATE.format("used_messages = 0"), ("sums", "account")),
    "undelete octets": (STATE.format("undelete_octets = 0"), ("sums", "account")),
    "next mailbox": (STATE.format("next_mailbox = 2"), ("next", "account")),
    "next uidvalidity": (STATE.format("next_uidvalidity = 1"), ("next", "account")),
    "a flag without a name": (BOX.format("keywords = '{}'"), None),
    "a reference that is not noted": ("DELETE FROM blob_refs", None),
    "a reference that is not needed": (
        (
            "INSERT INTO blob_refs SELECT 1, message_id, decode(repeat('00', 36), 'hex') FROM message_contents "
            "WHERE layout IS NOT NULL"
        ),
        None,
    ),
}


@pytest.mark.parametrize(("statement", "expected"), DERIVED.values(), ids=DERIVED)
async def test_what_follows_from_the_rest_is_named_and_healed(
    used: Store, statement: str, expected: Fault | None
) -> None:
    await damage(used, statement)
    found = await faults(used)
    if expected is not None:
        assert found == [expected]
    assert found
    await consistency.repair(used, ALICE)
    assert await faults(used) == []
    assert await faults(used, BOB) == []


async def test_flags_without_a_name_are_named_by_their_uids(used: Store) -> None:
    await damage(used, "UPDATE mailboxes SET keywords = '{}' WHERE account_id = 1 AND mailbox_id = 1")
    found = await consistency.check(used, ALICE)
    assert [(fault.kind, fault.where) for fault in found.faults] == [("keywords", f"INBOX, page {n}") for n in (0, 1)]
    assert found.faults[0].text == "flags without a name: UID 60, 61, 62, 63"


async def test_references_to_blobs_are_named_by_their_message(used: Store) -> None:
    async with used.acquire() as conn:
        message_id = await conn.fetchval("DELETE FROM blob_refs RETURNING message_id")
    assert await faults(used) == [("blob refs", f"message {message_id}")]


async def test_a_repair_is_a_change_like_any_other(used: Store) -> None:
    """Sessions that hold the mailbox read it anew: highestmodseq rises, and so does that of what was changed."""
    view = await used.views.open(ALICE, INBOX)
    before = view.snapshot.mailbox.highestmodseq
    await damage(used, BOX.format("messages = 1, keywords = '{}'"))
    await consistency.repair(used, ALICE)
    await view.refresh()
    after = view.snapshot.mailbox
    assert after.highestmodseq > before and after.messages == view.snapshot.count == 68
    entry = view.snapshot.entry(60)
    assert entry is not None and (entry.flags, entry.modseq) == (Flag.SEEN, after.highestmodseq)
    used.views.closed(view)


LOST = {
    "a message": ("DELETE FROM messages WHERE account_id = 1 AND message_id = {id}", [("message", "INBOX, UID 40")]),
    "its octets": (
        "DELETE FROM message_contents WHERE account_id = 1 AND message_id = {id}",
        [("contents", "INBOX, UID 40")],
    ),
    "its size": ("UPDATE messages SET size = size + 1 WHERE account_id = 1 AND message_id = {id}", None),
    "a page's columns": (PAGE.format("flags = substr(flags, 1, 8)"), [("page", "INBOX, page 1")]),
    "an element of a column": (PAGE.format("saved = substr(saved, 2)"), [("page", "INBOX, page 1")]),
    "a page's order": (
        PAGE.format("uids = substr(uids, 9, 4) || substr(uids, 1, 8) || substr(uids, 13)"),
        [("uids", "INBOX, page 1")],
    ),
    "a page's number": (
        "UPDATE mailbox_pages SET page = 9 WHERE account_id = 1 AND mailbox_id = 1 AND page = 1",
        [("uids", "INBOX, page 9")],
    ),
    "a mailbox": (
        "DELETE FROM mailboxes WHERE account_id = 1 AND mailbox_id = 1",
        [
            ("mailbox", "INBOX"),
            ("page", "mailbox 1, page 0"),
            ("page", "mailbox 1, page 1"),
            ("sums", "account"),
            ("sums", "account"),
        ],
    ),
    "an expunge": (
        "UPDATE vanished SET uids = int4send(7) WHERE account_id = 1 AND reason = 'moved'",
        [("vanished", "INBOX, UID 7")],
    ),
    "what an expunge holds": (
        "UPDATE vanished SET sizes = int4send(1) WHERE account_id = 1 AND reason = 'expunged'",
        [("vanished", "INBOX, expunged at modseq"), ("sums", "account")],
    ),
    "a thread": ("DELETE FROM thread_refs WHERE account_id = 1", [("thread", "thread")]),
    "what is queued": (
        (
            "INSERT INTO queue_messages (account_id, queue_id, trace_id, reverse_path, created_at)"
            " VALUES (1, 4, gen_random_uuid(), '', now())"
        ),
        [("queue", "queue 4")],
    ),
}


@pytest.mark.parametrize(("statement", "expected"), LOST.values(), ids=LOST)
async def test_what_is_lost_is_named_and_stays(used: Store, statement: str, expected: list[Fault] | None) -> None:
    entry = (await used.views.open(ALICE, INBOX)).snapshot.entry(40)
    assert entry is not None
    await damage(used, statement.format(id=entry.message_id))
    found = await faults(used)
    if expected is None:
        expected = [("size", "INBOX, UID 40"), ("octets", f"message {entry.message_id}")]
    assert len(found) == len(expected)
    assert all(
        kind == like and where.startswith(place) for (kind, where), (like, place) in zip(found, expected, strict=True)
    )
    await consistency.repair(used, ALICE)
    left = await faults(used)
    assert left == [fault for fault in found if fault[0] != "sums"]


async def test_counters_stay_where_a_page_cannot_be_read(used: Store) -> None:
    await damage(used, PAGE.format("flags = ''"), STATE.format("undelete_octets = 0"))
    before = await mailboxes.get(used, ALICE, INBOX)
    await consistency.repair(used, ALICE)
    after = await mailboxes.get(used, ALICE, INBOX)
    assert (after.messages, after.octets) == (before.messages, before.octets)
    assert await faults(used) == [("page", "INBOX, page 1")]


async def test_octets_that_do_not_open(used: Store) -> None:
    async with used.acquire() as conn:
        message_id = await conn.fetchval(
            "UPDATE message_contents SET octets = set_byte(octets, 20, get_byte(octets, 20) # 1) "
            "WHERE account_id = 1 AND layout IS NULL AND message_id = (SELECT min(message_id) FROM message_contents "
            "WHERE account_id = 1 AND layout IS NULL) RETURNING message_id"
        )
    assert await faults(used, octets=False) == []
    assert await faults(used) == [("octets", f"message {message_id}")]


async def test_a_blob_that_is_missing_or_damaged(used: Store, tmp_path: Path) -> None:
    (path,) = (path for path in (tmp_path / "blobs").rglob("*") if path.is_file())
    async with used.acquire() as conn:
        message_id = await conn.fetchval("SELECT message_id FROM blob_refs")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert await faults(used) == [("octets", f"message {message_id}")]
    path.unlink()
    assert await faults(used) == [("blob", f"message {message_id}")]
    path.write_bytes(whole)
    assert await faults(used) == []


async def test_what_nobody_holds_is_garbage_and_no_fault(used: Store) -> None:
    await damage(
        used,
        "UPDATE vanished SET message_ids = NULL, flags = NULL, sizes = NULL, received = NULL WHERE account_id = 1",
        "UPDATE messages SET created = 1 WHERE account_id = 1",
        STATE.format("undelete_octets = 0"),
        "INSERT INTO message_contents VALUES (1, 77, 0, NULL, 'x')",
        "INSERT INTO vanished SELECT 1, 99, 4, int4send(1), NULL, NULL, NULL, NULL, now(), 'moved'",
    )
    found = await consistency.check(used, ALICE)
    assert found.faults == []
    # The two that were expunged have copies in Drafts.
    assert +found.garbage == {"contents": 1, "expunges of no mailbox": 1}
    drafts = (await mailboxes.find(used, ALICE, ("Drafts",))).mailbox_id
    await _empty(used, drafts)
    assert (await consistency.check(used, ALICE)).garbage["messages"] == 4


async def _empty(store: Store, mailbox_id: MailboxId) -> None:
    """Without a trace of what it held."""
    everything = range(1, 100)
    await messages.store_flags(store, ALICE, mailbox_id, everything, FlagChange("+", Flag.DELETED))
    await messages.expunge(store, ALICE, mailbox_id, None)
    await damage(
        store,
        "UPDATE vanished SET message_ids = NULL, flags = NULL, sizes = NULL, received = NULL WHERE account_id = 1",
    )
    await damage(store, STATE.format("undelete_octets = 0"))


async def test_blobs_that_nobody_refers_to_are_counted_when_they_are_old(
    used: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await used.blobs.put(b"garbage")
    assert await consistency.unreferenced_blobs(used) == 0
    monkeypatch.setattr("storage.blobs.GENERATION_SECONDS", 3600)
    monkeypatch.setattr("storage.consistency.blobs.generation", lambda now: 10**6)
    assert await consistency.unreferenced_blobs(used) == 1


async def test_no_false_alarm_under_load(used: Store) -> None:
    """Deliveries, flags, copies, moves and expunges go on while it looks."""
    stop = asyncio.Event()
    drafts = (await mailboxes.find(used, ALICE, ("Drafts",))).mailbox_id

    async def work(number: int) -> None:
        while not stop.is_set():
            await deliver(used, [place(ALICE, flags=Flag.DELETED * (number % 2))])
            await messages.store_flags(used, ALICE, INBOX, range(1, 50), FlagChange("+", number, (f"K{number}",)))
            await messages.copy(used, ALICE, INBOX, [20 + number, 30], drafts)
            await messages.move(used, ALICE, drafts, range(1, 90, 7), INBOX)
            await messages.expunge(used, ALICE, drafts, None)
            await mailboxes.claim_recent(used, await mailboxes.get(used, ALICE, INBOX))

    workers = [asyncio.create_task(work(number)) for number in range(3)]
    try:
        async with asyncio.timeout(60):
            for _ in range(10):
                assert await faults(used, octets=False) == []
            await damage(used, STATE.format("used_octets = used_octets + 1"))
            await consistency.repair(used, ALICE)
            assert await faults(used) == []
    finally:
        stop.set()
        await asyncio.gather(*workers)


async def test_an_account_that_is_gone(store: Store) -> None:
    assert await consistency.accounts(store) == [ALICE, BOB]
    assert (await consistency.accounts(store, ALICE), await consistency.count(store)) == ([BOB], 2)
    await consistency.repair(store, AccountId(77))
    assert await faults(store, AccountId(77)) == []


async def test_more_faults_than_are_named(used: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.findings.MAX_FAULTS", 3)
    await damage(used, "DELETE FROM messages WHERE account_id = 1 AND message_id <> thread_id")
    found = await consistency.check(used, ALICE)
    assert len(found.faults) == 3 and found.more_faults > 20


async def test_a_check_writes_nothing(used: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither rows nor files, old ones that a put has left included; the sweeper is who takes those away."""
    left = next((tmp_path / "blobs").glob("*/??")) / f".{'a' * 64}.1.2"
    left.write_bytes(b"half")
    monkeypatch.setattr("storage.consistency.blobs.generation", lambda now: 10**6)
    before = await _written(used, tmp_path)
    assert await faults(used) == [] and await consistency.unreferenced_blobs(used) == 0
    assert await _written(used, tmp_path) == before
    assert await housekeeping.sweep_blobs(used, 10**6 * blobs.GENERATION_SECONDS) == 0
    assert not left.exists()


async def _written(store: Store, folder: Path) -> tuple[list[tuple[str, int]], list[int]]:
    """Files with their times of change; rows ever written, by table."""
    files = sorted((str(path), path.stat().st_mtime_ns) for path in (folder / "blobs").rglob("*"))
    async with store.acquire() as conn:
        await conn.execute("SELECT pg_stat_force_next_flush()")
        tables = await conn.fetch("SELECT n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables ORDER BY relid")
    return files, [row[0] for row in tables]
