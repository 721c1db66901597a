"""LIST, plain and extended, and LSUB."""

from __future__ import annotations

import pytest

from mailserver.imap.listing import above
from tests.imap.conftest import Server, both_separators
from tests.imap.mail import put
from tests.imap.trees import plant

FRUIT = ["Fruit", "Fruit/Apple", "Fruit/Banana", "Tofu", "Vegetable", "Vegetable/Broccoli", "Vegetable/Corn"]
LIKED = ["INBOX", "Fruit/Banana", "Fruit/Peach", "Vegetable", "Vegetable/Broccoli"]


@both_separators
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
        C: d LSUB "" ""
        S: * LSUB (\Noselect) "/" ""
        S: d OK …
        C: e NAMESPACE
        S: * NAMESPACE (("" "/")) NIL NIL
        S: e OK NAMESPACE completed
        """,
        client,
    )


@both_separators
async def test_examples_1_to_6_of_rfc_5258(server: Server) -> None:
    """§5, for a server without other servers' mailboxes; attributes for children are told always."""
    await plant(server, FRUIT, subscribed=LIKED)
    client = await server.logged_in()
    await server.play(
        r"""
        C: A01 LIST "" "*"
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * LIST (\HasChildren) "/" Fruit
        S: * LIST (\HasNoChildren) "/" Fruit/Apple
        S: * LIST (\HasNoChildren) "/" Fruit/Banana
        S: * LIST (\HasNoChildren) "/" Tofu
        S: * LIST (\HasChildren) "/" Vegetable
        S: * LIST (\HasNoChildren) "/" Vegetable/Broccoli
        S: * LIST (\HasNoChildren) "/" Vegetable/Corn
        S: A01 OK …
        C: A02 LIST (SUBSCRIBED) "" "*"
        S: * LIST (\HasNoChildren \Subscribed) "/" INBOX
        S: * LIST (\HasNoChildren \Subscribed) "/" Fruit/Banana
        S: * LIST (\NonExistent \HasNoChildren \Subscribed) "/" Fruit/Peach
        S: * LIST (\HasChildren \Subscribed) "/" Vegetable
        S: * LIST (\HasNoChildren \Subscribed) "/" Vegetable/Broccoli
        S: A02 OK …
        C: A03 LIST () "" "%" RETURN (CHILDREN)
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * LIST (\HasChildren) "/" Fruit
        S: * LIST (\HasNoChildren) "/" Tofu
        S: * LIST (\HasChildren) "/" Vegetable
        S: A03 OK …
        C: A04 LIST (REMOTE) "" "%" RETURN (CHILDREN)
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * LIST (\HasChildren) "/" Fruit
        S: * LIST (\HasNoChildren) "/" Tofu
        S: * LIST (\HasChildren) "/" Vegetable
        S: A04 OK …
        C: A05 LIST (REMOTE SUBSCRIBED) "" "*"
        S: * LIST (\HasNoChildren \Subscribed) "/" INBOX
        S: * LIST (\HasNoChildren \Subscribed) "/" Fruit/Banana
        S: * LIST (\NonExistent \HasNoChildren \Subscribed) "/" Fruit/Peach
        S: * LIST (\HasChildren \Subscribed) "/" Vegetable
        S: * LIST (\HasNoChildren \Subscribed) "/" Vegetable/Broccoli
        S: A05 OK …
        C: A06 LIST (REMOTE) "" "*" RETURN (SUBSCRIBED)
        S: * LIST (\HasNoChildren \Subscribed) "/" INBOX
        S: * LIST (\HasChildren) "/" Fruit
        S: * LIST (\HasNoChildren) "/" Fruit/Apple
        S: * LIST (\HasNoChildren \Subscribed) "/" Fruit/Banana
        S: * LIST (\HasNoChildren) "/" Tofu
        S: * LIST (\HasChildren \Subscribed) "/" Vegetable
        S: * LIST (\HasNoChildren \Subscribed) "/" Vegetable/Broccoli
        S: * LIST (\HasNoChildren) "/" Vegetable/Corn
        S: A06 OK …
        C: A07 LIST (RECURSIVEMATCH) "" "*"
        S: A07 BAD …
        C: A08 LIST (FROBNICATE) "" "*"
        S: A08 BAD …
        """,
        client,
    )


@both_separators
async def test_example_7_of_rfc_5258_several_patterns(server: Server) -> None:
    await plant(server, ["Drafts", "Sent/August2004", "Sent/December2003", "Sent/March2004", "Other"])
    client = await server.logged_in()
    await server.play(
        r"""
        C: BBB LIST "" ("INBOX" "Drafts" "Sent/%")
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * LIST (\HasNoChildren) "/" Drafts
        S: * LIST (\HasNoChildren) "/" Sent/August2004
        S: * LIST (\HasNoChildren) "/" Sent/December2003
        S: * LIST (\HasNoChildren) "/" Sent/March2004
        S: BBB OK …
        C: b LIST Sent/ (Mar% "" %2004)
        S: * LIST (\HasNoChildren) "/" Sent/August2004
        S: * LIST (\HasNoChildren) "/" Sent/March2004
        S: b OK …
        C: c LIST "" ("")
        S: c OK …
        C: d LIST () "" ""
        S: d OK …
        C: e LIST "" "" RETURN (CHILDREN)
        S: e OK …
        """,
        client,
    )


@both_separators
async def test_example_8_of_rfc_5258_children_and_childinfo(server: Server) -> None:
    client = await server.logged_in()
    await plant(server, ["Foo", "Foo/Bar", "Foo/Baz", "Moo"], subscribed=["Foo/Baz"])
    await server.play(
        r"""
        C: C02 LIST (SUBSCRIBED) "" "*"
        S: * LIST (\HasNoChildren \Subscribed) "/" Foo/Baz
        S: C02 OK …
        C: C03 LIST (SUBSCRIBED) "" "%"
        S: C03 OK …
        C: C04 LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"
        S: * LIST (\HasChildren) "/" Foo ("CHILDINFO" ("SUBSCRIBED"))
        S: C04 OK …
        """,
        client,
    )
    await plant(server, ["Foo", "Foo/Bar", "Foo/Baz", "Moo"], subscribed=["Foo/Baz", "Foo"])
    await server.play(
        r"""
        C: C04 LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"
        S: * LIST (\HasChildren \Subscribed) "/" Foo ("CHILDINFO" ("SUBSCRIBED"))
        S: C04 OK …
        """,
        client,
    )
    await plant(server, ["Foo/Bar", "Foo/Baz", "Moo"], subscribed=["Foo/Baz"])
    await server.play(
        r"""
        C: C04 LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"
        S: * LIST (\NonExistent \HasChildren) "/" Foo ("CHILDINFO" ("SUBSCRIBED"))
        S: C04 OK …
        """,
        client,
    )
    await plant(server, ["Foo", "Foo/Bar", "Foo/Baz", "Moo"])
    await server.play('C: C04 LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"\nS: C04 OK …', client)
    await plant(server, ["Foo", "Foo/Bar", "Foo/Baz", "Moo"], subscribed=["Foo", "Moo"])
    await server.play(
        r"""
        C: C04 LIST (SUBSCRIBED RECURSIVEMATCH) "" "%" RETURN (CHILDREN)
        S: * LIST (\HasChildren \Subscribed) "/" Foo
        S: * LIST (\HasNoChildren \Subscribed) "/" Moo
        S: C04 OK …
        """,
        client,
    )


@both_separators
async def test_example_9_of_rfc_5258_childinfo_whatever_the_pattern(server: Server) -> None:
    """What is redundant is left out: baz2 and qux2, all of whose subscribed children are shown (§3.5)."""
    subscribed = ["foo2/bar1", "foo2/bar2", "baz2/bar2", "baz2/bar22", "baz2/bar222", "eps2", "eps2/mamba", "qux2/bar2"]
    await plant(server, ["foo2", "baz2", *subscribed], subscribed=subscribed)
    client = await server.logged_in()
    await server.play(
        r"""
        C: D03 LIST (RECURSIVEMATCH SUBSCRIBED) "" "*2"
        S: * LIST (\HasNoChildren \Subscribed) "/" baz2/bar2
        S: * LIST (\HasNoChildren \Subscribed) "/" baz2/bar22
        S: * LIST (\HasNoChildren \Subscribed) "/" baz2/bar222
        S: * LIST (\HasChildren \Subscribed) "/" eps2 ("CHILDINFO" ("SUBSCRIBED"))
        S: * LIST (\HasChildren) "/" foo2 ("CHILDINFO" ("SUBSCRIBED"))
        S: * LIST (\HasNoChildren \Subscribed) "/" foo2/bar2
        S: * LIST (\HasNoChildren \Subscribed) "/" qux2/bar2
        S: D03 OK …
        """,
        client,
    )


@both_separators
async def test_examples_10_and_11_of_rfc_5258_places_that_are_no_mailboxes(server: Server) -> None:
    """A plain LIST says \\Noselect (RFC 3501), an extended one \\NonExistent, which implies it (§3)."""
    await plant(server, ["foo", "music/rock"], subscribed=["foo/bar"])
    client = await server.logged_in()
    await server.play(
        r"""
        C: a1 LIST "" ("foo" "foo/*")
        S: * LIST (\HasNoChildren) "/" foo
        S: a1 OK …
        C: a2 LIST (SUBSCRIBED) "" "foo/*"
        S: * LIST (\NonExistent \HasNoChildren \Subscribed) "/" foo/bar
        S: a2 OK …
        C: a3 LIST (SUBSCRIBED RECURSIVEMATCH) "" foo RETURN (CHILDREN)
        S: * LIST (\HasNoChildren) "/" foo ("CHILDINFO" ("SUBSCRIBED"))
        S: a3 OK …
        C: b1 LIST (REMOTE) "" m*
        S: * LIST (\NonExistent \HasChildren) "/" music
        S: * LIST (\HasNoChildren) "/" music/rock
        S: b1 OK …
        C: b2 LIST () "" m%
        S: * LIST (\NonExistent \HasChildren) "/" music
        S: b2 OK …
        C: b3 LIST "" m%
        S: * LIST (\Noselect \HasChildren) "/" music
        S: b3 OK …
        """,
        client,
    )


@both_separators
async def test_special_uses(server: Server) -> None:
    """RFC 6154 §5.1 and §5.2."""
    client = await server.logged_in()
    await plant(server, ["ToDo", "Projects"])
    await server.play(
        r"""
        C: c1 CREATE Projects/SentMail (USE (\Sent))
        S: c1 OK …
        C: c2 CREATE MyDrafts (USE (\Drafts))
        S: c2 OK …
        C: t1 LIST "" "%"
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * LIST (\HasNoChildren \Drafts) "/" MyDrafts
        S: * LIST (\HasChildren) "/" Projects
        S: * LIST (\HasNoChildren) "/" ToDo
        S: t1 OK …
        C: t2 LIST "" "%" RETURN (SPECIAL-USE)
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * LIST (\HasNoChildren \Drafts) "/" MyDrafts
        S: * LIST (\HasChildren) "/" Projects
        S: * LIST (\HasNoChildren) "/" ToDo
        S: t2 OK …
        C: t3 LIST (SPECIAL-USE) "" "*"
        S: * LIST (\HasNoChildren \Drafts) "/" MyDrafts
        S: * LIST (\HasNoChildren \Sent) "/" Projects/SentMail
        S: t3 OK …
        C: t4 LIST (SPECIAL-USE RECURSIVEMATCH) "" "%"
        S: * LIST (\HasNoChildren \Drafts) "/" MyDrafts
        S: * LIST (\HasChildren) "/" Projects ("CHILDINFO" ("SPECIAL-USE"))
        S: t4 OK …
        C: t5 LIST (SPECIAL-USE SUBSCRIBED) "" "*"
        S: t5 OK …
        C: t6 SUBSCRIBE Projects/SentMail
        S: t6 OK …
        C: t7 LIST (SPECIAL-USE SUBSCRIBED RECURSIVEMATCH) "" "%"
        S: * LIST (\HasChildren) "/" Projects ("CHILDINFO" ("SUBSCRIBED" "SPECIAL-USE"))
        S: t7 OK …
        """,
        client,
    )


@both_separators
async def test_status_with_each_name(server: Server) -> None:
    """RFC 5819 §3, RFC 8438 §3, RFC 7889 §3.2; what cannot be selected, or only stands for others, has no STATUS."""
    await plant(server, ["bar/below", "foo", "foo/below"], subscribed=["INBOX", "foo/below"])
    await put(server, b"one", flags=1)
    await put(server, b"two")
    client = await server.logged_in()
    await server.play(
        r"""
        C: A01 LIST "" % RETURN (STATUS (MESSAGES UNSEEN))
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * STATUS INBOX (MESSAGES 2 UNSEEN 1)
        S: * LIST (\NonExistent \HasChildren) "/" bar
        S: * LIST (\HasChildren) "/" foo
        S: * STATUS foo (MESSAGES 0 UNSEEN 0)
        S: A01 OK …
        C: A02 LIST (SUBSCRIBED RECURSIVEMATCH) "" % RETURN (STATUS (MESSAGES))
        S: * LIST (\HasNoChildren \Subscribed) "/" INBOX
        S: * STATUS INBOX (MESSAGES 2)
        S: * LIST (\HasChildren) "/" foo ("CHILDINFO" ("SUBSCRIBED"))
        S: A02 OK …
        C: A03 LIST (SUBSCRIBED RECURSIVEMATCH) "" ("I%" "f*") RETURN (CHILDREN STATUS (SIZE APPENDLIMIT) SPECIAL-USE)
        S: * LIST (\HasNoChildren \Subscribed) "/" INBOX
        S: * STATUS INBOX (SIZE 44 APPENDLIMIT 52428800)
        S: * LIST (\HasNoChildren \Subscribed) "/" foo/below
        S: * STATUS foo/below (SIZE 0 APPENDLIMIT 52428800)
        S: A03 OK …
        C: A04 LIST "" "" RETURN (STATUS (FROB))
        S: A04 BAD …
        """,
        client,
    )


@both_separators
async def test_inbox_and_below(server: Server) -> None:
    """INBOX is written in any case, what is below it is not (RFC 3501 §5.1)."""
    client = await server.logged_in()
    await plant(server, [])
    await server.play(
        r"""
        C: a CREATE inBox/Child
        S: a OK …
        C: b CREATE Inbox/child
        S: b OK …
        C: c LIST "" inbox*
        S: * LIST (\HasChildren) "/" INBOX
        S: * LIST (\HasNoChildren) "/" INBOX/Child
        S: * LIST (\HasNoChildren) "/" INBOX/child
        S: c OK …
        C: d LIST iNbOx/ %d
        S: * LIST (\HasNoChildren) "/" INBOX/Child
        S: * LIST (\HasNoChildren) "/" INBOX/child
        S: d OK …
        C: e STATUS INBOX/child (MESSAGES)
        S: * STATUS INBOX/child (MESSAGES 0)
        S: e OK …
        C: f SUBSCRIBE inbox/gone
        S: f OK …
        C: g LSUB "" INBOX/%
        S: * LSUB (\Noselect) "/" INBOX/gone
        S: g OK …
        """,
        client,
    )


@both_separators
async def test_subscriptions_of_absent_mailboxes(server: Server) -> None:
    """RFC 3501 §6.3.6 and §6.3.9, RFC 5258 §3.1; a deleted or renamed mailbox stays subscribed."""
    client = await server.logged_in()
    await plant(server, ["Old", "Old/Mail"], subscribed=["Old/Mail", "Nowhere"])
    await server.play(
        r"""
        C: a LSUB "" "*"
        S: * LSUB (\Noselect) "/" Nowhere
        S: * LSUB () "/" Old/Mail
        S: a OK …
        C: b RENAME Old New
        S: b OK …
        C: c LSUB "" "*"
        S: * LSUB (\Noselect) "/" Nowhere
        S: * LSUB (\Noselect) "/" Old/Mail
        S: c OK …
        C: d LIST (SUBSCRIBED) "" "*" RETURN (STATUS (MESSAGES))
        S: * LIST (\NonExistent \HasNoChildren \Subscribed) "/" Nowhere
        S: * LIST (\NonExistent \HasNoChildren \Subscribed) "/" Old/Mail
        S: d OK …
        C: e LIST "" "*" RETURN (SUBSCRIBED)
        S: * LIST (\HasNoChildren) "/" INBOX
        S: * LIST (\HasChildren) "/" New
        S: * LIST (\HasNoChildren) "/" New/Mail
        S: e OK …
        C: f LSUB "" "%"
        S: * LSUB (\Noselect) "/" Nowhere
        S: * LSUB (\Noselect) "/" Old
        S: f OK …
        """,
        client,
    )


async def test_lsub_shows_what_is_above_a_name_that_is_not_matched(server: Server) -> None:
    """RFC 3501 §6.3.9: `a/b` is subscribed and `a` is not."""
    await plant(server, ["a", "a/b", "c"], subscribed=["a/b", "c"])
    client = await server.logged_in()
    await server.play(
        r"""
        C: a LSUB "" *
        S: * LSUB () "/" a/b
        S: * LSUB () "/" c
        S: a OK …
        C: b LSUB "" %
        S: * LSUB (\Noselect) "/" a
        S: * LSUB () "/" c
        S: b OK …
        C: c LSUB "" a/%
        S: * LSUB () "/" a/b
        S: c OK …
        C: d LSUB "" %/%
        S: * LSUB () "/" a/b
        S: d OK …
        C: e LSUB "" a
        S: * LSUB (\Noselect) "/" a
        S: e OK …
        """,
        client,
    )


def test_what_is_above() -> None:
    assert above([("a", "b", "c"), ("a", "x"), ("y",)]) == {("a",), ("a", "b")}
    assert above([]) == set()
