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


async def test_other_settings_for_sessions_that_are_open_and_for_those_to_come(server: Server) -> None:
    """What is asked at every command counts at once; the size of commands for who logs in from then on."""
    old = await server.logged_in()
    config = server.config
    imap = config.imap.model_copy(update={"max_errors": 2, "max_append_octets": 2000})
    server.service.reconfigure(config.model_copy(update={"imap": imap}))
    new = await server.logged_in()
    await new.send(b"a APPEND INBOX {3000}\r\n")
    assert (await new.line()).startswith("a NO [TOOBIG]")
    await old.send(b"a APPEND INBOX {3000}\r\n")
    assert (await old.line()).startswith("+")
    await old.send(b"x" * 3000 + b"\r\n")
    assert (await old.line()).startswith("a OK")
    for line in ("a BAD", "b BAD", "* BYE"):
        if line[0] != "*":
            await old.send(line[:1].encode() + b" RUBBISH\r\n")
        assert (await old.line()).startswith(line)
