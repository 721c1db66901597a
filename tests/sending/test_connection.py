"""What carries a session: TLS, back-pressure, deadlines, the end."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from config.secret import Secret
from mailserver.protocols.smtp.client import PIECE, TIMEOUTS, Envelope, Phase, Recipient
from mailserver.sending.connection import HIGH_WATER, tls_context
from mailserver.sending.outcome import Deferred, Delivered
from mailserver.sending.session import Manner, Session, Unreachable
from mailserver.sending.targets import Target
from tests.net.test_hostile import OpenSsl
from tests.net.tools import Tls
from tests.support.smtp_sink import Fault, Sink, running_sink

SHORT = 0.3
MESSAGE = b"Subject: Hello\r\n\r\nHello.\r\n"
VERY_LARGE = b"Subject: Large\r\n\r\n" + (b"." + b"x" * 76 + b"\r\n") * (20 * (1 << 20) // 79)
ENVELOPE = Envelope("", (Recipient("bob@sink.example"),))
TAKEN = [Delivered(250, "2.0.0", "Taken", "localhost")]

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def yes() -> bool:
    return True


@asynccontextmanager
async def opened(sink: Sink, host: str = "localhost", **options: Any) -> AsyncIterator[Session]:
    how = Manner("client.example", **{"tls": "never", **options})
    session = await Session.open(Target(host, sink.host, sink.port), how)
    try:
        yield session
    finally:
        session.abort()


@asynccontextmanager
async def scripted(serve: Client) -> AsyncIterator[Target]:
    """A server in the same loop, for what the sink does not do."""
    tasks = []

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield Target("localhost", *server.sockets[0].getsockname())
    finally:
        server.close()
        await asyncio.gather(*tasks)


@pytest.fixture
def trusted(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tls]:
    """The certificate of `tls` is one that this machine trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.certificate))
    tls_context.cache_clear()
    yield tls
    tls_context.cache_clear()


# TLS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit"])
def test_a_message_by_tls(on_loop, tls, implicit, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    context.minimum_version = context.maximum_version = version

    async def main() -> None:
        async with opened(sink, tls="required", implicit_tls=implicit) as session:
            assert session.tls.startswith(version.name.replace("_", "."))
            assert len(session.tls.split()) == 2
            assert await session.send(ENVELOPE, MESSAGE, yes) == TAKEN
            assert await session.send(ENVELOPE, VERY_LARGE, yes) == TAKEN
            await session.close()

    with running_sink(tls=context, implicit_tls=implicit) as sink:
        on_loop(main)
    assert [(message.tls, message.octets) for message in sink.messages] == [(True, MESSAGE), (True, VERY_LARGE)]
    assert sink.commands[-1] == "QUIT"
    assert ("STARTTLS" in sink.commands) == (not implicit)


CERTIFICATES = [
    ("localhost", True, ""),
    ("mail.example.org", True, ""),
    ("127.0.0.1", True, ""),
    ("[127.0.0.1]", True, ""),
    ("other.example.org", True, "Hostname mismatch, certificate is not valid for 'other.example.org'."),
    ("other.example.org", False, ""),
]


@pytest.mark.parametrize("implicit", [False, True], ids=["STARTTLS", "implicit"])
@pytest.mark.parametrize(("host", "verify", "problem"), CERTIFICATES)
def test_the_certificate_is_checked_against_the_host_where_that_is_wanted(
    on_loop, trusted, host, verify, problem, implicit
):
    async def main() -> None:
        how = {"tls": "required", "implicit_tls": implicit, "verify": verify}
        if not problem:
            async with opened(sink, host, **how) as session:
                assert session.tls
            return
        with pytest.raises(Unreachable) as caught:
            async with opened(sink, host, **how):
                pass
        text = f"TLS handshake: the connection was lost (TLS: {problem})"
        assert caught.value.outcome == Deferred(0, "4.7.5", text, host)
        assert caught.value.phase == "TLS handshake"
        assert not caught.value.tls_failed

    with running_sink(tls=trusted.server, implicit_tls=implicit) as sink:
        on_loop(main)


def test_a_certificate_that_nobody_signed_is_refused_where_it_is_checked(on_loop, tls):
    tls_context.cache_clear()

    async def main() -> None:
        with pytest.raises(Unreachable, match="self-signed certificate"):
            async with opened(sink, tls="required", verify=True):
                pass

    with running_sink(tls=tls.server) as sink:
        on_loop(main)


@pytest.mark.parametrize(("host", "said"), [("mail.example.org", "mail.example.org"), ("127.0.0.1", None)])
def test_the_server_is_told_which_host_is_meant(on_loop, tls, host, said):
    names = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    context.sni_callback = lambda connection, name, context: names.append(name)

    async def main() -> None:
        async with opened(sink, host, tls="opportunistic") as session:
            assert session.tls

    with running_sink(tls=context) as sink:
        on_loop(main)
    assert names == [said]


def test_a_server_that_refuses_ehlo_behind_tls(on_loop, tls):
    def begin_to_refuse(*_: object) -> None:
        sink.faults = [Fault("ehlo", "5xx")]

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)
    context.sni_callback = begin_to_refuse

    async def main() -> None:
        sink.faults = []
        with pytest.raises(Unreachable) as caught:
            async with opened(sink, tls="opportunistic"):
                pass
        assert caught.value.outcome == Deferred(550, "4.7.1", "EHLO: Not ever (ehlo)", "localhost")

    with running_sink(tls=context) as sink:
        on_loop(main)


@pytest.mark.parametrize("host", ["a..example", "." + "x" * 70, "x" * 70 + ".example"])
def test_a_host_that_tls_cannot_name(on_loop, tls, host):
    async def main() -> None:
        with pytest.raises(Unreachable) as caught:
            async with opened(sink, host, tls="opportunistic"):
                pass
        assert caught.value.tls_failed

    with running_sink(tls=tls.server) as sink:
        on_loop(main)


@pytest.mark.parametrize("said", [b"", b"220 hello\r\n", b"\x16\x03\x01\x02\x00", b"\x15\x03\x03\x00\x02\x02\x28"])
def test_implicit_tls_with_a_server_that_talks_otherwise(on_loop, said):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()
        writer.close()

    async def main() -> None:
        timeouts = dict(TIMEOUTS) | {Phase.TLS: SHORT}
        async with scripted(serve) as target:
            with pytest.raises(Unreachable) as caught:
                await Session.open(target, Manner("client.example", implicit_tls=True, timeouts=timeouts))
        assert caught.value.phase == "TLS handshake"
        assert (type(caught.value.outcome), caught.value.outcome.enhanced) == (Deferred, "4.7.5")

    on_loop(main)


class OpenSslServer(OpenSsl):
    def __init__(self, tls: Tls) -> None:
        super().__init__()
        pointer = ctypes.c_void_p
        self.ssl.TLS_server_method.restype = pointer
        self.context = pointer(self.ssl.SSL_CTX_new(pointer(self.ssl.TLS_server_method())))
        self.ssl.SSL_CTX_use_certificate_file(self.context, bytes(tls.certificate), 1)
        self.ssl.SSL_CTX_use_PrivateKey_file(self.context, bytes(tls.key), 1)
        self.session = pointer(self.ssl.SSL_new(self.context))
        self.ssl.SSL_set_bio(self.session, self._incoming, self._outgoing)
        self.ssl.SSL_set_accept_state(self.session)


def test_key_updates_without_end(on_loop, tls):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server = OpenSslServer(tls)
        while not server.done:
            writer.write(server.handshake(await reader.read(65_536)))
        for _ in range(9000):
            writer.write(server.key_update())
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async def main() -> None:
        async with scripted(serve) as target:
            with pytest.raises(Unreachable, match="TLS: the server talks of keys only"):
                await Session.open(target, Manner("client.example", implicit_tls=True))

    on_loop(main)


# Back-pressure


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "TLS"])
def test_a_server_that_does_not_read_is_sent_no_more_than_a_little(on_loop, tls, secure):
    async def main() -> None:
        timeouts = dict(TIMEOUTS) | {Phase.CONTENT: SHORT}
        async with opened(sink, tls="required" if secure else "never", timeouts=timeouts) as session:
            sending = asyncio.create_task(session.send(ENVELOPE, VERY_LARGE, yes))
            most = 0
            while not sending.done():
                most = max(most, session._connection._transport.get_write_buffer_size())
                await asyncio.sleep(0.01)
            assert sending.result() == [Deferred(0, "4.4.2", "message content: no reply came in time", "localhost")]
            assert 0 < most <= HIGH_WATER + 2 * PIECE

    hanging = [Fault("content", "hang")]
    with running_sink(faults=hanging, extensions=(), tls=tls.server, receive_buffer=65_536) as sink:
        on_loop(main)


def test_a_server_that_never_stops_talking_is_left(on_loop):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await reader.readline()
        try:
            while True:
                writer.write(b"250-more\r\n" * 1000)
                await writer.drain()
        except ConnectionError:
            writer.close()

    async def main() -> None:
        async with scripted(serve) as target:
            with pytest.raises(Unreachable, match=r"EHLO: what came is no SMTP reply \(the reply is too long\)"):
                await Session.open(target, Manner("client.example"))

    on_loop(main)


# Deadlines


def test_a_step_has_its_time_however_long_the_dialogue_takes(on_loop):
    """Replies that come each in time are in time, though one timer stands for all of them."""
    pause, recipients = 0.1, 12

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        while line := await reader.readline():
            if line == b".\r\n" or line[:4] in (b"EHLO", b"MAIL", b"RCPT"):
                await asyncio.sleep(pause)
                writer.write(b"250 2.0.0 Taken\r\n")
            elif line == b"DATA\r\n":
                writer.write(b"354 go\r\n")
        writer.close()

    async def main() -> None:
        timeouts = dict.fromkeys(Phase, pause * recipients / 2)
        async with scripted(serve) as target:
            session = await Session.open(target, Manner("client.example", tls="never", timeouts=timeouts))
            envelope = Envelope("", (Recipient("bob@sink.example"),) * recipients)
            assert await session.send(envelope, MESSAGE, yes) == TAKEN * recipients
            await asyncio.sleep(pause * recipients)  # an idle connection has no deadline
            assert session.usable
            session.abort()

    on_loop(main)


def test_a_shorter_deadline_comes_before_a_longer_one_that_a_timer_was_set_for(on_loop):
    async def main() -> None:
        timeouts = dict(TIMEOUTS) | {Phase.END: SHORT}
        async with opened(sink, timeouts=timeouts) as session:
            (outcome,) = await session.send(ENVELOPE, MESSAGE, yes)
            assert outcome.text.startswith("end of message: no reply came in time")

    with running_sink(faults=[Fault("end", "hang")]) as sink:
        on_loop(main)


def test_messages_take_no_timer_each(on_loop, monkeypatch):
    made = []

    async def main() -> None:
        async with opened(sink) as session:
            connection = session._connection
            set_timer = type(connection)._set_timer
            monkeypatch.setattr(
                type(connection), "_set_timer", lambda self: (made.append(self._timer is None), set_timer(self))
            )
            for _ in range(20):
                assert await session.send(ENVELOPE, MESSAGE, yes) == TAKEN
        assert made.count(True) <= 5

    with running_sink() as sink:
        on_loop(main)
    assert made


# The end


@pytest.mark.parametrize("secure", [False, True], ids=["clear", "TLS"])
def test_after_close_the_socket_is_gone(on_loop, tls, secure):
    async def main() -> None:
        async with opened(sink, tls="required" if secure else "never") as session:
            transport = session._connection._transport
            await session.close()
            assert transport.is_closing()
            assert session._connection._gone.done()
            assert session._connection._timer is None

    with running_sink(tls=tls.server) as sink:
        on_loop(main)


def test_a_close_that_is_cancelled_drops_the_connection(on_loop):
    async def main() -> None:
        async with opened(sink) as session:
            closing = asyncio.create_task(session.close())
            await asyncio.sleep(0.05)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert session._connection._transport.is_closing()

    with running_sink(faults=[Fault("quit", "hang")]) as sink:
        on_loop(main)


def test_nothing_secret_is_logged(on_loop, tls, caplog):
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        async with opened(sink, tls="required", username="us", password=Secret("hunter2")) as session:
            assert await session.send(ENVELOPE, MESSAGE, yes) == TAKEN

    with running_sink(tls=tls.server, accounts={"us": "hunter2"}) as sink:
        on_loop(main)
    ours = [record for record in caplog.records if record.name.startswith("mailserver")]
    assert ours and {record.levelno for record in ours} == {logging.DEBUG}
    assert not any("hunter2" in record.getMessage() for record in caplog.records)


# Whatever a server says

SAYINGS = (
    *(b"220 hello\r\n", b"250 ok\r\n", b"250-x\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 STARTTLS\r\n", b"354 go\r\n"),
    *(
        b"221 bye\r\n",
        b"421 no\r\n",
        b"451 no\r\n",
        b"550 no\r\n",
        b"552 no\r\n",
        b"334 \r\n",
        b"250-\r\n",
        b"999 x\r\n",
    ),
    *(b"\0\xff\r\n", b"\n", b"2", b"250", b"x" * 5000, b"\x16\x03\x01\x00\x05hello", b""),
)
USUAL = (b"220 hello\r\n", b"250-x\r\n250 STARTTLS\r\n", b"220 go\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n")


@pytest.mark.parametrize("seed", range(5))
def test_nothing_but_outcomes_comes_of_what_a_server_says(on_loop, seed):
    chance = random.Random(seed)
    came = set()

    def says(turn: int) -> bytes:
        usual = USUAL[turn] if turn < len(USUAL) else b"250 ok\r\n"
        return chance.choices((usual, chance.choice(SAYINGS)), (4, 1))[0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            for turn in range(chance.randrange(12)):
                writer.write(says(turn))
                await reader.read(4096)
        writer.transport.abort() if chance.random() < 0.3 else writer.close()

    async def main() -> None:
        timeouts = dict.fromkeys(Phase, 0.05)
        async with scripted(serve) as target:
            for _ in range(60):
                tls = chance.choice(("never", "opportunistic", "required"))
                how = Manner("client.example", instance="7f3a9c", tls=tls, timeouts=timeouts)
                try:
                    session = await Session.open(target, how)
                except Unreachable as unreachable:
                    came.add(type(unreachable.outcome).__name__)
                    continue
                for _ in range(2):
                    outcomes = await session.send(ENVELOPE, MESSAGE, yes)
                    came.update(type(outcome).__name__ for outcome in outcomes)
                await session.close()

    on_loop(main)
    assert "Deferred" in came
