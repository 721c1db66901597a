"""IDLE (RFC 2177): what happens elsewhere is told at once, and a waiting session has no task."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mailserver.imap.selected import Selected
from mailserver.imap.session import Session
from mailserver.imap.view import Changes
from storage import FlagChange, messages
from tests.imap.conftest import Client, OpenStore, Server, running
from tests.imap.mail import put


async def idling(server: Server, command: str = "SELECT INBOX") -> Client:
    client = await server.logged_in()
    await client.ask(command)
    await server.play("C: i IDLE\nS: + Idling", client)
    return client


@pytest.mark.usefixtures("cut")
async def test_news_come_by_themselves(server: Server) -> None:
    await put(server, b"one")
    client = await idling(server)
    assert all(session._task is None for session in server.made)
    placed = await put(server, b"two")
    await server.play("S: * 2 EXISTS\nS: * 2 RECENT", client)
    key = (server.store, placed.account_id, placed.mailbox_id)
    await messages.store_flags(*key, [1], FlagChange("+", 8))
    await server.play("S: * 1 FETCH (UID 1 FLAGS (\\Deleted \\Recent))", client)
    await messages.expunge(*key, None)
    await server.play("S: * 1 EXPUNGE", client)
    await server.play("C: DONE\nS: i OK IDLE completed\nC: a NOOP\nS: a OK NOOP completed", client)
    assert all(session._task is None for session in server.made)


async def test_done_may_come_with_the_next_command(server: Server) -> None:
    client = await server.logged_in()
    await client.send(b"a SELECT INBOX\r\nb IDLE\r\ndone\r\nc NOOP\r\n")
    lines = [await client.line() for _ in range(11)]
    assert lines[-3:] == ["+ Idling", "b OK IDLE completed", "c OK NOOP completed"]


async def test_without_a_mailbox(server: Server) -> None:
    client = await server.logged_in()
    await server.play("C: i IDLE\nS: + Idling\nC: DONE\nS: i OK IDLE completed", client)


@pytest.mark.parametrize("line", ["a NOOP", "", "x" * 500])
async def test_anything_but_done_ends_it(server: Server, line: str) -> None:
    client = await idling(server)
    await server.play(f"C: {line}\nS: i BAD Expected DONE\nC: b NOOP\nS: b OK …", client)
    await put(server, b"one")
    await client.silent()


async def test_news_of_before_idle_come_behind_the_continuation(server: Server) -> None:
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await put(server, b"one")
    written: list[bytes] = []
    session = server.made[-1]
    real = session.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Session, "write", lambda _, octets: (written.append(octets), real(octets)))
        await server.play("C: i IDLE\nS: + Idling\nS: * 1 EXISTS\nS: * 1 RECENT", client)
    assert len(written) == 1


async def test_a_deleted_mailbox(server: Server) -> None:
    first = await server.logged_in()
    await first.ask("CREATE Gone")
    second = await idling(server, "SELECT Gone")
    await first.ask("DELETE Gone")
    await server.play("S: * BYE The selected mailbox was deleted", second)


async def test_more_than_is_told_at_once(server: Server) -> None:
    placed = await put(server, b"one")
    uids = [1]
    key = (server.store, placed.account_id, placed.mailbox_id)
    while len(uids) < 1200:
        uids += (await messages.copy(*key, uids, placed.mailbox_id)).destination
    client = await idling(server)
    await messages.store_flags(*key, uids, FlagChange("+", 8))
    for seq in range(1, len(uids) + 1):
        assert (await client.line()).startswith(f"* {seq} FETCH (UID {seq} FLAGS (\\Deleted")
    await messages.expunge(*key, None)
    for seq in range(len(uids), 0, -1):
        assert await client.line() == f"* {seq} EXPUNGE"
    await server.play("C: DONE\nS: i OK …", client)


async def test_done_while_much_is_told(server: Server) -> None:
    """What comes in the meantime is read when that is over."""
    placed = await put(server, b"one")
    uids = [1]
    key = (server.store, placed.account_id, placed.mailbox_id)
    while len(uids) < 1200:
        uids += (await messages.copy(*key, uids, placed.mailbox_id)).destination
    client = await idling(server)
    session = server.made[-1]
    gate = asyncio.Event()
    real = session.selected.tell  # type: ignore[union-attr]

    async def tell(self: Selected, to: Session, changes: Changes) -> None:
        await gate.wait()
        await real(to, changes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Selected, "tell", tell)
        await messages.store_flags(*key, uids, FlagChange("+", 8))
        while session._task is None:
            await asyncio.sleep(0)
        await client.send(b"DONE\r\n")
        await asyncio.sleep(0.05)
        gate.set()
        for _ in uids:
            assert "FETCH" in await client.line()
        assert await client.line() == "i OK IDLE completed"


async def test_a_client_that_does_not_read_is_told_the_difference_later(server: Server) -> None:
    placed = await put(server, b"one")
    client = await idling(server)
    session = server.made[-1]
    key = (server.store, placed.account_id, placed.mailbox_id)
    session.blocked = True
    for flags in (1, 4, 8):
        await messages.store_flags(*key, [1], FlagChange("=", flags))
    await put(server, b"two")
    await client.silent()
    session.blocked = False
    session.writable()
    await server.play("S: * 2 EXISTS\nS: * 2 RECENT\nS: * 1 FETCH (UID 1 FLAGS (\\Deleted \\Recent))", client)


async def test_a_session_that_ends_while_idling_leaves_nothing(server: Server) -> None:
    client = await idling(server)
    view = server.made[-1].selected.view  # type: ignore[union-attr]
    client.close()
    async with asyncio.timeout(5):
        while view.users:
            await asyncio.sleep(0.01)
    assert not view._listeners


async def test_hundreds_of_sessions_hear_of_one_message(server: Server) -> None:
    clients = [await idling(server) for _ in range(200)]
    await put(server, b"one")
    for client in clients:
        assert await client.line() == "* 1 EXISTS"
    recent = sorted([await client.line() for client in clients])
    assert recent == ["* 0 RECENT"] * 199 + ["* 1 RECENT"]


async def test_changes_of_another_worker_are_heard(server: Server, open_store: OpenStore, certificate: Path) -> None:
    async with running(await open_store(), certificate) as elsewhere:
        client = await idling(server)
        placed = await put(elsewhere, b"one")
        await server.play("S: * 1 EXISTS\nS: * 1 RECENT", client)
        other = await elsewhere.logged_in()
        await other.ask("SELECT INBOX")
        await other.ask("STORE 1 +FLAGS.SILENT (\\Deleted)")
        await server.play(f"S: * 1 FETCH (UID {placed.uid} FLAGS (\\Deleted \\Recent))", client)
        await other.ask("EXPUNGE")
        await server.play("S: * 1 EXPUNGE", client)
