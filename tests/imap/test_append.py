"""APPEND: what goes in comes out, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import Store, accounts, mailboxes
from tests.imap.conftest import Server, running


@pytest.mark.usefixtures("cut")
async def test_append(server: Server) -> None:
    client = await server.logged_in()
    await server.play(
        r"""
        C: a APPEND Drafts (\Draft $Work \Seen) "17-Jul-1996 02:44:25 -0700" {17}
        S: + …
        C: Subject: x
        C:
        C: abc
        S: a OK [APPENDUID … 1] APPEND completed
        C: b APPEND Drafts {17+}
        C: Subject: x
        C:
        C: abc
        S: b OK [APPENDUID … 2] APPEND completed
        C: c EXAMINE Drafts
        S: * FLAGS (…$Work)
        S: * OK [PERMANENTFLAGS ()] …
        S: * 2 EXISTS
        S: * 2 RECENT
        S: * OK [UNSEEN 2] …
        S: * OK [UIDVALIDITY …
        S: * OK [UIDNEXT 3] …
        S: * OK [HIGHESTMODSEQ …] …
        S: c OK …
        C: d FETCH 1 (FLAGS INTERNALDATE BODY.PEEK[])
        S: * 1 FETCH (FLAGS (\Seen \Draft \Recent $Work) INTERNALDATE "17-Jul-1996 09:44:25 +0000" BODY[] {17}
        S: Subject: x
        S:
        S: abc)
        S: d OK …
        """.replace("S:\n", "S: \n"),
        client,
    )


async def test_into_the_selected_mailbox(server: Server) -> None:
    """RFC 3501 §6.3.11: the client is told of it at once."""
    client = await server.logged_in()
    await client.ask("SELECT Drafts")
    await server.play(
        """
        C: a APPEND Drafts {3+}
        C: abc
        S: * 1 EXISTS
        S: * 1 RECENT
        S: a OK [APPENDUID … 1] APPEND completed
        """,
        client,
    )


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("APPEND Nowhere {3+}\nC: abc", "NO [TRYCREATE] No such mailbox"),
        ("APPEND Drafts {0+}\nC:", "NO [CANNOT] …"),
        ('APPEND Drafts "yesterday" {3+}\nC: abc', "BAD …"),
        ("APPEND Drafts {3+}\nC: abc trailing", "BAD …"),
        ("APPEND Drafts abc", "BAD …"),
    ],
)
async def test_refused_and_in_step(server: Server, command: str, answer: str) -> None:
    client = await server.logged_in()
    await server.play(f"C: a {command}\nS: a {answer}\nC: b NOOP\nS: b OK NOOP completed", client)


async def test_over_quota(server: Server) -> None:
    account = await accounts.find(server.store, "alice")
    await mailboxes.set_quota(server.store, account.account_id, 10, 0)
    client = await server.logged_in()
    await server.play(
        "C: a APPEND Drafts {11+}\nC: 12345678901\nS: a NO [OVERQUOTA] …\nC: b APPEND Drafts {3+}\nC: abc\nS: b OK …",
        client,
    )


async def test_octets_are_kept_whatever_they_are(server: Server) -> None:
    client = await server.logged_in()
    octets = bytes(range(256)) * 5 + b"\n\r\r\n.\r\n no end"
    await client.send(b"a APPEND Drafts {%d+}\r\n%b\r\n" % (len(octets), octets))
    assert (await client.line()).startswith("a OK")
    await client.ask("SELECT Drafts")
    await client.send(b"a FETCH 1 BODY.PEEK[]\r\n")
    assert await client.line() == f"* 1 FETCH (BODY[] ~{{{len(octets)}}}"
    assert await client.reader.readexactly(len(octets)) == octets
    assert await client.line() == ")"


async def test_too_large(store: Store, certificate: Path) -> None:
    """A client that waits is told so without `+`; what comes without leave is passed over, up to a bound."""
    limit = 64 * 1024
    async with running(store, certificate, imap={"max_append_octets": limit}) as server:
        client = await server.logged_in()
        for octets in (limit + 1, 10**20):
            await server.play(f"C: a APPEND Drafts {{{octets}}}\nS: a NO [TOOBIG] …", client)
        await client.send(b"c APPEND Drafts {%d+}\r\n%b\r\nd NOOP\r\n" % (limit + 1, b"x" * (limit + 1)))
        assert (await client.line()).startswith("c NO [TOOBIG]")
        assert (await client.line()).startswith("d OK")
        await client.send(b"e APPEND Drafts {%d+}\r\n%b\r\n" % (limit, b"x" * limit))
        assert (await client.line()).startswith("e OK [APPENDUID")
        await client.send(b"f APPEND Drafts {4294967295+}\r\n")
        assert (await client.line()).startswith("* BYE [TOOBIG]")
        assert await client.closed()


async def test_the_worker_s_memory_is_bounded(server: Server) -> None:
    """Whoever asks is told to come back; whoever just sends is cut off; both leave nothing taken."""
    server.memory.left = 1 << 20
    client, other = await server.logged_in(), await server.logged_in()
    await server.play("C: a APPEND Drafts {2000000}\nS: a NO [UNAVAILABLE] …\nC: b NOOP\nS: b OK …", client)
    await other.send(b"c APPEND Drafts {2000000+}\r\n" + b"x" * 2_000_000)
    assert (await other.line()).startswith("* BYE Too much mail")
    assert await other.closed()
    await client.send(b"d APPEND Drafts {1000000+}\r\n" + b"x" * 1_000_000 + b"\r\n")
    assert (await client.line()).startswith("d OK")
    assert server.memory.left == 1 << 20


async def test_many_in_a_row_without_waiting(server: Server) -> None:
    client = await server.logged_in()
    count, size = 40, 50_000
    for i in range(count):
        await client.send(b"a%d APPEND Drafts {%d+}\r\n%b\r\n" % (i, size, b"x" * size))
    for i in range(count):
        assert (await client.line()).startswith(f"a{i} OK [APPENDUID ")
    assert server.memory.left == 64 << 20
