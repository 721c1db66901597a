"""STATUS."""

from __future__ import annotations

import re

import pytest

from tests.imap.conftest import Server
from tests.imap.mail import put


@pytest.mark.usefixtures("cut")
async def test_status(server: Server) -> None:
    await put(server, b"one", flags=1)
    await put(server, b"two")
    client = await server.logged_in()
    await server.play(
        """
        C: a STATUS inbox (UNSEEN MESSAGES RECENT UIDNEXT)
        S: * STATUS INBOX (UNSEEN 1 MESSAGES 2 RECENT 2 UIDNEXT 3)
        S: a OK STATUS completed
        C: b STATUS "Drafts" (UIDVALIDITY)
        S: * STATUS Drafts (UIDVALIDITY …)
        S: b OK …
        C: c STATUS Nowhere (MESSAGES)
        S: c NO [NONEXISTENT] …
        C: d STATUS INBOX (FROB)
        S: d BAD …
        C: e STATUS INBOX ()
        S: e BAD …
        """,
        client,
    )


async def test_size_is_the_sum_of_the_sizes(server: Server) -> None:
    """RFC 8438 §3; what a delivery puts in front of a message counts, as it does in RFC822.SIZE."""
    client = await server.logged_in()
    assert "* STATUS INBOX (SIZE 0)" in await client.ask("STATUS INBOX (SIZE)")
    for prefix in (b"", b"Received: here\r\n"):
        await put(server, b"hello", prefix=prefix)
    await client.ask("SELECT INBOX")
    await client.ask("COPY 2 INBOX")
    sizes = [int(size) for size in re.findall(r"SIZE (\d+)", " ".join(await client.ask("FETCH 1:* RFC822.SIZE")))]
    assert len(sizes) == 3 and sizes[1] == sizes[0] + 16
    assert f"* STATUS INBOX (SIZE {sum(sizes)})" in await client.ask("STATUS INBOX (size)")
    await client.ask(r"STORE 2 +FLAGS.SILENT \Deleted")
    await client.ask("EXPUNGE")
    assert f"* STATUS INBOX (SIZE {sizes[0] + sizes[2]})" in await client.ask("STATUS INBOX (SIZE)")


async def test_status_claims_nothing_recent(server: Server) -> None:
    await put(server, b"one")
    client = await server.logged_in()
    for _ in range(2):
        assert "* STATUS INBOX (RECENT 1)" in await client.ask("STATUS INBOX (RECENT)")
    assert "* 1 RECENT" in await client.ask("SELECT INBOX")
    assert "* STATUS INBOX (RECENT 0)" in await client.ask("STATUS INBOX (RECENT)")
