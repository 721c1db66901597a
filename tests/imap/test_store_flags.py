"""STORE: what changes, and who is told what."""

from __future__ import annotations

import pytest

from storage import FlagChange, Placed, messages
from tests.imap.conftest import Client, Server
from tests.imap.mail import put


async def mailbox(server: Server, count: int = 3) -> tuple[Client, Placed]:
    for _ in range(count):
        placed = await put(server, b"text")
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await client.ask("CLOSE")
    await client.ask("SELECT INBOX")  # so that nothing is recent
    return client, placed


async def elsewhere(server: Server, placed: Placed, uids: list[int], op: str, flags: int) -> None:
    """Another session's change."""
    change = FlagChange(op, flags)
    await messages.store_flags(server.store, placed.account_id, placed.mailbox_id, uids, change)


@pytest.mark.usefixtures("cut")
async def test_store_answers_for_every_message_of_the_set(server: Server) -> None:
    client, _ = await mailbox(server)
    await server.play(
        r"""
        C: a STORE 1:2 +FLAGS (\Seen)
        S: * 1 FETCH (FLAGS (\Seen))
        S: * 2 FETCH (FLAGS (\Seen))
        S: a OK STORE completed
        C: b STORE 2:3 +FLAGS \Seen $Work
        S: * FLAGS (\Answered \Flagged \Deleted \Seen \Draft $Work)
        S: * OK [PERMANENTFLAGS (\Answered \Flagged \Deleted \Seen \Draft $Work \*)] …
        S: * 2 FETCH (FLAGS (\Seen $Work))
        S: * 3 FETCH (FLAGS (\Seen $Work))
        S: b OK …
        C: c STORE 2 -FLAGS ($WORK)
        S: * 2 FETCH (FLAGS (\Seen))
        S: c OK …
        C: d STORE 2 -FLAGS ($Work \Flagged)
        S: * 2 FETCH (FLAGS (\Seen))
        S: d OK …
        C: e STORE 3 FLAGS (\Deleted)
        S: * 3 FETCH (FLAGS (\Deleted))
        S: e OK …
        C: f STORE 3 FLAGS ()
        S: * 3 FETCH (FLAGS ())
        S: f OK …
        C: g UID STORE 1:2 +FLAGS (\Answered)
        S: * 1 FETCH (UID 1 FLAGS (\Answered \Seen))
        S: * 2 FETCH (UID 2 FLAGS (\Answered \Seen))
        S: g OK UID STORE completed
        C: h UID STORE 9 +FLAGS (\Answered)
        S: h OK UID STORE completed
        C: i STORE 9 +FLAGS (\Answered)
        S: i BAD No such message
        """,
        client,
    )


async def test_silent(server: Server) -> None:
    client, _ = await mailbox(server)
    await server.play(
        r"""
        C: a STORE 1:3 +FLAGS.SILENT (\Seen)
        S: a OK STORE completed
        C: b UID STORE 2 -FLAGS.SILENT (\Seen)
        S: b OK UID STORE completed
        C: c STORE 3 FLAGS.SILENT (\Flagged)
        S: c OK …
        C: d NOOP
        S: d OK …
        C: e FETCH 1:3 FLAGS
        S: * 1 FETCH (FLAGS (\Seen))
        S: * 2 FETCH (FLAGS ())
        S: * 3 FETCH (FLAGS (\Flagged))
        S: e OK …
        """,
        client,
    )


async def test_silent_is_not_silent_about_others(server: Server) -> None:
    """RFC 3501 §6.4.6: what the client cannot know it is told, of messages of the set and of others."""
    client, placed = await mailbox(server, 4)
    await elsewhere(server, placed, [1, 4], "+", 4)
    await elsewhere(server, placed, [2], "+", 1)
    await server.play(
        r"""
        C: a STORE 1:3 +FLAGS.SILENT (\Seen)
        S: * 1 FETCH (UID 1 FLAGS (\Flagged \Seen))
        S: * 4 FETCH (UID 4 FLAGS (\Flagged))
        S: a OK …
        C: b NOOP
        S: b OK …
        """,
        client,
    )


async def test_other_changes_are_told_once(server: Server) -> None:
    client, placed = await mailbox(server)
    await elsewhere(server, placed, [1, 3], "+", 4)
    await server.play(
        r"""
        C: a STORE 1:2 +FLAGS (\Seen)
        S: * 3 FETCH (UID 3 FLAGS (\Flagged))
        S: * 1 FETCH (FLAGS (\Flagged \Seen))
        S: * 2 FETCH (FLAGS (\Seen))
        S: a OK …
        """,
        client,
    )


async def test_messages_that_others_expunged(server: Server) -> None:
    """RFC 5530, EXPUNGEISSUED; RFC 3501 §7.4.1: no EXPUNGE during STORE, it comes with the next command."""
    client, placed = await mailbox(server)
    await elsewhere(server, placed, [2], "+", 8)
    await messages.expunge(server.store, placed.account_id, placed.mailbox_id, [2])
    await server.play(
        r"""
        C: a STORE 1:3 +FLAGS (\Seen)
        S: * 1 FETCH (FLAGS (\Seen))
        S: * 3 FETCH (FLAGS (\Seen))
        S: a OK [EXPUNGEISSUED] STORE completed
        C: b STORE 3 +FLAGS.SILENT (\Flagged)
        S: b OK STORE completed
        C: c NOOP
        S: * 2 EXPUNGE
        S: c OK …
        C: d UID STORE 1:* +FLAGS (\Flagged)
        S: * 1 FETCH (UID 1 FLAGS (\Flagged \Seen))
        S: * 2 FETCH (UID 3 FLAGS (\Flagged \Seen))
        S: d OK …
        """,
        client,
    )


async def test_uid_store_may_tell_of_expunges(server: Server) -> None:
    client, placed = await mailbox(server)
    await elsewhere(server, placed, [1], "+", 8)
    await messages.expunge(server.store, placed.account_id, placed.mailbox_id, [1])
    await server.play(
        r"""
        C: a UID STORE 3 +FLAGS (\Seen)
        S: * 3 FETCH (UID 3 FLAGS (\Seen))
        S: * 1 EXPUNGE
        S: a OK UID STORE completed
        """,
        client,
    )


async def test_keywords_are_bounded(server: Server) -> None:
    """RFC 5530, LIMIT; and \\* is no longer offered."""
    client, _ = await mailbox(server, 1)
    for first in range(0, 58, 29):
        keywords = " ".join(f"k{i}" for i in range(first, first + 29))
        await client.ask(f"STORE 1 +FLAGS.SILENT ({keywords})")
    await server.play("C: a STORE 1 +FLAGS (one-more)\nS: a NO [LIMIT] …", client)
    lines = await client.ask("SELECT INBOX")
    assert not [line for line in lines if "\\*" in line]


async def test_recent_cannot_be_stored(server: Server) -> None:
    client, _ = await mailbox(server, 1)
    await server.play("C: a STORE 1 +FLAGS (\\Recent)\nS: * 1 FETCH (FLAGS ())\nS: a OK …", client)


async def test_many(server: Server) -> None:
    """More than are told without letting others run."""
    client, placed = await mailbox(server, 1)
    uids = [1]
    while len(uids) < 1500:
        result = await messages.copy(server.store, placed.account_id, placed.mailbox_id, uids, placed.mailbox_id)
        uids += result.destination
    await client.ask("SELECT INBOX")
    other = await server.logged_in()
    await other.ask("SELECT INBOX")
    lines = await client.ask("STORE 1:* FLAGS (\\Flagged)")
    assert len([line for line in lines if "FETCH (FLAGS (\\Flagged" in line]) == len(uids)
    lines = await other.ask("NOOP")
    assert len([line for line in lines if "FETCH (UID" in line]) == len(uids)
    assert len(await client.ask("STORE 1:* +FLAGS.SILENT (\\Deleted)")) == 1
    lines = await client.ask("EXPUNGE")
    assert [line for line in lines if "EXPUNGE" in line][:-1] == [f"* {seq} EXPUNGE" for seq in range(len(uids), 0, -1)]
    assert [line for line in await other.ask("NOOP") if "EXPUNGE" in line] == lines[:-1]
