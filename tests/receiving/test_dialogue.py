"""The machine under the dialogue: lines, limits, slow clients, faults inside, the end of sessions."""

from __future__ import annotations

import asyncio
import socket
import struct
import uuid
from time import monotonic
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP

from mailserver.net.tls import Certificates
from mailserver.receiving.session import Transaction
from storage import OutcomeUnknown, Store, Unavailable, accounts
from tests.receiving.tools import Host, Talk, answer, dialogue, hosting, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def host(wire: Host) -> Host:
    return wire


@pytest.fixture
def store(wire: Host) -> Store:
    return wire.store


async def alice_has(host: Host) -> list[bytes]:
    return await host.inbox(await accounts.find(host.store, "alice"))


# Lines and limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"NOOP\n",
        b"\n",
        b"\r\n",
        b"NO\rOP\r\n",
        b"NOOP\0\r\n",
        b"NOOP\tx\r\n",
        b"NOOP \xff\xfe\r\n",
        b" NOOP\r\n",
        b"\x7f\r\n",
    ],
)
async def test_lines_that_are_none(host: Host, line: bytes) -> None:
    talk = await host.talk()
    await talk.reply()
    assert (await answer(talk, line)).startswith("500 5.5.2")
    assert (await talk.ask("NOOP")).startswith("250 2.0.0")
    talk.close()


@pytest.mark.parametrize("piece", [100, 5000, 100_000])
async def test_long_lines(host: Host, piece: int) -> None:
    talk = await host.talk()
    await talk.reply()
    long = b"NOOP " + b"x" * 99_000 + b"\r\n"
    for at in range(0, len(long), piece):
        talk.send(long[at : at + piece])
        await asyncio.sleep(0)
    assert (await talk.reply()).startswith("500 5.5.2 Line too long")
    assert (await answer(talk, b"NOOP " + b"x" * 5000 + b"\r\nNOOP\r\n")).startswith("500 5.5.2 Line too long")
    assert (await talk.reply()).startswith("250 2.0.0")
    assert (await answer(talk, b"NOOP " + b"x" * 4000 + b"\r\n")).startswith("250 2.0.0")
    talk.close()


async def test_an_endless_line_is_not_kept(host: Host) -> None:
    talk = await host.talk()
    await talk.reply()
    for _ in range(50):
        talk.send(b"x" * 20_000)
        await asyncio.sleep(0)
    server = host.connections[-1].smtp
    assert len(server._input) < 300_000
    assert (await answer(talk, b"\r\n")).startswith("500 5.5.2")
    assert len(server._input) == 0
    talk.close()


async def test_too_many_errors(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates, max_errors=3) as host:
        await dialogue(
            host,
            """
            S: 220 …
            C: XONE
            S: 500 5.5.1 …
            C: NOOP
            S: 250 2.0.0 OK
            C: XTWO
            S: 500 5.5.1 …
            C: XTHREE
            S: 500 5.5.1 …
            S: 421 4.7.0 Too many errors; closing
            S: <end>
            """,
        )
        talk = await host.talk()
        talk.send(b"X\r\n" * 50_000)  # the last reply arrives although nobody reads all this
        assert (await talk.rest()).endswith(
            "500 5.5.1 Command not recognized\r\n421 4.7.0 Too many errors; closing\r\n"
        )
        talk.close()


async def test_too_many_commands(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates, max_commands=300) as host:
        talk = await host.talk()
        talk.send(b"NOOP\r\n" * 1000)
        answers = (await talk.rest()).split("\r\n")
        assert answers[1:301] == ["250 2.0.0 OK"] * 300
        assert answers[301:] == ["421 4.7.0 Too many commands; closing", ""]


# Clients that are slow, or go away ------------------------------------------------------------------------------------


async def test_half_closed_client_gets_all_answers(host: Host) -> None:
    talk = await host.talk()
    talk.send(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\ntext\r\n.\r\nNOOP\r\n")
    talk.writer.write_eof()
    answers = (await talk.rest()).split("\r\n")
    assert [line[:9] for line in answers] == [
        "220 mail.",
        "250 mail.",
        "250 2.1.0",
        "250 2.1.5",
        "354 End d",
        "250 2.0.0",
        "250 2.0.0",
        "421 4.4.2",
        "",
    ]


async def test_message_without_its_end_is_not_stored(host: Host) -> None:
    marker = uuid.uuid4().hex.encode()
    talk = await host.talk()
    talk.send(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n" + marker + b"\r\n.")
    talk.writer.write_eof()
    assert (await talk.rest()).endswith(
        "354 End data with <CR><LF>.<CR><LF>\r\n421 4.4.2 Connection ended without QUIT; closing\r\n"
    )
    assert not any(marker in message for message in await alice_has(host))


async def test_timeouts(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates, command_timeout_seconds=100, data_timeout_seconds=200) as host:
        now = monotonic()
        talk = await (await host.talk()).hello()
        host.deadlines.sweep(now + 90)
        await talk.envelope("", "bob@example.org")  # each command begins a new wait
        host.deadlines.sweep(now + 180)
        assert (await talk.ask("DATA")).startswith("354")
        host.deadlines.sweep(now + 370)
        talk.send(b"x" * 100)  # a drip buys no time
        await asyncio.sleep(0.02)
        host.deadlines.sweep(now + 390)
        assert await talk.rest() == "421 4.4.2 Timeout; closing\r\n"
        idle = await host.talk()
        await idle.reply()
        host.deadlines.sweep(now + 1000)
        assert await idle.rest() == "421 4.4.2 Timeout; closing\r\n"


async def test_who_does_not_log_in_has_to_go(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates, login_timeout_seconds=50, command_timeout_seconds=100) as host:
        now = monotonic()
        guest, user = await (await host.talk("submission")).hello(), await (await host.talk("submission")).hello()
        await user.log_in()
        host.deadlines.sweep(now + 30)
        assert (await guest.ask("NOOP")).startswith("250")
        assert (await user.ask("NOOP")).startswith("250")
        host.deadlines.sweep(now + 60)
        assert await guest.rest() == "421 4.4.2 Timeout; closing\r\n"
        assert (await user.ask("NOOP")).startswith("250")
        user.close()


async def test_client_that_does_not_read(host: Host) -> None:
    """Its commands wait; neither its input nor its output grows."""
    talk = await host.talk()
    await talk.reply()
    talk.reader._transport.pause_reading()  # type: ignore[attr-defined]
    connection = host.connections[-1]
    server = connection.smtp
    for sock in (talk.writer.get_extra_info("socket"), connection.transport.get_extra_info("socket")):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    server._commands = -(10**9)
    sent = 0
    while not connection.blocked:
        talk.send(b"HELP\r\n" * 500)
        sent += 500
        await asyncio.sleep(0.001)
    talk.send(b"HELP\r\n" * 50_000)
    await asyncio.sleep(0.1)
    assert connection.blocked
    assert connection.transport.get_write_buffer_size() < 400_000
    assert len(server._input) < 400_000
    talk.reader._transport.resume_reading()  # type: ignore[attr-defined]
    for _ in range(sent):
        assert "214 2.0.0" in await talk.reply()
    talk.close()


async def test_others_are_served_during_a_long_pipeline(host: Host) -> None:
    busy, other = await host.talk(), await host.talk()
    await busy.reply()
    await other.reply()
    host.connections[-2].smtp._commands = -(10**9)
    busy.send(b"NOOP\r\n" * 40_000)
    await asyncio.sleep(0)
    for _ in range(5):
        assert (await other.ask("NOOP")).startswith("250")
    assert host.connections[-2].smtp._input  # still at it
    busy.close()
    other.close()


# Faults inside --------------------------------------------------------------------------------------------------------


async def failing(host: Host, monkeypatch: pytest.MonkeyPatch, error: Exception) -> tuple[Talk, str]:
    async def commit(self: Transaction, octets: bytes) -> uuid.UUID:
        await asyncio.sleep(0)
        raise error

    monkeypatch.setattr(Transaction, "commit", commit)
    talk = await (await host.talk()).hello()
    await talk.envelope("", "bob@example.org")
    await talk.ask("DATA")
    talk.send(b".\r\nNOOP\r\n")
    return talk, await talk.reply()


async def test_database_away(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    talk, reply = await failing(host, monkeypatch, Unavailable("gone"))
    assert reply == "451 4.3.0 Temporary failure; try again later\r\n"
    assert (await talk.reply()).startswith("250 2.0.0 OK")
    talk.close()


async def test_unknown_outcome_is_not_answered(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    _, reply = await failing(host, monkeypatch, OutcomeUnknown("lost"))
    assert reply == ""


async def test_bug(host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """451 and an id; the traceback goes to the log only."""
    talk, reply = await failing(host, monkeypatch, KeyError("secret detail"))
    assert reply.startswith("451 4.3.0 Internal fault ")
    assert "secret" not in reply
    incident = reply.split()[4].rstrip(";")
    assert incident in caplog.text
    assert "secret detail" in caplog.text
    assert "Traceback" in caplog.text
    assert (await talk.reply()).startswith("250 2.0.0 OK")
    talk.close()


async def test_bug_in_the_first_step_of_a_command(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def rcpt(self: Transaction, rcpt: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Transaction, "rcpt", rcpt)
    talk = await (await host.talk()).hello()
    await talk.ask("MAIL FROM:<>")
    assert (await talk.ask("RCPT TO:<bob@example.org>")).startswith("451 4.3.0 Internal fault")
    assert (await talk.ask("NOOP")).startswith("250")
    assert "ZeroDivisionError" in caplog.text
    talk.close()


async def test_client_gone_during_the_commit(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit goes on to its end; nothing breaks when its reply finds no one."""
    gate, done = asyncio.Event(), []

    async def commit(self: Transaction, octets: bytes) -> uuid.UUID:
        await gate.wait()
        done.append(octets)
        return uuid.uuid4()

    monkeypatch.setattr(Transaction, "commit", commit)
    talk = await (await host.talk()).hello()
    await talk.envelope("", "bob@example.org")
    await talk.ask("DATA")
    talk.send(b"x\r\n.\r\n")
    server = host.connections[-1].smtp
    await until(lambda: server._running is not None)
    hard_close = struct.pack("ii", 1, 0)  # a reset, not an end of input
    talk.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard_close)
    talk.writer.transport.abort()
    await until(lambda: host.connections[-1].is_closing)
    await asyncio.sleep(0.01)
    assert host.receiving.memory.used > 0, "the octets are still held"
    gate.set()
    await until(lambda: server._running is None)
    await until(lambda: host.receiving.memory.used == 0)
    assert done == [b"x\r\n"]


# The end of sessions --------------------------------------------------------------------------------------------------


async def test_stop(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle sessions end at once; a message that is being received or written is answered first."""
    gate = asyncio.Event()
    real = Transaction.commit

    async def commit(self: Transaction, octets: bytes) -> uuid.UUID:
        await gate.wait()
        return await real(self, octets)

    monkeypatch.setattr(Transaction, "commit", commit)
    idle, writing, receiving = [await (await host.talk()).hello() for _ in range(3)]
    for talk in (writing, receiving):
        await talk.envelope("", "bob@example.org")
        assert (await talk.ask("DATA")).startswith("354")
    writing.send(b".\r\n")
    receiving.send(b"half\r\n")
    await until(lambda: host.connections[-2].smtp._running is not None and host.connections[-1].smtp._body.received)
    for connection in host.connections[-3:]:
        connection.stop()
    assert await idle.rest() == "421 4.3.2 Service is shutting down\r\n"
    gate.set()
    receiving.send(b".\r\n")
    for talk in (writing, receiving):
        answer = await talk.rest()
        assert answer.startswith("250 2.0.0 OK ")
        assert answer.endswith("\r\n421 4.3.2 Service is shutting down\r\n")


async def test_who_has_to_go_is_not_served_on(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a client has sent ahead: the message that was received is answered, what follows is not begun."""
    gate = asyncio.Event()
    real = Transaction.commit

    async def commit(self: Transaction, octets: bytes) -> uuid.UUID:
        await gate.wait()
        return await real(self, octets)

    monkeypatch.setattr(Transaction, "commit", commit)
    talk = await (await host.talk()).hello()
    await talk.envelope("", "bob@example.org")
    await talk.ask("DATA")
    talk.send(b".\r\n" + b"NOOP\r\n" * 50)
    await until(lambda: host.connections[-1].smtp._running is not None)
    host.connections[-1].stop()
    gate.set()
    first, *others = (await talk.rest()).splitlines()
    assert first.startswith("250 2.0.0 OK ")
    assert others == ["421 4.3.2 Service is shutting down"]


async def test_disabled_accounts_are_thrown_out(host: Host) -> None:
    talk = await (await (await host.talk("submission")).hello()).log_in()
    other = await (await (await host.talk("submission")).hello()).log_in("bob")
    account = host.connections[-2].smtp.session.account
    assert account is not None
    host.sessions.end(account.account_id, "disabled")
    assert await talk.rest() == "421 4.7.0 Session ended by the administrator\r\n"
    assert (await other.ask("NOOP")).startswith("250")
    other.close()
    await until(lambda: host.sessions.accounts() == ())


async def test_login_that_was_checked_while_the_account_was_disabled(host: Host, monkeypatch: Any) -> None:
    real = host.logins.check

    async def check(*args: Any, **more: Any) -> Any:
        account = await real(*args, **more)
        host.sessions.end(account.account_id, "disabled")
        return account

    monkeypatch.setattr(host.logins, "check", check)
    talk = await (await host.talk("submission")).hello()
    assert (await talk.ask("AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=")).startswith("535 5.7.8")
    assert (await talk.ask("MAIL FROM:<alice@example.org>")).startswith("530")
    talk.close()


# What aiosmtpd shares between instances -------------------------------------------------------------------------------


async def test_nothing_grows_in_what_is_shared(host: Host) -> None:
    """SMTP.command_size_limits is one dict for all, to which aiosmtpd's own EHLO adds at every call."""
    before = dict(SMTP.command_size_limits)
    for _ in range(5):
        talk = await (await host.talk()).hello()
        await talk.ask("EHLO again")
        talk.close()
    assert dict(SMTP.command_size_limits) == before


async def test_nothing_of_one_connection_is_in_the_prepared_state(host: Host) -> None:
    talk = await (await (await host.talk("submission")).hello()).log_in()
    server = host.connections[-1].smtp
    for name, value in host.receiving.prepared.items():
        assert getattr(value, "__self__", None) is None, f"{name} is bound to the prepared instance"
    assert host.receiving.prepared["session"] is None
    assert server.session is not None
    talk.close()


async def test_a_closed_connection_is_freed_at_once(host: Host) -> None:
    """By its reference count: a busy server must not wait for the cycle collector."""
    import gc
    import weakref

    talk = await (await host.talk()).hello()
    await talk.envelope("", "bob@example.org")
    await talk.message(b"x\r\n")
    server = weakref.ref(host.connections.pop().smtp)
    gc.disable()
    try:
        await talk.ask("QUIT")
        await talk.rest()
        await until(lambda: server() is None)
    finally:
        gc.enable()
