"""The mailbox tree: making, removing, renaming, subscribing."""

from __future__ import annotations

import pytest

from mailserver.protocols.imap import mailbox_name
from storage import mailboxes
from tests.imap.conftest import Server, both_separators
from tests.imap.mail import put
from tests.imap.trees import plant


@both_separators
@pytest.mark.usefixtures("cut")
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


async def test_create_for_special_uses(server: Server) -> None:
    """RFC 6154 §3 and §5.3. A use belongs to one mailbox: it stays through RENAME and is free again with DELETE."""
    client = await server.logged_in()
    await plant(server, ["Plain"])
    await server.play(
        r"""
        C: a CREATE MySpecial (USE (\Drafts \Sent))
        S: a OK …
        C: b CREATE Everything (USE (\All))
        S: b NO [USEATTR] …
        C: c CREATE Starred (USE (\Trash \Flagged))
        S: c NO [USEATTR] …
        C: d CREATE Odd (USE (\Odd))
        S: d NO [USEATTR] …
        C: e CREATE Sent (USE (\Junk \Sent))
        S: e NO [USEATTR] Another mailbox has this use
        C: f CREATE Plain (USE (\Junk))
        S: f NO [ALREADYEXISTS] …
        C: g CREATE Empty (USE ())
        S: g OK …
        C: h LIST "" %
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * LIST (\HasNoChildren) "/" Empty
        S: * LIST (\HasNoChildren \Drafts \Sent) "/" MySpecial
        S: * LIST (\HasNoChildren) "/" Plain
        S: h OK …
        C: i RENAME MySpecial Old/Special
        S: i OK …
        C: j CREATE Sent (USE (\Sent))
        S: j NO [USEATTR] …
        C: k LIST (SPECIAL-USE) "" *
        S: * LIST (\HasNoChildren \Drafts \Sent) "/" Old/Special
        S: k OK …
        C: l DELETE Old/Special
        S: l OK …
        C: m CREATE Sent/2026 (USE (\Sent))
        S: m OK …
        C: n LIST "" Sent*
        S: * LIST (\HasChildren) "/" Sent
        S: * LIST (\HasNoChildren \Sent) "/" Sent/2026
        S: n OK …
        """,
        client,
    )


@both_separators
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


@both_separators
async def test_rename(server: Server) -> None:
    """RFC 3501 §6.3.5: what is below goes along, what is missing above is made."""
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
        C: h RENAME up up
        S: h NO [CANNOT] …
        C: i RENAME up/above INBOX
        S: i NO [ALREADYEXISTS] …
        C: j RENAME up/above INBOX/Sub/
        S: j OK …
        C: k DELETE up
        S: k OK …
        C: l LIST "" (up* INBOX*)
        S: * LIST (\HasChildren) "/" INBOX
        S: * LIST (\HasChildren) "/" INBOX/Sub
        S: * LIST (\HasNoChildren) "/" INBOX/Sub/bar
        S: l OK …
        """,
        client,
    )


@both_separators
async def test_rename_of_inbox_moves_its_messages(server: Server) -> None:
    """RFC 3501 §6.3.5: INBOX stays, empty, and so does what is below it."""
    await put(server, b"one")
    client = await server.logged_in()
    await client.ask(f"CREATE INBOX{server.separator}Sub")
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
        C: d LIST "" (old* INBOX*)
        S: * LIST (\HasChildren) "/" INBOX
        S: * LIST (\HasNoChildren) "/" INBOX/Sub
        S: * LIST (\HasChildren) "/" old
        S: * LIST (\HasNoChildren) "/" old/mail
        S: d OK …
        C: e RENAME INBOX INBOX/Sub/Old
        S: e OK …
        C: f RENAME INBOX old/mail
        S: f NO [ALREADYEXISTS] …
        """,
        client,
    )


@both_separators
async def test_subscriptions(server: Server) -> None:
    """RFC 3501 §6.3.6 and §6.3.7; a subscribed name need not exist."""
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


@both_separators
async def test_the_other_separator_is_a_character_like_any(server: Server) -> None:
    other = {"/": ".", ".": "/"}[server.separator]
    client = await server.logged_in()
    await client.ask(f"CREATE v1{other}2{server.separator}x")
    lines = await client.ask('LIST "" v%')
    assert lines[:-1] == [f'* LIST (\\HasChildren) "{server.separator}" v1{other}2']


@both_separators
async def test_long_names(server: Server) -> None:
    """The longest part, name and depth can be used; one more is refused, also where RENAME would make it."""
    client = await server.logged_in()
    slash = server.separator
    part, name, deep = "p" * 255, slash.join(["n" * 249] * 4), slash.join(["d"] * 100)
    for longest in (part, name, deep):
        await client.ask(f"CREATE {longest}")
        await client.ask(f"STATUS {longest} (MESSAGES)")
        assert f'* LIST (\\HasNoChildren) "{slash}" {longest}' in await client.ask(f'LIST "" {longest}')
    await server.play(
        f"""
        C: a CREATE p{part}
        S: a NO [CANNOT] Mailbox name is too long
        C: b CREATE {name}n
        S: b NO [CANNOT] Mailbox name is too long
        C: c CREATE {deep}/d
        S: c NO [CANNOT] Mailbox name has too many levels
        C: d RENAME d x/d
        S: d NO [LIMIT] A mailbox name would have too many levels
        C: e RENAME {"n" * 249} {"n" * 250}
        S: e NO [LIMIT] A mailbox name would be too long
        C: f RENAME d/d x
        S: f OK …
        C: g LIST "" (d d/d x)
        S: * LIST (\\HasNoChildren) "/" d
        S: * LIST (\\HasChildren) "/" x
        S: g OK …
        """,
        client,
    )


def test_limits_of_names_are_the_same_on_the_wire_and_in_storage() -> None:
    assert (mailbox_name.MAX_DEPTH, mailbox_name.MAX_NAME_OCTETS) == (mailboxes.MAX_DEPTH, mailboxes.MAX_NAME_OCTETS)
