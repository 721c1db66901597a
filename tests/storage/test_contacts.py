"""Contacts on a real database: order, pages, changes, and the account's clock."""

from __future__ import annotations

import pytest

from storage import contacts
from storage.account_state import quota
from storage.contacts import BEGINNING
from storage.errors import LimitReached, NotFound
from storage.records import AccountId, Notice
from storage.store import Store
from tests.storage.conftest import ALICE, BOB


async def test_a_contact_comes_changes_and_goes(store: Store) -> None:
    made = await contacts.add(store, ALICE, "Zoë", "zoe@example.org", {"phone": "1", "note": "x"})
    assert await contacts.get(store, ALICE, made.contact_id) == made
    changed = await contacts.change(store, ALICE, made.contact_id, {"name": "Zoe", "phone": None, "title": "Dr"})
    assert (changed.name, changed.email, changed.details) == ("Zoe", "zoe@example.org", {"note": "x", "title": "Dr"})
    assert changed.modseq > made.modseq
    await contacts.remove(store, ALICE, made.contact_id)
    for gone in (
        contacts.get(store, ALICE, made.contact_id),
        contacts.change(store, ALICE, made.contact_id, {"name": "x"}),
        contacts.remove(store, ALICE, made.contact_id),
    ):
        with pytest.raises(NotFound):
            await gone


async def test_nobody_sees_those_of_others(store: Store) -> None:
    made = await contacts.add(store, ALICE, "A", "a@example.org", {})
    with pytest.raises(NotFound):
        await contacts.get(store, BOB, made.contact_id)
    with pytest.raises(NotFound):
        await contacts.remove(store, BOB, made.contact_id)
    assert await contacts.page(store, BOB, BEGINNING, 10) == []
    with pytest.raises(NotFound):
        await contacts.add(store, AccountId(99), "A", "a@example.org", {})


async def test_pages_are_in_the_order_of_names(store: Store) -> None:
    names = ["Émile", "bob", "Alice", "alice", "Zed", "emil", "Bob"]
    for name in names:
        await contacts.add(store, ALICE, name, "x@example.org", {})
    found: list[str] = []
    place = BEGINNING
    while page := await contacts.page(store, ALICE, place, 2):
        found += [contact.name for contact in page]
        place = page[-1].place
    assert [contacts.sort_key(name) for name in found] == sorted(map(contacts.sort_key, names))
    assert sorted(found) == sorted(names) and await contacts.count(store, ALICE) == 7


async def test_their_number_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contacts, "MAX_CONTACTS", 2)
    for _ in range(2):
        await contacts.add(store, ALICE, "A", "a@example.org", {})
    with pytest.raises(LimitReached):
        await contacts.add(store, ALICE, "A", "a@example.org", {})


async def test_a_change_is_told(store: Store) -> None:
    heard: list[Notice] = []
    store.changes.listen(heard.append)
    made = await contacts.add(store, ALICE, "A", "a@example.org", {})
    assert Notice("contacts", ALICE, made.modseq) in heard
    assert (await quota(store, ALICE)).used_messages == 0
