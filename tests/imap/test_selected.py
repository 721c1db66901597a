"""A session's own changes are in its view even where the worker has not heard of them yet."""

from __future__ import annotations

import pytest

from mailserver.imap.errors import Goodbye
from mailserver.imap.selected import Selected
from mailserver.imap.view import Memo
from storage import FlagChange, Store, accounts, messages
from storage.records import INBOX
from tests.imap.conftest import OpenStore, Server
from tests.imap.mail import put


@pytest.fixture
async def elsewhere(open_store: OpenStore, store: Store) -> Store:
    """The same mail in another worker, which hears nothing of the first one's changes."""
    other = await open_store()
    other.views._unlisten()
    return other


async def opened(store: Store, *, read_only: bool = False) -> Selected:
    account = await accounts.find(store, "alice")
    view = await store.views.open(account.account_id, INBOX)
    return Selected(view, Memo(), read_only=read_only)


async def test_own_changes_are_looked_for(server: Server, elsewhere: Store) -> None:
    selected = await opened(elsewhere)
    placed = await put(server, b"one")
    await selected.including([placed.uid])
    assert selected.view.snapshot.uids() == [1]
    key = (server.store, placed.account_id, placed.mailbox_id)
    result = await messages.store_flags(*key, [1], FlagChange("+", 8))
    await selected.since(result.modseq)
    assert selected.view.snapshot.at(1).flags == 8
    await selected.without(await messages.expunge(*key, None))
    assert selected.view.snapshot.count == 0
    selected.close()


async def test_a_deleted_mailbox_ends_the_session(server: Server) -> None:
    selected = await opened(server.store)
    selected.view.gone()
    with pytest.raises(Goodbye):
        selected.push(None)  # type: ignore[arg-type]
    selected.close()


async def test_read_only_offers_no_permanent_flags(server: Server) -> None:
    selected = await opened(server.store, read_only=True)
    assert b"[PERMANENTFLAGS ()]" in selected.flag_lines()
    selected.close()
