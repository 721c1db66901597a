"""Putting messages into mailboxes without IMAP."""

from __future__ import annotations

import uuid

from mailserver.delivery.accept import accept
from storage import Placed, Placement, accounts, mailboxes
from tests.imap.conftest import Server

RECEIVED = 825_090_505  # 23-Feb-1996 15:48:25 UTC


async def put(
    server: Server,
    body: bytes,
    *,
    header: bytes = b"Subject: test\r\n",
    user: str = "alice",
    mailbox: tuple[str, ...] = ("INBOX",),
    flags: int = 0,
    keywords: tuple[str, ...] = (),
    prefix: bytes = b"",
) -> Placed:
    """One message, as a delivery would write it."""
    return await put_octets(
        server,
        header + b"\r\n" + body + b"\r\n",
        user=user,
        mailbox=mailbox,
        flags=flags,
        keywords=keywords,
        prefix=prefix,
    )


async def put_octets(
    server: Server,
    octets: bytes,
    *,
    user: str = "alice",
    mailbox: tuple[str, ...] = ("INBOX",),
    flags: int = 0,
    keywords: tuple[str, ...] = (),
    prefix: bytes = b"",
) -> Placed:
    account = await accounts.find(server.store, user)
    target = await mailboxes.find(server.store, account.account_id, mailbox)
    placement = Placement(account.account_id, target.mailbox_id, RECEIVED, flags, keywords, prefix)
    placed = await accept(server.store, octets, [placement], trace_id=uuid.uuid4(), quota="share", arrived=RECEIVED)
    return placed[0]
