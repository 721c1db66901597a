"""SELECT, EXAMINE, NOOP, CHECK, CLOSE, UNSELECT, and whose the recent messages are."""

from __future__ import annotations

import pytest

from tests.imap.conftest import Server
from tests.imap.mail import put


@pytest.mark.usefixtures("cut")
async def test_select_describes_the_mailbox(server: Server) -> None:
    await put(server, b"one", flags=1)
    await put(server, b"two", keywords=("$Junk",))
    client = await server.logged_in()
    await server.play(
        r"""
        C: a SELECT inbox
        S: * FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Junk)
        S: * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft $Junk \*)] …
        S: * 2 EXISTS
        S: * 2 RECENT
        S: * OK [UNSEEN 2] …
        S: * OK [UIDVALIDITY …] …
        S: * OK [UIDNEXT 3] …
        S: * OK [HIGHESTMODSEQ …] …
        S: a OK [READ-WRITE] SELECT completed
        """,
        client,
    )


async def test_examine_changes_nothing(server: Server) -> None:
    await put(server, b"one")
    client = await server.logged_in()
    await server.play(
        r"""
        C: a EXAMINE INBOX
        S: * FLAGS (\Answered \Flagged \Deleted \Seen \Draft)
        S: * OK [PERMANENTFLAGS ()] …
        S: * 1 EXISTS
        S: * 1 RECENT
        S: * OK [UNSEEN 1] …
        S: * OK [UIDVALIDITY …] …
        S: * OK [UIDNEXT 2] …
        S: * OK [HIGHESTMODSEQ …] …
        S: a OK [READ-ONLY] EXAMINE completed
        C: b FETCH 1 (FLAGS BODY[TEXT])
        S: * 1 FETCH (FLAGS (\Recent) BODY[TEXT] {5}
        S: one
        S: )
        S: b OK FETCH completed
        C: c STORE 1 +FLAGS (\Deleted)
        S: c NO [READ-ONLY] …
        C: d EXPUNGE
        S: d NO [READ-ONLY] …
        C: e MOVE 1 Trash
        S: e NO [READ-ONLY] …
        C: f COPY 1 Trash
        S: f OK [COPYUID …] …
        C: g CLOSE
        S: g OK CLOSE completed
        C: h STATUS INBOX (MESSAGES RECENT UNSEEN)
        S: * STATUS INBOX (MESSAGES 1 RECENT 1 UNSEEN 1)
        S: h OK …
        """,
        client,
    )


async def test_an_empty_mailbox(server: Server) -> None:
    client = await server.logged_in()
    lines = await client.ask("SELECT Drafts")
    assert "* 0 EXISTS" in lines
    assert "* 0 RECENT" in lines
    assert not [line for line in lines if "UNSEEN" in line]
    assert "* OK [UIDNEXT 1] Next UID" in lines


async def test_a_mailbox_that_is_not_there(server: Server) -> None:
    """RFC 3501 §6.3.1: then none is selected, whatever was before."""
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await server.play(
        """
        C: a SELECT Nowhere
        S: * OK [CLOSED] The mailbox selected before is closed
        S: a NO [NONEXISTENT] No such mailbox
        C: b CHECK
        S: b BAD Command is not allowed without a selected mailbox
        """,
        client,
    )


async def test_close_expunges_without_a_word(server: Server) -> None:
    for flags in (0, 8, 0):
        await put(server, b"text", flags=flags)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await server.play(
        """
        C: a CLOSE
        S: a OK CLOSE completed
        C: b STATUS INBOX (MESSAGES)
        S: * STATUS INBOX (MESSAGES 2)
        S: b OK …
        C: c CLOSE
        S: c BAD …
        """,
        client,
    )


async def test_unselect_expunges_nothing(server: Server) -> None:
    await put(server, b"text", flags=8)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await server.play(
        "C: a UNSELECT\nS: a OK …\nC: b STATUS INBOX (MESSAGES)\nS: * STATUS INBOX (MESSAGES 1)\nS: b OK …", client
    )


@pytest.mark.parametrize("command", ["NOOP", "CHECK"])
async def test_news_come_with_noop_and_check(server: Server, command: str) -> None:
    await put(server, b"one")
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await put(server, b"two")
    await server.play(f"C: a {command}\nS: * 2 EXISTS\nS: * 2 RECENT\nS: a OK {command} completed", client)
    await server.play(f"C: a {command}\nS: a OK {command} completed", client)


async def test_a_message_is_recent_in_one_session_only(server: Server) -> None:
    await put(server, b"one")
    first, second = await server.logged_in(), await server.logged_in()
    assert "* 1 RECENT" in await first.ask("SELECT INBOX")
    assert "* 0 RECENT" in await second.ask("SELECT INBOX")
    await put(server, b"two")
    await server.play(
        r"""
        2C: a NOOP
        2S: * 2 EXISTS
        2S: * 1 RECENT
        2S: a OK …
        1C: b NOOP
        1S: * 2 EXISTS
        1S: * 1 RECENT
        1S: b OK …
        1C: c FETCH 1:2 FLAGS
        1S: * 1 FETCH (FLAGS (\Recent))
        1S: * 2 FETCH (FLAGS ())
        1S: c OK …
        2C: d FETCH 1:2 FLAGS
        2S: * 1 FETCH (FLAGS ())
        2S: * 2 FETCH (FLAGS (\Recent))
        2S: d OK …
        """,
        first,
        second,
    )
    third = await server.logged_in()
    assert "* 0 RECENT" in await third.ask("SELECT INBOX")


async def test_who_only_looks_claims_nothing(server: Server) -> None:
    await put(server, b"one")
    looking, working = await server.logged_in(), await server.logged_in()
    assert "* 1 RECENT" in await looking.ask("EXAMINE INBOX")
    await put(server, b"two")
    assert "* 2 RECENT" in await looking.ask("NOOP")
    assert "* 2 RECENT" in await working.ask("SELECT INBOX")


async def test_new_keywords_are_announced(server: Server) -> None:
    await put(server, b"one")
    first, second = await server.logged_in(), await server.logged_in()
    await first.ask("SELECT INBOX")
    await second.ask("SELECT INBOX")
    await first.ask("STORE 1 +FLAGS.SILENT ($Label1)")
    await server.play(
        r"""
        C: a NOOP
        S: * FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Label1)
        S: * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft $Label1 \*)] …
        S: * 1 FETCH (UID 1 FLAGS ($Label1))
        S: a OK …
        """,
        second,
    )


async def test_whoever_has_a_deleted_mailbox_selected_is_disconnected(server: Server) -> None:
    """RFC 2180 §3.4."""
    first, second = await server.logged_in(), await server.logged_in()
    await first.ask("CREATE Gone")
    await second.ask("SELECT Gone")
    await first.ask("DELETE Gone")
    await server.play("C: a NOOP\nS: * BYE The selected mailbox was deleted", second)
    assert await second.closed()


async def test_deleting_the_mailbox_that_one_has_selected(server: Server) -> None:
    client = await server.logged_in()
    await client.ask("CREATE Gone")
    await client.ask("SELECT Gone")
    await server.play("C: a DELETE Gone\nS: a OK …\nC: b CHECK\nS: b BAD …\nC: c NOOP\nS: c OK …", client)
