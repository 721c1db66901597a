"""Sessions with a real server that behaves well, or in each way badly; docs/sending.md has the table of outcomes."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from config.secret import Secret
from mailserver.protocols.smtp.client import TIMEOUTS, Envelope, Phase, Recipient
from mailserver.sending.outcome import Deferred, Delivered, Failed
from mailserver.sending.session import Manner, Session, Unreachable
from mailserver.sending.targets import Target
from tests.support.smtp_sink import EXTENSIONS, Fault, Sink, running_sink

HOST = "sink.example"
SHORT = 0.3
MESSAGE = b"Subject: Hello\r\n\r\n.A line with a dot\r\n..two\r\n"
LARGE = b"Subject: Large\r\n\r\n" + (b"." + b"x" * 76 + b"\r\n") * 110_000  # 8 MiB, more than kernels hold
ENVELOPE = Envelope("alice@client.example", (Recipient("bob@sink.example"),))

NO_REPLY = "the connection was closed without a reply"
LOST = "the connection was lost.*"
LATE = "no reply came in time"
GARBAGE = r"what came is no SMTP reply \(a line does not begin with a reply code\)"
PERHAPS = "; the message may have been delivered"
FAULTS = ("4xx", "5xx", "421", "hang", "drop", "reset", "drip", "garbage")


def yes() -> bool:
    return True


def manner(**options: Any) -> Manner:
    return Manner("client.example", **{"tls": "never", **options})


def patience(kind: str, *phases: Phase) -> dict[Phase, float]:
    """Little where the server will not answer, else as much as usual."""
    return dict(TIMEOUTS) | dict.fromkeys(phases if kind in ("hang", "drip") else (), SHORT)


def target(sink: Sink, host: str = HOST) -> Target:
    return Target(host, sink.host, sink.port)


@asynccontextmanager
async def opened(sink: Sink, **options: Any) -> AsyncIterator[Session]:
    session = await Session.open(target(sink), manner(**options))
    try:
        yield session
    finally:
        session.abort()


async def unreachable(where: Target, how: Manner) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        await Session.open(where, how)
    return caught.value


async def emptied(sink: Sink) -> None:
    """Until the sink has no connection."""
    async with asyncio.timeout(5):
        while sink.open:
            await asyncio.sleep(0.005)


# Faults while the connection is opened

PHASES = {"greeting": Phase.GREETING, "ehlo": Phase.EHLO, "starttls": Phase.STARTTLS, "auth": Phase.AUTH}
OPENING = {
    "4xx": (451, "4.3.0", r"Not now \({phase}\)"),
    "5xx": (550, "4.7.1", r"Not ever \({phase}\)"),
    "421": (421, "4.3.2", r"Closing \({phase}\)"),
    "hang": (0, "4.4.2", LATE),
    "drop": (0, "4.4.2", NO_REPLY),
    "reset": (0, "4.4.2", LOST),
    "drip": (0, "4.4.2", LATE),
    "garbage": (0, "4.5.0", GARBAGE),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("phase", ["greeting", "ehlo", "auth"])
def test_a_fault_while_opening_defers(on_loop, phase, kind):
    code, enhanced, text = OPENING[kind]
    words = PHASES[phase]
    secrets = {"username": "us", "password": Secret("secret")} if phase == "auth" else {}

    async def main() -> None:
        how = manner(timeouts=patience(kind, words), **secrets)
        came = await unreachable(target(sink), how)
        assert came.outcome == Deferred(code, enhanced, came.outcome.text, HOST)
        assert re.fullmatch(f"{words.value}: {text.format(phase=phase)}", came.outcome.text)
        assert came.phase == words.value
        assert not came.tls_failed
        await emptied(sink)

    with running_sink(faults=[Fault(phase, kind)], accounts={"us": "secret"}) as sink:
        on_loop(main)
    assert sink.messages == []


@pytest.mark.parametrize("kind", ["4xx", "5xx"])
def test_where_starttls_is_refused_mail_goes_in_clear(on_loop, tls, kind):
    async def main() -> None:
        async with opened(sink, tls="opportunistic") as session:
            assert session.tls == ""
            (outcome,) = await session.send(ENVELOPE, MESSAGE, yes)
            assert isinstance(outcome, Delivered)

    with running_sink(faults=[Fault("starttls", kind)], tls=tls.server) as sink:
        on_loop(main)


STARTTLS = {
    **{kind: (*row, Phase.STARTTLS) for kind, row in OPENING.items() if kind not in ("4xx", "5xx")},
    "bad tls": (0, "4.7.5", r"the connection was lost \(TLS: .+\)", Phase.TLS),
    "inject": (0, "4.7.5", r"octets in clear came behind the reply to STARTTLS.*", Phase.TLS),
}


@pytest.mark.parametrize("how", ["opportunistic", "required"])
@pytest.mark.parametrize("kind", STARTTLS)
def test_where_tls_fails_the_caller_may_dial_again_in_clear(on_loop, tls, kind, how):
    code, enhanced, text, words = STARTTLS[kind]

    async def main() -> None:
        came = await unreachable(target(sink), manner(tls=how, timeouts=patience(kind, Phase.STARTTLS)))
        assert came.outcome == Deferred(code, enhanced, came.outcome.text, HOST)
        assert re.fullmatch(f"{words.value}: {text.format(phase='starttls')}", came.outcome.text)
        assert came.tls_failed == (how == "opportunistic")
        async with opened(sink, tls="never") as session:
            assert session.usable

    with running_sink(faults=[Fault("starttls", kind)], tls=tls.server) as sink:
        on_loop(main)


@pytest.mark.parametrize(
    ("options", "enhanced", "text"),
    [
        ({}, "4.7.4", "TLS is required, and the server does not take STARTTLS"),
        ({"faults": [Fault("starttls", "4xx")]}, "4.7.4", "TLS is required, and refused: 451 Not now (starttls)"),
        ({"faults": [Fault("starttls", "5xx")]}, "4.7.4", "TLS is required, and refused: 550 Not ever (starttls)"),
    ],
)
def test_required_tls_that_is_not_to_be_had_defers(on_loop, tls, options, enhanced, text):
    async def main() -> None:
        came = await unreachable(target(sink), manner(tls="required"))
        assert came.outcome == Deferred(0, enhanced, text, HOST)
        assert not came.tls_failed

    with running_sink(tls=tls.server if options else None, **options) as sink:
        on_loop(main)
    assert "MAIL" not in str(sink.commands)


def test_a_greeting_of_521_is_for_good(on_loop):
    async def main() -> None:
        came = await unreachable(target(sink), manner())
        assert came.outcome == Failed(521, "5.3.2", "no mail here", HOST)

    with running_sink(greeting="521 no mail here") as sink:
        on_loop(main)
    assert sink.commands == ["QUIT"]


@pytest.mark.parametrize("code", ["220", "554"])
def test_a_greeting_with_our_own_id_is_a_loop(on_loop, code):
    async def main() -> None:
        came = await unreachable(target(sink), manner(instance="7f3a9c"))
        assert came.outcome == Failed(554, "5.4.6", "Mail loop: sink.example (127.0.0.1) is this server")

    with running_sink(greeting=f"{code} sink.example ESMTP 7f3a9c") as sink:
        on_loop(main)


def test_nobody_listens(on_loop):
    async def main() -> None:
        with socket.socket() as bound:  # bound and not listening: refused
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            came = await unreachable(Target(HOST, "127.0.0.1", port), manner())
        text = f"connection to 127.0.0.1 port {port}: Connection refused"
        assert came.outcome == Deferred(0, "4.4.1", text, HOST)
        assert came.phase == "connection"

    on_loop(main)


def test_nobody_answers(on_loop):
    async def main() -> None:
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for client in (first, second):  # fill the queue of connections that nobody accepts
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            came = await unreachable(Target(HOST, *full.getsockname()), manner(connect_seconds=SHORT))
        assert came.outcome.enhanced == "4.4.1"
        assert came.outcome.text.endswith("no answer came in time")

    on_loop(main)


# Faults in a transaction

SENDING = {"mail": Phase.MAIL, "rcpt": Phase.RCPT, "data": Phase.DATA, "end": Phase.END}
ANSWERS = {
    "4xx": (Deferred, 451, "4.3.0", r"Not now \({phase}\)"),
    "5xx": (Failed, 550, "5.7.1", r"Not ever \({phase}\)"),
    "421": (Deferred, 421, "4.3.2", r"Closing \({phase}\)"),
    "hang": (Deferred, 0, "4.4.2", f"{{words}}: {LATE}"),
    "drop": (Deferred, 0, "4.4.2", f"{{words}}: {NO_REPLY}"),
    "reset": (Deferred, 0, "4.4.2", f"{{words}}: {LOST}"),
    "drip": (Deferred, 0, "4.4.2", f"{{words}}: {LATE}"),
    "garbage": (Deferred, 0, "4.5.0", f"{{words}}: {GARBAGE}"),
}


def assert_answer(outcome, phase: str, kind: str, words: Phase) -> None:
    """A reset may destroy replies that came before it, and so seem to come earlier."""
    if kind == "reset":
        words = next(earlier for earlier in (*SENDING.values(), words) if outcome.text.startswith(earlier.value))
    kind_of, code, enhanced, pattern = ANSWERS[kind]
    if words is Phase.END and not code:
        enhanced, pattern = "4.4.2", pattern + PERHAPS
    assert outcome == kind_of(code, enhanced, outcome.text, HOST)
    assert re.fullmatch(pattern.format(words=words.value, phase=phase), outcome.text)


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("phase", SENDING)
@pytest.mark.parametrize("left_out", [{"CHUNKING"}, {"CHUNKING", "PIPELINING"}], ids=["pipelining", "one by one"])
def test_a_fault_in_a_transaction(on_loop, left_out, phase, kind):
    words = SENDING[phase]

    async def main() -> None:
        async with opened(sink, timeouts=patience(kind, words)) as session:
            (outcome,) = await session.send(ENVELOPE, MESSAGE, yes)
            assert_answer(outcome, phase, kind, words)
            assert session.usable == (kind in ("4xx", "5xx"))
            assert not session.is_stale
            await session.close()
        await emptied(sink)

    with running_sink(faults=[Fault(phase, kind)], extensions=[e for e in EXTENSIONS if e not in left_out]) as sink:
        on_loop(main)
    assert sink.messages == []


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("chunking", [False, True], ids=["DATA", "BDAT"])
def test_a_fault_while_the_message_is_sent(on_loop, chunking, kind):
    async def main() -> None:
        async with opened(sink, timeouts=patience(kind, Phase.CONTENT, Phase.COMMIT)) as session:
            (outcome,) = await session.send(ENVELOPE, LARGE, yes)
            if kind in ("drop", "reset"):  # which of the two a writer meets is the kernel's choice
                assert (type(outcome), outcome.enhanced) == (Deferred, "4.4.2")
                assert re.fullmatch("message content: the connection was (lost|closed).*", outcome.text)
            else:
                assert_answer(outcome, "content", kind, Phase.CONTENT)
            orderly = chunking and kind in ("4xx", "5xx")  # usable, where the next chunk had not begun
            assert orderly or not session.usable

    extensions = [e for e in EXTENSIONS if chunking or e != "CHUNKING"]
    with running_sink(faults=[Fault("content", kind)], extensions=extensions, receive_buffer=65_536) as sink:
        on_loop(main)
    assert sink.messages == []


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_at_the_end_of_the_last_chunk(on_loop, kind):
    async def main() -> None:
        async with opened(sink, timeouts=patience(kind, Phase.END)) as session:
            (outcome,) = await session.send(ENVELOPE, MESSAGE, yes)
            assert_answer(outcome, "end", kind, Phase.END)

    with running_sink(faults=[Fault("end", kind)]) as sink:
        on_loop(main)


@pytest.mark.parametrize("kind", FAULTS)
def test_after_the_message_no_fault_of_quit_matters(on_loop, kind):
    async def main() -> None:
        async with opened(sink, timeouts=patience(kind, Phase.QUIT)) as session:
            (outcome,) = await session.send(ENVELOPE, MESSAGE, yes)
            await session.close()
            assert outcome == Delivered(250, "2.0.0", "Taken", HOST)
            assert not session.usable
        await emptied(sink)

    with running_sink(faults=[Fault("quit", kind)]) as sink:
        on_loop(main)


# Dialogues


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("left_out", [set(), {"CHUNKING"}, set(EXTENSIONS)], ids=["BDAT", "DATA", "nothing offered"])
def test_a_message_arrives_as_it_is(on_loop, host, left_out):
    async def main() -> None:
        async with opened(sink, sources=("127.0.0.1", "::1")) as session:
            assert await session.send(ENVELOPE, MESSAGE, yes) == [Delivered(250, "2.0.0", "Taken", HOST)]
            assert await session.send(ENVELOPE, LARGE, yes) == [Delivered(250, "2.0.0", "Taken", HOST)]
            await session.close()
        await emptied(sink)

    with running_sink(host=host, extensions=[e for e in EXTENSIONS if e not in left_out]) as sink:
        on_loop(main)
    assert [message.octets for message in sink.messages] == [MESSAGE, LARGE]
    assert sink.messages[0].mail.startswith("MAIL FROM:<alice@client.example>")
    assert sink.messages[0].recipients == ("RCPT TO:<bob@sink.example>",)
    assert sink.commands[-1] == "QUIT"


@pytest.mark.parametrize(("host", "source"), [("127.0.0.1", "127.0.0.2"), ("::1", "::1")])
def test_the_source_address_is_the_first_of_the_family(on_loop, host, source):
    async def main() -> None:
        async with opened(sink, sources=("127.0.0.2", "127.0.0.3", "::1")) as session:
            assert session._connection._transport.get_extra_info("sockname")[0] == source

    with running_sink(host=host) as sink:
        on_loop(main)


def test_a_source_address_that_is_not_ours(on_loop):
    async def main() -> None:
        came = await unreachable(target(sink), manner(sources=("203.0.113.9",)))
        assert came.outcome.enhanced == "4.4.1"
        assert came.outcome.text.endswith("Cannot assign requested address")

    with running_sink() as sink:
        on_loop(main)


def test_a_server_that_knows_helo_only(on_loop):
    async def main() -> None:
        async with opened(sink) as session:
            assert isinstance((await session.send(ENVELOPE, MESSAGE, yes))[0], Delivered)

    with running_sink(helo_only=True) as sink:
        on_loop(main)
    assert sink.commands[:3] == ["EHLO client.example", "HELO client.example", "MAIL FROM:<alice@client.example>"]


def test_each_recipient_has_an_outcome_of_its_own(on_loop):
    replies = {
        "gone@sink.example": "550 5.1.1 No such user",
        "full@sink.example": "452 4.2.2 Full",
        "many@sink.example": "552 5.5.3 Too many recipients",
    }
    names = ["good", "gone", "full", "many", *(f"n{number}" for number in range(300))]
    envelope = Envelope("", tuple(Recipient(f"{name}@sink.example") for name in names))

    async def main() -> None:
        async with opened(sink) as session:
            outcomes = await session.send(envelope, MESSAGE, yes)
        assert outcomes[:4] == [
            Delivered(250, "2.0.0", "Taken", HOST),
            Failed(550, "5.1.1", "No such user", HOST),
            Deferred(452, "4.2.2", "Full", HOST),
            Deferred(452, "4.5.3", "Too many recipients", HOST),
        ]
        assert outcomes[4:] == [Delivered(250, "2.0.0", "Taken", HOST)] * 300

    with running_sink(replies=replies) as sink:
        on_loop(main)
    assert len(sink.messages[0].recipients) == 301


def test_a_connection_is_used_again(on_loop):
    def refused() -> Envelope:
        return Envelope("", (Recipient("gone@sink.example"),))

    async def main() -> None:
        async with opened(sink) as session:
            for _ in range(3):
                assert isinstance((await session.send(ENVELOPE, MESSAGE, yes))[0], Delivered)
                assert isinstance((await session.send(refused(), MESSAGE, yes))[0], Failed)
                assert session.usable
            assert session.sent == 6

    with running_sink(replies={"gone@sink.example": "550 5.1.1 No such user"}) as sink:
        on_loop(main)
    assert len(sink.messages) == 3
    assert sink.connections == 1
    assert sink.commands.count("RSET") == 2


LACKS = [
    ("8BITMIME", {}, "Ünicode\r\n".encode(), 550, "5.6.3", "does not offer 8BITMIME"),
    ("SMTPUTF8", {"smtputf8": True}, b"x\r\n", 550, "5.6.7", "does not offer SMTPUTF8"),
    ("SIZE 50000000", {}, b"x" * 99 + b"\r\n", 552, "5.3.4", "larger than sink.example takes"),
]


@pytest.mark.parametrize(("lacking", "options", "octets", "code", "enhanced", "text"), LACKS)
def test_what_the_server_does_not_offer_fails_for_good(on_loop, lacking, options, octets, code, enhanced, text):
    recipients = (Recipient("a@sink.example"), Recipient("b@sink.example"))

    async def main() -> None:
        async with opened(sink) as session:
            outcomes = await session.send(Envelope("", recipients, **options), octets, yes)
            assert outcomes == [Failed(code, enhanced, outcomes[0].text, HOST)] * 2
            assert text in outcomes[0].text
            assert session.usable

    extensions = [e for e in EXTENSIONS if e != lacking] + ["SIZE 50"] * (lacking[:4] == "SIZE")
    with running_sink(extensions=extensions) as sink:
        on_loop(main)
    assert sink.messages == []


@pytest.mark.parametrize("answer", [False, "raises"])
@pytest.mark.parametrize("extensions", [EXTENSIONS, ("PIPELINING",)], ids=["BDAT", "DATA"])
def test_a_message_that_may_not_be_finished_is_not_delivered(on_loop, extensions, answer):
    asked = []

    def may_finish() -> bool:
        asked.append(True)
        if answer == "raises":
            raise RuntimeError("a fault of the caller")
        return False

    async def main() -> None:
        async with opened(sink) as session:
            outcomes = await session.send(ENVELOPE, MESSAGE, may_finish)
            assert outcomes == [Deferred(0, "4.3.0", "message content: the client gave up", HOST)]
            assert not session.usable
        await emptied(sink)

    with running_sink(extensions=extensions) as sink:
        on_loop(main)
        assert sink.messages == []
    assert len(asked) == 1


def test_may_finish_is_not_asked_where_nothing_is_sent(on_loop):
    def never() -> bool:
        raise AssertionError

    async def main() -> None:
        async with opened(sink) as session:
            assert isinstance((await session.send(ENVELOPE, MESSAGE, never))[0], Failed)

    with running_sink(replies={"bob@sink.example": "550 5.1.1 No"}) as sink:
        on_loop(main)


# A connection that was left open


def test_a_server_that_closes_an_idle_connection_leaves_it_unusable(on_loop):
    async def main() -> None:
        async with opened(sink) as session:
            await session.send(ENVELOPE, MESSAGE, yes)
            assert session.usable
            sink.drop_all()
            async with asyncio.timeout(5):
                while session.usable:
                    await asyncio.sleep(0.005)
            (outcome,) = await session.send(ENVELOPE, MESSAGE, yes)
            assert isinstance(outcome, Deferred)
            assert session.is_stale

    with running_sink() as sink:
        on_loop(main)


def test_a_session_that_was_closed_says_so(on_loop):
    async def main() -> None:
        async with opened(sink) as session:
            await session.close()
            await session.close()
            assert await session.send(ENVELOPE, MESSAGE, yes) == [
                Deferred(0, "4.4.2", "the connection is closed", HOST)
            ]
            assert not session.is_stale

    with running_sink() as sink:
        on_loop(main)


@pytest.mark.parametrize("kind", ["421", "drop"])
def test_a_connection_that_dies_as_it_is_used_again_is_stale(on_loop, kind):
    """No word came to the second message: a new connection may take it at once."""

    async def main() -> None:
        async with opened(sink) as session:
            await session.send(ENVELOPE, MESSAGE, yes)
            sink.faults = [Fault("mail", kind)]
            (outcome,) = await session.send(ENVELOPE, MESSAGE, yes)
            assert isinstance(outcome, Deferred)
            assert session.is_stale

    with running_sink() as sink:
        on_loop(main)


def test_a_connection_that_dies_after_an_answer_is_not_stale(on_loop):
    async def main() -> None:
        async with opened(sink) as session:
            await session.send(ENVELOPE, MESSAGE, yes)
            sink.faults = [Fault("rcpt", "drop")]
            assert isinstance((await session.send(ENVELOPE, MESSAGE, yes))[0], Deferred)
            assert not session.is_stale

    with running_sink(extensions=()) as sink:
        on_loop(main)


def test_a_send_that_is_cancelled_drops_the_connection(on_loop):
    async def main() -> None:
        async with opened(sink) as session:
            sending = asyncio.create_task(session.send(ENVELOPE, MESSAGE, yes))
            async with asyncio.timeout(5):
                while not any(command.startswith("MAIL") for command in sink.commands):
                    await asyncio.sleep(0.005)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            assert not session.usable
            assert session._connection._transport.is_closing()

    with running_sink(faults=[Fault("mail", "hang")]) as sink:
        on_loop(main)


def test_abort_wakes_who_sends(on_loop):
    async def main() -> None:
        async with opened(sink) as session:
            sending = asyncio.create_task(session.send(ENVELOPE, MESSAGE, yes))
            await asyncio.sleep(0.05)
            session.abort()
            assert await sending == [Deferred(0, "4.3.0", "MAIL: the client gave up", HOST)]

    with running_sink(faults=[Fault("mail", "hang")]) as sink:
        on_loop(main)


def test_close_in_the_middle_of_a_message_drops_the_connection(on_loop):
    async def main() -> None:
        async with opened(sink) as session:
            sending = asyncio.create_task(session.send(ENVELOPE, MESSAGE, yes))
            await asyncio.sleep(0.05)
            await session.close()
            (outcome,) = await sending
            assert isinstance(outcome, Deferred)
        await emptied(sink)

    with running_sink(faults=[Fault("end", "hang")]) as sink:
        on_loop(main)
    assert "QUIT" not in sink.commands


def test_opening_that_is_cancelled_drops_the_connection(on_loop):
    async def main() -> None:
        opening = asyncio.create_task(Session.open(target(sink), manner()))
        async with asyncio.timeout(5):
            while not sink.commands:
                await asyncio.sleep(0.005)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    with running_sink(faults=[Fault("ehlo", "hang")]) as sink:
        on_loop(main)


# AUTH


@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN"])
def test_auth_goes_behind_tls(on_loop, tls, mechanisms):
    async def main() -> None:
        async with opened(sink, tls="required", username="us", password=Secret("hunter2")) as session:
            assert isinstance((await session.send(ENVELOPE, MESSAGE, yes))[0], Delivered)

    with running_sink(tls=tls.server, accounts={"us": "hunter2"}, mechanisms=mechanisms) as sink:
        on_loop(main)
    assert sink.logins == ["us"]
    assert sink.messages[0].tls
    assert sink.commands[:3] == ["EHLO client.example", "STARTTLS", "EHLO client.example"]


@pytest.mark.parametrize(
    ("options", "outcome"),
    [
        ({"accounts": {"us": "other"}}, Deferred(535, "4.7.8", "AUTH: Who?", HOST)),
        ({}, Deferred(0, "4.7.4", "AUTH: the server does not take AUTH PLAIN or LOGIN", HOST)),
    ],
)
def test_auth_that_fails_defers(on_loop, options, outcome):
    async def main() -> None:
        came = await unreachable(target(sink), manner(username="us", password=Secret("hunter2")))
        assert came.outcome == outcome

    with running_sink(**options) as sink:
        on_loop(main)
    assert sink.commands[-1] == "QUIT"


def test_the_password_does_not_show():
    assert "hunter2" not in repr(manner(username="us", password=Secret("hunter2")))


@pytest.mark.parametrize(
    "options",
    [
        {"tls": "opportunistic", "username": "us"},
        {"username": "us\0"},
        {"hello_name": "two words"},
        {"sources": ("localhost",)},
    ],
)
def test_a_manner_that_makes_no_sense(options):
    with pytest.raises(ValueError):
        Manner(**{"hello_name": "client.example", "tls": "never", **options})
