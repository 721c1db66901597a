"""The mailbox tree: creating, deleting, renaming, subscribing, and who gets \\Recent."""

from __future__ import annotations

import asyncio

import pytest

from config.schema import MailConfig
from storage import mailboxes, messages
from storage.errors import AlreadyExists, LimitReached, NotAllowed, NotFound, UseTaken
from storage.records import INBOX, AccountId, Flag, FlagChange, Name
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, OpenStore, deliver
from tests.storage.test_messages import check_all, fill

DEFAULTS = {("INBOX",), ("Drafts",), ("Sent",), ("Junk",), ("Trash",), ("Archive",)}


async def names(store: Store) -> set[Name]:
    return {box.name for box in await mailboxes.list_all(store, ALICE)}


async def test_a_new_account_has_its_mailboxes_subscribed(store: Store) -> None:
    assert await names(store) == DEFAULTS == await mailboxes.subscriptions(store, ALICE)
    assert (await mailboxes.get(store, ALICE, INBOX)).name == ("INBOX",)
    assert (await mailboxes.find(store, ALICE, ("Sent",))).special_use == "\\Sent"


async def test_creating_the_state_again_changes_nothing(store: Store) -> None:
    sent = await mailboxes.find(store, ALICE, ("Sent",))
    await mailboxes.delete(store, ALICE, sent.mailbox_id)
    assert await mailboxes.create_account_state(store, ALICE) is False
    assert ("Sent",) not in await names(store)


async def test_uidvalidities_differ(store: Store) -> None:
    made = [await mailboxes.create(store, ALICE, ("a", str(i))) for i in range(3)]
    values = [box.uidvalidity for box in await mailboxes.list_all(store, ALICE)]
    assert len(set(values)) == len(values)
    first = made[0]
    await mailboxes.delete(store, ALICE, first.mailbox_id)
    again = await mailboxes.create(store, ALICE, first.name)
    assert again.uidvalidity > first.uidvalidity and again.mailbox_id != first.mailbox_id


async def test_create_makes_superiors(store: Store) -> None:
    await mailboxes.create(store, ALICE, ("x", "y", "z"))
    assert await names(store) == DEFAULTS | {("x",), ("x", "y"), ("x", "y", "z")}
    with pytest.raises(AlreadyExists):
        await mailboxes.create(store, ALICE, ("x", "y"))


async def test_special_uses_belong_to_one_mailbox(store: Store) -> None:
    """RFC 6154 §3. A use goes with its mailbox and is free again when that is deleted."""
    with pytest.raises(UseTaken):
        await mailboxes.create(store, ALICE, ("mine",), uses=("\\Archive",))
    archive = await mailboxes.find(store, ALICE, ("Archive",))
    await mailboxes.rename(store, ALICE, ("Archive",), ("old", "archive"))
    with pytest.raises(UseTaken):
        await mailboxes.create(store, ALICE, ("mine",), uses=("\\Archive",))
    assert ("mine",) not in await names(store)
    await mailboxes.delete(store, ALICE, archive.mailbox_id)
    await mailboxes.delete(store, ALICE, (await mailboxes.find(store, ALICE, ("Trash",))).mailbox_id)
    made = await mailboxes.create(store, ALICE, ("new", "mine"), uses=("\\Trash", "\\Archive"))
    assert made.special_use == "\\Trash \\Archive"
    assert {name: use for name, use in (await mailboxes.uses(store, ALICE)).items() if name[0] in ("new", "Sent")} == {
        ("new",): None,
        ("new", "mine"): "\\Trash \\Archive",
        ("Sent",): "\\Sent",
    }


async def test_two_create_for_the_same_use(store: Store) -> None:
    await mailboxes.delete(store, ALICE, (await mailboxes.find(store, ALICE, ("Junk",))).mailbox_id)
    results = await asyncio.gather(
        *(mailboxes.create(store, ALICE, (f"junk {i}",), uses=("\\Junk",)) for i in range(4)), return_exceptions=True
    )
    assert sum(isinstance(result, UseTaken) for result in results) == 3


async def test_default_mailboxes_may_stand_below_others(store: Store) -> None:
    store.mail = MailConfig(
        separator=".", default_mailboxes=({"name": "INBOX.Sent", "use": "\\Sent"}, {"name": "Lists.a/b"})
    )
    await mailboxes.create_account_state(store, AccountId(3))
    assert await mailboxes.uses(store, AccountId(3)) == {
        ("INBOX",): None,
        ("INBOX", "Sent"): "\\Sent",
        ("Lists",): None,
        ("Lists", "a/b"): None,
    }
    assert await mailboxes.subscriptions(store, AccountId(3)) == {("INBOX",), ("INBOX", "Sent"), ("Lists", "a/b")}


async def test_two_create_the_same(store: Store) -> None:
    results = await asyncio.gather(
        *(mailboxes.create(store, ALICE, ("same",)) for _ in range(4)), return_exceptions=True
    )
    assert sum(isinstance(result, AlreadyExists) for result in results) == 3


async def test_delete(store: Store) -> None:
    box = await mailboxes.create(store, ALICE, ("gone",))
    await fill(store, 5)
    await messages.copy(store, ALICE, INBOX, [1, 2], box.mailbox_id)
    view = await store.views.open(ALICE, box.mailbox_id)
    await mailboxes.delete(store, ALICE, box.mailbox_id)
    assert view.deleted
    await check_all(store)
    with pytest.raises(NotFound):
        await mailboxes.get(store, ALICE, box.mailbox_id)
    with pytest.raises(NotAllowed):
        await mailboxes.delete(store, ALICE, INBOX)


@pytest.mark.parametrize(
    ("source", "target", "after"),
    [
        (("a",), ("b",), {("b",), ("b", "1"), ("b", "1", "x"), ("ab",)}),
        (("a", "1"), ("c", "d"), {("a",), ("ab",), ("c",), ("c", "d"), ("c", "d", "x")}),
        (("a", "1", "x"), ("x",), {("a",), ("a", "1"), ("ab",), ("x",)}),
    ],
)
async def test_rename_takes_children_along(store: Store, source: Name, target: Name, after: set[Name]) -> None:
    for name in (("a", "1", "x"), ("ab",)):
        await mailboxes.create(store, ALICE, name)
    before = await mailboxes.find(store, ALICE, source)
    await mailboxes.rename(store, ALICE, source, target)
    assert await names(store) - DEFAULTS == after
    renamed = await mailboxes.find(store, ALICE, target)
    assert (renamed.mailbox_id, renamed.uidvalidity) == (before.mailbox_id, before.uidvalidity)


async def test_rename_into_a_place_that_the_tree_itself_leaves(open_store: OpenStore, store: Store) -> None:
    """In whatever order the database goes through the rows; here, the child's stands before its parent's."""
    child = await mailboxes.create(store, ALICE, ("a", "a", "a"))
    for name in (("a", "a"), ("a",)):
        await mailboxes.delete(store, ALICE, (await mailboxes.find(store, ALICE, name)).mailbox_id)
    parent = await mailboxes.create(store, ALICE, ("a", "a"))
    await mailboxes.delete(store, ALICE, (await mailboxes.find(store, ALICE, ("a",))).mailbox_id)
    async with store.acquire() as conn:
        name = await conn.fetchval("SELECT current_database()")
        await conn.execute(f'ALTER DATABASE "{name}" SET enable_indexscan = off')
    await mailboxes.rename(await open_store(), ALICE, ("a", "a"), ("a",))
    assert await names(store) - DEFAULTS == {("a",), ("a", "a")}
    assert (await mailboxes.find(store, ALICE, ("a",))).mailbox_id == parent.mailbox_id
    assert (await mailboxes.find(store, ALICE, ("a", "a"))).mailbox_id == child.mailbox_id


@pytest.mark.parametrize(
    ("source", "target", "error"),
    [
        (("absent",), ("x",), NotFound),
        (("a",), ("Sent",), AlreadyExists),
        (("a",), ("a", "b", "c"), NotAllowed),
        (("a",), ("a",), NotAllowed),
    ],
)
async def test_renames_that_are_refused(store: Store, source: Name, target: Name, error: type[Exception]) -> None:
    await mailboxes.create(store, ALICE, ("a", "b"))
    before = await names(store)
    with pytest.raises(error):
        await mailboxes.rename(store, ALICE, source, target)
    assert await names(store) == before


async def test_a_rename_that_would_meet_others_changes_nothing(store: Store) -> None:
    """The target is only a place, and what is below it is in the way."""
    for name in (("a", "x"), ("a", "y"), ("b", "x")):
        await mailboxes.create(store, ALICE, name)
    await mailboxes.delete(store, ALICE, (await mailboxes.find(store, ALICE, ("b",))).mailbox_id)
    before = await names(store)
    with pytest.raises(AlreadyExists):
        await mailboxes.rename(store, ALICE, ("a",), ("b",))
    assert await names(store) == before
    await mailboxes.rename(store, ALICE, ("a", "y"), ("b",))
    assert await names(store) == before - {("a", "y")} | {("b",)}


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        (("a",) * 100, ("a",), ("b", "a")),
        (("é" * 120,) * 4, ("é" * 120,), ("é" * 127, "é" * 20)),
        (("é" * 120,) * 4, ("é" * 120,) * 2, ("é" * 127,) * 3),
    ],
)
async def test_no_rename_makes_a_name_too_long(store: Store, name: Name, source: Name, target: Name) -> None:
    await mailboxes.create(store, ALICE, name)
    before = await names(store)
    with pytest.raises(LimitReached):
        await mailboxes.rename(store, ALICE, source, target)
    assert await names(store) == before


async def test_renaming_inbox_moves_its_messages(store: Store) -> None:
    """RFC 3501 §6.3.5: INBOX stays, empty; children of INBOX are not moved."""
    await mailboxes.create(store, ALICE, ("INBOX", "child"))
    await fill(store, 70)
    await mailboxes.rename(store, ALICE, ("INBOX",), ("old", "mail"))
    assert await names(store) == DEFAULTS | {("INBOX", "child"), ("old",), ("old", "mail")}
    assert (await mailboxes.get(store, ALICE, INBOX)).messages == 0
    assert (await mailboxes.find(store, ALICE, ("old", "mail"))).messages == 70
    await check_all(store)


async def test_subscriptions(store: Store) -> None:
    await mailboxes.subscribe(store, ALICE, ("not", "there"))
    await mailboxes.subscribe(store, ALICE, ("not", "there"))
    assert ("not", "there") in await mailboxes.subscriptions(store, ALICE)
    await mailboxes.unsubscribe(store, ALICE, ("not", "there"))
    with pytest.raises(NotFound):
        await mailboxes.unsubscribe(store, ALICE, ("not", "there"))
    assert await mailboxes.subscriptions(store, BOB) == DEFAULTS


async def test_subscriptions_are_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailboxes, "MAX_SUBSCRIPTIONS", len(DEFAULTS) + 1)
    await mailboxes.subscribe(store, ALICE, ("one", "more"))
    with pytest.raises(LimitReached):
        await mailboxes.subscribe(store, ALICE, ("too", "many"))
    await mailboxes.subscribe(store, ALICE, ("one", "more"))
    assert await mailboxes.subscriptions(store, ALICE) == DEFAULTS | {("one", "more")}


async def test_recent_is_claimed_once(store: Store) -> None:
    await fill(store, 3)
    box = await mailboxes.get(store, ALICE, INBOX)
    claims = await asyncio.gather(*(mailboxes.claim_recent(store, box) for _ in range(3)))
    assert sorted(claims, key=str) == [(1, 4), None, None]
    await fill(store, 2)
    assert await mailboxes.claim_recent(store, box) == (4, 6)


async def test_mail_that_comes_while_recent_is_claimed_stays_recent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view hears of the new message before it hears of the claim that was made before it."""
    await fill(store, 3)
    view = await store.views.open(ALICE, INBOX)
    told = store.views.claimed
    late: list[tuple[int, int, int]] = []
    monkeypatch.setattr(store.views, "claimed", lambda *claim: late.append(claim))
    assert await mailboxes.claim_recent(store, view.snapshot.mailbox) == (1, 4)
    await fill(store, 1)
    told(*late[0])
    assert (view.snapshot.mailbox.recent, view.snapshot.mailbox.recent_uid) == (1, 4)
    assert await mailboxes.claim_recent(store, view.snapshot.mailbox) == (4, 5)
    view.close()


async def test_a_claim_of_another_worker_is_seen_by_refresh(open_store: OpenStore, store: Store) -> None:
    other = await open_store()
    await fill(store, 3)
    view = await other.views.open(ALICE, INBOX)
    await mailboxes.claim_recent(store, await mailboxes.get(store, ALICE, INBOX))
    await view.refresh()
    assert view.snapshot.mailbox == await mailboxes.get(store, ALICE, INBOX)
    view.close()


async def test_expunged_messages_are_not_recent(store: Store) -> None:
    await fill(store, 3)
    await messages.store_flags(store, ALICE, INBOX, [2], FlagChange("+", Flag.DELETED))
    await messages.expunge(store, ALICE, INBOX, None)
    assert (await mailboxes.get(store, ALICE, INBOX)).recent == 2
    await mailboxes.claim_recent(store, await mailboxes.get(store, ALICE, INBOX))
    await messages.store_flags(store, ALICE, INBOX, [1], FlagChange("+", Flag.DELETED))
    await messages.expunge(store, ALICE, INBOX, None)
    assert (await mailboxes.get(store, ALICE, INBOX)).recent == 0


async def test_claims_beside_deliveries_lose_nothing(store: Store) -> None:
    async def claim() -> int:
        found = await mailboxes.claim_recent(store, await mailboxes.get(store, ALICE, INBOX))
        return found[1] - found[0] if found else 0

    work = [deliver(store) for _ in range(30)], [claim() for _ in range(30)]
    _, claimed = await asyncio.gather(asyncio.gather(*work[0]), asyncio.gather(*work[1]))
    assert sum(claimed) + await claim() == 30


async def test_the_mailbox_of_a_use(store: Store) -> None:
    sent = await mailboxes.find(store, ALICE, ("Sent",))
    assert await mailboxes.with_use(store, ALICE, "\\Sent") == sent.mailbox_id
    assert await mailboxes.with_use(store, ALICE, "\\Flagged") is None
    both = await mailboxes.create(store, BOB, ("Both",), ["\\All", "\\Flagged"])
    assert await mailboxes.with_use(store, BOB, "\\Flagged") == both.mailbox_id
    await mailboxes.delete(store, ALICE, sent.mailbox_id)
    assert await mailboxes.with_use(store, ALICE, "\\Sent") is None
