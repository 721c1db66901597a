"""A transaction on the real store: quotas, all or none, what the record of its way says."""

from __future__ import annotations

import pytest

from mailserver.net.tls import Certificates
from mailserver.receiving import session
from storage import SYSTEM, Account, account_state
from tests.receiving.conftest import People
from tests.receiving.tools import Host, Talk, hosting

KIB = 1024
TEXT = b"Subject: x\r\n\r\n" + b"x" * 60 + b"\r\n"


def big(kib: int) -> bytes:
    line = b"x" * 62 + b"\r\n"
    return b"Subject: big\r\n\r\n" + line * (kib * KIB // 64)


async def limit(host: Host, account: Account, octets: int = 0, messages: int = 0) -> None:
    await account_state.set_quota(host.store, account.account_id, octets, messages)


async def used(host: Host, account: Account) -> tuple[int, int]:
    quota = await account_state.quota(host.store, account.account_id)
    return quota.used_octets, quota.used_messages


async def send(host: Host, octets: bytes, *recipients: str, size: bool = False) -> str:
    talk = await (await host.talk()).hello()
    try:
        await talk.ask(f"MAIL FROM:<x@elsewhere.example>{f' SIZE={len(octets)}' if size else ''}")
        for recipient in recipients:
            reply = await talk.ask(f"RCPT TO:<{recipient}>")
            if not reply.startswith("250"):
                return f"RCPT {reply}"
        return await talk.message(octets)
    finally:
        talk.close()


async def test_announced_size_is_counted_at_rcpt(host: Host, people: People) -> None:
    await limit(host, people.alice, 100 * KIB)
    assert (await send(host, big(60), "alice@example.org", size=True)).startswith("250")
    assert (await send(host, big(60), "alice@example.org", size=True)).startswith("RCPT 452 4.2.2")
    assert (await send(host, big(120), "alice@example.org", size=True)).startswith("RCPT 552 5.2.2")
    assert (await send(host, big(20), "alice@example.org", size=True)).startswith("250")
    assert (await send(host, big(120), "bob@example.org", size=True)).startswith("250")


async def test_all_full(host: Host, people: People) -> None:
    await limit(host, people.alice, 100 * KIB)
    await limit(host, people.bob, 100 * KIB)
    assert (await send(host, big(60), "both@example.org")).startswith("250")
    before = await used(host, people.alice), await used(host, people.bob)
    assert (await send(host, big(60), "alice@example.org", "bob@example.org")).startswith("452 4.2.2")
    assert (await send(host, big(120), "alice@example.org", "bob@example.org")).startswith("552 5.2.2")
    assert (await used(host, people.alice), await used(host, people.bob)) == before
    assert len(await host.inbox(people.alice)) == len(await host.inbox(people.bob)) == 1


async def test_committed_for_all_where_one_has_room(host: Host, people: People) -> None:
    await limit(host, people.alice, 100 * KIB)
    assert (await send(host, big(90), "alice@example.org")).startswith("250")
    assert (await send(host, big(60), "alice@example.org", "bob@example.org")).startswith("250")
    assert len(await host.inbox(people.alice)) == 2
    assert (await used(host, people.alice))[0] > 100 * KIB  # overrun by it
    assert (await send(host, TEXT, "alice@example.org")).startswith("452 4.2.2")
    assert (await send(host, TEXT, "alice@example.org", size=True)).startswith("RCPT 452 4.2.2")


async def test_number_of_messages(host: Host, people: People) -> None:
    await limit(host, people.alice, messages=2)
    assert [(await send(host, TEXT, "alice@example.org"))[:9] for _ in range(3)] == [
        "250 2.0.0",
        "250 2.0.0",
        "452 4.2.2",
    ]
    assert (await send(host, TEXT, "alice@example.org", size=True)).startswith("RCPT 452 4.2.2")


async def test_what_is_counted(host: Host, people: People) -> None:
    """Each copy counts what its reader sees: the octets and the prefix."""
    await send(host, TEXT, "alice@example.org")
    [row] = await host.rows(people.alice)
    octets, messages = await used(host, people.alice)
    assert messages == 1
    assert octets == len(row.header_prefix) + len(TEXT)


async def hello(host: Host, word: str) -> Talk:
    talk = await host.talk()
    await talk.reply()
    await talk.ask(word)
    return talk


@pytest.mark.parametrize(
    ("word", "parameters", "protocol"),
    [("HELO x", "", "SMTP"), ("EHLO x", "", "ESMTP"), ("EHLO x", " SMTPUTF8", "UTF8SMTP")],
)
async def test_protocol_in_received(host: Host, people: People, word: str, parameters: str, protocol: str) -> None:
    talk = await hello(host, word)
    await talk.ask("MAIL FROM:<>" + parameters)
    await talk.ask("RCPT TO:<alice@example.org>")
    await talk.message(TEXT)
    [stored] = await host.inbox(people.alice)
    assert f" with {protocol} id ".encode() in stored
    talk.close()


async def test_a_name_cannot_break_the_record(host: Host, people: People) -> None:
    talk = await hello(host, "EHLO evil(by);x<y>")
    await talk.envelope("", "alice@example.org")
    await talk.message(TEXT)
    [row] = await host.rows(people.alice)
    assert row.header_prefix.decode().splitlines()[2] == "Received: from evil?by??x?y? ([127.0.0.1])"
    talk.close()


async def test_chunks_and_data_store_the_same(host: Host, people: People) -> None:
    octets = b"Subject: x\r\n\r\n.\r\n..dots\r\n\r\n"
    talk = await (await host.talk()).hello()
    await talk.envelope("", "alice@example.org")
    assert (await talk.message(octets)).startswith("250")
    await talk.envelope("", "alice@example.org")
    talk.send(b"BDAT 10\r\n" + octets[:10] + b"BDAT %d LAST\r\n" % (len(octets) - 10) + octets[10:])
    assert (await talk.reply()).startswith("250 2.0.0 10 octets")
    assert (await talk.reply()).startswith("250 2.0.0 OK ")
    bodies = [(await host.whole(people.alice, row))[len(row.header_prefix) :] for row in await host.rows(people.alice)]
    assert bodies == [octets, octets]
    talk.close()


async def test_large_message_with_attachment(host: Host, people: People) -> None:
    from base64 import encodebytes
    from random import Random

    attachment = encodebytes(Random(5).randbytes(3_000_000)).replace(b"\n", b"\r\n")
    octets = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n'
    octets += b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" + attachment + b"\r\n--b--\r\n"
    assert (await send(host, octets, "alice@example.org", "bob@example.org", size=True)).startswith("250")
    for account in (people.alice, people.bob):
        [row] = await host.rows(account)
        assert (await host.whole(account, row)) == row.header_prefix + octets


async def test_real_client(host: Host, people: People, certificates: Certificates) -> None:
    import asyncio
    import smtplib

    def submit() -> dict[str, tuple[int, bytes]]:
        with smtplib.SMTP("127.0.0.1", host.port("submission"), timeout=20) as client:
            client.starttls(context=host.client)
            client.login("alice@example.org", "correct horse")
            return client.sendmail(
                "alice@example.org",
                ["bob@example.org", "nobody@example.org", "x@elsewhere.example"],
                "Subject: hi\n\n.dot\n",
            )

    refused = await asyncio.to_thread(submit)
    assert {address: code for address, (code, _) in refused.items()} == {
        "nobody@example.org": 550,
    }
    [stored] = await host.inbox(people.bob)
    assert stored.endswith(b"\r\n\r\n.dot\r\n")


async def test_many_sessions_at_once(host: Host, people: People, certificates: Certificates) -> None:
    import asyncio

    async def one(i: int) -> str:
        return await send(host, b"Subject: %d\r\n\r\n" % i, "both@example.org")

    async with hosting(host.store, certificates, trusted=("127.0.0.0/8",)) as other:
        replies = await asyncio.gather(*[one(i) for i in range(40)], *[send(other, TEXT, "alice@example.org")])
    assert all(reply.startswith("250") for reply in replies)
    assert len(await host.inbox(people.alice)) == 41
    assert len(await host.inbox(people.bob)) == 40


async def test_other_settings_in_the_midst_of_things(host: Host, people: People) -> None:
    """The next command and the next message go by them; a message that is being received keeps its bounds."""
    config = host.receiving.config
    talk = await (await host.talk()).hello()
    await talk.envelope("x@elsewhere.example", "alice@example.org")
    assert (await talk.ask("DATA")).startswith("354")
    host.receiving.reconfigure(
        config.model_copy(
            update={
                "server": config.server.model_copy(update={"hostname": "new.example.org"}),
                "mail": config.mail.model_copy(update={"max_message_octets": 4 * KIB}),
                "smtp": config.smtp.model_copy(update={"max_recipients": 1, "greeting": "Hello"}),
            }
        )
    )
    assert (await talk.ask(big(60) + b".\r\n")).startswith("250")
    assert (await talk.ask("MAIL FROM:<x@elsewhere.example> SIZE=5000")).startswith("552 5.3.4")
    await talk.envelope("x@elsewhere.example", "alice@example.org")
    assert (await talk.ask("RCPT TO:<bob@example.org>")).startswith("452 4.5.3")
    assert (await talk.message(big(60))).startswith("552 5.3.4")
    new = await host.talk()
    assert (await new.reply()).startswith("220 new.example.org Hello ")
    assert "SIZE 4096" in await new.ask("EHLO client.example.net")
    new.close()
    talk.close()
    (message,) = await host.inbox(people.alice)
    assert b"by new.example.org" in message


async def test_outside_recipients_wait_in_the_queue_of_who_submits(host: Host, people: People) -> None:
    talk = await (await (await host.talk("submission")).hello()).log_in("alice")
    await talk.ask("MAIL FROM:<alice@example.org> BODY=8BITMIME RET=HDRS ENVID=q1")
    for recipient, parameters in {
        "bob@example.org": " NOTIFY=SUCCESS ORCPT=rfc822;bob",
        "split@example.org": " NOTIFY=FAILURE",
        "X@Elsewhere.Example": "",
        "someone@elsewhere.example": "",
    }.items():
        assert (await talk.ask(f"RCPT TO:<{recipient}>{parameters}")).startswith("250")
    assert (await talk.message(b"From: alice@example.org\r\n\r\nhi\r\n")).startswith("250")
    talk.close()
    async with host.store.acquire() as conn:
        message = await conn.fetchrow("SELECT * FROM queue_messages")
        rows = await conn.fetch('SELECT * FROM queue_recipients ORDER BY recipient COLLATE "C"')
    assert (message["account_id"], message["reverse_path"]) == (people.alice.account_id, "alice@example.org")
    assert (message["ret"], message["envid"], message["body"], message["open"]) == ("HDRS", "q1", "8BITMIME", 3)
    assert message["header_prefix"].startswith(b"Received: from ") and b"Return-Path" not in message["header_prefix"]
    assert [(r["recipient"], r["destination"], r["state"], r["notify"], r["orcpt"], r["report"]) for r in rows] == [
        ("X@elsewhere.example", "elsewhere.example", "waiting", None, None, None),
        ("bob@example.org", "example.org", "delivered", "SUCCESS", "rfc822;bob", "delivered"),
        ("someone@elsewhere.example", "elsewhere.example", "waiting", "FAILURE", None, None),
    ]
    assert len(await host.inbox(people.bob)) == len(await host.inbox(people.alice)) == 1


async def test_what_an_alias_leads_elsewhere_is_the_systems(host: Host, people: People) -> None:
    assert (await send(host, TEXT, "away@example.org", "split@example.org")).startswith("250")
    async with host.store.acquire() as conn:
        message = await conn.fetchrow("SELECT * FROM queue_messages")
        rows = await conn.fetch("SELECT recipient FROM queue_recipients")
    assert (message["account_id"], message["reverse_path"]) == (SYSTEM, "x@elsewhere.example")
    assert [row["recipient"] for row in rows] == ["someone@elsewhere.example"]
    assert len(await host.inbox(people.alice)) == 1


async def test_nothing_is_taken_for_elsewhere_where_it_is_refused_here(host: Host, people: People) -> None:
    await limit(host, people.alice, 1 * KIB)
    assert (await send(host, big(20), "split@example.org")).startswith("552 5.2.2")
    async with host.store.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM queue_messages") == 0


async def test_an_account_may_have_only_so_many_messages_waiting(host: Host, people: People) -> None:
    config = host.receiving.config
    send_ = config.send.model_copy(update={"max_queued_messages": 2})
    host.receiving.reconfigure(config.model_copy(update={"send": send_}))
    replies = []
    for _ in range(3):
        host.receiving.routes._queued.clear()  # what is remembered for some seconds
        talk = await (await (await host.talk("submission")).hello()).log_in("alice")
        await talk.ask("MAIL FROM:<alice@example.org>")
        replies.append((await talk.ask("RCPT TO:<x@elsewhere.example>"))[:9])
        if replies[-1].startswith("250"):
            await talk.message(b"From: alice@example.org\r\n\r\nhi\r\n")
        talk.close()
    assert replies == ["250 2.1.5", "250 2.1.5", "452 4.3.1"]


async def test_a_message_leads_to_so_many_addresses_elsewhere_at_most(
    host: Host, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_EXPANDED", 2)
    talk = await (await (await host.talk("submission")).hello()).log_in("alice")
    await talk.ask("MAIL FROM:<alice@example.org>")
    replies = [(await talk.ask(f"RCPT TO:<{name}@elsewhere.example>"))[:9] for name in "abc"]
    talk.close()
    assert replies == ["250 2.1.5", "250 2.1.5", "452 4.5.3"]
