"""STORE, COPY, MOVE and EXPUNGE on the store: pages, counters, quota and modseq stay true."""

from __future__ import annotations

import asyncio
import random

import asyncpg
import pytest

from storage import mailboxes, membership, messages
from storage.errors import LimitReached, NotFound, OverQuota, Unavailable
from storage.messages import Since
from storage.pages import Snapshot
from storage.records import INBOX, MAX_KEYWORDS, Flag, FlagChange, Mailbox, MailboxId
from storage.store import Store
from tests.storage.conftest import ALICE, OpenStore, deliver, place


async def fill(store: Store, count: int, flags: int = 0) -> None:
    await asyncio.gather(*(deliver(store, [place(ALICE, flags=flags)]) for _ in range(count)))


async def drafts(store: Store) -> MailboxId:
    return (await mailboxes.find(store, ALICE, ("Drafts",))).mailbox_id


async def held(store: Store, mailbox_id: int = INBOX) -> Snapshot:
    """The mailbox as the database has it, whatever views there are."""
    mailbox = await mailboxes.get(store, ALICE, MailboxId(mailbox_id))
    async with store.acquire() as conn:
        rows = await conn.fetch(membership.READ_ALL, ALICE, mailbox_id)
    return Snapshot(mailbox, membership.pages_of(rows))


async def check(store: Store, mailbox_id: int = INBOX) -> Snapshot:
    """Counters equal contents, modseqs are in range, pages are well-formed."""
    snapshot = await held(store, mailbox_id)
    entries = list(snapshot.entries())
    box: Mailbox = snapshot.mailbox
    gone = [entry for entry in entries if entry.flags & Flag.DELETED]
    assert box.messages == len(entries)
    assert box.unseen == sum(1 for entry in entries if not entry.flags & Flag.SEEN)
    assert (box.deleted, box.deleted_octets) == (len(gone), sum(entry.size for entry in gone))
    assert box.octets == sum(entry.size for entry in entries)
    assert [entry.uid for entry in entries] == sorted({entry.uid for entry in entries})
    assert all(entry.uid < box.uidnext and entry.modseq <= box.highestmodseq for entry in entries)
    for page in snapshot.pages:
        assert len(page) and all(uid >> 6 == page.number for uid in page.uids)
        assert page.modseq >= max(page.modseqs)
        assert len({len(column) for column in (page.uids, page.flags, page.sizes, page.received, page.saved)}) == 1
    return snapshot


async def check_all(store: Store) -> None:
    """Every mailbox, and that the account's use is their sum."""
    boxes = await mailboxes.list_all(store, ALICE)
    for box in boxes:
        await check(store, box.mailbox_id)
    use = await mailboxes.quota(store, ALICE)
    assert use.used_messages == sum(box.messages for box in boxes)
    assert use.used_octets == sum(box.octets for box in boxes)


@pytest.mark.parametrize(
    ("before", "op", "flags", "after"),
    [
        (0, "+", Flag.SEEN, Flag.SEEN),
        (Flag.SEEN, "+", Flag.DELETED, Flag.SEEN | Flag.DELETED),
        (Flag.SEEN | Flag.DELETED, "-", Flag.SEEN, Flag.DELETED),
        (Flag.SEEN | Flag.DRAFT, "=", Flag.FLAGGED, Flag.FLAGGED),
        (Flag.SEEN, "=", 0, 0),
    ],
)
async def test_store(store: Store, before: int, op: str, flags: int, after: int) -> None:
    await fill(store, 130, before)
    result = await messages.store_flags(store, ALICE, INBOX, range(60, 71), FlagChange(op, flags))
    assert list(result.changed) == list(range(60, 71))
    snapshot = await check(store)
    for entry in snapshot.entries():
        inside = 60 <= entry.uid <= 70
        assert entry.flags == (after if inside else before)
        assert (entry.modseq == result.modseq) == inside


async def test_a_store_that_changes_nothing_raises_no_modseq(store: Store) -> None:
    await fill(store, 3, Flag.SEEN)
    before = await held(store)
    result = await messages.store_flags(store, ALICE, INBOX, [1, 2, 3], FlagChange("+", Flag.SEEN))
    assert (result.modseq, len(result.changed)) == (0, 0)
    assert (await held(store)).mailbox.highestmodseq == before.mailbox.highestmodseq


async def test_unchangedsince(store: Store) -> None:
    await fill(store, 3)
    first = await messages.store_flags(store, ALICE, INBOX, [2], FlagChange("+", Flag.SEEN))
    result = await messages.store_flags(
        store, ALICE, INBOX, [1, 2, 3], FlagChange("+", Flag.FLAGGED), Since(first.modseq - 1)
    )
    assert (list(result.changed), result.failed) == ([1, 3], (2,))


@pytest.mark.parametrize(
    ("op", "bits", "known", "failed"),
    [
        ("+", Flag.FLAGGED, (0, 1), ()),  # others have set another flag
        ("-", Flag.FLAGGED, (0, 1), ()),
        ("+", Flag.SEEN, (0, 1), (1,)),  # others have set this one
        ("-", Flag.SEEN | Flag.FLAGGED, (0, 1), (1,)),
        ("=", Flag.FLAGGED, (0, 1), (1,)),  # all flags are replaced
        ("+", Flag.FLAGGED, (Flag.SEEN, 1 << 40), (1,)),  # what is known is newer than the condition
        ("+", Flag.FLAGGED, None, (1,)),
    ],
)
async def test_unchangedsince_looks_at_the_flags_that_are_named(
    store: Store, op: str, bits: int, known: tuple[int, int] | None, failed: tuple[int, ...]
) -> None:
    await fill(store, 1)
    before = (await held(store)).at(1).modseq
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", Flag.SEEN))
    since = Since(before, {} if known is None else {1: known})
    result = await messages.store_flags(store, ALICE, INBOX, [1], FlagChange(op, bits), since)
    assert result.failed == failed
    assert (await check(store)).at(1).modseq == (result.modseq or before + 1)


async def test_keywords(store: Store) -> None:
    await fill(store, 2)
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", 0, ("Work", "home")))
    await messages.store_flags(store, ALICE, INBOX, [2], FlagChange("+", 0, ("WORK",)))
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("-", 0, ("HOME", "absent")))
    snapshot = await check(store)
    assert snapshot.mailbox.keywords == ("Work", "home")
    assert [entry.flags for entry in snapshot.entries()] == [1 << 5, 1 << 5]


async def test_keywords_end_and_are_reused(store: Store) -> None:
    await fill(store, 1)
    names = tuple(f"k{i}" for i in range(MAX_KEYWORDS))
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", 0, names))
    with pytest.raises(LimitReached):
        await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", 0, ("more",)))
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("-", 0, ("k7",)))
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", 0, ("more",)))
    keywords = (await check(store)).mailbox.keywords
    assert len(keywords) == MAX_KEYWORDS and keywords[7] == "more"


async def test_copy(store: Store) -> None:
    await fill(store, 70, Flag.SEEN)
    await messages.store_flags(store, ALICE, INBOX, [5], FlagChange("+", 0, ("Work",)))
    target = await drafts(store)
    result = await messages.copy(store, ALICE, INBOX, [70, 5, 6, 999], target)
    assert (list(result.source), list(result.destination)) == ([5, 6, 70], [1, 2, 3])
    there = await check(store, target)
    here = await held(store)
    assert [e.message_id for e in there.entries()] == [here.entry(uid).message_id for uid in (5, 6, 70)]  # type: ignore[union-attr]
    assert there.mailbox.keywords == ("Work",) and there.at(1).flags == Flag.SEEN | 1 << 5
    await check_all(store)


async def test_copy_across_page_borders(store: Store) -> None:
    await fill(store, 200)
    target = await drafts(store)
    for _ in range(3):
        await messages.copy(store, ALICE, INBOX, range(1, 51), target)
    assert (await check(store, target)).uids() == list(range(1, 151))


async def test_copy_counts_towards_the_quota(store: Store) -> None:
    await fill(store, 2)
    await mailboxes.set_quota(store, ALICE, 0, 3)
    with pytest.raises(OverQuota):
        await messages.copy(store, ALICE, INBOX, [1, 2], await drafts(store))
    await check_all(store)


async def test_move(store: Store) -> None:
    await fill(store, 130)
    target = await drafts(store)
    await mailboxes.set_quota(store, ALICE, 0, 130)
    result = await messages.move(store, ALICE, INBOX, range(1, 65), target)
    assert len(result.destination) == 64
    assert (await check(store)).uids() == list(range(65, 131))
    await check_all(store)


async def test_move_within_one_mailbox_gives_new_uids(store: Store) -> None:
    await fill(store, 5)
    view = await store.views.open(ALICE, INBOX)
    result = await messages.move(store, ALICE, INBOX, [2, 3], INBOX)
    assert (list(result.source), list(result.destination)) == ([2, 3], [6, 7])
    await view.refresh()
    assert view.snapshot.uids() == [1, 4, 5, 6, 7] == (await check(store)).uids()
    await check_all(store)


async def test_expunge(store: Store, database: str) -> None:
    await fill(store, 130)
    await messages.store_flags(store, ALICE, INBOX, [1, 2, *range(64, 128)], FlagChange("+", Flag.DELETED))
    assert list(await messages.expunge(store, ALICE, INBOX, [2, 3])) == [2]
    assert list(await messages.expunge(store, ALICE, INBOX, None)) == [1, *range(64, 128)]
    snapshot = await check(store)
    assert snapshot.uids() == [*range(3, 64), 128, 129, 130]
    assert snapshot.numbers == [0, 2]
    await check_all(store)
    conn = await asyncpg.connect(database)
    rows = await conn.fetch("SELECT length(uids) / 4 AS n, length(message_ids) / 8 AS held FROM vanished")
    assert sorted((row["n"], row["held"]) for row in rows) == [(1, 1), (65, 65)]
    await conn.close()


async def test_nothing_to_expunge(store: Store) -> None:
    await fill(store, 2)
    assert not await messages.expunge(store, ALICE, INBOX, None)


async def test_unknown_mailbox(store: Store) -> None:
    gone = MailboxId(99)
    for change in (
        messages.store_flags(store, ALICE, gone, [1], FlagChange("+", 1)),
        messages.copy(store, ALICE, INBOX, [1], gone),
        messages.move(store, ALICE, gone, [1], INBOX),
        messages.expunge(store, ALICE, gone, None),
    ):
        with pytest.raises(NotFound):
            await change


async def test_everything_at_once_keeps_the_books(store: Store) -> None:
    await fill(store, 100)
    target = await drafts(store)
    work = []
    for i in range(20):
        some = range(1 + i * 4, 9 + i * 4)
        work += [
            deliver(store),
            messages.store_flags(store, ALICE, INBOX, some, FlagChange("+", Flag.DELETED if i % 3 else Flag.SEEN)),
            messages.copy(store, ALICE, INBOX, some, target),
            messages.move(store, ALICE, target, [i, i + 1], INBOX),
            messages.expunge(store, ALICE, INBOX, None),
        ]
    await asyncio.gather(*work)
    await check_all(store)


def names_of(snapshot: Snapshot, uid: int) -> set[str]:
    flags = snapshot.entry(uid).flags >> 5  # type: ignore[union-attr]
    return {name for i, name in enumerate(snapshot.mailbox.keywords) if flags >> i & 1}


async def full_of_unused_keywords(store: Store, mailbox_id: MailboxId, uid: int) -> None:
    names = tuple(f"k{i}" for i in range(MAX_KEYWORDS))
    await messages.store_flags(store, ALICE, mailbox_id, [uid], FlagChange("+", 0, names))
    await messages.store_flags(store, ALICE, mailbox_id, [uid], FlagChange("=", 0))


@pytest.mark.parametrize("names", [("k0", "new"), ("new", "k0"), ("one", "two", "k1")])
async def test_no_keyword_bit_is_given_twice(store: Store, names: tuple[str, ...]) -> None:
    await fill(store, 1)
    await full_of_unused_keywords(store, INBOX, 1)
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", 0, names))
    assert names_of(await check(store), 1) == set(names)


async def test_copied_keywords_stay_apart(store: Store) -> None:
    await fill(store, 2)
    target = await drafts(store)
    await messages.copy(store, ALICE, INBOX, [1], target)
    await full_of_unused_keywords(store, target, 1)
    await messages.store_flags(store, ALICE, INBOX, [2], FlagChange("+", 0, ("one", "two", "k0")))
    await messages.copy(store, ALICE, INBOX, [2], target)
    assert names_of(await check(store, target), 2) == {"one", "two", "k0"}


async def test_waits_for_a_lock_end(open_store: OpenStore, store: Store, database: str) -> None:
    hasty = await open_store(lock_timeout_seconds=1)
    await fill(store, 1)
    conn = await asyncpg.connect(database)
    await conn.execute("BEGIN")
    await conn.execute("SELECT 1 FROM account_state WHERE account_id = 1 FOR UPDATE")
    with pytest.raises(Unavailable):
        await asyncio.wait_for(messages.store_flags(hasty, ALICE, INBOX, [1], FlagChange("+", Flag.SEEN)), 5)
    await conn.close()


Model = dict[int, tuple[int, frozenset[str]]]
"""What a mailbox holds: message and flags, keywords by name, by UID."""

_SYSTEM = ("SEEN", "ANSWERED", "FLAGGED", "DELETED", "DRAFT")


def model_of(snapshot: Snapshot) -> Model:
    names = [*_SYSTEM, *snapshot.mailbox.keywords]
    return {
        entry.uid: (entry.message_id, frozenset(name for i, name in enumerate(names) if entry.flags >> i & 1))
        for entry in snapshot.entries()
    }


def some_uids(rng: random.Random, known: Model) -> list[int]:
    """All, a run of UIDs across page borders, a page, a run with gaps, or any, with some that are not there."""
    last = max(known, default=1)
    start = rng.randrange(1, last + 1)
    match rng.randrange(5):
        case 0:
            return list(known)
        case 1:
            return list(range(start, min(last + 3, start + rng.randrange(1, 150))))
        case 2:
            return list(range(start & ~63 or 1, (start | 63) + 1))
        case 3:
            return [uid for uid in known if uid >= start and uid % 7]
    return rng.sample(range(1, last + 4), min(last, 20))


@pytest.mark.parametrize("seed", range(4))
async def test_random_changes_do_what_they_do_to_a_dict(store: Store, seed: int) -> None:
    """Mailboxes of several pages with gaps; messages go from each to each and into their own."""
    rng = random.Random(seed)
    await fill(store, 5)
    other = await drafts(store)
    for _ in range(5):
        await messages.copy(store, ALICE, INBOX, range(1, 1000), INBOX)
    view = await store.views.open(ALICE, INBOX)
    known: dict[int, Model] = {INBOX: model_of(await check(store)), other: {}}
    uidnext = {INBOX: len(known[INBOX]) + 1, other: 1}
    for _ in range(40):
        here = rng.choice((INBOX, other))
        held_here, uids = known[here], some_uids(rng, known[here])
        there = [uid for uid in sorted(uids) if uid in held_here]
        match rng.choice(("store", "store", "copy", "move", "expunge")):
            case "store":
                op, bits = rng.choice("++-="), rng.randrange(32) & rng.randrange(32)
                keywords = tuple(rng.sample(("Work", "$Junk", "later", "a", "b"), rng.randrange(3)))
                result = await messages.store_flags(store, ALICE, here, uids, FlagChange(op, bits, keywords))
                named = {name for i, name in enumerate(_SYSTEM) if bits >> i & 1}.union(keywords)
                changed = []
                for uid in there:
                    message_id, old = held_here[uid]
                    new = old | named if op == "+" else old - named if op == "-" else frozenset(named)
                    held_here[uid] = (message_id, new)
                    changed += [uid] * (new != old)
                assert list(result.changed) == changed
            case "expunge":
                everything = rng.random() < 0.3
                gone = [uid for uid in (held_here if everything else there) if "DELETED" in held_here[uid][1]]
                assert list(await messages.expunge(store, ALICE, here, None if everything else uids)) == gone
                for uid in gone:
                    del held_here[uid]
            case way:
                target = rng.choice((INBOX, other))
                work = messages.copy if way == "copy" else messages.move
                if way == "copy" and len(known[target]) > 600:
                    continue
                copied = await work(store, ALICE, here, uids, target)
                new_uids = range(uidnext[target], uidnext[target] + len(there))
                assert (list(copied.source), list(copied.destination)) == (there, list(new_uids))
                known[target].update(zip(new_uids, [held_here[uid] for uid in there], strict=True))
                uidnext[target] = new_uids.stop
                for uid in there if way == "move" else ():
                    del held_here[uid]
        for mailbox_id, expected in known.items():
            assert model_of(await check(store, mailbox_id)) == expected
    await check_all(store)
    await view.refresh()
    assert model_of(view.snapshot) == known[INBOX]
    view.close()
