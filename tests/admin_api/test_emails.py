"""Reading messages: the INBOX in pages, one message, its parts and its octets."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from admin_api import reading
from mailserver.delivery.accept import accept
from storage import INBOX, AccountId, Flag, FlagChange, Placed, Placement, mailboxes, messages, object_ids
from tests.admin_api.conftest import Client, Site

PLAIN = b"From: Bob <bob@example.org>\r\nTo: alice@example.org\r\nSubject: %d\r\n\r\nHello Alice\r\n"
ATTACHED = (
    b"From: =?utf-8?q?B=C3=B6b?= <bob@example.org>\r\nTo: Alice <alice@example.org>, c@example.net\r\n"
    b"Cc: d@example.net\r\nReply-To: r@example.net\r\nSubject: =?utf-8?q?=C3=A4?=\r\nMessage-ID: <1@x>\r\n"
    b"In-Reply-To: <0@x>\r\nDate: Wed, 25 Nov 2026 10:00:00 +0100\r\n"
    b"Content-Type: multipart/mixed; boundary=m\r\n\r\n"
    b"--m\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"gr=FC=DFe=\r\n!\r\n"
    b'--m\r\nContent-Type: text/html\r\nContent-Disposition: attachment; filename="a \\"b\\".html"\r\n\r\n'
    b"<script>alert(1)</script>\r\n"
    b"--m\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\nContent-ID: <c>\r\n\r\nQUJD\r\nRA==\r\n"
    b"--m--\r\n"
)


async def deliver(site: Site, octets: bytes, mailbox_id: Any = INBOX, received: int | None = None) -> Placed:
    """To Alice."""
    moment = int(time.time()) if received is None else received
    placement = Placement(site.alice.account_id, mailbox_id, moment, header_prefix=b"X-Prefix: 1\r\n")
    (placed,) = await accept(site.store, octets, [placement], trace_id=uuid4(), quota="share", arrived=moment)
    return placed


def url(placed: Placed, more: str = "") -> str:
    return f"/emails/{object_ids.email_id(placed.message_id)}{more}"


# The INBOX ------------------------------------------------------------------------------------------------------------


async def test_an_empty_inbox(alice: Client) -> None:
    assert (await alice.get("/emails/inbox")).json == {"items": [], "next_cursor": None, "total": 0, "unseen": 0}


async def test_an_item(site: Site, alice: Client) -> None:
    placed = await deliver(site, ATTACHED, received=1_700_000_000)
    (item,) = (await alice.get("/emails/inbox")).json["items"]
    assert item == {
        "id": object_ids.email_id(placed.message_id),
        "thread_id": object_ids.thread_id(placed.message_id),
        "from": [{"name": "Böb", "email": "bob@example.org"}],
        "to": [{"name": "Alice", "email": "alice@example.org"}, {"name": "", "email": "c@example.net"}],
        "subject": "ä",
        "date": "2026-11-25T09:00:00Z",
        "received": "2023-11-14T22:13:20Z",
        "preview": "grüße!",
        "size": len(ATTACHED) + len(b"X-Prefix: 1\r\n"),
        "flags": [],
        "attachments": ['a "b".html', "part-3"],
    }


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_pages_show_each_message_once_newest_first(site: Site, alice: Client, limit: int) -> None:
    for number in range(30):
        await deliver(site, PLAIN % number)
    found: list[str] = []
    cursor = ""
    while True:
        page = (await alice.get(f"/emails/inbox?limit={limit}{cursor}")).json
        assert (page["total"], page["unseen"]) == (30, 30)
        found += [item["subject"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
        await deliver(site, PLAIN % 99) if limit == 7 and len(found) == 0 else None
    assert found == [str(number) for number in reversed(range(30))]


async def test_what_comes_and_goes_meanwhile_shifts_nothing(site: Site, alice: Client) -> None:
    placed = [await deliver(site, PLAIN % number) for number in range(6)]
    first = (await alice.get("/emails/inbox?limit=2")).json
    await deliver(site, PLAIN % 99)
    for gone in (placed[5], placed[4], placed[2]):
        await messages.store_flags(
            site.store, site.alice.account_id, INBOX, [gone.uid], FlagChange("+", Flag.DELETED | Flag.SEEN)
        )
    await messages.expunge(site.store, site.alice.account_id, INBOX, None)
    second = (await alice.get(f"/emails/inbox?limit=2&cursor={first['next_cursor']}")).json
    assert [item["subject"] for item in second["items"]] == ["3", "1"]


async def test_flags(site: Site, alice: Client) -> None:
    placed = await deliver(site, PLAIN % 1)
    change = FlagChange("+", Flag.SEEN | Flag.ANSWERED, ("$Work",))
    await messages.store_flags(site.store, site.alice.account_id, INBOX, [placed.uid], change)
    page = (await alice.get("/emails/inbox")).json
    assert (page["items"][0]["flags"], page["unseen"]) == (["\\Seen", "\\Answered", "$Work"], 0)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=7.5", "cursor"),
        ("colour=red", "colour"),
    ],
)
async def test_parameters_that_are_refused(alice: Client, query: str, field: str) -> None:
    assert (await alice.get(f"/emails/inbox?{query}")).problem == (422, field)


async def test_parameters_of_routes_that_take_none(site: Site, alice: Client) -> None:
    placed = await deliver(site, ATTACHED)
    assert (await alice.get(url(placed, "?colour=red"))).problem == (422, "colour")


async def test_head(site: Site, alice: Client) -> None:
    placed = await deliver(site, ATTACHED)
    for path in ("/emails/inbox", url(placed), url(placed, "/raw")):
        reply = await alice.ask("HEAD", path, check=False)
        assert (reply.status, reply.octets) == (200, b"")
    assert (await alice.ask("HEAD", "/login", check=False)).status == 405


async def test_an_envelope_that_is_longer_than_a_list_looks_at(site: Site, alice: Client) -> None:
    many = b", ".join(b"Person %d <p%d@example.org>" % (n, n) for n in range(2000))
    await deliver(site, b"From: a@example.org\r\nSubject: long\r\nTo: " + many + b"\r\n\r\nx")
    (item,) = (await alice.get("/emails/inbox")).json["items"]
    assert item["subject"] == "long" and 10 < len(item["to"]) < 2000
    assert len((await alice.get(f"/emails/{item['id']}")).json["to"]) == 2000


# One message ----------------------------------------------------------------------------------------------------------


async def test_a_message(site: Site, alice: Client) -> None:
    placed = await deliver(site, ATTACHED)
    sent = await mailboxes.find(site.store, site.alice.account_id, ("Sent",))
    await messages.copy(site.store, site.alice.account_id, INBOX, [placed.uid], sent.mailbox_id)
    await messages.store_flags(site.store, site.alice.account_id, sent.mailbox_id, [1], FlagChange("+", Flag.SEEN))
    found = (await alice.get(url(placed))).json
    assert (found["message_id"], found["in_reply_to"]) == ("<1@x>", "<0@x>")
    assert found["cc"] == [{"name": "", "email": "d@example.net"}] and found["bcc"] == []
    assert found["reply_to"] == [{"name": "", "email": "r@example.net"}]
    assert (found["body"], found["html"], found["truncated"]) == ("grüße!", None, False)
    assert found["attachments"] == [
        {
            "part": "2",
            "filename": 'a "b".html',
            "content_type": "text/html",
            "size": 25,
            "inline": False,
            "content_id": "",
        },
        {
            "part": "3",
            "filename": "part-3",
            "content_type": "image/png",
            "size": 10,
            "inline": True,
            "content_id": "c",
        },
    ]
    places = [(place["name"], place["uid"], place["flags"]) for place in found["mailboxes"]]
    assert places == [(["INBOX"], placed.uid, []), (["Sent"], 1, ["\\Seen"])]
    assert found["mailboxes"][0]["id"] == object_ids.mailbox_id(site.alice.account_id, INBOX)
    assert found["mailboxes"][0]["modseq"] == placed.modseq


async def test_reading_does_not_set_seen(site: Site, alice: Client) -> None:
    placed = await deliver(site, ATTACHED)
    for path in (url(placed), url(placed, "/raw"), url(placed, "/attachments/2")):
        assert (await alice.get(path)).status == 200
    assert (await alice.get("/emails/inbox")).json["unseen"] == 1


@pytest.mark.parametrize("path", ["", "/raw", "/attachments/1"])
async def test_messages_of_others_and_of_nobody_are_not_there(
    site: Site, alice: Client, bob: Client, path: str
) -> None:
    placed = await deliver(site, ATTACHED)
    assert (await bob.get(url(placed, path))).status == 404
    assert (await site.client.get(url(placed, path))).status == 401
    for name in ("Maaaaaaaaaaaaa", "Maaaaaaaaaaaab", "M1", "x", "inboxx", "%00", "%2e%2e", "C" * 500):
        assert (await alice.get(f"/emails/{name}{path}")).status == 404
    await messages.store_flags(site.store, site.alice.account_id, INBOX, [placed.uid], FlagChange("+", Flag.DELETED))
    await messages.expunge(site.store, site.alice.account_id, INBOX, None)
    assert (await alice.get(url(placed, path))).status == 404


async def test_a_long_text_is_cut(site: Site, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SHOWN_OCTETS", 1000)
    placed = await deliver(site, b"Subject: x\r\n\r\n" + b"0123456789" * 1000)
    found = (await alice.get(url(placed))).json
    assert (len(found["body"]), found["truncated"]) == (1000, True)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\r\n",
        b"Subject: x",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/x; boundary=c\r\n\r\n",
        b"Content-Type: text/plain; charset=utf-16\r\n\r\n\xff\xfeA\x00\xd8",
        b"Subject: \xff\xfe\x00\r\nFrom: \xff\r\n\r\n\xff\x00",
        b"Date: Mon, 1 Jan 0000 00:00:00 +0000\r\n\r\nx",
        b"Date: Fri, 31 Dec 9999 23:59:59 -2359\r\n\r\nx",
        b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nx",
        b"Content-Type: text/html; name*=utf-8''%ff%00\r\nContent-Disposition: x; filename=\"\"\r\n\r\nx",
    ],
)
async def test_odd_messages(site: Site, alice: Client, octets: bytes) -> None:
    placed = await deliver(site, octets)
    assert (await alice.get("/emails/inbox")).status == 200
    found = await alice.get(url(placed))
    assert found.status == 200
    for one in found.json["attachments"]:
        assert (await alice.get(url(placed, f"/attachments/{one['part']}"))).status == 200
    assert (await alice.get(url(placed, "/raw"))).octets == b"X-Prefix: 1\r\n" + octets


# Flags ----------------------------------------------------------------------------------------------------------------


async def in_two_mailboxes(site: Site) -> tuple[Placed, str]:
    """A message in INBOX and Sent, and the id of Sent."""
    placed = await deliver(site, ATTACHED)
    sent = await mailboxes.find(site.store, site.alice.account_id, ("Sent",))
    await messages.copy(site.store, site.alice.account_id, INBOX, [placed.uid], sent.mailbox_id)
    return placed, object_ids.mailbox_id(site.alice.account_id, sent.mailbox_id)


async def test_a_change_of_flags_is_one_in_all_mailboxes(site: Site, alice: Client) -> None:
    placed, _ = await in_two_mailboxes(site)
    change = {"flags": {"add": ["\\Seen", "\\FLAGGED", "$Work"]}}
    reply = await alice.ask("PATCH", url(placed), json=change)
    flags = ["\\Seen", "\\Flagged", "$Work"]
    assert [(place["name"], place["flags"]) for place in reply.json["mailboxes"]] == [
        (["INBOX"], flags),
        (["Sent"], flags),
    ]
    assert (await alice.get("/emails/inbox")).json["unseen"] == 0
    reply = await alice.ask("PATCH", url(placed), json={"flags": {"remove": ["\\Seen", "$work", "$Other"]}})
    assert [place["flags"] for place in reply.json["mailboxes"]] == [["\\Flagged"]] * 2
    assert (await alice.get(url(placed))).json["mailboxes"] == reply.json["mailboxes"]


async def test_a_change_in_one_mailbox(site: Site, alice: Client) -> None:
    placed, sent = await in_two_mailboxes(site)
    change = {"flags": {"add": ["\\Seen"]}, "mailbox": sent}
    reply = await alice.ask("PATCH", url(placed), json=change)
    assert [place["flags"] for place in reply.json["mailboxes"]] == [[], ["\\Seen"]]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, "flags"),
        ({"flags": {"add": ["\\Recent"]}}, "flags.add"),
        ({"flags": {"remove": ["\\Strange"]}}, "flags.remove"),
        ({"flags": {"add": ["a b"]}}, "flags.add.0"),
        ({"flags": {"add": ["a\r\nb"]}}, "flags.add.0"),
        ({"flags": {"add": [""]}}, "flags.add.0"),
        ({"flags": {"set": []}}, "flags.set"),
        ({"flags": {}, "mailbox": "Faaaaaaaaaaaaaaaaaaaaaaaaaa"}, "mailbox"),
        ({"flags": {"add": [f"k{n}" for n in range(80)]}}, ""),
    ],
)
async def test_changes_that_are_refused(site: Site, alice: Client, change: dict[str, Any], field: str) -> None:
    placed = await deliver(site, ATTACHED)
    assert (await alice.ask("PATCH", url(placed), json=change)).problem == (422, field)
    assert (await alice.get("/emails/inbox")).json["items"][0]["flags"] == []


async def test_nobody_changes_messages_of_others(site: Site, alice: Client, bob: Client) -> None:
    placed = await deliver(site, ATTACHED)
    change = {"flags": {"add": ["\\Seen"]}}
    assert (await bob.ask("PATCH", url(placed), json=change)).status == 404
    assert (await alice.ask("PATCH", "/emails/Maaaaaaaaaaaaa", json=change)).status == 404
    assert (await alice.get("/emails/inbox")).json["unseen"] == 1


# Octets ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "octets", "media_type", "name"),
    [
        ("1", "grüße!".encode("latin-1"), "text/plain", "part-1"),
        ("2", b"<script>alert(1)</script>", "text/html", 'a "b".html'),
        ("3", b"ABCD", "image/png", "part-3"),
    ],
)
async def test_parts(site: Site, alice: Client, part: str, octets: bytes, media_type: str, name: str) -> None:
    placed = await deliver(site, ATTACHED)
    reply = await alice.get(url(placed, f"/attachments/{part}"))
    assert (reply.octets, reply.headers["Content-Type"]) == (octets, media_type)
    assert reply.headers["Content-Disposition"] == reading.disposition(name)
    assert reply.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert site.memory.left == 256 << 20


@pytest.mark.parametrize("part", ["4", "0", "1.1", "2.1", "x", "1.", "99999", "1" * 400])
async def test_parts_that_are_not_there(site: Site, alice: Client, part: str) -> None:
    placed = await deliver(site, ATTACHED)
    assert (await alice.get(url(placed, f"/attachments/{part}"))).status == 404


async def test_the_whole_message(site: Site, alice: Client) -> None:
    placed = await deliver(site, ATTACHED)
    reply = await alice.get(url(placed, "/raw"))
    assert reply.octets == b"X-Prefix: 1\r\n" + ATTACHED
    assert reply.headers["Content-Type"] == "message/rfc822"
    assert int(reply.headers["Content-Length"]) == len(reply.octets)
    assert reply.headers["Content-Disposition"].startswith("attachment;")


async def test_more_than_the_worker_has_room_for(site: Site, alice: Client) -> None:
    placed = await deliver(site, ATTACHED)
    site.memory.left = 10
    for path in ("/raw", "/attachments/2"):
        assert (await alice.get(url(placed, path))).status == 503
    assert site.memory.left == 10


async def test_a_damaged_message_is_told_so(site: Site, alice: Client, database: str) -> None:
    placed = await deliver(site, ATTACHED)
    conn = await asyncpg.connect(database)
    await conn.execute("UPDATE message_contents SET octets = 'x'")
    await conn.close()
    reply = await alice.get(url(placed, "/raw"), check=False)
    assert reply.status == 500 and "damaged" in reply.json["detail"]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.txt", 'attachment; filename="a.txt"'),
        ('a"\\\r\nb', "attachment; filename=\"a____b\"; filename*=UTF-8''a%22%5C%0D%0Ab"),
        ("ä%.txt", "attachment; filename=\"__.txt\"; filename*=UTF-8''%C3%A4%25.txt"),
    ],
)
def test_names_of_files(name: str, header: str) -> None:
    assert reading.disposition(name) == header


@pytest.mark.parametrize(
    ("epoch", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-62_135_596_801, "0001-01-01T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ],
)
def test_moments(epoch: int, text: str) -> None:
    assert reading.moment(epoch) == text


def test_another_account_has_other_mailbox_ids() -> None:
    assert object_ids.mailbox_id(AccountId(1), INBOX) != object_ids.mailbox_id(AccountId(2), INBOX)
