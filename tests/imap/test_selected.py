"""A session's own changes are in its view even where the worker has not heard of them yet."""

from __future__ import annotations

import asyncio
import re

import pytest

from mailserver.imap.errors import Goodbye
from mailserver.imap.selected import Selected
from mailserver.imap.view import Memo
from storage import FlagChange, Store, accounts, messages
from storage.errors import Unavailable
from storage.records import INBOX
from storage.views import MailboxView
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
    return Selected(view, Memo(), read_only=read_only, is_busy=lambda: False)


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


async def fold(server: Server) -> None:
    """The worker's memory for views is needed for others, as soon as the session is at rest."""
    (view,) = server.store.views._open.values()
    async with asyncio.timeout(10):
        while not (view.folded or view.fold()):
            await asyncio.sleep(0.01)


async def test_a_folded_mailbox_is_told_of_and_numbered_as_ever(server: Server, elsewhere: Store) -> None:
    for octets in (b"one", b"two", b"three"):
        placed = await put(server, octets)
    key = (elsewhere, placed.account_id, placed.mailbox_id)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await fold(server)
    assert await client.ask("NOOP") == ["x OK NOOP completed"]
    await messages.store_flags(*key, [1, 2], FlagChange("+", 8))
    await messages.store_flags(*key, [3], FlagChange("+", 1))
    await messages.expunge(*key, [2])
    await fold(server)
    assert await client.ask("FETCH 2:3 UID") == [
        "* 1 FETCH (UID 1 FLAGS (\\Deleted \\Recent))",
        "* 3 FETCH (UID 3 FLAGS (\\Seen \\Recent))",
        "* 3 FETCH (UID 3)",
        "x OK [EXPUNGEISSUED] FETCH completed",
    ]
    assert await client.ask("NOOP") == ["* 2 EXPUNGE", "x OK NOOP completed"]
    await fold(server)
    await client.send(b"i IDLE\r\n")
    assert await client.line() == "+ Idling"
    await fold(server)
    await put(server, b"four")
    assert await client.line() == "* 3 EXISTS"
    assert await client.line() == "* 3 RECENT"
    await client.send(b"DONE\r\n")
    assert await client.line() == "i OK IDLE completed"


async def test_a_session_whose_numbers_are_lost_ends(server: Server, elsewhere: Store) -> None:
    placed = [await put(server, octets) for octets in (b"one", b"two")]
    key = (elsewhere, placed[0].account_id, placed[0].mailbox_id)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await fold(server)
    await messages.store_flags(*key, [1], FlagChange("+", 8))
    await messages.expunge(*key, [1])
    async with elsewhere.acquire() as conn:
        await conn.execute("DELETE FROM vanished")
    await client.send(b"x FETCH 1 FLAGS\r\n")
    assert (await client.line()).startswith("* BYE What has become of the selected mailbox is not known any more")
    assert await client.closed()


async def test_what_was_done_is_answered_though_the_numbers_cannot_be_read(
    server: Server, elsewhere: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An APPEND to another mailbox, while the selected one is folded and the client lags behind."""
    placed = await put(server, b"one")
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    other = await server.logged_in()
    await other.ask("SELECT INBOX")
    await messages.store_flags(elsewhere, placed.account_id, placed.mailbox_id, [1], FlagChange("+", 8))
    await other.ask("NOOP")
    await fold(server)

    async def away(view: MailboxView) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(MailboxView, "unfold", away)
    assert (await client.ask("APPEND Drafts {1+}\r\nx"))[-1].startswith("x OK [APPENDUID")
    await client.send(b"y FETCH 1 FLAGS\r\n")
    assert (await client.line()).startswith("y NO [UNAVAILABLE]")
    monkeypatch.undo()
    assert "* 1 FETCH (UID 1 FLAGS (\\Deleted \\Recent))" in await client.ask("NOOP")


@pytest.mark.parametrize("folded", [False, True])
async def test_silence_about_own_changes_hides_no_others(server: Server, elsewhere: Store, folded: bool) -> None:
    """After folding, flags are in memory that the client was never told."""
    placed = [await put(server, octets) for octets in (b"one", b"two")]
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    if folded:
        await fold(server)
    await messages.store_flags(elsewhere, placed[0].account_id, placed[0].mailbox_id, [1], FlagChange("+", 8))
    told = await client.ask("STORE 1 +FLAGS.SILENT (\\Flagged)")
    assert told == ["* 1 FETCH (UID 1 FLAGS (\\Flagged \\Deleted \\Recent))", "x OK STORE completed"]


async def test_no_mod_sequence_is_made_up(server: Server, elsewhere: Store) -> None:
    """RFC 7162 §7: a mod-sequence is positive. Moved, expunged and changed messages are told as they are, or not."""
    placed = [await put(server, octets) for octets in (b"one", b"two", b"three", b"four")]
    key = (elsewhere, placed[0].account_id, placed[0].mailbox_id)
    client = await server.logged_in()
    await client.ask("ENABLE CONDSTORE")
    await client.ask("SELECT INBOX")
    for command in ("FETCH 1:5 (UID FLAGS MODSEQ)", "SEARCH MODSEQ 0", "SEARCH BODY x"):
        added = (await put(server, b"five")).uid
        await client.ask("NOOP")
        gone = (await client.ask("UID SEARCH ALL"))[0].split().index(str(added)) - 1
        await fold(server)
        await messages.store_flags(*key, [1], FlagChange("-" if command == "SEARCH MODSEQ 0" else "+", 1))
        await messages.move(*key, [added], placed[0].mailbox_id)
        told = await client.ask(command)
        assert not re.search(r"MODSEQ \(?0", "".join(told))
        assert told[-1].startswith("x OK")
        assert command == "SEARCH BODY x" or not any(
            re.match(rf"\* ({gone} FETCH|SEARCH.* {gone}\b)", line) for line in told
        )
        assert any(re.match(r"\* 1 FETCH \(UID 1 MODSEQ \(\d+\) FLAGS", line) for line in told)
        await client.ask("NOOP")
