"""EXPUNGE and UID EXPUNGE."""

from __future__ import annotations

import pytest

from tests.imap.conftest import Client, Server
from tests.imap.mail import put


async def mailbox(server: Server) -> Client:
    for flags in (8, 0, 8, 8):
        await put(server, b"text", flags=flags)
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    return client


@pytest.mark.usefixtures("cut")
async def test_expunge(server: Server) -> None:
    client = await mailbox(server)
    other = await server.logged_in()
    await other.ask("SELECT INBOX")
    await server.play(
        """
        1C: a EXPUNGE
        1S: * 4 EXPUNGE
        1S: * 3 EXPUNGE
        1S: * 1 EXPUNGE
        1S: a OK EXPUNGE completed
        1C: b EXPUNGE
        1S: b OK EXPUNGE completed
        2C: c NOOP
        2S: * 4 EXPUNGE
        2S: * 3 EXPUNGE
        2S: * 1 EXPUNGE
        2S: c OK …
        """,
        client,
        other,
    )


async def test_uid_expunge_takes_only_its_set(server: Server) -> None:
    """RFC 4315 §2.1."""
    client = await mailbox(server)
    await server.play(
        """
        C: a UID EXPUNGE 2:3
        S: * 3 EXPUNGE
        S: a OK UID EXPUNGE completed
        C: b UID EXPUNGE 100
        S: b OK UID EXPUNGE completed
        C: c UID EXPUNGE *
        S: * 3 EXPUNGE
        S: c OK …
        C: d UID FETCH 1:* FLAGS
        S: * 1 FETCH (UID 1 FLAGS (\\Deleted \\Recent))
        S: * 2 FETCH (UID 2 FLAGS (\\Recent))
        S: d OK …
        """,
        client,
    )
