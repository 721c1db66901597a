"""Group commit: what is answered is durable, exact and counted once, however the batch went."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from storage import batch_function, mailboxes, messages, reader
from storage import store as store_module
from storage.errors import NotFound, OutcomeUnknown, OverQuota, Unavailable
from storage.records import INBOX, MAX_KEYWORDS, AccountId, Flag, FlagChange
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, OpenStore, deliver, place
from tests.storage.test_messages import held
from tests.support.rows import message_rows

Losing = Callable[[Any, Awaitable[Any], float], Awaitable[Any]]


@pytest.fixture(params=["function", "statements"])
def group_commit(request: pytest.FixtureRequest) -> str:
    """Everything here holds for both ways in which a batch is written."""
    return str(request.param)


def replace_commits(monkeypatch: pytest.MonkeyPatch, way: Losing) -> None:
    """`way` takes the place of waiting for a commit: of COMMIT itself, and of the function that commits."""
    for module in (store_module, batch_function):
        monkeypatch.setattr(module, "finish", way)


def lose_the_first_answer(monkeypatch: pytest.MonkeyPatch, when: str = "after") -> list[str]:
    """The connection breaks just before or just after the first commit takes effect."""
    real, lost = store_module.finish, []

    async def losing(conn: Any, work: Any, timeout: float) -> Any:
        if lost:
            return await real(conn, work, timeout)
        lost.append(when)
        if when == "after":
            await work
        else:
            work.close()
        conn.terminate()
        raise OutcomeUnknown("the answer was lost")

    replace_commits(monkeypatch, losing)
    return lost


async def test_a_message_is_readable_and_counted(store: Store) -> None:
    (placed,) = await deliver(store, [place(ALICE, flags=Flag.SEEN, header_prefix=b"Received: x\r\n")])
    assert (placed.uid, placed.mailbox_id) == (1, INBOX)
    box = await mailboxes.get(store, ALICE, INBOX)
    assert (box.messages, box.unseen, box.uidnext, box.recent, box.octets) == (1, 0, 2, 1, 35)
    assert box.highestmodseq == placed.modseq
    row = (await message_rows(store, ALICE, [placed.message_id]))[placed.message_id]
    whole = await reader.read(store, ALICE, placed.message_id, row=row)
    assert whole == b"Received: x\r\nSubject: hi\r\n\r\nhello\r\n"
    assert store.committer.batches == 1, "it went by the batch, not alone"
    use = await mailboxes.quota(store, ALICE)
    assert (use.used_octets, use.used_messages) == (35, 1)


async def test_many_at_once_share_batches_and_keep_uids_dense(store: Store) -> None:
    both = [place(ALICE), place(BOB)]
    placed = await asyncio.gather(*(deliver(store, both) for _ in range(300)))
    for index, account in enumerate((ALICE, BOB)):
        assert sorted(p[index].uid for p in placed) == list(range(1, 301))
        assert (await mailboxes.get(store, account, INBOX)).messages == 300
    assert store.committer.batches < 100


async def test_two_workers_never_deadlock(open_store: OpenStore, store: Store) -> None:
    other = await open_store()
    there = [place(ALICE), place(BOB)]
    back = [place(BOB), place(ALICE)]
    work = [deliver(store if i % 2 else other, there if i % 3 else back) for i in range(200)]
    await asyncio.gather(*work)
    for account in (ALICE, BOB):
        assert (await mailboxes.get(store, account, INBOX)).messages == 200


async def test_keywords_are_allotted_once(store: Store) -> None:
    await asyncio.gather(*(deliver(store, [place(ALICE, keywords=("$Work", "home"))]) for _ in range(5)))
    assert (await mailboxes.get(store, ALICE, INBOX)).keywords == ("$Work", "home")
    view = await store.views.open(ALICE, INBOX)
    assert {entry.flags for entry in view.snapshot.entries()} == {0b11 << 5}
    view.close()


async def test_a_refused_message_harms_no_other(store: Store) -> None:
    await mailboxes.set_quota(store, BOB, 100, 0)
    results = await asyncio.gather(
        *(deliver(store) for _ in range(20)),
        deliver(store, [place(BOB)], text=b"x" * 1000),
        deliver(store, [place(ALICE, 99)]),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, Exception)]
    assert sorted(type(error).__name__ for error in refused) == ["NotFound", "OverQuota"]
    assert (await mailboxes.get(store, ALICE, INBOX)).messages == 20
    assert (await mailboxes.get(store, BOB, INBOX)).messages == 0


@pytest.mark.parametrize(
    ("alice", "bob", "quota", "outcome"),
    [
        (0, 0, "share", "ok"),
        (10, 0, "share", "ok"),
        (10, 10, "share", "never"),
        (10, 10, "refuse", "never"),
        (10, 0, "refuse", "never"),
    ],
)
async def test_quota(store: Store, alice: int, bob: int, quota: str, outcome: str) -> None:
    """SMTP commits for all while one has room; APPEND is refused where its account has none."""
    await mailboxes.set_quota(store, ALICE, alice, 0)
    await mailboxes.set_quota(store, BOB, bob, 0)
    both = [place(ALICE), place(BOB)]
    if outcome == "ok":
        assert len(await deliver(store, both, quota=quota)) == 2
    else:
        with pytest.raises(OverQuota) as caught:
            await deliver(store, both, quota=quota)
        assert caught.value.never


async def test_full_but_possible_is_not_never(store: Store) -> None:
    await mailboxes.set_quota(store, ALICE, 30, 0)
    await deliver(store)
    with pytest.raises(OverQuota) as caught:
        await deliver(store)
    assert not caught.value.never


async def test_message_quota(store: Store) -> None:
    await mailboxes.set_quota(store, ALICE, 0, 1)
    await deliver(store)
    with pytest.raises(OverQuota):
        await deliver(store)


async def test_one_account_locked_elsewhere_holds_up_only_its_own(store: Store, database: str) -> None:
    conn = await asyncpg.connect(database)
    await conn.execute("BEGIN")
    await conn.execute("SELECT 1 FROM account_state WHERE account_id = 2 FOR UPDATE")
    held = asyncio.create_task(deliver(store, [place(BOB)]))
    await asyncio.wait_for(asyncio.gather(*(deliver(store) for _ in range(10))), 5)
    assert not held.done()
    await conn.execute("ROLLBACK")
    await conn.close()
    await asyncio.wait_for(held, 5)
    assert (await mailboxes.get(store, BOB, INBOX)).messages == 1


async def test_locked_beyond_the_deadline_is_unavailable(open_store: OpenStore, store: Store, database: str) -> None:
    hasty = await open_store(lock_timeout_seconds=1)
    conn = await asyncpg.connect(database)
    await conn.execute("BEGIN")
    await conn.execute("SELECT 1 FROM account_state WHERE account_id = 2 FOR UPDATE")
    with pytest.raises(Unavailable):
        await asyncio.wait_for(deliver(hasty, [place(BOB)]), 5)
    await conn.close()
    assert (await mailboxes.get(store, BOB, INBOX)).messages == 0


async def test_a_gone_account_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await deliver(store, [place(AccountId(77))])


async def test_threads(store: Store) -> None:
    first, second, third, other = [
        (await deliver(store, msgids=ids))[0].message_id
        for ids in [(b"a@x",), (b"b@x", b"a@x"), (b"c@x", b"gone@x", b"b@x"), (b"d@x",)]
    ]
    rows = await message_rows(store, ALICE, [first, second, third, other])
    threads = [rows[m].thread_id for m in (first, second, third, other)]
    assert threads[:3] == [first] * 3 and threads[3] == other


async def test_connection_lost_before_commit_is_written_again(store: Store, database: str) -> None:
    await deliver(store)
    conn = await asyncpg.connect(database)
    await conn.execute("BEGIN")
    await conn.execute("SELECT 1 FROM account_state WHERE account_id = 1 FOR UPDATE")
    waiting = asyncio.create_task(deliver(store))
    await asyncio.sleep(0.3)
    await conn.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                     "AND datname = current_database()")  # fmt: skip
    await conn.execute("ROLLBACK")
    await conn.close()
    await asyncio.wait_for(waiting, 8)
    assert (await mailboxes.get(store, ALICE, INBOX)).messages == 2


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_answer_to_commit_is_lost(store: Store, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """The connection breaks just before or just after COMMIT took effect: written exactly once either way."""
    lost = lose_the_first_answer(monkeypatch, when)
    trace_id = uuid.uuid4()
    (placed,) = await asyncio.wait_for(deliver(store, trace_id=trace_id), 8)
    box = await mailboxes.get(store, ALICE, INBOX)
    assert (box.messages, placed.uid, placed.uidvalidity) == (1, 1, box.uidvalidity)
    assert lost


async def test_closing_writes_what_waits(open_store: OpenStore, store: Store) -> None:
    other = await open_store()
    waiting = [asyncio.create_task(deliver(other)) for _ in range(20)]
    await asyncio.sleep(0)
    await other.close()
    done = await asyncio.gather(*waiting, return_exceptions=True)
    kept = sum(1 for answer in done if not isinstance(answer, Exception))
    assert (await mailboxes.get(store, ALICE, INBOX)).messages == kept


async def test_a_failure_behind_the_commit_doubles_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed is answered, whatever goes wrong while it is told."""
    view = await store.views.open(ALICE, INBOX)

    def failing(effect: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(view, "apply", failing)
    (placed,) = await asyncio.wait_for(deliver(store), 8)
    assert ((await mailboxes.get(store, ALICE, INBOX)).messages, placed.uid) == (1, 1)
    monkeypatch.undo()
    async with asyncio.timeout(5):
        while view.snapshot.uids() != [1]:
            await asyncio.sleep(0.01)
    view.close()


async def test_a_mailbox_hears_of_a_message_whose_answer_was_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = await store.views.open(ALICE, INBOX)
    lose_the_first_answer(monkeypatch)
    await asyncio.wait_for(deliver(store), 8)
    async with asyncio.timeout(3):
        while view.snapshot.uids() != [1]:
            await asyncio.sleep(0.01)
    view.close()


async def test_an_attempt_found_again_though_it_was_expunged(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def losing(conn: Any, work: Awaitable[Any], timeout: float) -> None:
        await work
        conn.terminate()
        monkeypatch.undo()
        await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", Flag.DELETED))
        await messages.expunge(store, ALICE, INBOX, None)
        raise OutcomeUnknown("the answer was lost")

    replace_commits(monkeypatch, losing)
    (placed,) = await asyncio.wait_for(deliver(store), 8)
    box = await mailboxes.get(store, ALICE, INBOX)
    assert (placed.uid, placed.uidvalidity, box.messages) == (1, box.uidvalidity, 0)


async def test_messages_tried_alone_take_few_connections(store: Store, database: str) -> None:
    conn = await asyncpg.connect(database)
    await conn.execute("BEGIN")
    await conn.execute("SELECT 1 FROM account_state WHERE account_id = 1 FOR UPDATE")
    work = [asyncio.create_task(deliver(store)) for _ in range(60)]
    await asyncio.sleep(1.5)
    taken = await conn.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    await conn.execute("ROLLBACK")
    await conn.close()
    await asyncio.wait_for(asyncio.gather(*work), 8)
    assert taken < 20
    assert (await mailboxes.get(store, ALICE, INBOX)).messages == 60


async def test_many_keys_in_use(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message is sealed with its accounts' keys, however many others were asked for meanwhile."""
    from storage import keys

    monkeypatch.setattr(keys, "_MAX_ACCOUNTS", 1)
    assert len(await deliver(store, [place(ALICE), place(BOB)])) == 2


async def test_blobs_of_an_old_generation_are_never_referred_to(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's clock decides under the lock, whatever this worker's clock says."""
    from storage import blobs

    real = blobs.generation
    monkeypatch.setattr(blobs, "generation", lambda now: real(now) - 3)
    monkeypatch.setattr(store.committer, "_refresh_blobs", lambda batch: asyncio.sleep(0))
    with pytest.raises(Unavailable):
        await deliver(store, blobs=(b"b" * 70_000,))
    assert (await mailboxes.get(store, ALICE, INBOX)).messages == 0


async def test_closing_answers_what_cannot_be_written(open_store: OpenStore, store: Store, database: str) -> None:
    other = await open_store(lock_timeout_seconds=1)
    conn = await asyncpg.connect(database)
    await conn.execute("BEGIN")
    await conn.execute("SELECT 1 FROM account_state WHERE account_id = 1 FOR UPDATE")
    waiting = [asyncio.create_task(deliver(other)) for _ in range(30)]
    await asyncio.sleep(0.2)
    await asyncio.wait_for(other.close(), 10)
    done = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 5)
    assert {type(answer) for answer in done} <= {Unavailable, OutcomeUnknown}
    await conn.close()


async def test_closing_in_the_middle_of_a_batch_answers_it(
    open_store: OpenStore, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(conn: Any, work: Any, timeout: float) -> None:
        work.close()
        await asyncio.sleep(60)

    other = await open_store(lock_timeout_seconds=1)
    replace_commits(monkeypatch, never)
    waiting = asyncio.create_task(deliver(other))
    await asyncio.sleep(0.3)
    await asyncio.wait_for(other.close(), 10)
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(waiting, 5)


async def test_a_database_that_stands_still(open_store: OpenStore, store: Store) -> None:
    """Stopped backends answer nothing and refuse nothing: every message is answered by then all the same."""
    hasty = await open_store(lock_timeout_seconds=1)
    await deliver(hasty)
    pids = [hasty.committer._conn.get_server_pid()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        done = await asyncio.wait_for(asyncio.gather(*(deliver(hasty) for _ in range(5)), return_exceptions=True), 20)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    await asyncio.wait_for(deliver(hasty), 5)
    sure = sum(1 for answer in done if not isinstance(answer, Exception))
    unknown = sum(1 for answer in done if isinstance(answer, OutcomeUnknown))
    # What has no answer is there or not: a call that was sent may still be carried out.
    assert sure <= (await mailboxes.get(store, ALICE, INBOX)).messages - 2 <= sure + unknown


async def test_a_batch_gives_no_keyword_bit_twice(store: Store, database: str) -> None:
    """The bits of a full mailbox are reused, but not those of messages in the same batch."""
    await deliver(store)
    names = tuple(f"k{i}" for i in range(MAX_KEYWORDS))
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", 0, names))
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("=", 0))
    conn = await asyncpg.connect(database)
    await conn.execute("BEGIN")
    await conn.execute("LOCK TABLE account_state IN ACCESS EXCLUSIVE MODE")
    first = asyncio.create_task(deliver(store))
    await asyncio.sleep(0.2)
    wanted = [("new0",), ("k1",), ("new1",), ("new2", "k2")]
    work = [asyncio.create_task(deliver(store, [place(ALICE, keywords=w)])) for w in wanted]
    await asyncio.sleep(0.2)
    await conn.execute("ROLLBACK")
    await conn.close()
    placed = [p for (p,) in await asyncio.wait_for(asyncio.gather(*work), 8)]
    await first
    snapshot = await held(store)
    keywords = snapshot.mailbox.keywords
    for one, names_wanted in zip(placed, wanted, strict=True):
        flags = snapshot.entry(one.uid).flags  # type: ignore[union-attr]
        assert {keywords[i] for i in range(MAX_KEYWORDS) if flags >> (5 + i) & 1} == set(names_wanted)
