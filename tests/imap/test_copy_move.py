"""COPY and MOVE, and what the client learns of UIDs."""

from __future__ import annotations

import pytest

from storage import FlagChange, messages
from tests.imap.conftest import Client, Server
from tests.imap.mail import put


async def mailbox(server: Server, count: int = 3) -> Client:
    for _ in range(count):
        await put(server, b"text", keywords=("$Work",), flags=1)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    return client


@pytest.mark.usefixtures("cut")
async def test_copy(server: Server) -> None:
    client = await mailbox(server)
    await server.play(
        r"""
        C: a COPY 2:3 Archive
        S: a OK [COPYUID … 2:3 1:2] COPY completed
        C: b UID COPY 1,3 Archive
        S: b OK [COPYUID … 1,3 3:4] COPY completed
        C: c UID COPY 99 Archive
        S: c OK COPY completed
        C: d COPY 9 Archive
        S: d BAD No such message
        C: e COPY 1 Nowhere
        S: e NO [TRYCREATE] No such mailbox
        C: f EXAMINE Archive
        S: * OK [CLOSED] …
        S: * FLAGS (…$Work)
        S: * OK [PERMANENTFLAGS ()] …
        S: * 4 EXISTS
        S: * 4 RECENT
        S: * OK [UIDVALIDITY …
        S: * OK [UIDNEXT 5] …
        S: * OK [HIGHESTMODSEQ …] …
        S: f OK …
        C: g FETCH 1 (FLAGS INTERNALDATE)
        S: * 1 FETCH (FLAGS (\Seen \Recent $Work) INTERNALDATE "23-Feb-1996 15:48:25 +0000")
        S: g OK …
        """,
        client,
    )


async def test_copy_into_the_same_mailbox(server: Server) -> None:
    client = await mailbox(server, 1)
    await server.play(
        """
        C: a COPY 1 INBOX
        S: * 2 EXISTS
        S: * 2 RECENT
        S: a OK [COPYUID … 1 2] COPY completed
        """,
        client,
    )


async def test_move(server: Server) -> None:
    """RFC 6851 §4.3: COPYUID before the expunges."""
    client = await mailbox(server)
    other = await server.logged_in()
    await other.ask("SELECT INBOX")
    await server.play(
        """
        1C: a MOVE 1:2 Trash
        1S: * OK [COPYUID … 1:2 1:2] Moved
        1S: * 2 EXPUNGE
        1S: * 1 EXPUNGE
        1S: a OK MOVE completed
        2C: b NOOP
        2S: * 2 EXPUNGE
        2S: * 1 EXPUNGE
        2S: b OK …
        1C: c UID MOVE 3 Trash
        1S: * OK [COPYUID … 3 3] Moved
        1S: * 1 EXPUNGE
        1S: c OK MOVE completed
        1C: d UID MOVE 3 Trash
        1S: d OK MOVE completed
        1C: e STATUS Trash (MESSAGES)
        1S: * STATUS Trash (MESSAGES 3)
        1S: e OK …
        """,
        client,
        other,
    )


async def test_move_into_the_same_mailbox(server: Server) -> None:
    client = await mailbox(server, 2)
    await server.play(
        """
        C: a MOVE 1 INBOX
        S: * OK [COPYUID … 1 3] Moved
        S: * 1 EXPUNGE
        S: * 2 EXISTS
        S: * … RECENT
        S: a OK MOVE completed
        C: b UID FETCH 1:* UID
        S: * 1 FETCH (UID 2)
        S: * 2 FETCH (UID 3)
        S: b OK …
        """,
        client,
    )


async def test_move_into_nowhere_moves_nothing(server: Server) -> None:
    client = await mailbox(server, 1)
    await server.play(
        "C: a MOVE 1 Nowhere\nS: a NO [TRYCREATE] …\nC: b FETCH 1 UID\nS: * 1 FETCH (UID 1)\nS: b OK …", client
    )


async def test_over_quota(server: Server) -> None:
    from storage import accounts, mailboxes

    client = await mailbox(server, 1)
    account = await accounts.find(server.store, "alice")
    await mailboxes.set_quota(server.store, account.account_id, 0, 1)
    await server.play(
        "C: a COPY 1 Trash\nS: a NO [OVERQUOTA] …\nC: b MOVE 1 Trash\nS: * OK [COPYUID …\nS: * 1 EXPUNGE\nS: b OK …",
        client,
    )


async def test_what_others_expunged_is_passed_over(server: Server) -> None:
    client = await mailbox(server, 3)
    from storage import accounts
    from storage.records import INBOX

    account = await accounts.find(server.store, "alice")
    await messages.store_flags(server.store, account.account_id, INBOX, [2], FlagChange("+", 8))
    await messages.expunge(server.store, account.account_id, INBOX, [2])
    await server.play(
        """
        C: a COPY 1:3 Archive
        S: * 2 EXPUNGE
        S: a OK [COPYUID … 1,3 1:2] COPY completed
        """,
        client,
    )
