"""Views stay equal to the database, whoever changes it and whatever gets lost on the way."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from storage import mailboxes, messages
from storage.errors import NotFound, Unavailable
from storage.membership import Effect
from storage.records import INBOX, Flag, FlagChange, Mailbox, MailboxId
from storage.store import Store
from storage.views import MailboxView
from tests.storage.conftest import ALICE, OpenStore, deliver
from tests.storage.test_messages import fill, held


def content_of(snapshot: object) -> list[object]:
    return list(snapshot.entries())  # type: ignore[attr-defined]


async def eventually(view: MailboxView, store: Store, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while content_of(view.snapshot) != content_of(await held(store)):
            await asyncio.sleep(0.01)


async def test_own_changes_show_without_reading(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    view = await store.views.open(ALICE, INBOX)

    async def never(self: MailboxView) -> None:
        raise AssertionError("read from the database")

    monkeypatch.setattr(MailboxView, "_read_changes", never)
    await fill(store, 70)
    await messages.store_flags(store, ALICE, INBOX, [1, 65], FlagChange("+", Flag.DELETED, ("Work",)))
    await messages.expunge(store, ALICE, INBOX, [1])
    monkeypatch.undo()
    assert content_of(view.snapshot) == content_of(await held(store))
    assert view.snapshot.mailbox == (await held(store)).mailbox


async def test_sessions_share_one_view(store: Store) -> None:
    one, two = await asyncio.gather(store.views.open(ALICE, INBOX), store.views.open(ALICE, INBOX))
    assert one is two
    one.close()
    assert await store.views.open(ALICE, INBOX) is two


@pytest.mark.parametrize("feed", ["redis", "database"])
async def test_changes_of_another_worker(open_store: OpenStore, store: Store, redis_url: str, feed: str) -> None:
    reader = await open_store(redis_url if feed == "redis" else None)
    writer = await open_store(redis_url if feed == "redis" else None)
    async with asyncio.timeout(5):
        while not (reader.changes.healthy and writer.changes.healthy):
            await asyncio.sleep(0.01)
    view = await reader.views.open(ALICE, INBOX)
    told: list[int] = []
    view.listen(lambda: told.append(view.snapshot.count))
    await fill(writer, 70)
    await eventually(view, store)
    await messages.store_flags(writer, ALICE, INBOX, range(1, 65), FlagChange("+", Flag.DELETED))
    await messages.expunge(writer, ALICE, INBOX, None)
    await eventually(view, store)
    await asyncio.sleep(0)
    assert told[-1] == view.snapshot.count == 6


async def test_a_lost_notice_heals_by_refresh(open_store: OpenStore, store: Store) -> None:
    other = await open_store()
    view = await other.views.open(ALICE, INBOX)
    other.views._heard = lambda notice: None  # type: ignore[method-assign]
    await other.changes.close()
    await fill(store, 3)
    await view.refresh()
    assert view.snapshot.count == 3


async def test_refresh_sees_what_was_committed_before_it(open_store: OpenStore, store: Store) -> None:
    other = await open_store()
    view = await other.views.open(ALICE, INBOX)

    async def look(expected: int) -> None:
        await view.refresh()
        assert view.snapshot.count >= expected

    for count in range(1, 20):
        await deliver(store)
        await asyncio.gather(*(look(count) for _ in range(5)))


async def test_random_changes_by_two_workers(open_store: OpenStore, store: Store) -> None:
    other = await open_store()
    views = [await s.views.open(ALICE, INBOX) for s in (store, other)]
    rng = random.Random(7)
    for _ in range(120):
        worker = rng.choice((store, other))
        uids = rng.sample(range(1, 200), 20)
        match rng.randrange(5):
            case 0 | 1:
                await fill(worker, rng.randrange(1, 6))
            case 2:
                change = FlagChange(rng.choice("+-="), rng.choice((Flag.SEEN, Flag.DELETED)))
                await messages.store_flags(worker, ALICE, INBOX, uids, change)
            case 3:
                await messages.expunge(worker, ALICE, INBOX, rng.choice((None, uids)))
            case 4:
                await messages.move(worker, ALICE, INBOX, uids[:2], INBOX)
        if rng.random() < 0.3:
            await rng.choice(views).refresh()
    for view in views:
        await view.refresh()
        assert content_of(view.snapshot) == content_of(await held(store))


async def test_a_deleted_mailbox(open_store: OpenStore, store: Store) -> None:
    other = await open_store()
    box = await mailboxes.create(store, ALICE, ("x",))
    view = await other.views.open(ALICE, box.mailbox_id)
    await mailboxes.delete(store, ALICE, box.mailbox_id)
    await view.refresh()
    assert view.deleted
    view.close()
    with pytest.raises(NotFound):
        await other.views.open(ALICE, box.mailbox_id)
    with pytest.raises(NotFound):
        await store.views.open(ALICE, MailboxId(99))


async def test_closed_views_are_dropped_over_the_bound(open_store: OpenStore, store: Store) -> None:
    await fill(store, 3)
    small = await open_store(view_memory_mib=0)
    view = await small.views.open(ALICE, INBOX)
    view.close()
    assert await small.views.open(ALICE, INBOX) is not view


async def test_a_refresh_that_failed_covers_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that share one reading share its failure too."""
    view = await store.views.open(ALICE, INBOX)
    release = asyncio.Event()

    async def slow(self: MailboxView) -> None:
        await release.wait()

    async def failing(self: MailboxView) -> None:
        raise Unavailable("no")

    monkeypatch.setattr(MailboxView, "_read_changes", slow)
    first = asyncio.create_task(view.refresh())
    await asyncio.sleep(0)
    rest = [asyncio.create_task(view.refresh()) for _ in range(3)]
    await asyncio.sleep(0)
    monkeypatch.setattr(MailboxView, "_read_changes", failing)
    release.set()
    await first
    assert [type(e) for e in await asyncio.gather(*rest, return_exceptions=True)] == [Unavailable] * 3


async def test_a_refresh_that_was_cancelled_covers_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    view = await store.views.open(ALICE, INBOX)
    real, gates, begun = MailboxView._read_changes, [asyncio.Event() for _ in range(3)], []

    async def slow(self: MailboxView) -> None:
        begun.append(1)
        await gates[len(begun) - 1].wait()
        await real(self)

    monkeypatch.setattr(MailboxView, "_read_changes", slow)
    first, second, third = (asyncio.create_task(view.refresh()) for _ in range(3))
    await asyncio.sleep(0)
    gates[0].set()
    await first
    async with asyncio.timeout(5):
        while len(begun) < 2:
            await asyncio.sleep(0.01)
    monkeypatch.setattr(view, "apply", lambda effect: None)
    monkeypatch.setattr(store.views, "read_soon", lambda view: None)
    late = asyncio.create_task(view.refresh())
    await deliver(store)
    second.cancel()
    gates[2].set()
    await asyncio.gather(third, late)
    assert view.snapshot.count == 1
    view.close()


async def test_loading_beside_a_commit_doubles_no_message(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The row was read before the commit, the pages after it, and then the commit is applied."""
    from storage import batch_function, views

    get_in, finish = mailboxes.get_in, batch_function.finish
    row_read, committed, loaded = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def late_row(*key: Any) -> Mailbox:
        row = await get_in(*key)
        row_read.set()
        await committed.wait()
        return row

    async def late_answer(conn: Any, work: Any, timeout: float) -> Any:
        await row_read.wait()
        answer = await finish(conn, work, timeout)
        committed.set()
        await loaded.wait()
        return answer

    monkeypatch.setattr(views.mailboxes, "get_in", late_row)
    monkeypatch.setattr(batch_function, "finish", late_answer)
    opening = asyncio.create_task(store.views.open(ALICE, INBOX))
    await row_read.wait()
    writing = asyncio.create_task(deliver(store))
    view = await asyncio.wait_for(opening, 5)
    loaded.set()
    await writing
    await view.refresh()
    assert view.snapshot.uids() == [1]
    assert content_of(view.snapshot) == content_of(await held(store))
    view.close()


async def test_changes_beside_a_loading_are_seen(open_store: OpenStore, store: Store, monkeypatch: Any) -> None:
    """A notice that comes while the view is loaded is not lost, and nobody gets a loading that began before they
    asked."""
    from storage import views

    other = await open_store()
    await settled(other)
    get_in = mailboxes.get_in
    row_read, go = asyncio.Event(), asyncio.Event()

    async def old_pages(conn: Any, *key: int) -> Mailbox:
        row = await get_in(conn, *key)
        row_read.set()
        await go.wait()
        return row

    monkeypatch.setattr(views.mailboxes, "get_in", old_pages)
    monkeypatch.setattr(
        views.membership, "READ_ALL", views.membership.READ_ALL.replace("ORDER", "AND modseq < 2 ORDER")
    )
    first = asyncio.create_task(other.views.open(ALICE, INBOX))
    await row_read.wait()
    heard: list[str] = []
    other.changes.listen(lambda notice: heard.append(notice.kind))
    monkeypatch.setattr(views.mailboxes, "get_in", get_in)
    await deliver(store)
    async with asyncio.timeout(5):
        while "mail" not in heard:
            await asyncio.sleep(0.01)
    second = asyncio.create_task(other.views.open(ALICE, INBOX))
    await asyncio.sleep(0.05)
    go.set()
    assert (await second).snapshot.count == 1
    monkeypatch.undo()
    await eventually(await first, store)


async def settled(store: Store) -> None:
    async with asyncio.timeout(5):
        while not store.changes.healthy:
            await asyncio.sleep(0.01)


async def test_a_lost_notice_heals_while_idle(open_store: OpenStore, store: Store, monkeypatch: Any) -> None:
    from storage import views

    monkeypatch.setattr(views, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(views, "_LOOK_SECONDS", 0.2)
    other = await open_store()
    await settled(other)
    view = await other.views.open(ALICE, INBOX)
    view.listen(lambda: None)
    other.changes._listeners.clear()
    await fill(store, 3)
    await eventually(view, store)


async def test_notices_pile_up_in_one_task_a_view(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    view = await store.views.open(ALICE, INBOX)
    release = asyncio.Event()

    async def stuck(self: MailboxView) -> None:
        await release.wait()

    monkeypatch.setattr(MailboxView, "_read_changes", stuck)
    before = len(asyncio.all_tasks())
    for _ in range(100):
        store.views.read_soon(view)
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) - before < 5
    release.set()


async def test_empty_mailboxes_are_dropped_too(open_store: OpenStore, store: Store) -> None:
    small = await open_store(view_memory_mib=0)
    view = await small.views.open(ALICE, INBOX)
    view.close()
    assert await small.views.open(ALICE, INBOX) is not view


async def test_older_keywords_do_not_come_back(store: Store) -> None:
    """Two changes of the row alone, applied in the wrong order."""
    view = await store.views.open(ALICE, INBOX)
    row = view.snapshot.mailbox
    one = replace(row, modseq=row.modseq + 1, keywords=("a",))
    two = replace(row, modseq=row.modseq + 2, keywords=("a", "b"))
    view.apply(Effect(one, two, ()))
    view.apply(Effect(row, one, ()))
    assert view.snapshot.mailbox == two


async def test_several_messages_of_one_batch_are_all_applied(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have one modseq, and may come as one effect each."""
    view = await store.views.open(ALICE, INBOX)
    monkeypatch.setattr(store.views, "read_soon", lambda view: None)
    await fill(store, 30)
    assert store.committer.batches < 30
    assert content_of(view.snapshot) == content_of(await held(store))
    view.close()


async def test_pages_newer_than_the_row_bring_their_keywords(
    open_store: OpenStore, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker adds a keyword between the reading of the row and that of the pages."""
    other: Store = await open_store()
    await fill(store, 2)
    view = await store.views.open(ALICE, INBOX)
    real = mailboxes.get_in
    left = [FlagChange("+", 0, ("Work",))]

    async def late(conn: Any, *key: int) -> Mailbox:
        row = await real(conn, *key)
        if left:
            await messages.store_flags(other, ALICE, INBOX, [1], left.pop())
        return row

    await deliver(other)
    monkeypatch.setattr(mailboxes, "get_in", late)
    await view.refresh()
    assert view.snapshot.mailbox.keywords == ("Work",)
    assert view.snapshot.at(1).flags
    view.close()
    fresh: Store = await open_store()
    left.append(FlagChange("+", 0, ("Home",)))
    assert (await fresh.views.open(ALICE, INBOX)).snapshot.mailbox.keywords == ("Work", "Home")
