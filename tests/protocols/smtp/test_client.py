"""Sessions as dialogues: `C:` what the client sends, `S:` what it is fed, `do:` what the driver starts."""

from __future__ import annotations

import itertools
import tracemalloc
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols.smtp import client as core
from mailserver.protocols.smtp.client import (
    CHUNK,
    PIECE,
    TIMEOUTS,
    Cause,
    Client,
    Envelope,
    Failure,
    Lack,
    NotOffered,
    Phase,
    Recipient,
    TransactionResult,
)
from mailserver.protocols.smtp.data import Bounds, ChunkedBody, DataBody
from mailserver.protocols.smtp.extensions import Extensions
from mailserver.protocols.smtp.reply import Reply

PIECES = [1, 2, 7, 10**9]

ALICE = Recipient("alice@a.example")
BOB = Recipient("bob@b.example")
CAROL = Recipient("carol@c.example")
ONE = Envelope("me@me.example", (ALICE,))
THREE = Envelope("me@me.example", (ALICE, BOB, CAROL))
MESSAGE = b"Subject: x\r\n\r\n.dot\r\n"


class Session:
    """A client and a driver that sends whatever it may; the results of its transactions."""

    def __init__(self, **options: bool) -> None:
        self.client = Client("me.example", **options)
        self.results: list[TransactionResult] = []
        self.finish = True

    def sent(self) -> bytes:
        """What the client sends before it needs a reply."""
        sent = b""
        while True:
            if data := self.client.data_to_send():
                sent += data
            elif self.client.phase is Phase.COMMIT and self.finish:
                self.client.finish()
            else:
                return sent

    def do(self, words: str) -> None:
        client = self.client
        actions: dict[str, Callable[[], None]] = {
            "ehlo": client.ehlo,
            "starttls": client.starttls,
            "tls started": client.tls_started,
            "reset": client.reset,
            "quit": client.quit,
            "auth": lambda: client.auth("me", "secret"),
            "send one": lambda: self.results.append(client.transaction(ONE, MESSAGE)),
            "send three": lambda: self.results.append(client.transaction(THREE, MESSAGE)),
            "eof": client.eof,
            "timeout": lambda: client.give_up(Cause.TIMEOUT),
        }
        actions[words]()

    def talk(self, dialogue: str, piece: int = 10**9) -> None:
        lines = [line.strip() for line in dialogue.strip().splitlines()]
        for kind, group in itertools.groupby(lines, lambda line: line.partition(":")[0]):
            texts = [line.partition(":")[2].strip() for line in group]
            if kind == "do":
                assert self.sent() == b""
                for text in texts:
                    self.do(text)
                continue
            octets = "".join(text + "\r\n" for text in texts).encode()
            if kind == "C":
                assert self.sent() == octets
            else:
                assert kind == "S"
                assert self.sent() == b"", "nothing more is sent than the dialogue says"
                for at in range(0, len(octets), piece):
                    self.client.feed(octets[at : at + piece])
        assert self.sent() == b""


def hello(*keywords: str) -> str:
    """The dialogue up to the reply to EHLO."""
    lines = ["mx.example", *keywords]
    replies = [f"S: 250{'-' if line is not lines[-1] else ' '}{line}\n" for line in lines]
    return "S: 220 mx.example ESMTP\ndo: ehlo\nC: EHLO me.example\n" + "".join(replies)


def ready(*keywords: str) -> Session:
    session = Session()
    session.talk(hello(*keywords))
    assert session.client.phase is Phase.READY
    return session


def verdicts(result: TransactionResult, count: int) -> list[str]:
    """For each recipient the phase and the code."""
    found = [result.verdict(index) for index in range(count)]
    return [f"{verdict.phase.name} {verdict.reply.code if verdict.reply else '-'}" for verdict in found]


def phase_of(client: Client) -> Phase:
    """For a second look: a type checker believes that the phase is what the first one saw."""
    return client.phase


# Greeting, EHLO, HELO -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", PIECES)
def test_ehlo(piece: int) -> None:
    session = Session()
    client = session.client
    assert client.phase is Phase.GREETING and not client.idle and client.data_to_send() == b""
    session.talk("S: 220-mx.example ESMTP\nS: 220 id=17", piece)
    assert phase_of(client) is Phase.READY and client.idle
    assert client.greeting == Reply(220, ("mx.example ESMTP", "id=17"))
    session.talk("do: ehlo\nC: EHLO me.example")
    assert client.phase is Phase.EHLO
    session.talk("S: 250-mx.example\nS: 250-SIZE 1000\nS: 250 DSN", piece)
    assert client.extensions == Extensions("mx.example", size=1000, dsn=True)
    assert client.phase is Phase.READY and client.failure is None


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("code", [500, 501, 502, 504, 550])
def test_helo_where_ehlo_is_not_known(code: int, piece: int) -> None:
    session = Session()
    session.talk(
        f"""
        S: 220 old.example
        do: ehlo
        C: EHLO me.example
        S: {code} what?
        C: HELO me.example
        S: 250 old.example SIZE
        do: send one
        C: MAIL FROM:<me@me.example>
        """,
        piece,
    )
    assert session.client.extensions == Extensions("old.example")


@pytest.mark.parametrize("code", [450, 451, 503, 521, 530, 554])
def test_other_refusals_of_ehlo_stand(code: int) -> None:
    session = Session()
    session.talk(f"S: 220 mx\ndo: ehlo\nC: EHLO me.example\nS: {code} no")
    client = session.client
    assert client.phase is Phase.READY and client.extensions is None
    assert client.reply == Reply(code, ("no",))
    with pytest.raises(RuntimeError):
        client.transaction(ONE, MESSAGE)
    session.talk("do: quit\nC: QUIT\nS: 221 bye")
    assert phase_of(client) is Phase.CLOSED and client.failure is None


def test_ehlo_and_helo_refused() -> None:
    session = Session()
    session.talk("S: 220 mx\ndo: ehlo\nC: EHLO me.example\nS: 502 no\nC: HELO me.example\nS: 550 not you")
    assert session.client.extensions is None
    assert session.client.reply == Reply(550, ("not you",))


@pytest.mark.parametrize("code", [454, 500, 554])
def test_greeting_that_refuses(code: int) -> None:
    session = Session()
    session.talk(f"S: {code} go away")
    assert session.client.phase is Phase.READY
    assert session.client.greeting == Reply(code, ("go away",))
    session.talk("do: quit\nC: QUIT\nS: 221 bye")
    assert phase_of(session.client) is Phase.CLOSED


@pytest.mark.parametrize("name", ["me.example", "[192.0.2.1]", "[IPv6:2001:db8::1]", "my_host"])
def test_names_to_say_hello_with(name: str) -> None:
    Client(name)


@pytest.mark.parametrize("name", ["", "a b", "a\r\nQUIT", "grüße.example", "<a>"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(ValueError):
        Client(name)


# STARTTLS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", PIECES)
def test_starttls(piece: int) -> None:
    session = ready("STARTTLS", "AUTH PLAIN", "PIPELINING")
    client = session.client
    session.talk("do: starttls\nC: STARTTLS\nS: 220 go ahead", piece)
    assert client.phase is Phase.TLS and client.idle
    with pytest.raises(RuntimeError):
        client.ehlo()
    client.tls_started()
    assert client.extensions is None and client.secure
    session.talk("C: EHLO me.example\nS: 250-mx.example\nS: 250 DSN", piece)
    assert client.extensions == Extensions("mx.example", dsn=True)
    with pytest.raises(RuntimeError):
        client.starttls()


@pytest.mark.parametrize(
    "behind",
    [b"2", b"250", b"\n", b"250-", b"250 mx\r\n", b"421 bye\r\n", b"550 no\r\n", b"garbage\r\n", b"250 a\r\n250 b\r\n"],
)
def test_octets_in_clear_behind_the_220(behind: bytes) -> None:
    """RFC 3207, CVE-2011-0411: whoever sent them, they are not the server's."""
    for together in (True, False):
        session = ready("STARTTLS")
        session.talk("do: starttls\nC: STARTTLS")
        if together:
            session.client.feed(b"220 go\r\n" + behind)
        else:
            session.client.feed(b"220 go\r\n")
            session.client.feed(behind)
        assert session.client.phase is Phase.CLOSED
        assert session.client.failure is not None and session.client.failure.cause is Cause.CLEAR_TEXT
        with pytest.raises(RuntimeError):
            session.client.tls_started()


@pytest.mark.parametrize("code", [454, 501, 554])
def test_starttls_refused(code: int) -> None:
    session = ready("STARTTLS")
    session.talk(f"do: starttls\nC: STARTTLS\nS: {code} not now\ndo: send one\nC: MAIL FROM:<me@me.example>")
    assert session.client.secure is False


def test_starttls_not_offered() -> None:
    session = ready("DSN")
    with pytest.raises(NotOffered) as raised:
        session.client.starttls()
    assert raised.value.reason is Lack.STARTTLS
    assert session.client.phase is Phase.READY


def test_tls_from_the_beginning() -> None:
    session = Session(secure=True)
    session.talk(hello("STARTTLS"))
    with pytest.raises(RuntimeError):
        session.client.starttls()


# AUTH -----------------------------------------------------------------------------------------------------------------

PLAIN = b64encode(b"\0me\0secret").decode()
ME, SECRET = b64encode(b"me").decode(), b64encode(b"secret").decode()


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(
    ("offer", "dialogue", "code"),
    [
        ("AUTH PLAIN LOGIN", f"C: AUTH PLAIN {PLAIN}\nS: 235 welcome", 235),
        ("AUTH PLAIN", f"C: AUTH PLAIN {PLAIN}\nS: 535 no", 535),
        ("AUTH=PLAIN", f"C: AUTH PLAIN {PLAIN}\nS: 334 more?\nC: *\nS: 501 cancelled", 501),
        (
            "AUTH LOGIN",
            f"C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: {ME}\nS: 334 UGFzc3dvcmQ6\nC: {SECRET}\nS: 235 ok",
            235,
        ),
        ("AUTH LOGIN", f"C: AUTH LOGIN\nS: 334\nC: {ME}\nS: 535 no", 535),
        ("AUTH LOGIN", "C: AUTH LOGIN\nS: 454 later", 454),
        ("AUTH LOGIN", f"C: AUTH LOGIN\nS: 334\nC: {ME}\nS: 334\nC: {SECRET}\nS: 334 more?\nC: *\nS: 500 ok", 500),
    ],
)
def test_auth(offer: str, dialogue: str, code: int, piece: int) -> None:
    session = ready("PIPELINING", offer)
    session.talk("do: auth\n" + dialogue, piece)
    assert session.client.phase is Phase.READY
    assert session.client.reply is not None and session.client.reply.code == code


def test_long_password_waits_for_a_challenge() -> None:
    """RFC 4954 §4: a command has at most 512 octets with its end."""
    for length in range(350, 400):
        session = ready("AUTH PLAIN")
        session.client.auth("me", "x" * length)
        response = b64encode(b"\0me\0" + b"x" * length)
        whole = b"AUTH PLAIN " + response + b"\r\n"
        sent = session.sent()
        assert sent == (whole if len(whole) <= 512 else b"AUTH PLAIN\r\n")
        if sent != whole:
            session.client.feed(b"334 \r\n")
            assert session.sent() == response + b"\r\n"
        session.client.feed(b"235 ok\r\n")
        assert session.client.phase is Phase.READY


def test_auth_not_offered() -> None:
    for session in (ready("AUTH CRAM-MD5 XOAUTH2"), ready()):
        with pytest.raises(NotOffered) as raised:
            session.client.auth("me", "secret")
        assert raised.value.reason is Lack.AUTH
    with pytest.raises(ValueError):
        ready("AUTH PLAIN").client.auth("me\0you", "secret")


# Transactions ---------------------------------------------------------------------------------------------------------

TEXT = """C: Subject: x
        C:
        C: ..dot
        C: ."""

SENT = [
    (
        (),
        f"""
        do: send three
        C: MAIL FROM:<me@me.example>
        S: 250 ok
        C: RCPT TO:<alice@a.example>
        S: 250 ok
        C: RCPT TO:<bob@b.example>
        S: 550 no such user
        C: RCPT TO:<carol@c.example>
        S: 251 will forward
        C: DATA
        S: 354 go
        {TEXT}
        S: 250 taken
        """,
        ["END 250", "RCPT 550", "END 250"],
    ),
    (
        ("PIPELINING",),
        f"""
        do: send three
        C: MAIL FROM:<me@me.example>
        C: RCPT TO:<alice@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<carol@c.example>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 450 not now
        S: 250 ok
        S: 354 go
        {TEXT}
        S: 250 taken
        """,
        ["END 250", "RCPT 450", "END 250"],
    ),
    (
        ("CHUNKING",),
        """
        do: send one
        C: MAIL FROM:<me@me.example>
        S: 250 ok
        C: RCPT TO:<alice@a.example>
        S: 250 ok
        C: BDAT 20 LAST
        C: Subject: x
        C:
        C: .dot
        S: 250 taken
        """,
        ["END 250"],
    ),
    (
        ("CHUNKING", "PIPELINING"),
        """
        do: send three
        C: MAIL FROM:<me@me.example>
        C: RCPT TO:<alice@a.example>
        C: RCPT TO:<bob@b.example>
        C: RCPT TO:<carol@c.example>
        S: 250 ok
        S: 550 no
        S: 550 no
        S: 250 ok
        C: BDAT 20 LAST
        C: Subject: x
        C:
        C: .dot
        S: 552 too much
        """,
        ["RCPT 550", "RCPT 550", "END 552"],
    ),
    (
        (),
        """
        do: send one
        C: MAIL FROM:<me@me.example>
        S: 250 ok
        C: RCPT TO:<alice@a.example>
        S: 250 ok
        C: DATA
        S: 451 not now
        """,
        ["DATA 451"],
    ),
    (
        (),
        f"""
        do: send one
        C: MAIL FROM:<me@me.example>
        S: 250 ok
        C: RCPT TO:<alice@a.example>
        S: 250 ok
        C: DATA
        S: 354 go
        {TEXT}
        S: 554 spam
        """,
        ["END 554"],
    ),
    ((), "do: send one\nC: MAIL FROM:<me@me.example>\nS: 550 not you", ["MAIL 550"]),
    (
        (),
        """
        do: send three
        C: MAIL FROM:<me@me.example>
        S: 250 ok
        C: RCPT TO:<alice@a.example>
        S: 550 no
        C: RCPT TO:<bob@b.example>
        S: 450 no
        C: RCPT TO:<carol@c.example>
        S: 553 no
        """,
        ["RCPT 550", "RCPT 450", "RCPT 553"],
    ),
    (
        ("CHUNKING", "PIPELINING"),
        """
        do: send one
        C: MAIL FROM:<me@me.example>
        C: RCPT TO:<alice@a.example>
        S: 250 ok
        S: 550 no
        """,
        ["RCPT 550"],
    ),
    (
        ("PIPELINING",),
        """
        do: send one
        C: MAIL FROM:<me@me.example>
        C: RCPT TO:<alice@a.example>
        C: DATA
        S: 550 not you
        S: 503 no
        S: 503 no
        """,
        ["MAIL 550"],
    ),
    # Leave to send, and nobody to send to (RFC 2920 §3.1): a lone dot, and whatever is answered is no success.
    (
        ("PIPELINING",),
        """
        do: send one
        C: MAIL FROM:<me@me.example>
        C: RCPT TO:<alice@a.example>
        C: DATA
        S: 250 ok
        S: 550 no
        S: 354 go
        C: .
        S: 250 taken
        """,
        ["RCPT 550"],
    ),
    (
        ("PIPELINING",),
        """
        do: send one
        C: MAIL FROM:<me@me.example>
        C: RCPT TO:<alice@a.example>
        C: DATA
        S: 450 not you
        S: 250 ok
        S: 354 go
        C: .
        S: 554 no recipients
        """,
        ["MAIL 450"],
    ),
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(("keywords", "dialogue", "expected"), SENT)
def test_transactions(keywords: tuple[str, ...], dialogue: str, expected: list[str], piece: int) -> None:
    session = ready(*keywords)
    session.talk(dialogue, piece)
    assert session.client.phase is Phase.READY and session.client.failure is None
    assert verdicts(session.results[0], len(expected)) == expected
    delivered = [session.results[0].verdict(index).is_delivered for index in range(len(expected))]
    assert delivered == [text.startswith("END 2") for text in expected]


@pytest.mark.parametrize(("keywords", "dialogue", "expected"), SENT)
def test_with_another_reply_behind(keywords: tuple[str, ...], dialogue: str, expected: list[str]) -> None:
    """Nobody asked for it: the session is over, what was answered stands."""
    for more in (b"250 more\r\n", b"500 what?\r\n", b"354 go\r\n"):
        session = ready(*keywords)
        lines = dialogue.strip().splitlines()
        session.talk("\n".join(lines[:-1]))
        session.client.feed(lines[-1].strip()[3:].encode() + b"\r\n" + more)
        failure = session.client.failure
        assert failure is not None and (failure.phase, failure.cause) == (Phase.READY, Cause.UNEXPECTED_REPLY)
        assert session.client.phase is Phase.CLOSED and session.sent() == b""
        assert verdicts(session.results[0], len(expected)) == expected
        assert session.results[0].failure is None


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(("keywords", "dialogue", "expected"), SENT)
def test_another_transaction(keywords: tuple[str, ...], dialogue: str, expected: list[str], piece: int) -> None:
    """RSET goes before it where the first did not end well, in the same group if there are groups."""
    session = ready(*keywords)
    session.talk(dialogue, piece)
    mail = "C: MAIL FROM:<me@me.example>"
    rset = "" if "END 250" in expected else "C: RSET\n" if "PIPELINING" in keywords else "C: RSET\nS: 250 ok\n"
    if "PIPELINING" in keywords:
        rest = "\nC: RCPT TO:<alice@a.example>" + ("" if "CHUNKING" in keywords else "\nC: DATA")
        session.talk(f"do: send one\n{rset}{mail}{rest}")
        assert session.client.phase is (Phase.RSET if rset else Phase.MAIL)
    else:
        session.talk(f"do: send one\n{rset}{mail}")
        assert session.client.phase is Phase.MAIL


def test_rset_refused() -> None:
    for keywords in ((), ("PIPELINING",)):
        session = ready(*keywords)
        session.client.transaction(ONE, MESSAGE)
        session.sent()
        session.client.feed(b"550 no\r\n" + b"503 no\r\n" * 2 * len(keywords))
        assert session.client.phase is Phase.READY
        result = session.client.transaction(ONE, MESSAGE)
        session.sent()
        session.client.feed(b"500 what?\r\n")
        assert session.client.failure == Failure(Phase.RSET, Cause.UNEXPECTED_REPLY, Reply(500, ("what?",)))
        assert verdicts(result, 1) == ["RSET -"]  # a refusal of RSET says nothing about a recipient


@pytest.mark.parametrize("reset", ["do: reset\nC: RSET\nS: 250 ok", "do: ehlo\nC: EHLO me.example\nS: 250 mx.example"])
def test_reset_once(reset: str) -> None:
    """RSET goes out by itself only where neither it nor EHLO was said since (RFC 5321 §4.1.4)."""
    session = ready()
    mail = "do: send one\nC: MAIL FROM:<me@me.example>"
    session.talk(f"{mail}\nS: 550 no\n{reset}\n{mail}")


def test_reset_and_quit() -> None:
    session = ready()
    session.talk("do: reset\nC: RSET\nS: 250 ok\ndo: quit\nC: QUIT\nS: 221 bye")
    assert session.client.phase is Phase.CLOSED and session.client.failure is None
    with pytest.raises(RuntimeError):
        session.client.quit()


@pytest.mark.parametrize(
    "answer", ["S: 221 bye", "S: 421 bye", "S: 500 what?", "S: 354 go", "S: rubbish", "do: eof", "do: timeout"]
)
def test_quit_never_fails(answer: str) -> None:
    session = ready()
    session.talk(f"do: quit\nC: QUIT\n{answer}")
    assert session.client.phase is Phase.CLOSED and session.client.failure is None


def test_timeouts() -> None:
    """RFC 5321 §4.5.3.2; each phase in which something is awaited has one."""
    expected = {
        Phase.GREETING: 300,
        Phase.MAIL: 300,
        Phase.RCPT: 300,
        Phase.DATA: 120,
        Phase.CONTENT: 180,
        Phase.END: 600,
    }
    assert {phase: TIMEOUTS[phase] for phase in expected} == expected
    assert set(Phase) - set(TIMEOUTS) == {Phase.READY, Phase.CLOSED}


def test_steps_count_replies_not_octets() -> None:
    """A driver that waits anew only when they have changed is not held by a slow drip."""
    session = ready("PIPELINING")
    client = session.client
    client.transaction(ONE, MESSAGE)
    seen = [client.steps]
    session.sent()
    seen.append(client.steps)
    for octet in b"250-a\r\n250 b\r\n":
        assert client.steps == seen[-1]
        client.feed(bytes([octet]))
    seen.append(client.steps)
    client.feed(b"250 ok\r\n")
    seen.append(client.steps)
    assert seen == sorted(set(seen))


# Envelopes and extensions ---------------------------------------------------------------------------------------------

FULL = Envelope(
    "me@me.example",
    (Recipient("a@a.example", "SUCCESS,DELAY", "rfc822;b+2Bc@d.example"), Recipient("postmaster", "NEVER")),
    body="8BITMIME",
    ret="HDRS",
    envid="x+2By",
)
UTF8 = Envelope("grüße@me.example", (Recipient("ü@bücher.example"),), smtputf8=True)
EIGHT = "Subject: x\r\n\r\nü\r\n".encode()

SAID = [
    (FULL, MESSAGE, (), ["MAIL FROM:<me@me.example>", "RCPT TO:<a@a.example>", "RCPT TO:<postmaster>"]),
    (
        FULL,
        MESSAGE,
        ("SIZE", "8BITMIME", "SMTPUTF8", "DSN"),
        [
            "MAIL FROM:<me@me.example> SIZE=20 BODY=8BITMIME RET=HDRS ENVID=x+2By",
            "RCPT TO:<a@a.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bc@d.example",
            "RCPT TO:<postmaster> NOTIFY=NEVER",
        ],
    ),
    (replace(FULL, ret="", envid=""), MESSAGE, ("DSN",), ["MAIL FROM:<me@me.example>"]),
    (Envelope("", (ALICE,)), MESSAGE, ("SIZE 20",), ["MAIL FROM:<> SIZE=20", "RCPT TO:<alice@a.example>"]),
    (ONE, MESSAGE[:-2], ("SIZE 20",), ["MAIL FROM:<me@me.example> SIZE=20"]),
    (ONE, MESSAGE, ("8BITMIME", "SMTPUTF8", "DSN"), ["MAIL FROM:<me@me.example>"]),
    (ONE, EIGHT, ("8BITMIME",), ["MAIL FROM:<me@me.example> BODY=8BITMIME"]),
    (UTF8, MESSAGE, ("SMTPUTF8",), ["MAIL FROM:<grüße@me.example> SMTPUTF8", "RCPT TO:<ü@bücher.example>"]),
    (replace(UTF8, smtputf8=False), MESSAGE, ("SMTPUTF8",), ["MAIL FROM:<grüße@me.example> SMTPUTF8"]),
    (replace(ONE, smtputf8=True), MESSAGE, ("SMTPUTF8",), ["MAIL FROM:<me@me.example> SMTPUTF8"]),
    (UTF8, EIGHT, ("SMTPUTF8", "8BITMIME"), ["MAIL FROM:<grüße@me.example> BODY=8BITMIME SMTPUTF8"]),
    (
        Envelope('"a b>\\"c"@me.example', (Recipient('"<x> y"@[192.0.2.1]'),)),
        MESSAGE,
        (),
        ['MAIL FROM:<"a b>\\"c"@me.example>', 'RCPT TO:<"<x> y"@[192.0.2.1]>'],
    ),
]


@pytest.mark.parametrize(("envelope", "octets", "keywords", "expected"), SAID)
def test_parameters(envelope: Envelope, octets: bytes, keywords: tuple[str, ...], expected: list[str]) -> None:
    session = ready("PIPELINING", *keywords)
    session.client.transaction(envelope, octets)
    lines = session.sent().decode().split("\r\n")
    assert lines[: len(expected)] == expected


LACKS = [
    (ONE, EIGHT, ("SMTPUTF8",), Lack.EIGHT_BIT),
    (replace(ONE, body="8BITMIME"), EIGHT, (), Lack.EIGHT_BIT),
    (UTF8, MESSAGE, ("8BITMIME",), Lack.SMTPUTF8),
    (replace(UTF8, reverse_path="me@me.example"), MESSAGE, (), Lack.SMTPUTF8),
    (replace(UTF8, recipients=(ALICE,), smtputf8=False), MESSAGE, (), Lack.SMTPUTF8),
    (replace(ONE, smtputf8=True), MESSAGE, (), Lack.SMTPUTF8),
    (ONE, MESSAGE, ("SIZE 19",), Lack.SIZE),
    (ONE, MESSAGE[:-2], ("SIZE 19",), Lack.SIZE),
]


@pytest.mark.parametrize(("envelope", "octets", "keywords", "reason"), LACKS)
def test_not_offered(envelope: Envelope, octets: bytes, keywords: tuple[str, ...], reason: Lack) -> None:
    session = ready("PIPELINING", *keywords)
    with pytest.raises(NotOffered) as raised:
        session.client.transaction(envelope, octets)
    assert raised.value.reason is reason and reason.value in str(raised.value)
    assert session.client.phase is Phase.READY and session.sent() == b""
    session.talk("do: quit\nC: QUIT")


INJECTIONS = [
    "a\r\nQUIT@b",
    "a@b\r\nDATA",
    "a@b> SIZE=1",
    "a b@c",
    "<a@b",
    "a",
    "@b",
    "a@",
    '"a@b',
    'a"@b',
    "a@b\0",
    "\ud800@b",
    '"a\nb"@c',
]


@pytest.mark.parametrize("address", INJECTIONS)
def test_addresses_that_would_break_a_line(address: str) -> None:
    with pytest.raises(ValueError):
        Recipient(address)
    with pytest.raises(ValueError):
        Envelope(address, (ALICE,))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Recipient(""),
        lambda: Recipient("a@b", notify="NEVER,SUCCESS"),
        lambda: Recipient("a@b", notify="ALWAYS"),
        lambda: Recipient("a@b", orcpt="a@b"),
        lambda: Recipient("a@b", orcpt="rfc822;a b"),
        lambda: Recipient("a@b", orcpt="rfc822;a+b"),
        lambda: Recipient("a@b", orcpt="rfc822;a\r\nQUIT"),
        lambda: Envelope("a@b", ()),
        lambda: Envelope("a@b", (ALICE,), body="BINARYMIME"),
        lambda: Envelope("a@b", (ALICE,), ret="ALL"),
        lambda: Envelope("a@b", (ALICE,), envid="a=b"),
        lambda: Envelope("a@b", (ALICE,), envid="ü"),
    ],
)
def test_envelopes_that_are_none(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        make()


# Many recipients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [98, 99, 100, 101, 198, 199, 200, 1000])
def test_groups(count: int) -> None:
    """At most so many commands without a reply, all in order, DATA last, whatever falls where."""
    session = ready("PIPELINING")
    envelope = Envelope("", tuple(Recipient(f"r{number}@x.example") for number in range(count)))
    result = session.client.transaction(envelope, MESSAGE)
    lines: list[bytes] = []
    while lines[-1:] != [b"DATA"]:
        group = session.sent().splitlines()
        assert 1 <= len(group) <= core.GROUP
        lines += group
        session.client.feed(b"".join(b"354 go\r\n" if line == b"DATA" else b"250 ok\r\n" for line in group))
    assert lines == [b"MAIL FROM:<>", *(b"RCPT TO:<r%d@x.example>" % number for number in range(count)), b"DATA"]
    assert session.sent().endswith(b"\r\n.\r\n")
    session.client.feed(b"250 ok\r\n")
    assert verdicts(result, count) == ["END 250"] * count


def test_a_refused_sender_ends_the_groups() -> None:
    session = ready("PIPELINING")
    envelope = Envelope("", tuple(Recipient(f"r{number}@x.example") for number in range(500)))
    result = session.client.transaction(envelope, MESSAGE)
    session.sent()
    session.client.feed(b"550 no\r\n" + b"503 no\r\n" * 99)
    assert session.client.phase is Phase.READY
    assert set(verdicts(result, 500)) == {"MAIL 550"}


def test_no_data_in_a_group_of_its_own_for_nobody() -> None:
    session = ready("PIPELINING")
    envelope = Envelope("", tuple(Recipient(f"r{number}@x.example") for number in range(99)))
    session.client.transaction(envelope, MESSAGE)
    session.sent()
    session.client.feed(b"250 ok\r\n" + b"550 no\r\n" * 99)
    assert session.client.phase is Phase.READY and session.sent() == b""


TOO_MANY = [
    (["250 ok", "452 4.5.3 too many"], ["END 250 ", "RCPT 452 4.5.3"]),
    (["250 ok", "552 too many"], ["END 250 ", "RCPT 452 "]),
    (["250 ok", "552 5.5.3 too many"], ["END 250 ", "RCPT 452 4.5.3"]),
    (["250 ok", "552 5.2.2 mailbox full"], ["END 250 ", "RCPT 552 5.2.2"]),
    (["250 ok", "552 5.3.4 too large"], ["END 250 ", "RCPT 552 5.3.4"]),
    (["250 ok", "550 5.5.3 too many"], ["END 250 ", "RCPT 550 5.5.3"]),
    (["552 too large", "250 ok"], ["RCPT 552 ", "END 250 "]),
    (["552 5.5.3 none at all", "250 ok"], ["RCPT 552 5.5.3", "END 250 "]),
]


@pytest.mark.parametrize(("replies", "expected"), TOO_MANY)
def test_too_many_recipients(replies: list[str], expected: list[str]) -> None:
    """RFC 5321 §4.5.3.1.10, and RFC 1870 §6.4 where the 552 is meant."""
    session = ready("PIPELINING")
    result = session.client.transaction(Envelope("", (ALICE, BOB)), MESSAGE)
    session.sent()
    session.client.feed("\r\n".join(["250 ok", *replies, "354 go", ""]).encode())
    session.sent()
    session.client.feed(b"250 ok\r\n")
    found = [result.verdict(index) for index in range(2)]
    assert [f"{v.phase.name} {v.reply.code} {v.reply.enhanced}" for v in found if v.reply] == expected
    assert all(v.reply.text for v in found if v.reply)


# The octets of a message ----------------------------------------------------------------------------------------------

BOUNDS = Bounds(message_octets=10**8, line_octets=10**8, header_octets=10**8, header_fields=10**8, hops=10**8)


def pieces_by_data(octets: bytes) -> Iterator[bytes]:
    """What is sent behind the 354, piece by piece."""
    session = ready("PIPELINING", "8BITMIME")
    session.client.transaction(ONE, octets)
    session.sent()
    session.client.feed(b"250 ok\r\n250 ok\r\n354 go\r\n")
    while session.client.phase is not Phase.END:
        if session.client.phase is Phase.COMMIT:
            assert session.client.data_to_send() == b""
            session.client.finish()
        yield session.client.data_to_send()
    assert session.client.data_to_send() == b""


def received_by_data(octets: bytes) -> bytes:
    body = DataBody(BOUNDS)
    rest = [body.feed(piece) for piece in pieces_by_data(octets)]
    assert rest[-1] == b"" and set(rest[:-1]) <= {None}
    message = body.message()
    assert isinstance(message, bytes)
    return message


def received_by_chunks(octets: bytes) -> tuple[bytes, list[int]]:
    """The message and the sizes of the chunks, from a client that gets each reply at once."""
    session = ready("PIPELINING", "CHUNKING", "8BITMIME")
    session.client.transaction(ONE, octets)
    session.sent()
    session.client.feed(b"250 ok\r\n250 ok\r\n")
    body, sizes, left, last = ChunkedBody(BOUNDS), [], 0, b""
    while not session.client.idle:
        if session.client.phase is Phase.COMMIT:
            session.client.finish()
        data = session.client.data_to_send()
        assert data
        if not left:
            command, data = data.split(b"\r\n", 1)
            verb, size, *last_word = command.split()
            assert verb == b"BDAT" and last_word in ([], [b"LAST"]) and last == b""
            left, last = int(size), b"".join(last_word)
            sizes.append(left)
            body.begin(left)
        left -= len(data)
        assert body.feed(data) == (None if left else b"")
        if not left:
            session.client.feed(b"250 ok\r\n")
    assert last == b"LAST" and left == 0
    body.finish()
    message = body.message()
    assert isinstance(message, bytes)
    return message, sizes


LINES = st.lists(st.sampled_from([b".", b"..", b"\r\n", b"\r\n.\r\n", b"a", b"bc.", b"\xfc"]), max_size=40)


@given(LINES.map(b"".join), st.integers(1, 12))
@settings(deadline=None, max_examples=200)
def test_what_is_sent_is_received(octets: bytes, piece: int) -> None:
    """Both ways, for any cut into pieces and chunks; only a missing line end is added."""
    expected = octets if octets.endswith(b"\r\n") else octets + b"\r\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(core, "PIECE", piece)
        patch.setattr(core, "CHUNK", 3 * piece + 1)
        assert received_by_data(octets) == expected
        message, sizes = received_by_chunks(octets)
        assert message == expected
        assert sum(sizes) == len(expected) and all(0 < size <= 3 * piece + 1 for size in sizes)


@pytest.mark.parametrize(
    "size", [0, 1, PIECE - 1, PIECE, PIECE + 1, CHUNK - 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5]
)
def test_sizes_around_the_bounds(size: int) -> None:
    octets = (b"x" * 70 + b"\r\n.y\r\n") * (size // 76) + b"z" * (size % 76)
    expected = octets if octets.endswith(b"\r\n") else octets + b"\r\n"
    assert received_by_data(octets) == expected
    message, sizes = received_by_chunks(octets)
    assert message == expected
    assert sizes[:-1] == [CHUNK] * ((len(expected) - 1) // CHUNK)


def test_a_large_message_is_held_once() -> None:
    octets = (b"." + b"x" * 75 + b"\r\n") * 130_000
    tracemalloc.start()
    longest = max(map(len, pieces_by_data(octets)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert longest < 2 * PIECE
    assert peak < 1_000_000


def test_nothing_is_committed_before_finish() -> None:
    for keywords in (("PIPELINING",), ("PIPELINING", "CHUNKING")):
        for octets in (MESSAGE, b"x\r\n" * (CHUNK // 2)):
            session = ready(*keywords)
            session.finish = False
            result = session.client.transaction(ONE, octets)
            session.sent()
            session.client.feed(b"250 ok\r\n250 ok\r\n" + (b"" if "CHUNKING" in keywords else b"354 go\r\n"))
            session.sent()
            if session.client.phase is Phase.CONTENT:
                session.client.feed(b"250 ok\r\n")
                session.sent()
            assert session.client.phase is Phase.COMMIT
            session.client.give_up(Cause.GIVEN_UP)
            assert phase_of(session.client) is Phase.CLOSED and session.sent() == b""
            assert result.failure == Failure(Phase.COMMIT, Cause.GIVEN_UP)
            assert verdicts(result, 1) == ["COMMIT -"]
            with pytest.raises(RuntimeError):
                session.client.finish()


# Chunks ---------------------------------------------------------------------------------------------------------------


def in_chunks(*keywords: str, chunks: int = 5) -> tuple[Session, TransactionResult, list[bytes]]:
    """A session in which the first chunks are sent, and no reply has come; the commands that were."""
    session = ready("CHUNKING", *keywords)
    result = session.client.transaction(ONE, b"x" * (chunks * CHUNK - 12) + b"\r\n")
    session.sent()
    session.client.feed(b"250 ok\r\n")
    if not keywords:
        session.sent()
    session.client.feed(b"250 ok\r\n")
    return session, result, chunk_commands(session.sent())


def chunk_commands(sent: bytes) -> list[bytes]:
    return [b"BDAT" + part.split(b"\r\n")[0] for part in sent.split(b"BDAT")[1:]]


WHOLE, REST = b"BDAT %d" % CHUNK, b"BDAT %d LAST" % (CHUNK - 10)


def test_chunks_wait_for_replies() -> None:
    session, result, sent = in_chunks()
    assert sent == [WHOLE]
    for expected in ([WHOLE], [WHOLE], [WHOLE]):
        session.client.feed(b"250 ok\r\n")
        assert chunk_commands(session.sent()) == expected
    session.client.feed(b"250 ok\r\n")
    assert chunk_commands(session.sent()) == [REST]
    assert session.client.phase is Phase.END
    session.client.feed(b"250 taken\r\n")
    assert verdicts(result, 1) == ["END 250"]


def test_chunks_with_pipelining() -> None:
    session, result, sent = in_chunks("PIPELINING")
    session.finish = False
    assert sent == [WHOLE, WHOLE]
    for _ in range(2):
        session.client.feed(b"250 ok\r\n")
        assert chunk_commands(session.sent()) == [WHOLE]
    session.client.feed(b"250 ok\r\n")
    assert chunk_commands(session.sent()) == [REST]  # but for its last piece: a reply is missing yet
    assert session.client.phase is Phase.CONTENT
    session.client.feed(b"250 ok\r\n")
    assert phase_of(session.client) is Phase.COMMIT
    session.client.finish()
    assert len(session.sent()) <= PIECE
    session.client.feed(b"250 taken\r\n")
    assert verdicts(result, 1) == ["END 250"]


@pytest.mark.parametrize("under_way", [b"250 ok\r\n", b"552 no\r\n", b"503 no\r\n"])
def test_a_refused_chunk(under_way: bytes) -> None:
    """RFC 3030 §2: no further one is sent, and the session is reset before the next transaction."""
    session, result, _ = in_chunks()
    session.client.feed(b"552 too much\r\n")
    assert verdicts(result, 1) == ["CONTENT 552"]
    session.talk("do: send one\nC: RSET\nS: 250 ok\nC: MAIL FROM:<me@me.example>")

    session, result, sent = in_chunks("PIPELINING")
    assert len(sent) == 2
    session.client.feed(b"552 too much\r\n")
    assert not session.client.idle and session.sent() == b""
    session.client.feed(under_way)
    assert session.client.phase is Phase.READY
    assert verdicts(result, 1) == ["CONTENT 552"]


def test_a_chunk_refused_while_the_next_is_sent() -> None:
    """The rest of it would be taken for commands, or be sent in vain."""
    session, result, _ = in_chunks("PIPELINING")
    session.client.feed(b"250 ok\r\n")
    assert session.client.data_to_send()[:5] == b"BDAT "
    session.client.feed(b"452 4.3.1 full\r\n")
    assert session.client.phase is Phase.CLOSED and session.sent() == b""
    assert result.failure is not None and result.failure.cause is Cause.EARLY_REFUSAL
    assert verdicts(result, 1) == ["CONTENT 452"]


# Servers that fail ----------------------------------------------------------------------------------------------------


def stages(*keywords: str) -> Iterator[tuple[Phase, Session, list[str]]]:
    """A session in each phase, with what was answered to the recipients so far."""
    session = Session()
    yield Phase.GREETING, session, []
    for words, phase in (
        ("ehlo", Phase.EHLO),
        ("reset", Phase.RSET),
        ("auth", Phase.AUTH),
        ("starttls", Phase.STARTTLS),
    ):
        session = ready("AUTH PLAIN", "STARTTLS", *keywords)
        session.do(words)
        session.sent()
        yield phase, session, []
    session = Session()
    session.talk("S: 220 mx\ndo: ehlo\nC: EHLO me.example\nS: 500 no\nC: HELO me.example")
    yield Phase.HELO, session, []
    steps = [
        (Phase.MAIL, []),
        (Phase.RCPT, ["250 ok"]),
        (Phase.RCPT, ["250 ok", "250 ok"]),
        (Phase.RCPT, ["250 ok", "250 ok", "550 no"]),
        (Phase.DATA, ["250 ok", "250 ok", "550 no", "250 ok"]),
        (Phase.COMMIT, ["250 ok", "250 ok", "550 no", "250 ok", "354 go"]),
        (Phase.END, ["250 ok", "250 ok", "550 no", "250 ok", "354 go"]),
    ]
    for phase, replies in steps:
        session = ready(*keywords)
        session.finish = phase is Phase.END
        session.do("send three")
        session.sent()
        for reply in replies:
            session.client.feed(reply.encode() + b"\r\n")
            session.sent()
        yield phase, session, replies[1:4]


@pytest.mark.parametrize("keywords", [(), ("PIPELINING",)])
@pytest.mark.parametrize(
    ("octets", "cause", "code"),
    [
        (b"421 4.3.2 closing\r\n", Cause.SERVICE_CLOSING, "421"),
        (b"421-4.3.2 a\r\n421 4.3.2 b\r\n", Cause.SERVICE_CLOSING, "421"),
        (b"rubbish\r\n", Cause.BAD_REPLY, "-"),
        (b"\0\0\0\0\n", Cause.BAD_REPLY, "-"),
        (b"x" * 5000, Cause.BAD_REPLY, "-"),
        (b"250-x\r\n" * 600, Cause.BAD_REPLY, "-"),
        (b"250-x\r\n550 y\r\n", Cause.BAD_REPLY, "-"),
        (None, Cause.EOF, "-"),
        (b"25", Cause.EOF, "-"),
    ],
)
def test_failures_in_every_phase(octets: bytes | None, cause: Cause, code: str, keywords: tuple[str, ...]) -> None:
    """The phase and the cause are told; a recipient that was refused stays so, the others wait for another time."""
    for phase, session, answered in stages(*keywords):
        assert session.client.phase is phase
        session.client.feed(octets or b"")
        if cause is Cause.EOF:
            session.client.eof()
        failure = session.client.failure
        assert failure is not None and (failure.phase, failure.cause) == (phase, cause)
        assert session.client.phase is Phase.CLOSED and session.client.idle and session.sent() == b""
        if session.results:
            expected = [f"{phase.name} {code}"] * 3
            if "550 no" in answered:
                expected[1] = "RCPT 550"
            assert verdicts(session.results[0], 3) == expected
            assert session.results[0].failure == failure
        session.client.feed(b"250 ok\r\n")
        session.client.eof()
        session.client.give_up(Cause.TIMEOUT)
        assert session.client.failure == failure


@pytest.mark.parametrize("keywords", [(), ("PIPELINING",)])
def test_classes_that_answer_nothing(keywords: tuple[str, ...]) -> None:
    for phase, session, _ in stages(*keywords):
        wrong = b"250 ok\r\n" if phase in (Phase.DATA, Phase.COMMIT) else b"354 go\r\n"
        if phase is Phase.AUTH:
            continue
        session.client.feed(wrong)
        failure = session.client.failure
        assert failure is not None and (failure.phase, failure.cause) == (phase, Cause.UNEXPECTED_REPLY)
        for result in session.results:
            assert not any(result.verdict(index).is_delivered for index in range(3))
            if phase not in (Phase.COMMIT, Phase.MAIL):
                assert result.verdict(0).reply is None


@pytest.mark.parametrize("reply", ["552 too much", "451 later"])
def test_refused_before_all_was_sent(reply: str) -> None:
    session = ready("PIPELINING")
    result = session.client.transaction(ONE, b"x\r\n" * PIECE)
    session.sent()
    session.client.feed(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert session.client.data_to_send()
    session.client.feed(reply.encode() + b"\r\n")
    assert session.client.phase is Phase.CLOSED and session.sent() == b""
    assert verdicts(result, 1) == ["CONTENT " + reply[:3]]
    assert result.failure is not None and result.failure.cause is Cause.EARLY_REFUSAL


def test_refused_between_finish_and_the_last_piece() -> None:
    session = ready("PIPELINING")
    session.finish = False
    result = session.client.transaction(ONE, MESSAGE)
    session.sent()
    session.client.feed(b"250 ok\r\n250 ok\r\n354 go\r\n")
    session.client.finish()
    session.client.feed(b"451 later\r\n")
    assert verdicts(result, 1) == ["CONTENT 451"]
    assert session.sent() == b""


def test_no_success_before_the_last_piece_was_handed_out() -> None:
    """Whatever a server says too early, a message is not taken for delivered."""
    for keywords in (("PIPELINING",), ("PIPELINING", "CHUNKING")):
        session = ready(*keywords)
        result = session.client.transaction(ONE, MESSAGE)
        session.sent()
        session.client.feed(
            b"250 ok\r\n250 ok\r\n" + (b"" if "CHUNKING" in keywords else b"354 go\r\n") + b"250 taken\r\n"
        )
        assert session.client.phase is Phase.CLOSED
        assert not result.verdict(0).is_delivered


def test_replies_before_the_command_was_handed_out() -> None:
    session = ready("PIPELINING")
    result = session.client.transaction(ONE, MESSAGE)
    session.client.feed(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert session.client.failure is not None and session.client.failure.cause is Cause.UNEXPECTED_REPLY
    assert session.sent() == b""
    assert result.verdict(0).reply is None


def test_what_came_before_rubbish_stands() -> None:
    """The message was taken: that the server spoke rubbish afterwards does not send it twice."""
    session = ready("PIPELINING")
    result = session.client.transaction(ONE, MESSAGE)
    session.sent()
    session.client.feed(b"250 ok\r\n250 ok\r\n354 go\r\n")
    session.sent()
    session.client.feed(b"250 taken\r\nrubbish\r\n")
    assert verdicts(result, 1) == ["END 250"] and result.failure is None
    assert session.client.failure is not None and session.client.failure.cause is Cause.BAD_REPLY


def test_idle_session() -> None:
    session = ready()
    session.client.feed(b"421 4.4.2 idle too long\r\n")
    assert session.client.failure == Failure(Phase.READY, Cause.SERVICE_CLOSING, Reply(421, ("4.4.2 idle too long",)))
    session = ready()
    session.client.feed(b"421 4.4.2 id")
    result = session.client.transaction(ONE, MESSAGE)
    session.sent()
    session.client.feed(b"le\r\n")
    assert verdicts(result, 1) == ["MAIL 421"]


def test_a_flood_of_replies_is_dropped() -> None:
    session = ready("PIPELINING")
    tracemalloc.start()
    for _ in range(1000):
        session.client.feed(b"250 ok\r\n" * 100)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()
    assert session.client.failure is not None and session.client.failure.cause is Cause.UNEXPECTED_REPLY


def test_unfinished_results_have_no_verdict() -> None:
    session = ready()
    result = session.client.transaction(ONE, MESSAGE)
    with pytest.raises(RuntimeError):
        result.verdict(0)


def test_one_thing_at_a_time() -> None:
    for phase, session, _ in stages("PIPELINING"):
        for words in ("ehlo", "reset", "quit", "tls started"):
            with pytest.raises(RuntimeError):
                session.do(words)
        assert session.client.phase is phase
        if phase is not Phase.COMMIT:
            with pytest.raises(RuntimeError):
                session.client.finish()


KEYWORDS = st.lists(st.sampled_from(["PIPELINING", "CHUNKING", "STARTTLS", "DSN", "AUTH LOGIN"]), unique=True)
ANSWERS = st.lists(
    st.sampled_from(
        [b"250 ok", b"250 ok", b"354 go", b"220 tls", b"334 ", b"550 no", b"451 no", b"421 bye", b"250-", b"x"]
    ),
    max_size=14,
)
ACTIONS = st.lists(st.sampled_from(["send three", "send one", "reset", "auth", "ehlo", "starttls", "quit"]), max_size=4)


@given(KEYWORDS, ACTIONS, ANSWERS, st.integers(1, 20), st.booleans())
@settings(deadline=None, max_examples=500)
def test_any_answers(keywords: list[str], actions: list[str], answers: list[bytes], piece: int, finish: bool) -> None:
    """Never an exception, always an end, and delivered is only what was sent whole and answered 2xx."""
    session = ready(*keywords)
    session.finish = finish
    client = session.client
    stream = b"".join(answer + b"\r\n" for answer in answers)
    for words in actions:
        if client.phase is Phase.READY and client.extensions is not None:
            try:
                session.do(words)
            except NotOffered:
                continue
        sent, replied = b"", Reply(500, ())
        while not client.idle and stream:
            sent += session.sent()
            client.feed(stream[:piece])
            stream = stream[piece:]
            replied = client.reply or replied
        if not client.idle:
            client.eof()
        assert client.idle and (client.phase is not Phase.CLOSED or session.sent() == b"")
        if session.results and words.startswith("send"):
            result = session.results.pop()
            found = [result.verdict(index) for index in range(3 if words == "send three" else 1)]
            if any(verdict.is_delivered for verdict in found):
                assert finish and sent.endswith((b"dot\r\n.\r\n", b"LAST\r\n" + MESSAGE))
                assert result.has_recipients and replied.is_positive
