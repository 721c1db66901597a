"""What the sessions of a worker share."""

from __future__ import annotations

import gc

from tests.imap.conftest import Server


async def test_sessions_of_a_mailbox_share_one_memo(server: Server) -> None:
    """It goes with the last of them."""
    clients = [await server.logged_in() for _ in range(2)]
    for client in clients:
        await client.ask("SELECT INBOX")
    memos = server.service._memos
    assert len(memos) == 1
    first, second = (session.selected for session in server.made)
    assert first is not None and second is not None
    assert first._memo is second._memo
    del first, second
    await clients[0].ask("UNSELECT")
    assert len(memos) == 1
    await clients[1].ask("SELECT Drafts")
    gc.collect()
    assert len(memos) == 1
    await clients[1].ask("CLOSE")
    gc.collect()
    assert len(memos) == 0


async def test_limits_before_and_after_login(server: Server) -> None:
    """Who has not logged in is believed less."""
    before, after = server.service.before_login, server.service.after_login
    assert before.append == 0
    assert before.command < after.command
    assert before.skip < after.skip
    client = await server.connect()
    await client.line()
    await client.send(b"a APPEND INBOX {100000}\r\n")
    assert (await client.line()).startswith("a NO [TOOBIG]")
