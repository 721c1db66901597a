"""ENABLE (RFC 5161), and what mod-sequences mean to those who have asked for them (RFC 7162 §3.1)."""

from __future__ import annotations

import pytest

from storage import FlagChange, Placed, messages
from storage.records import Flag
from tests.imap.conftest import Client, OpenStore, Server
from tests.imap.mail import put


async def inbox(server: Server, count: int = 3, *, parameter: str = "") -> tuple[Client, Placed, int]:
    """A client that has INBOX selected, where nothing is recent; the mailbox; its highest mod-sequence."""
    for _ in range(count):
        placed = await put(server, b"text")
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await client.ask("UNSELECT")
    lines = await client.ask(f"SELECT INBOX{parameter}")
    (modseq,) = [int(line.split("]")[0].split()[-1]) for line in lines if "HIGHESTMODSEQ" in line]
    return client, placed, modseq


async def elsewhere(server: Server, placed: Placed, uids: list[int], op: str, flags: int) -> int:
    """Another session's change; its mod-sequence."""
    change = FlagChange(op, flags)
    return (await messages.store_flags(server.store, placed.account_id, placed.mailbox_id, uids, change)).modseq


@pytest.mark.usefixtures("cut")
async def test_enable_says_what_is_on_from_now_on(server: Server) -> None:
    await server.play(
        """
        S: * OK …
        C: a ENABLE CONDSTORE
        S: a BAD Command is not allowed before login
        C: b LOGIN alice pw
        S: b OK …
        C: c ENABLE CONDSTORE X-GOOD-IDEA
        S: * ENABLED CONDSTORE
        S: c OK ENABLE completed
        C: d ENABLE condstore
        S: * ENABLED
        S: d OK ENABLE completed
        C: e ENABLE
        S: e BAD …
        """
    )


@pytest.mark.parametrize(
    "command",
    [
        "ENABLE CONDSTORE",
        "FETCH 1 MODSEQ",
        "FETCH 1 UID (CHANGEDSINCE 1)",
        "SEARCH MODSEQ 1",
        "STATUS Sent (HIGHESTMODSEQ)",
        r"STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\Seen)",
    ],
)
async def test_whoever_asks_for_mod_sequences_is_told_them_from_then_on(server: Server, command: str) -> None:
    client, placed, modseq = await inbox(server, 1)
    await elsewhere(server, placed, [1], "+", Flag.FLAGGED)
    assert r"* 1 FETCH (UID 1 FLAGS (\Flagged))" in await client.ask("NOOP")
    lines = await client.ask(command)
    assert f"* OK [HIGHESTMODSEQ {modseq + 1}] Highest mod-sequence" in lines
    assert not any("HIGHESTMODSEQ " in line and line.startswith("* OK") for line in await client.ask(command))
    modseq = await elsewhere(server, placed, [1], "-", Flag.FLAGGED)
    assert f"* 1 FETCH (UID 1 MODSEQ ({modseq}) FLAGS ())" in await client.ask("NOOP")


async def test_the_parameter_of_select(server: Server) -> None:
    client, placed, modseq = await inbox(server, parameter=" (CONDSTORE)")
    await elsewhere(server, placed, [2], "+", Flag.FLAGGED)
    assert rf"* 2 FETCH (UID 2 MODSEQ ({modseq + 1}) FLAGS (\Flagged))" in await client.ask("NOOP")
    assert f"* OK [HIGHESTMODSEQ {modseq + 1}] Highest mod-sequence" in await client.ask("EXAMINE INBOX (CONDSTORE)")
    await client.ask("UNSELECT")
    assert await client.ask("STATUS INBOX (HIGHESTMODSEQ)") == [
        f"* STATUS INBOX (HIGHESTMODSEQ {modseq + 1})",
        "x OK STATUS completed",
    ]


async def test_a_change_that_was_taken_back_has_a_new_mod_sequence(server: Server) -> None:
    client, placed, modseq = await inbox(server, parameter=" (CONDSTORE)")
    await elsewhere(server, placed, [1], "+", Flag.SEEN)
    await elsewhere(server, placed, [1], "-", Flag.SEEN)
    assert await client.ask("NOOP") == [f"* 1 FETCH (UID 1 MODSEQ ({modseq + 2}) FLAGS ())", "x OK NOOP completed"]


async def test_fetch_by_mod_sequence(server: Server) -> None:
    client, placed, modseq = await inbox(server)
    await elsewhere(server, placed, [2], "+", Flag.SEEN)
    first = modseq - 2
    await server.play(
        rf"""
        C: a FETCH 1:3 (MODSEQ)
        S: * OK [HIGHESTMODSEQ {modseq}] …
        S: * 1 FETCH (MODSEQ ({first}))
        S: * 2 FETCH (MODSEQ ({first + 1}))
        S: * 3 FETCH (MODSEQ ({modseq}))
        S: * 2 FETCH (UID 2 MODSEQ ({modseq + 1}) FLAGS (\Seen))
        S: a OK FETCH completed
        C: b UID FETCH 1:* (FLAGS) (CHANGEDSINCE {first + 1})
        S: * 2 FETCH (UID 2 MODSEQ ({modseq + 1}) FLAGS (\Seen))
        S: * 3 FETCH (UID 3 MODSEQ ({modseq}) FLAGS ())
        S: b OK UID FETCH completed
        C: c FETCH 1:2 (MODSEQ RFC822.SIZE) (CHANGEDSINCE {modseq})
        S: * 2 FETCH (MODSEQ ({modseq + 1}) RFC822.SIZE …)
        S: c OK FETCH completed
        C: d FETCH 1:* ENVELOPE (CHANGEDSINCE {modseq + 1})
        S: d OK FETCH completed
        C: e FETCH 2 BODY[TEXT] (CHANGEDSINCE {modseq})
        S: * 2 FETCH (MODSEQ ({modseq + 1}) BODY[TEXT] {{6}}
        S: text
        S: )
        S: e OK FETCH completed
        """,
        client,
    )


@pytest.mark.usefixtures("cut")
async def test_store_tells_the_new_mod_sequence(server: Server) -> None:
    client, _, modseq = await inbox(server, parameter=" (CONDSTORE)")
    await server.play(
        rf"""
        C: a STORE 1:2 +FLAGS.SILENT (\Deleted)
        S: * 1 FETCH (MODSEQ ({modseq + 1}))
        S: * 2 FETCH (MODSEQ ({modseq + 1}))
        S: a OK STORE completed
        C: b UID STORE 1,3 +FLAGS (\Deleted)
        S: * 1 FETCH (UID 1 MODSEQ ({modseq + 1}) FLAGS (\Deleted))
        S: * 3 FETCH (UID 3 MODSEQ ({modseq + 2}) FLAGS (\Deleted))
        S: b OK UID STORE completed
        C: c UID STORE 2:3 FLAGS.SILENT (\Deleted)
        S: c OK UID STORE completed
        C: d FETCH 2 BODY[TEXT]
        S: * 2 FETCH (BODY[TEXT] {{6}}
        S: text
        S: )
        S: * 2 FETCH (UID 2 MODSEQ ({modseq + 4}) FLAGS (\Deleted \Seen))
        S: d OK FETCH completed
        """,
        client,
    )


async def test_unchangedsince(server: Server) -> None:
    """RFC 7162 §3.1.3, the examples 5 to 9."""
    client, placed, modseq = await inbox(server)
    first = modseq - 2
    await server.play(
        rf"""
        C: a UID STORE 3,1 (UNCHANGEDSINCE {modseq}) +FLAGS.SILENT (\Deleted)
        S: * OK [HIGHESTMODSEQ {modseq}] …
        S: * 1 FETCH (UID 1 MODSEQ ({modseq + 1}))
        S: * 3 FETCH (UID 3 MODSEQ ({modseq + 1}))
        S: a OK UID STORE completed
        C: b STORE 1:3 (UNCHANGEDSINCE {modseq}) FLAGS (\Flagged)
        S: * 2 FETCH (MODSEQ ({modseq + 2}) FLAGS (\Flagged))
        S: b OK [MODIFIED 1,3] …
        C: c STORE 2 (UNCHANGEDSINCE 0) +FLAGS.SILENT ($MDNSent)
        S: c OK [MODIFIED 2] …
        """,
        client,
    )
    await elsewhere(server, placed, [2], "-", Flag.FLAGGED)
    await elsewhere(server, placed, [3], "+", Flag.ANSWERED)
    await server.play(
        rf"""
        C: d UID STORE 2:3 (UNCHANGEDSINCE {modseq + 2}) +FLAGS (\Flagged)
        S: * 2 FETCH (UID 2 MODSEQ ({modseq + 4}) FLAGS ())
        S: * 3 FETCH (UID 3 MODSEQ ({modseq + 6}) FLAGS (\Answered \Flagged \Deleted))
        S: d OK [MODIFIED 2] …
        C: e UID STORE 2 (UNCHANGEDSINCE {modseq + 4}) +FLAGS (\Seen)
        S: * 2 FETCH (UID 2 MODSEQ ({modseq + 7}) FLAGS (\Seen))
        S: e OK …
        C: f STORE 9 (UNCHANGEDSINCE {first}) +FLAGS (\Seen)
        S: f BAD …
        """,
        client,
    )


async def test_unchangedsince_and_messages_that_are_gone(server: Server) -> None:
    client, placed, modseq = await inbox(server)
    await elsewhere(server, placed, [1], "+", Flag.DELETED)
    await messages.expunge(server.store, placed.account_id, placed.mailbox_id, None)
    await server.play(
        rf"""
        C: a STORE 1:2 (UNCHANGEDSINCE {modseq}) +FLAGS.SILENT (\Seen)
        S: * OK [HIGHESTMODSEQ {modseq}] …
        S: * 2 FETCH (MODSEQ ({modseq + 3}))
        S: a OK [EXPUNGEISSUED] …
        C: b NOOP
        S: * 1 EXPUNGE
        S: b OK …
        """,
        client,
    )


async def test_search_by_mod_sequence(server: Server) -> None:
    """RFC 7162 §3.1.5, §3.1.6; RFC 4731 §3.2."""
    client, placed, modseq = await inbox(server, 4, parameter=" (CONDSTORE)")
    await elsewhere(server, placed, [2], "+", Flag.FLAGGED)
    await client.ask("NOOP")
    await server.play(
        rf"""
        C: a SEARCH MODSEQ {modseq - 1}
        S: * SEARCH 2 3 4 (MODSEQ {modseq + 1})
        S: a OK SEARCH completed
        C: b SEARCH OR NOT MODSEQ 1 LARGER 50000
        S: * SEARCH
        S: b OK SEARCH completed
        C: c UID SEARCH MODSEQ "/flags/\\draft" all {modseq} NOT FLAGGED
        S: * SEARCH 4 (MODSEQ {modseq})
        S: c OK UID SEARCH completed
        C: d SEARCH RETURN (ALL) MODSEQ {modseq - 1}
        S: * ESEARCH (TAG "d") ALL 2:4 MODSEQ {modseq + 1}
        S: d OK SEARCH completed
        C: e UID SEARCH RETURN (MAX) MODSEQ 1
        S: * ESEARCH (TAG "e") UID MAX 4 MODSEQ {modseq}
        S: e OK UID SEARCH completed
        C: f SEARCH RETURN (MIN) MODSEQ 1
        S: * ESEARCH (TAG "f") MIN 1 MODSEQ {modseq - 3}
        S: f OK SEARCH completed
        C: g SEARCH RETURN (MIN MAX) MODSEQ 1
        S: * ESEARCH (TAG "g") MIN 1 MAX 4 MODSEQ {modseq}
        S: g OK SEARCH completed
        C: h SEARCH RETURN (MIN COUNT) MODSEQ 1
        S: * ESEARCH (TAG "h") COUNT 4 MIN 1 MODSEQ {modseq + 1}
        S: h OK SEARCH completed
        C: i SEARCH RETURN (MIN ALL COUNT) MODSEQ {modseq + 2}
        S: * ESEARCH (TAG "i") COUNT 0
        S: i OK SEARCH completed
        """,
        client,
    )


async def test_unchangedsince_says_what_another_worker_has_changed(server: Server, open_store: OpenStore) -> None:
    """RFC 7162 §3.1.3, example 10: told with the answer, not only with the next command."""
    client, placed, modseq = await inbox(server)
    other = await open_store()
    change = FlagChange("+", Flag.SEEN)
    stored = await messages.store_flags(other, placed.account_id, placed.mailbox_id, [2], change)
    lines = await client.ask(rf"STORE 2 (UNCHANGEDSINCE {modseq}) FLAGS (\Flagged)")
    assert rf"* 2 FETCH (UID 2 MODSEQ ({stored.modseq}) FLAGS (\Seen))" in lines
    assert "[MODIFIED 2]" in lines[-1]
