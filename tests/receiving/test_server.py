"""SMTP dialogues: each line by line, octet by octet, and with all lines sent before any reply is read."""

from __future__ import annotations

import logging
import ssl
import uuid
from pathlib import Path

import pytest

from mailserver.net.tls import Certificates
from storage import Store, accounts
from tests.receiving.tools import WAYS, Host, answer, dialogue, hosting, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def host(wire: Host) -> Host:
    return wire


@pytest.fixture
def store(wire: Host) -> Store:
    return wire.store


async def alice_has(host: Host) -> list[bytes]:
    return await host.inbox(await accounts.find(host.store, "alice"))


MX = {
    "the usual": """
        S: 220 mail.example.org ESMTP Pillarbox …
        C: EHLO client.example.net
        S: 250-mail.example.org
        S: 250-PIPELINING
        S: 250-SIZE 52428800
        S: 250-STARTTLS
        S: 250-ENHANCEDSTATUSCODES
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-DSN
        S: 250 CHUNKING
        C: MAIL FROM:<x@example.net> SIZE=100 BODY=8BITMIME
        S: 250 2.1.0 …
        C: RCPT TO:<alice@example.org>
        S: 250 2.1.5 …
        C: RCPT TO:<nobody@example.org>
        S: 550 5.1.1 …
        C: DATA
        S: 354 …
        C: Subject: hi
        C:
        C: ..
        C: .
        S: 250 2.0.0 OK …-…-…-…-…
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "HELO, and commands in any case": """
        S: 220 …
        C: helo client.example.net
        S: 250 mail.example.org
        C: mail from:<>
        S: 250 2.1.0 …
        C: Rcpt To: <BOB@EXAMPLE.ORG>
        S: 250 2.1.5 …
        C: data
        S: 354 …
        C: .
        S: 250 2.0.0 OK …
        C: quit
        S: 221 2.0.0 …
        S: <end>
    """,
    "two messages in one session": """
        S: 220 …
        C: EHLO [192.0.2.1]
        S: <hello>
        C: MAIL FROM:<x@example.net>
        S: 250 2.1.0 …
        C: RCPT TO:<bob@example.org>
        S: 250 2.1.5 …
        C: DATA
        S: 354 …
        C: one
        C: .
        S: 250 2.0.0 OK …
        C: MAIL FROM:<y@example.net>
        S: 250 2.1.0 …
        C: RCPT TO:<bob@example.org>
        S: 250 2.1.5 …
        C: DATA
        S: 354 …
        C: two
        C: .
        S: 250 2.0.0 OK …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "the order of commands": """
        S: 220 …
        C: MAIL FROM:<x@example.net>
        S: 503 5.5.1 Send EHLO first
        C: HELO
        S: 501 5.5.4 …
        C: HELO two words
        S: 501 5.5.4 …
        C: HELO client
        S: 250 mail.example.org
        C: RCPT TO:<alice@example.org>
        S: 503 5.5.1 RCPT follows MAIL
        C: DATA
        S: 503 5.5.1 MAIL and RCPT come first
        C: MAIL FROM:<x@example.net>
        S: 250 2.1.0 …
        C: MAIL FROM:<x@example.net>
        S: 503 5.5.1 A transaction is under way; RSET ends it
        C: DATA
        S: 503 5.5.1 MAIL and RCPT come first
        C: RCPT TO:<nobody@example.org>
        S: 550 5.1.1 …
        C: DATA
        S: 554 5.5.1 No valid recipients
        C: RCPT TO:<alice@example.org>
        S: 250 2.1.5 …
        C: DATA now
        S: 501 5.5.4 …
        C: RSET
        S: 250 2.0.0 OK
        C: DATA
        S: 503 5.5.1 …
        C: RSET all
        S: 501 5.5.4 …
        C: MAIL FROM:<x@example.net>
        S: 250 2.1.0 …
        C: HELO again
        S: 250 mail.example.org
        C: RCPT TO:<alice@example.org>
        S: 503 5.5.1 …
        C: QUIT now
        S: 501 5.5.4 …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "other commands": """
        S: 220 …
        C: NOOP
        S: 250 2.0.0 OK
        C: NOOP whatever this is
        S: 250 2.0.0 OK
        C: VRFY alice
        S: 252 2.5.0 …
        C: VRFY
        S: 501 5.5.4 …
        C: EXPN staff
        S: 502 5.5.1 …
        C: HELP
        S: 214-2.0.0 Commands: BDAT DATA EHLO EXPN HELO HELP MAIL NOOP QUIT RCPT RSET STARTTLS VRFY
        S: 214 2.0.0 They are explained in RFC 5321
        C: HELP DATA
        S: 214-2.0.0 …
        S: 214 2.0.0 …
        C: AUTH PLAIN
        S: 502 5.5.1 …
        C: TURN
        S: 500 5.5.1 …
        C: GET / HTTP/1.1
        S: 500 5.5.1 …
        C: grüße
        S: 500 5.5.1 …
        C:
        S: 500 5.5.2 …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "parameters": """
        S: 220 …
        C: HELO client
        S: 250 …
        C: MAIL FROM:<x@example.net> SIZE=52428801
        S: 552 5.3.4 …
        C: MAIL FROM:<x@example.net> BODY=BINARYMIME
        S: 555 5.5.4 BINARYMIME is not implemented
        C: MAIL FROM:<x@example.net> RET=ALL
        S: 501 5.5.4 Syntax: RET=…
        C: MAIL FROM:<grüße@example.net>
        S: 553 5.6.7 …
        C: MAIL FROM:x@example.net
        S: 501 5.1.7 …
        C: MAIL FROM:<x@example.net> SIZE=52428800
        S: 250 2.1.0 …
        C: RCPT TO:<alice@example.org> NOTIFY=SOMETIMES
        S: 501 5.5.4 Syntax: NOTIFY=…
        C: RCPT TO:<grüße@example.org>
        S: 553 5.6.7 …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "chunks": """
        S: 220 …
        C: HELO client
        S: 250 …
        C: MAIL FROM:<x@example.net>
        S: 250 2.1.0 …
        C: RCPT TO:<bob@example.org>
        S: 250 2.1.5 …
        C: BDAT 6
        C: a: b
        S: 250 2.0.0 6 octets received
        C: BDAT 0
        S: 250 2.0.0 6 octets received
        C: RCPT TO:<bob@example.org>
        S: 503 5.5.1 …
        C: MAIL FROM:<x@example.net>
        S: 503 5.5.1 …
        C: DATA
        S: 503 5.5.1 DATA and BDAT do not mix
        C: BDAT 5 LAST
        C: .
        C:
        S: 250 2.0.0 OK …
        C: MAIL FROM:<x@example.net>
        S: 250 2.1.0 …
        C: RCPT TO:<bob@example.org>
        S: 250 2.1.5 …
        C: BDAT 0 LAST
        S: 250 2.0.0 OK …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "chunks out of order keep the dialogue in step": """
        S: 220 …
        C: BDAT 6
        C: QUIT
        S: 503 5.5.1 …
        C: HELO client
        S: 250 …
        C: MAIL FROM:<x@example.net>
        S: 250 2.1.0 …
        C: RCPT TO:<nobody@example.org>
        S: 550 5.1.1 …
        C: BDAT 6
        C: QUIT
        S: 554 5.5.1 No valid recipients
        C: BDAT 6 LAST
        C: QUIT
        S: 503 5.5.1 …
        C: MAIL FROM:<x@example.net>
        S: 250 2.1.0 …
        C: RCPT TO:<bob@example.org>
        S: 250 2.1.5 …
        C: BDAT 6 FIRST
        C: QUIT
        S: 501 5.5.4 Syntax: BDAT size [LAST]
        C: BDAT 6 LAST
        C: QUIT
        S: 503 5.5.1 …
        C: NOOP
        S: 250 2.0.0 OK
        C: BDAT some
        S: 421 4.5.4 …
        S: <end>
    """,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("script", MX.values(), ids=MX)
async def test_dialogues(host: Host, script: str, way: str) -> None:
    await dialogue(host, script, way=way)


SUBMISSION = {
    "PLAIN with an initial response": """
        S: 220 …
        C: EHLO client
        S: 250-mail.example.org
        S: 250-PIPELINING
        S: 250-SIZE 52428800
        S: 250-STARTTLS
        S: 250-AUTH PLAIN LOGIN
        S: 250-ENHANCEDSTATUSCODES
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-DSN
        S: 250 CHUNKING
        C: MAIL FROM:<alice@example.org>
        S: 530 5.7.0 Authentication required
        C: AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=
        S: 235 2.7.0 …
        C: AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=
        S: 503 5.5.1 …
        C: MAIL FROM:<alice@example.org> AUTH=<>
        S: 250 2.1.0 …
        C: AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=
        S: 503 5.5.1 AUTH is not allowed in a transaction
        C: RCPT TO:<bob@example.org>
        S: 250 2.1.5 …
        C: DATA
        S: 354 …
        C: Subject: hi
        C:
        C: .
        S: 250 2.0.0 OK …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "PLAIN with a challenge, in small letters": """
        S: 220 …
        C: HELO client
        S: 250 …
        C: AUTH PLAIN
        S: 500 5.5.1 …
        C: EHLO client
        S: <hello>
        C: auth plain
        S: 334 …
        C: AGFsaWNlAGNvcnJlY3QgaG9yc2U=
        S: 235 2.7.0 …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "LOGIN with both challenges, the whole address as name": """
        S: 220 …
        C: EHLO client
        S: <hello>
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: YWxpY2VAZXhhbXBsZS5vcmc=
        S: 334 UGFzc3dvcmQ6
        C: Y29ycmVjdCBob3JzZQ==
        S: 235 2.7.0 …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "LOGIN with the name as initial response": """
        S: 220 …
        C: EHLO client
        S: <hello>
        C: AUTH LOGIN YWxpY2U=
        S: 334 UGFzc3dvcmQ6
        C: Y29ycmVjdCBob3JzZQ==
        S: 235 2.7.0 …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
    "what is refused": """
        S: 220 …
        C: AUTH PLAIN
        S: 503 5.5.1 Send EHLO first
        C: EHLO client
        S: <hello>
        C: AUTH
        S: 501 5.5.4 …
        C: AUTH PLAIN one two
        S: 501 5.5.4 …
        C: AUTH CRAM-MD5
        S: 504 5.5.4 …
        C: AUTH PLAIN AGFsaWNlAHdyb25n
        S: 535 5.7.8 …
        C: AUTH PLAIN AG5vYm9keQB3cm9uZw==
        S: 535 5.7.8 …
        C: AUTH PLAIN Ym9iAGFsaWNlAGNvcnJlY3QgaG9yc2U=
        S: 535 5.7.8 …
        C: AUTH PLAIN =
        S: 501 5.5.2 …
        C: AUTH PLAIN rubbish!
        S: 501 5.5.2 …
        C: AUTH PLAIN YWxpY2U=
        S: 501 5.5.2 …
        C: AUTH PLAIN
        S: 334 …
        C: *
        S: 501 5.7.0 …
        C: AUTH LOGIN
        S: 334 …
        C: YWxpY2U=
        S: 334 …
        C: *
        S: 501 5.7.0 …
        C: AUTH LOGIN
        S: 334 …
        C: rubbish!
        S: 501 5.5.2 …
        C: MAIL FROM:<alice@example.org>
        S: 530 5.7.0 …
        C: AUTH PLAIN
        S: 334 …
        C: AGFsaWNlAGNvcnJlY3QgaG9yc2U=
        S: 235 2.7.0 …
        C: QUIT
        S: 221 2.0.0 …
        S: <end>
    """,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("script", SUBMISSION.values(), ids=SUBMISSION)
async def test_logins(host: Host, script: str, way: str) -> None:
    await dialogue(host, script, "submission", way=way)


# Login and TLS --------------------------------------------------------------------------------------------------------


async def test_logins_of_two_connections_do_not_mix(host: Host) -> None:
    """aiosmtpd's tables of methods are bound to one instance; ours speak on the connection that asked."""
    first, second = await (await host.talk("submission")).hello(), await (await host.talk("submission")).hello()
    assert await first.ask("AUTH LOGIN") == "334 VXNlcm5hbWU6\r\n"
    assert await second.ask("AUTH LOGIN") == "334 VXNlcm5hbWU6\r\n"
    assert (await second.ask("YWxpY2U=")).startswith("334")
    assert (await first.ask("Ym9i")).startswith("334")
    assert (await first.ask("Y29ycmVjdCBob3JzZQ==")).startswith("235")
    assert (await second.ask("Y29ycmVjdCBob3JzZQ==")).startswith("235")
    assert (await second.ask("MAIL FROM:<bob@example.org>")).startswith("550 5.7.1")
    assert (await first.ask("MAIL FROM:<bob@example.org>")).startswith("250")
    first.close()
    second.close()


async def test_no_login_in_clear(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates, clear=False) as host:
        await dialogue(
            host,
            """
            S: 220 …
            C: EHLO client
            S: 250-mail.example.org
            S: 250-PIPELINING
            S: 250-SIZE 52428800
            S: 250-STARTTLS
            S: 250-ENHANCEDSTATUSCODES
            S: 250-8BITMIME
            S: 250-SMTPUTF8
            S: 250-DSN
            S: 250 CHUNKING
            C: AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=
            S: 538 5.7.11 …
            C: MAIL FROM:<alice@example.org>
            S: 530 5.7.0 Must issue a STARTTLS command first
            C: QUIT
            S: 221 …
            S: <end>
            """,
            "submission",
        )


@pytest.mark.parametrize("kind", ["submission", "submissions"])
async def test_login_under_tls(store: Store, certificates: Certificates, kind: str) -> None:
    async with hosting(store, certificates, clear=False) as host:
        talk = await (await host.talk(kind)).hello()
        if kind == "submission":
            assert await talk.ask("STARTTLS") == "220 2.0.0 Ready to start TLS\r\n"
            await talk.start_tls()
            assert (await talk.ask("MAIL FROM:<alice@example.org>")).startswith("503")  # all is forgotten
        hello = await talk.ask("EHLO client.example.net")
        assert "250-AUTH PLAIN LOGIN\r\n" in hello
        assert "STARTTLS" not in hello
        assert (await talk.ask("STARTTLS")).startswith("503 5.5.1")
        await talk.log_in()
        marker = uuid.uuid4().hex
        await talk.envelope("alice@example.org", "alice@example.org")
        assert (await talk.message(f"Subject: {marker}\r\n\r\n".encode())).startswith("250 2.0.0 OK")
        [stored] = [message for message in await alice_has(host) if marker.encode() in message]
        assert b" with ESMTPSA id " in stored
        assert b"(TLSv1.3 " in stored
        assert await talk.ask("QUIT") == "221 2.0.0 Bye\r\n"
        assert await talk.rest() == ""


async def test_mx_with_starttls_and_no_greeting_after_it(host: Host) -> None:
    talk = await (await host.talk()).hello()
    assert (await talk.ask("STARTTLS now")).startswith("501 5.5.4")
    assert (await talk.ask("STARTTLS")).startswith("220 2.0.0")
    await talk.start_tls()
    assert "STARTTLS" not in await talk.ask("EHLO client")
    await talk.envelope("", "bob@example.org")
    assert (await talk.message(b"\r\n" + b"x" * 60_000 + b"\r\n")).startswith("250")
    talk.close()


async def test_what_was_pipelined_behind_starttls_is_dropped(host: Host) -> None:
    talk = await (await host.talk("submission")).hello()
    talk.send(
        b"STARTTLS\r\nEHLO injected\r\nAUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=\r\nMAIL FROM:<alice@example.org>\r\n"
    )
    assert (await talk.reply()).startswith("220 2.0.0")
    await talk.start_tls()
    assert (await talk.ask("RCPT TO:<bob@example.org>")).startswith("503 5.5.1 RCPT follows MAIL")
    assert (await talk.ask("MAIL FROM:<alice@example.org>")).startswith("503 5.5.1 Send EHLO")
    talk.close()


async def test_starttls_ends_a_login_and_a_transaction(host: Host) -> None:
    talk = await (await (await host.talk("submission")).hello()).log_in()
    await talk.envelope("alice@example.org", "bob@example.org")
    server = host.connections[-1].smtp
    account = server.session.account
    assert account is not None
    assert host.sessions.count(account.account_id) == 1
    assert (await talk.ask("STARTTLS")).startswith("220")
    await talk.start_tls()
    await talk.ask("EHLO again")
    assert (await talk.ask("MAIL FROM:<alice@example.org>")).startswith("530 5.7.0 Authentication")
    assert host.sessions.count(account.account_id) == 0
    talk.close()


async def test_no_certificate(store: Store, tmp_path: Path) -> None:
    from config.schema import TlsConfig
    from tests.receiving.tools import certificates as make

    own = make(tmp_path)
    async with hosting(store, own) as host:
        (tmp_path / "tls" / "server.key").unlink()
        talk = await (await host.talk()).hello()
        assert (await talk.ask("STARTTLS")).startswith("454 4.7.0")
        assert (await talk.ask("NOOP")).startswith("250")
        talk.close()
    assert TlsConfig().certificate is None


async def test_long_line_in_a_login(host: Host) -> None:
    talk = await (await host.talk("submission")).hello()
    assert (await talk.ask("AUTH PLAIN")).startswith("334")
    assert (await talk.ask("A" * 20_000)).startswith("500 5.5.6")
    assert (await talk.ask("AUTH PLAIN " + "A" * 20_000)).startswith("500 5.5.2")
    assert (await talk.ask("AUTH PLAIN " + "A" * 8_000)).startswith("501 5.5.2")
    assert (await talk.ask("NOOP")).startswith("250")
    talk.close()


async def test_client_that_goes_away_in_a_login(host: Host) -> None:
    talk = await (await host.talk("submission")).hello()
    assert (await talk.ask("AUTH LOGIN")).startswith("334")
    server = host.connections[-1].smtp
    assert server._running is not None
    talk.close()
    await until(lambda: server._running is None)


async def test_passwords_stay_out_of_the_log(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    talk = await (await host.talk("submission")).hello()
    await talk.ask("AUTH PLAIN AGFsaWNlAHdyb25nIG9uZQ==")
    await talk.ask("AUTH LOGIN")
    await talk.ask("YWxpY2U=")
    await talk.ask("d3Jvbmcgb25l")
    await talk.ask("AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U= x")
    await talk.log_in()
    talk.close()
    assert "535" in caplog.text
    for secret in ("wrong one", "d3Jvbmcgb25l", "AGFsaWNl", "correct horse"):
        assert secret not in caplog.text


# Messages and limits --------------------------------------------------------------------------------------------------


async def test_smuggled_commands_stay_text(host: Host) -> None:
    for trick in (b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r\n.\r"):
        talk = await (await host.talk()).hello()
        await talk.envelope("x@example.net", "bob@example.org")
        assert (await talk.ask("DATA")).startswith("354")
        talk.send(b"a: b\r\n\r\none" + trick + b"MAIL FROM:<admin@example.org>\r\nRCPT TO:<alice@example.org>\r\n")
        talk.send(b"DATA\r\ntwo\r\n.\r\nNOOP\r\n")
        assert (await talk.reply()).startswith("550 5.6.0")
        assert (await talk.reply()).startswith("250 2.0.0 OK\r\n")
        talk.close()


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"a: b\r\n\r\nnul\0\r\n", "554 5.6.0 NUL"),
        (b"a: b\r\n\r\n" + b"x" * 66_000 + b"\r\n", "554 5.6.0 A line"),
        (b"a: b\r\n" * 2001 + b"\r\n", "554 5.6.0 Header"),
        ((b"a: " + b"b" * 60_000 + b"\r\n") * 18 + b"\r\n", "552 5.3.4 Header"),
        (b"Received: by x\r\n" * 50 + b"\r\n", "554 5.4.6"),
    ],
)
async def test_messages_that_are_refused(host: Host, octets: bytes, reply: str) -> None:
    talk = await (await host.talk()).hello()
    await talk.envelope("x@example.net", "alice@example.org")
    before = len(await alice_has(host))
    assert (await talk.message(octets)).startswith(reply)
    assert len(await alice_has(host)) == before
    # The transaction is over (RFC 5321 §4.1.1.4), the session goes on.
    assert (await talk.ask("DATA")).startswith("503")
    await talk.envelope("x@example.net", "bob@example.org")
    assert (await talk.message(b"fine\r\n")).startswith("250")
    talk.close()


async def test_a_message_that_is_too_big(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates, mail={"max_message_octets": 65536}) as host:
        talk = await (await host.talk()).hello()
        assert (await talk.ask("MAIL FROM:<> SIZE=65537")).startswith("552 5.3.4")
        await talk.envelope("", "bob@example.org")
        assert (await talk.message(b"\r\n" + b"x" * 32_000 + b"\r\n" + b"x" * 33_600 + b"\r\n")).startswith("552 5.3.4")
        await talk.envelope("", "bob@example.org")
        chunk = b"BDAT 40000\r\n" + b"\r\n" * 20_000
        assert (await talk.ask(chunk)).startswith("250")
        assert (await talk.ask(chunk)).startswith("552 5.3.4")
        assert (await talk.ask(chunk)).startswith("503")
        assert host.receiving.memory.used == 0
        talk.close()


async def test_too_many_recipients(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates, max_recipients=100) as host:
        talk = await (await host.talk()).hello()
        await talk.envelope("", *["bob@example.org"] * 100)
        assert (await talk.ask("RCPT TO:<bob@example.org>")).startswith("452 4.5.3")
        assert (await talk.message(b"\r\n")).startswith("250")
        talk.close()


async def test_too_many_connections(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates, max_connections_per_address=2) as host:
        talks = [await host.talk(), await host.talk()]
        for talk in talks:
            assert (await talk.reply()).startswith("220")
        third = await host.talk()
        assert await third.rest() == "421 4.7.0 Too many connections\r\n"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await host.talk("submissions")
        talks[0].send(b"QUIT\r\n")
        await talks[0].rest()
        await until(lambda: host.receiving.connections.open == 1)
        assert (await (await host.talk()).reply()).startswith("220")
        for talk in talks:
            talk.close()


async def test_memory_for_messages(host: Host) -> None:
    memory = host.receiving.memory
    memory.limit, kept = 100_000, memory.limit
    try:
        first = await (await host.talk()).hello()
        await first.envelope("", "bob@example.org")
        assert (await first.ask("DATA")).startswith("354")
        first.send((b"x" * 70 + b"\r\n") * 1000)
        await until(lambda: memory.used > 71_000)

        second = await (await host.talk()).hello()
        assert (await second.ask("MAIL FROM:<> SIZE=60000")).startswith("250")
        await second.ask("RCPT TO:<bob@example.org>")
        assert (await second.ask("DATA")).startswith("452 4.3.1")  # announced
        await second.ask("RSET")
        await second.envelope("", "bob@example.org")
        assert (await second.message(b"\r\n" * 20_000)).startswith("452 4.3.1")  # not announced
        assert memory.used < 73_000
        await second.envelope("", "bob@example.org")
        assert (await second.message(b"small\r\n")).startswith("250")

        assert (await answer(first, b".\r\n")).startswith("250")
        assert memory.used == 0
        await first.envelope("", "bob@example.org")
        await first.ask("DATA")
        first.send((b"x" * 70 + b"\r\n") * 100)
        await until(lambda: memory.used > 0)
        first.close()  # in the midst of a message
        await until(lambda: memory.used == 0)
        second.close()
    finally:
        memory.limit = kept
