"""POST /emails: from JSON or a form to mailboxes."""

from __future__ import annotations

import asyncio
import hashlib
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import aiohttp
import asyncpg
import pytest

from mailserver.delivery import submit
from storage import AccountId, OutcomeUnknown, Unavailable, aliases, domains, mailboxes
from tests.admin_api.conftest import Client, Reply, Site, serving

HELLO = {"recipients": ["bob@example.org"], "subject": "Hello", "body": "Hi Bob"}


async def newest(reader: Client, count: int = 1) -> list[EmailMessage]:
    """The newest messages of an INBOX as another parser reads them."""
    page = (await reader.get("/emails/inbox")).json
    found = []
    for item in page["items"][:count]:
        raw = (await reader.get(f"/emails/{item['id']}/raw")).octets
        message = message_from_bytes(raw, policy=policy.default)
        assert isinstance(message, EmailMessage)
        found.append(message)
    return found


async def total(reader: Client) -> int:
    return int((await reader.get("/emails/inbox")).json["total"])


async def sent(site: Site, account_id: AccountId) -> list[tuple[int, int]]:
    """Messages and unseen ones in Sent."""
    box = await mailboxes.find(site.store, account_id, ("Sent",))
    return [(box.messages, box.unseen)]


async def test_a_message_arrives_and_a_copy_is_kept(site: Site, alice: Client, bob: Client) -> None:
    reply = await alice.post("/emails", HELLO)
    assert reply.status == 202
    (message,) = await newest(bob)
    assert message["From"] == "alice@example.org"
    assert message["To"] == "bob@example.org"
    assert (message["Subject"], message.get_content().strip()) == ("Hello", "Hi Bob")
    assert message["Return-Path"] == "<alice@example.org>" and message["Delivered-To"] == "bob@example.org"
    assert reply.json["trace_id"] in message["Received"] and " with HTTP " in message["Received"]
    assert message["Message-ID"].endswith("@mail.example.org>") and message["Date"]
    item = (await bob.get("/emails/inbox")).json["items"][0]
    assert (item["id"], item["flags"]) == (reply.json["id"], [])
    mine = (await alice.get(f"/emails/{reply.json['id']}")).json
    assert [(place["name"], place["flags"]) for place in mine["mailboxes"]] == [(["Sent"], ["\\Seen"])]
    assert await sent(site, site.alice.account_id) == [(1, 0)]


async def test_without_a_copy(site: Site, alice: Client, bob: Client) -> None:
    reply = await alice.post("/emails", {**HELLO, "save": False})
    assert (reply.status, await total(bob)) == (202, 1)
    assert await sent(site, site.alice.account_id) == [(0, 0)]
    assert (await alice.get(f"/emails/{reply.json['id']}")).status == 404


async def test_everybody_gets_one_copy_and_bcc_is_the_senders_alone(site: Site, alice: Client, bob: Client) -> None:
    await aliases.add(site.store, "team@example.org", ["alice@example.org", "bob@example.org"])
    reply = await alice.post(
        "/emails",
        {
            "recipients": "Bob <bob@example.org>, team@example.org",
            "cc": ["BOB@example.org"],
            "bcc": "bob+hidden@example.org",
        },
    )
    assert reply.status == 202
    assert (await total(alice), await total(bob)) == (1, 1)
    (theirs,) = await newest(bob)
    assert "Bcc" not in theirs and theirs["Cc"] == "BOB@example.org"
    (mine,) = await newest(alice)
    assert mine["Bcc"] == "bob+hidden@example.org"
    document = (await alice.get(f"/emails/{reply.json['id']}")).json
    assert document["bcc"] == [{"name": "", "email": "bob+hidden@example.org"}]
    assert [(place["name"], place["flags"]) for place in document["mailboxes"]] == [
        (["INBOX"], []),
        (["Sent"], ["\\Seen"]),
    ]


@pytest.mark.parametrize(
    ("changed", "status", "field"),
    [
        ({"recipients": []}, 422, "recipients"),
        ({"recipients": ""}, 422, "recipients"),
        ({"recipients": ["bob"]}, 422, "recipients"),
        ({"recipients": ["bob@"]}, 422, "recipients"),
        ({"recipients": [5]}, 422, "recipients.0"),
        ({"recipients": None}, 422, "recipients"),
        ({"recipients": ["nobody@example.org"]}, 422, "recipients"),
        ({"cc": ["nobody@example.org"]}, 422, "recipients"),
        ({"recipients": ["bob@example.org\r\nBcc: x@example.org"]}, 422, "recipients.0"),
        ({"subject": "x\r\nBcc: x@example.org"}, 422, "subject"),
        ({"body": "x\0"}, 422, "body"),
        ({"save": "yes"}, 422, "save"),
        ({"from": "bob@example.org"}, 422, "from"),
        ({"sender": "bob@example.org"}, 422, "sender"),
        ({"sender": "alice@example.org, bob@example.org"}, 422, "sender"),
        ({"priority": 1}, 422, "priority"),
        ({"attachments": []}, 422, "attachments"),
        ({"recipients": [f"u{n}@example.org" for n in range(1001)]}, 422, "recipients"),
    ],
)
async def test_what_is_refused(alice: Client, bob: Client, changed: dict[str, Any], status: int, field: str) -> None:
    reply = await alice.post("/emails", {**HELLO, **changed})
    assert reply.status == status and reply.json["field"].startswith(field)
    assert await total(bob) == 0


async def test_every_recipient_that_is_refused_is_named(alice: Client) -> None:
    reply = await alice.post(
        "/emails", {**HELLO, "recipients": ["no@example.org", "bob@example.org", "nor@example.org"]}
    )
    assert [error["detail"].partition(":")[0] for error in reply.json["errors"]] == [
        "no@example.org",
        "nor@example.org",
    ]


async def test_the_sender_may_be_another_address_of_ones_own(alice: Client, bob: Client) -> None:
    for field in ("from", "sender"):
        reply = await alice.post("/emails", {**HELLO, field: "Alice Ä <alice+work@example.org>"})
        assert reply.status == 202
        (message,) = await newest(bob)
        assert message["From"] == "Alice Ä <alice+work@example.org>"
        assert message["Return-Path"] == "<alice+work@example.org>"


async def test_text_of_all_kinds(alice: Client, bob: Client) -> None:
    text = "Grüße\n\n.\n" + "x" * 2000
    reply = await alice.post("/emails", {**HELLO, "subject": "Ä" * 200, "body": text, "html": "<p>Grüße</p>"})
    document = (await bob.get(f"/emails/{reply.json['id']}")).json
    assert (document["subject"], document["body"].rstrip("\n"), document["html"].rstrip()) == (
        "Ä" * 200,
        text,
        "<p>Grüße</p>",
    )
    assert document["attachments"] == [] and not document["truncated"]


# Forms ----------------------------------------------------------------------------------------------------------------


def form(*files: tuple[str, bytes, str], **fields: str | list[str]) -> aiohttp.FormData:
    made = aiohttp.FormData(quote_fields=False, default_to_multipart=True)
    for name, value in {"recipients": "bob@example.org", "subject": "Files", **fields}.items():
        for text in [value] if isinstance(value, str) else value:
            made.add_field(name, text)
    for filename, octets, media_type in files:
        made.add_field("attachments", octets, filename=filename, content_type=media_type)
    return made


async def test_files(site: Site, alice: Client, bob: Client) -> None:
    files = [
        ("a.txt", b"text", "text/plain"),
        ("Ä.pdf", bytes(range(256)) * 2000, "application/pdf"),
        ("m.eml", b"Subject: x\r\n\r\nx", "message/rfc822"),
        ("", b"", "image/png"),
    ]
    reply = await alice.post("/emails", data=form(*files, body="see below", html="<p>see below"))
    assert reply.status == 202
    document = (await bob.get(f"/emails/{reply.json['id']}")).json
    assert [(one["filename"], one["content_type"]) for one in document["attachments"]] == [
        ("a.txt", "text/plain"),
        ("Ä.pdf", "application/pdf"),
        ("m.eml", "application/octet-stream"),
        ("part-5", "image/png"),
    ]
    for one, (_, octets, _) in zip(document["attachments"], files, strict=True):
        got = await bob.get(f"/emails/{reply.json['id']}/attachments/{one['part']}")
        assert got.octets == octets
    assert site.memory.left == 256 << 20
    item = (await bob.get("/emails/inbox")).json["items"][0]
    assert item["attachments"] == ["a.txt", "Ä.pdf", "m.eml", "part-5"]


async def test_repeated_and_joined_recipients(alice: Client, bob: Client) -> None:
    fields: dict[str, str | list[str]] = {
        "recipients": ["bob@example.org", "alice@example.org, bob+x@example.org"],
        "save": "false",
    }
    assert (await alice.post("/emails", data=form(**fields))).status == 202
    assert (await total(alice), await total(bob)) == (1, 1)


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"save": "maybe"}, 422, "save"),
        ({"subject": ["a", "b"]}, 422, "subject"),
        ({"colour": "red"}, 422, "colour"),
        ({"from": "bob@example.org"}, 422, "from"),
        ({"recipients": "nobody@example.org"}, 422, "recipients"),
    ],
)
async def test_forms_that_are_refused(alice: Client, fields: dict[str, Any], status: int, field: str) -> None:
    assert (await alice.post("/emails", data=form(**fields))).problem == (status, field)


async def test_a_file_under_another_name(alice: Client) -> None:
    made = form()
    made.add_field("picture", b"x", filename="x.png")
    assert (await alice.post("/emails", data=made)).problem == (422, "picture")


ENCODED = b"--b\r\nContent-Disposition: form-data; name=cc\r\nContent-Transfer-Encoding: base64\r\n\r\neA==\r\n--b--"
HEAD = b'--b\r\nContent-Disposition: form-data; name="recipients"\r\n\r\nbob@example.org\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary",
        b"--b",
        HEAD,
        HEAD + b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n--b--\r\n",
        HEAD + ENCODED,
        b"--b\r\nContent-Disposition: form-data; name==; x\r\n\r\nx\r\n--b--\r\n",
        b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\n--b--\r\n",
        b"--b\r\nX: " + b"y" * 100_000 + b"\r\n\r\n--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="subject"\r\n\r\n\xff\xfe\r\n--b--\r\n',
        (b"--b\r\nContent-Disposition: form-data; name=cc\r\n\r\nx\r\n") * 2100 + b"--b--\r\n",
    ],
)
async def test_malformed_forms(alice: Client, body: bytes) -> None:
    reply = await alice.ask("POST", "/emails", data=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert reply.status in (400, 422)


async def test_a_form_without_a_boundary(alice: Client) -> None:
    reply = await alice.ask("POST", "/emails", data=b"x", headers={"Content-Type": "multipart/form-data"})
    assert reply.status == 400


async def test_limits(site: Site) -> None:
    async with serving(site.store, mail={"max_message_octets": 200_000}, memory=150_000) as small:
        alice = await small.client.log_in("alice")

        async def send(octets: int) -> Reply:
            return await alice.post("/emails", data=form(("x", bytes(octets), "a/b")))

        assert (await send(1000)).status == 202
        assert (await send(500_000)).status == 413  # by its announced length
        assert (await send(210_000)).status == 413  # while it comes
        reply = await send(148_000 + 10_000)
        assert reply.status == 503 and "Retry-After" in reply.headers  # more than the worker has room for
        assert small.memory.left == 150_000
        assert (await send(149_000)).status == 413  # once it is encoded
        assert (await alice.post("/emails", {**HELLO, "body": "x" * 1_100_000})).status == 413
        assert small.memory.left == 150_000


async def test_a_body_that_does_not_come(site: Site) -> None:
    async with serving(site.store, http={"body_seconds": 0.2}) as slow:
        alice = await slow.client.log_in("alice")

        async def slowly() -> Any:
            yield b"{"
            await asyncio.sleep(30)

        for media_type in ("application/json", "multipart/form-data; boundary=b"):
            async with asyncio.timeout(10):
                reply = await alice.ask("POST", "/emails", data=slowly(), headers={"Content-Type": media_type})
            assert reply.status == 408


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "zstd"}, 415),
    ],
)
async def test_types_that_are_not_taken(alice: Client, headers: dict[str, str], status: int) -> None:
    assert (await alice.ask("POST", "/emails", data=b"{}", headers=headers)).status == status


# Other places ---------------------------------------------------------------------------------------------------------


async def test_outside_recipients_wait_in_the_queue_of_the_sender(site: Site, alice: Client, bob: Client) -> None:
    body = {**HELLO, "recipients": ["bob@example.org", "X@Outside.test"], "bcc": ["y@outside.test"]}
    for _ in range(2):
        reply = await alice.ask("POST", "/emails", json=body, headers={"Idempotency-Key": "one"})
        assert reply.status == 202
    assert await total(bob) == 1
    async with site.store.acquire() as conn:
        (message,) = await conn.fetch("SELECT * FROM queue_messages")
        rows = await conn.fetch("SELECT recipient, state FROM queue_recipients ORDER BY recipient")
    assert message["reverse_path"] == "alice@example.org" and b"Bcc" not in message["header_prefix"]
    assert [tuple(row) for row in rows] == [("X@outside.test", "waiting"), ("y@outside.test", "waiting")]


async def test_too_much_waits_to_be_sent(site: Site, alice: Client) -> None:
    send = site.api.config.send.model_copy(update={"max_queued_messages": 1})
    site.api.reconfigure(site.api.config.model_copy(update={"send": send}))
    replies = []
    for _ in range(2):
        site.api.routes._queued.clear()
        replies.append((await alice.post("/emails", {**HELLO, "recipients": ["x@outside.test"]})).status)
    assert replies == [202, 422]


async def test_a_missing_sent_mailbox_is_made(site: Site, alice: Client) -> None:
    box = await mailboxes.find(site.store, site.alice.account_id, ("Sent",))
    await mailboxes.delete(site.store, site.alice.account_id, box.mailbox_id)
    assert (await alice.post("/emails", HELLO)).status == 202
    made = await mailboxes.find(site.store, site.alice.account_id, ("Sent",))
    assert (made.special_use, made.messages) == ("\\Sent", 1)


async def test_a_mailbox_that_has_the_use_is_taken(site: Site, alice: Client) -> None:
    await mailboxes.rename(site.store, site.alice.account_id, ("Sent",), ("Gone", "Out"))
    assert (await alice.post("/emails", HELLO)).status == 202
    assert (await mailboxes.find(site.store, site.alice.account_id, ("Gone", "Out"))).messages == 1


async def test_a_full_mailbox(site: Site, alice: Client) -> None:
    await mailboxes.set_quota(site.store, site.bob.account_id, 100, 0)
    assert (await alice.post("/emails", HELLO)).status == 422


async def test_a_domain_in_other_letters(site: Site, alice: Client) -> None:
    await domains.add(site.store, "bücher.example")
    await aliases.add(site.store, "x@bücher.example", ["alice@example.org"])
    assert (await alice.post("/emails", {**HELLO, "recipients": "x@BÜCHER.example"})).status == 202
    (message,) = await newest(alice)
    assert message["To"] == "x@xn--bcher-kva.example"


# Repetitions ----------------------------------------------------------------------------------------------------------

KEY = {"Idempotency-Key": "order-5/1"}


async def test_a_repeated_request_sends_once(alice: Client, bob: Client) -> None:
    first = await alice.post("/emails", HELLO, headers=KEY)
    again = await alice.post("/emails", HELLO, headers=KEY)
    assert (first.status, again.status, first.json) == (202, 202, again.json)
    assert await total(bob) == 1
    assert (await alice.post("/emails", HELLO, headers={"Idempotency-Key": "other"})).json != first.json
    assert await total(bob) == 2


async def test_a_repeated_form_sends_once(alice: Client, bob: Client) -> None:
    for _ in range(2):
        assert (await alice.post("/emails", data=form(("x", b"1", "a/b")), headers=KEY)).status == 202
    assert await total(bob) == 1
    assert (await alice.post("/emails", data=form(("x", b"2", "a/b")), headers=KEY)).problem == (422, "Idempotency-Key")


async def test_a_key_belongs_to_one_request_of_one_account(alice: Client, bob: Client) -> None:
    await alice.post("/emails", HELLO, headers=KEY)
    reply = await alice.post("/emails", {**HELLO, "subject": "Other"}, headers=KEY)
    assert reply.problem == (422, "Idempotency-Key")
    assert (await bob.post("/emails", HELLO, headers=KEY)).status == 202


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
async def test_keys_that_are_none(alice: Client, key: str) -> None:
    assert (await alice.post("/emails", HELLO, headers={"Idempotency-Key": key})).problem == (422, "Idempotency-Key")


async def test_at_the_same_time_one_is_sent(alice: Client, bob: Client) -> None:
    replies = await asyncio.gather(*(alice.post("/emails", HELLO, headers=KEY) for _ in range(5)))
    assert {reply.status for reply in replies} <= {202, 409}
    assert len({reply.json["id"] for reply in replies if reply.status == 202}) == 1
    assert await total(bob) == 1


async def test_one_that_failed_may_be_tried_again(alice: Client, bob: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise Unavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(submit, "accept", fail)
        assert (await alice.post("/emails", HELLO, headers=KEY)).status == 503
    assert (await alice.post("/emails", HELLO, headers=KEY)).status == 202
    assert await total(bob) == 1


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("save", [False, True])
async def test_one_that_nobody_knows_of(
    alice: Client, bob: Client, database: str, monkeypatch: pytest.MonkeyPatch, stored: bool, save: bool
) -> None:
    """The answer to COMMIT was lost: a repetition finds what was stored, or sends what was not."""
    whole = submit.accept

    async def lose(*arguments: Any, **named: Any) -> None:
        if stored:
            await whole(*arguments, **named)
        raise OutcomeUnknown("lost")

    wanted = {**HELLO, "save": save}
    with monkeypatch.context() as broken:
        broken.setattr(submit, "accept", lose)
        assert (await alice.post("/emails", wanted, headers=KEY)).status == 503
    if not stored:
        assert (await alice.post("/emails", wanted, headers=KEY)).status == 409
        conn = await asyncpg.connect(database)
        await conn.execute("UPDATE idempotency_keys SET begun_at = begun_at - interval '1 hour'")
        await conn.close()
    reply = await alice.post("/emails", wanted, headers=KEY)
    assert reply.status == 202 and await total(bob) == 1
    assert (await bob.get(f"/emails/{reply.json['id']}")).status == 200


async def test_a_large_file_is_stored_as_a_blob_of_its_own(site: Site, alice: Client, bob: Client) -> None:
    octets = hashlib.sha256(b"x").digest() * 10_000
    reply = await alice.post("/emails", data=form(("x.bin", octets, "a/b")))
    async with site.store.acquire() as conn:
        (ref,) = {row[0] for row in await conn.fetch("SELECT blob FROM blob_refs")}
    assert await site.store.blobs.get(ref) == octets
    assert (await bob.get(f"/emails/{reply.json['id']}/attachments/2")).octets == octets
