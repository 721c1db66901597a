"""EXPUNGE and UID EXPUNGE."""

from __future__ import annotations

import uuid

import pytest

from mailserver.delivery.accept import accept
from storage import Placement, accounts
from storage.records import INBOX, Flag
from storage.views import Views
from tests.imap.conftest import Client, OpenStore, Server
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


async def test_what_another_worker_has_just_added(
    server: Server, open_store: OpenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The view may not know yet of all that was removed; what the client knows of it is told before the tagged line."""
    client = await mailbox(server)
    other = await open_store()
    account = await accounts.find(other, "alice")
    monkeypatch.setattr(Views, "read_soon", lambda *_: None)
    placement = Placement(account.account_id, INBOX, 0, Flag.DELETED)
    await accept(other, b"\r\ntext\r\n", [placement], trace_id=uuid.uuid4(), quota="share", arrived=0)
    assert await client.ask("EXPUNGE") == ["* 4 EXPUNGE", "* 3 EXPUNGE", "* 1 EXPUNGE", "x OK EXPUNGE completed"]
