"""The mailbox tree: making, removing, renaming, subscribing, listing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailserver.imap.mailboxes import subscribed, tree
from mailserver.protocols.imap import mailbox_name
from storage import Store
from tests.imap.conftest import Server, running
from tests.imap.mail import put


@pytest.mark.usefixtures("cut")
async def test_a_new_account(server: Server) -> None:
    client = await server.logged_in()
    await server.play(
        r"""
        C: a LIST "" "*"
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * LIST (\HasNoChildren \Archive) "/" Archive
        S: * LIST (\HasNoChildren \Drafts) "/" Drafts
        S: * LIST (\HasNoChildren \Junk) "/" Junk
        S: * LIST (\HasNoChildren \Sent) "/" Sent
        S: * LIST (\HasNoChildren \Trash) "/" Trash
        S: a OK LIST completed
        C: b LSUB "" "*"
        S: * LSUB () "/" INBOX
        S: * LSUB () "/" Archive
        S: * LSUB () "/" Drafts
        S: * LSUB () "/" Junk
        S: * LSUB () "/" Sent
        S: * LSUB () "/" Trash
        S: b OK LSUB completed
        C: c LIST "" ""
        S: * LIST (\Noselect) "/" ""
        S: c OK …
        C: d NAMESPACE
        S: * NAMESPACE (("" "/")) NIL NIL
        S: d OK NAMESPACE completed
        """,
        client,
    )


async def test_create_makes_what_is_above(server: Server) -> None:
    client = await server.logged_in()
    await server.play(
        r"""
        C: a CREATE Work/2026/
        S: a OK CREATE completed
        C: b CREATE "Entw&APw-rfe &- mehr"
        S: b OK …
        C: c CREATE work
        S: c OK …
        C: d CREATE Work
        S: d NO [ALREADYEXISTS] Mailbox already exists
        C: e CREATE inbox
        S: e NO [ALREADYEXISTS] …
        C: f CREATE "a//b"
        S: f NO [CANNOT] …
        C: g CREATE "&Jjo!"
        S: g NO [CANNOT] …
        C: h LIST "" "[Ww]%"
        S: h OK …
        C: i LIST "" W*
        S: * LIST (\HasChildren) "/" Work
        S: * LIST (\HasNoChildren) "/" Work/2026
        S: i OK …
        C: j LIST Work/ %
        S: * LIST (\HasNoChildren) "/" Work/2026
        S: j OK …
        C: k LIST "" "Entw*"
        S: * LIST (\HasNoChildren) "/" "Entw&APw-rfe &- mehr"
        S: k OK …
        C: l LIST "" inBox
        S: * LIST (\HasNoChildren) "/" INBOX
        S: l OK …
        """,
        client,
    )


async def test_delete(server: Server) -> None:
    """RFC 3501 §6.3.4: a name with others below it stays as a place; it cannot be selected, but made again."""
    client = await server.logged_in()
    await server.play(
        r"""
        C: a CREATE foo/bar/baz
        S: a OK …
        C: b DELETE foo/bar
        S: b OK DELETE completed
        C: c LIST "" foo*
        S: * LIST (\HasChildren) "/" foo
        S: * LIST (\Noselect \HasChildren) "/" foo/bar
        S: * LIST (\HasNoChildren) "/" foo/bar/baz
        S: c OK …
        C: d SELECT foo/bar
        S: d NO [NONEXISTENT] …
        C: e DELETE foo/bar
        S: e NO [NONEXISTENT] …
        C: f CREATE foo/bar
        S: f OK …
        C: g DELETE foo/bar/baz
        S: g OK …
        C: h LIST "" foo/%
        S: * LIST (\HasNoChildren) "/" foo/bar
        S: h OK …
        C: i DELETE INBOX
        S: i NO [CANNOT] INBOX cannot be deleted
        C: j DELETE Trash
        S: j OK …
        C: k LIST "" Trash
        S: k OK …
        """,
        client,
    )


async def test_rename(server: Server) -> None:
    client = await server.logged_in()
    await server.play(
        r"""
        C: a CREATE foo/bar
        S: a OK …
        C: b RENAME foo up/above
        S: b OK RENAME completed
        C: c LIST "" foo*
        S: c OK …
        C: d LIST "" up*
        S: * LIST (\HasChildren) "/" up
        S: * LIST (\HasChildren) "/" up/above
        S: * LIST (\HasNoChildren) "/" up/above/bar
        S: d OK …
        C: e RENAME Nowhere There
        S: e NO [NONEXISTENT] …
        C: f RENAME up Sent
        S: f NO [ALREADYEXISTS] …
        C: g RENAME up up/below
        S: g NO [CANNOT] …
        """,
        client,
    )


async def test_rename_of_inbox_moves_its_messages(server: Server) -> None:
    """RFC 3501 §6.3.5."""
    await put(server, b"one")
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await server.play(
        r"""
        C: a RENAME INBOX old/mail
        S: * 1 EXPUNGE
        S: a OK RENAME completed
        C: b STATUS INBOX (MESSAGES)
        S: * STATUS INBOX (MESSAGES 0)
        S: b OK …
        C: c STATUS old/mail (MESSAGES)
        S: * STATUS old/mail (MESSAGES 1)
        S: c OK …
        """,
        client,
    )


async def test_subscriptions(server: Server) -> None:
    """RFC 3501 §6.3.6–§6.3.9; a subscribed name need not exist."""
    client = await server.logged_in()
    await server.play(
        r"""
        C: a SUBSCRIBE news/today
        S: a OK SUBSCRIBE completed
        C: b LSUB "" news*
        S: * LSUB (\Noselect) "/" news/today
        S: b OK …
        C: c LSUB "" n%
        S: * LSUB (\Noselect) "/" news
        S: c OK …
        C: d CREATE news/today
        S: d OK …
        C: e LSUB "" news/%
        S: * LSUB () "/" news/today
        S: e OK …
        C: f UNSUBSCRIBE news/today
        S: f OK UNSUBSCRIBE completed
        C: g UNSUBSCRIBE news/today
        S: g NO …
        C: h LSUB "" n*
        S: h OK …
        C: i DELETE Sent
        S: i OK …
        C: j LSUB "" Sent
        S: * LSUB (\Noselect) "/" Sent
        S: j OK …
        """,
        client,
    )


async def test_the_separator_is_a_setting(store: Store, certificate: Path) -> None:
    async with running(store, certificate, mail={"separator": "."}) as server:
        client = await server.logged_in()
        await server.play(
            r"""
            C: a CREATE a.b
            S: a OK …
            C: b LIST "" a%
            S: * LIST (\HasChildren) "." a
            S: b OK …
            C: c NAMESPACE
            S: * NAMESPACE (("" ".")) NIL NIL
            S: c OK …
            """,
            client,
        )


async def test_many_mailboxes(server: Server) -> None:
    from storage import accounts, mailboxes

    account = await accounts.find(server.store, "alice")
    for i in range(250):
        await mailboxes.create(server.store, account.account_id, ("many", f"{i:03}"))
    client = await server.logged_in()
    lines = await client.ask('LIST "" "many/*"')
    assert [line.rpartition(" ")[2] for line in lines[:-1]] == [f"many/{i:03}" for i in range(250)]


def test_tree_of_nothing() -> None:
    assert tree([]) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", {"a/b": False, "c": False}),
        ("%", {"a": True, "c": False}),
        ("a/%", {"a/b": False}),
        ("%/%", {"a/b": False}),
        ("a", {"a": True}),
    ],
)
def test_lsub_shows_what_is_above_a_name_that_is_not_matched(pattern: str, expected: dict[str, bool]) -> None:
    """RFC 3501 §6.3.9: `a/b` is subscribed and `a` is not."""
    names = {("a", "b"), ("c",)}
    patterns = (mailbox_name.pattern(b"", pattern.encode(), "/"),)
    found = {"/".join(name): "\\Noselect" in attributes for name, attributes in subscribed(names, names, patterns)}
    assert found == expected
