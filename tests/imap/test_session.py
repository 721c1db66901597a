"""The session itself: order, legality, bounds, deadlines, faults, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mailserver.imap import session as session_module
from mailserver.imap import status
from mailserver.imap.session import HANDLERS, READ_AHEAD, Session, _expunge_ok
from mailserver.protocols.imap import commands, sequence_set
from mailserver.protocols.imap.server_states import ALLOWED
from storage import OutcomeUnknown, Store, Unavailable
from tests.imap.conftest import PATIENCE, Server, running
from tests.imap.mail import put


def test_every_command_has_a_handler() -> None:
    assert HANDLERS.keys() == ALLOWED.keys()


def test_when_expunges_may_be_told() -> None:
    """RFC 3501 §7.4.1."""
    everything = sequence_set.parse(b"1:*")
    fetch = commands.Fetch("a", everything, (commands.Attribute.UID,))
    store = commands.Store("a", everything, commands.StoreMode.ADD, commands.Flags())
    search = commands.Search("a", commands.Everything())
    assert not any(map(_expunge_ok, (fetch, store, search)))
    assert _expunge_ok(commands.Fetch("a", everything, (commands.Attribute.UID,), by_uid=True))
    assert _expunge_ok(commands.Search("a", commands.Everything(), by_uid=True))
    assert _expunge_ok(commands.Noop("a"))


async def test_commands_are_answered_in_order(server: Server) -> None:
    client = await server.connect()
    await client.send(
        b"a LOGIN alice pw\r\nb SELECT INBOX\r\nc NOOP\r\nd CAPABILITY\r\ne FROB\r\nf LOGOUT\r\ng NOOP\r\n"
    )
    data = (await client.reader.read()).decode()
    tagged = [line.split()[0] for line in data.splitlines() if line[0] not in "*+"]
    assert tagged == ["a", "b", "c", "d", "e", "f"]


async def test_commands_before_the_end_of_input_are_answered(server: Server) -> None:
    client = await server.connect()
    await client.send(b"a LOGIN alice pw\r\nb SELECT INBOX\r\nc NOOP\r\n")
    client.writer.write_eof()
    data = (await client.reader.read()).decode()
    assert data.endswith("c OK NOOP completed\r\n")


async def test_an_idle_session_is_an_object_and_nothing_else(server: Server) -> None:
    """No task, no queue; the parts that every session has of its own stay small."""
    await server.logged_in()
    [session] = server.made
    while session._task is not None:
        await asyncio.sleep(0)
    assert not hasattr(session, "__dict__")
    assert sys.getsizeof(session) + sys.getsizeof(session.framer) < 600
    assert session.selected is None
    assert session.idling is None


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("", "* BAD …"),
        ("a", "a BAD …"),
        ("a ", "a BAD …"),
        ("+ NOOP", "* BAD …"),
        ("a SELECT INBOX extra", "a BAD …"),
        ("a CHECK", "a BAD Command is not allowed without a selected mailbox"),
        ("a LOGIN alice pw", "a BAD Command is not allowed without a selected mailbox"),
        ("a FETCH 1 FLAGS", "a BAD …"),
        ("a SELECT {99999}", "a NO [TOOBIG] …"),
        ("a SELECT " + "x" * 70_000, "a BAD Command is too long"),
        ("a SELECT {3+}\r\nfoo {5}", "a BAD …"),
    ],
)
async def test_mistakes_cost_an_answer_and_no_more(server: Server, line: str, answer: str) -> None:
    client = await server.logged_in()
    await client.send(line.encode() + b"\r\n")
    said = await client.line()
    if said.startswith("+"):
        await client.send(b"12345\r\n")
        said = await client.line()
    assert said.startswith(answer.rstrip("…")), said
    await client.ask("NOOP")


async def test_too_many_mistakes_in_a_row(store: Store, certificate: Path) -> None:
    async with running(store, certificate, imap={"max_errors": 3}) as server:
        client = await server.logged_in()
        await server.play(
            """
            C: a FROB
            S: a BAD …
            C: b FROB
            S: b BAD …
            C: c NOOP
            S: c OK …
            C: d FROB
            S: d BAD …
            C: e FROB
            S: e BAD …
            C: f FROB
            S: f BAD …
            S: * BYE Too many bad commands
            """,
            client,
        )
        assert await client.closed()


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (Unavailable("no database"), "a NO [UNAVAILABLE] …"),
        (RuntimeError("secret detail"), "a NO [SERVERBUG] Internal error (…)"),
        (KeyError("x"), "a NO [SERVERBUG] …"),
    ],
)
async def test_faults_are_answered_and_the_session_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, answer: str
) -> None:
    async def fail(*_: object) -> None:
        raise error

    client = await server.logged_in()
    monkeypatch.setitem(HANDLERS, commands.Status, fail)
    with caplog.at_level(logging.ERROR):
        await server.play(f"C: a STATUS INBOX (MESSAGES)\nS: {answer}\nC: b NOOP\nS: b OK …", client)
    assert bool(caplog.records) is ("SERVERBUG" in answer)


async def test_an_unknown_outcome_is_neither_yes_nor_no(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise OutcomeUnknown("lost")

    client = await server.logged_in()
    monkeypatch.setitem(HANDLERS, commands.Status, fail)
    await server.play("C: a STATUS INBOX (MESSAGES)\nS: * BYE The outcome …", client)
    assert await client.closed()


async def test_without_the_database_no_and_then_yes(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await server.logged_in()
    await client.ask("SELECT INBOX")

    class Pool:
        def acquire(self, **_: object) -> Any:
            raise OSError("no route")

    monkeypatch.setattr(server.store, "pool", Pool())
    for command in ("NOOP", "STATUS INBOX (MESSAGES)", 'LIST "" *'):
        await server.play(f"C: a {command}\nS: a NO [UNAVAILABLE] …", client)
    await server.play("C: a SELECT INBOX\nS: * OK [CLOSED] …\nS: a NO [UNAVAILABLE] …", client)
    monkeypatch.undo()
    await client.ask("SELECT INBOX")


async def test_a_fault_in_the_parser_costs_one_command(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise IndexError

    client = await server.logged_in()
    monkeypatch.setattr(session_module, "parse", fail)
    await server.play("C: a NOOP\nS: a NO [SERVERBUG] …", client)
    monkeypatch.undo()
    await client.ask("NOOP")


async def test_answers_that_nobody_reads_are_bounded(server: Server) -> None:
    client = await server.logged_in(slow=True)
    [session] = server.made
    count = 100_000
    sending = asyncio.create_task(client.send(b"a CAPABILITY\r\n" * count))
    async with asyncio.timeout(20):
        while not session.blocked:
            await asyncio.sleep(0.01)
    assert session.transport.get_write_buffer_size() < 2 * server.config.imap.backlog_octets
    for _ in range(2 * count):
        assert (await client.line())[0] in "*a"
    await sending


async def test_no_login_in_time(server: Server) -> None:
    client = await server.connect()
    await client.line()
    [session] = server.made
    await client.ask("NOOP")
    assert session.deadline - asyncio.get_running_loop().time() < 181
    server.deadlines.sweep(session.deadline)
    assert await client.line() == "* BYE No login in time"
    assert await client.closed()


async def test_a_command_does_not_extend_the_time_to_log_in(server: Server) -> None:
    client = await server.connect()
    await client.line()
    [session] = server.made
    before = session.deadline
    await client.ask("NOOP")
    assert session.deadline == before
    await client.ask("LOGIN alice pw")
    assert session.deadline > before + 1000


async def test_idle_for_too_long(server: Server) -> None:
    client = await server.logged_in()
    [session] = server.made
    await server.play("C: i IDLE\nS: + Idling", client)
    server.deadlines.sweep(session.deadline)
    assert await client.line() == "* BYE Idle for too long"
    assert await client.closed()


async def test_a_peer_that_does_not_read_is_dropped(server: Server) -> None:
    await put(server, b"x" * (4 << 20))
    client = await server.logged_in(slow=True)
    await client.ask("SELECT INBOX")
    [session] = server.made
    await client.send(b"".join(b"a%d FETCH 1 BODY.PEEK[]\r\n" % i for i in range(5)))
    async with asyncio.timeout(5):
        while not session.blocked:
            await asyncio.sleep(0.01)
    server.deadlines.sweep(session.deadline)
    async with asyncio.timeout(5):
        while session in server.deadlines:
            await asyncio.sleep(0.01)


async def test_the_server_stops(server: Server) -> None:
    idle, busy = await server.logged_in(), await server.logged_in()
    go = asyncio.Event()
    real = HANDLERS[commands.Status]

    async def slow(s: Session, cmd: commands.Status) -> Any:
        await go.wait()
        return await status.handle(s, cmd)

    HANDLERS[commands.Status] = slow
    try:
        await busy.send(b"a STATUS INBOX (MESSAGES)\r\nb NOOP\r\n")
        await asyncio.sleep(0.05)
        for member in server.deadlines:
            member.stop()
        assert await idle.line() == "* BYE The server is shutting down"
        assert await idle.closed()
        await busy.silent(0.05)
        go.set()
        assert (await busy.line()).startswith("* STATUS")
        assert (await busy.line()).startswith("a OK")
        assert await busy.line() == "* BYE The server is shutting down"
        assert await busy.closed()
    finally:
        HANDLERS[commands.Status] = real


async def test_the_server_stops_in_the_midst_of_an_append(server: Server) -> None:
    """Its message is taken, and goodbye is said after it; who does not finish is told so in the end."""
    whole, half = await server.logged_in(), await server.logged_in()
    for client in (whole, half):
        await client.send(b"a APPEND INBOX {30}\r\n")
        assert (await client.line()).startswith("+")
        await client.send(b"Subject: x\r\n\r\n")
    async with asyncio.timeout(20):
        while not all(session.framer.held for session in server.made):
            await asyncio.sleep(0.01)
    for member in server.deadlines:
        member.stop()
    await whole.silent(0.05)
    await whole.send(b"0123456789abcd\r\n\r\n")
    assert (await whole.line()).startswith("a OK [APPENDUID ")
    assert await whole.line() == "* BYE The server is shutting down"
    assert await whole.closed()
    for member in server.deadlines:
        member.cut_off()
    assert await half.line() == "* BYE The server is shutting down"
    assert await half.closed()


async def test_an_account_s_sessions_are_ended(server: Server) -> None:
    from storage import accounts

    account = await accounts.find(server.store, "alice")
    alice, idling, bob = await server.logged_in(), await server.logged_in(), await server.logged_in("bob")
    await server.play("C: i IDLE\nS: + Idling", idling)
    assert server.sessions.end(account.account_id, "The password was changed") == 2
    for client in (alice, idling):
        assert await client.line() == "* BYE The password was changed"
        assert await client.closed()
    await bob.ask("NOOP")


async def test_a_command_that_runs_is_given_a_moment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from storage import accounts

    async def forever(*_: object) -> None:
        await asyncio.Event().wait()

    account = await accounts.find(server.store, "alice")
    client = await server.logged_in()
    monkeypatch.setitem(HANDLERS, commands.Status, forever)
    await client.send(b"a STATUS INBOX (MESSAGES)\r\n")
    await asyncio.sleep(0.05)
    server.sessions.end(account.account_id, "Disabled")
    async with asyncio.timeout(2):
        with pytest.raises(ConnectionError):
            if await client.reader.read() == b"":
                raise ConnectionError


@pytest.mark.parametrize("reset", [True, False])
async def test_disconnecting_cancels_the_command(server: Server, monkeypatch: pytest.MonkeyPatch, reset: bool) -> None:
    """A peer that has merely stopped sending may be waiting for the answer, but not for long."""
    cancelled = asyncio.Event()

    async def forever(*_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    view = server.made[0].selected.view  # type: ignore[union-attr]
    monkeypatch.setitem(HANDLERS, commands.Status, forever)
    await client.send(b"a STATUS INBOX (MESSAGES)\r\n")
    await asyncio.sleep(0.05)
    if reset:
        linger = struct.pack("ii", 1, 0)
        client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    client.writer.transport.abort()
    if not reset:
        await asyncio.sleep(0.05)
        assert not cancelled.is_set()
        server.deadlines.sweep(time.monotonic() + 11)
    async with asyncio.timeout(5):
        await cancelled.wait()
        while view.users or server.sessions.accounts():
            await asyncio.sleep(0.01)


async def test_what_arrives_meanwhile_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    go = asyncio.Event()
    real = HANDLERS[commands.Noop]

    async def slow(s: Session, cmd: commands.Noop) -> Any:
        await go.wait()
        return await real(s, cmd)

    client = await server.logged_in()
    [session] = server.made
    monkeypatch.setitem(HANDLERS, commands.Noop, slow)
    count = 300_000
    sending = asyncio.create_task(client.send(b"a NOOP\r\n" * count))
    await asyncio.sleep(0.3)
    assert session.framer.buffered <= READ_AHEAD + 256 * 1024
    go.set()
    data = await client.reader.readexactly(len(b"a OK NOOP completed\r\n") * count)
    assert data == b"a OK NOOP completed\r\n" * count
    await sending


async def test_other_sessions_run_meanwhile(server: Server) -> None:
    """Ten thousand commands in one go do not hold up the others."""
    first, second = await server.logged_in(), await server.logged_in("bob")
    sending = asyncio.create_task(first.send(b"a CAPABILITY\r\n" * 10_000))
    await asyncio.sleep(0.01)
    began = asyncio.get_running_loop().time()
    await second.ask("CAPABILITY")
    assert asyncio.get_running_loop().time() - began < 0.5
    await sending
    for _ in range(20_000):
        assert await first.line()


async def test_a_thread_keeps_its_turn_when_its_session_is_gone(server: Server) -> None:
    """However often clients come back, one thread works at a time."""
    client = await server.logged_in()
    (session,) = server.made
    began, go_on = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        go_on.wait(PATIENCE)

    waiting = asyncio.create_task(session.in_thread(work))
    await asyncio.to_thread(began.wait, PATIENCE)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert session.service.thread.locked()
    second = asyncio.create_task(session.in_thread(lambda: "done"))
    await client.ask("NOOP")
    assert not second.done()
    go_on.set()
    assert await second == "done"
    assert not session.service.thread.locked()


async def test_a_fault_in_a_thread_is_its_callers(server: Server) -> None:
    await server.logged_in()
    (session,) = server.made
    with pytest.raises(ZeroDivisionError):
        await session.in_thread(lambda: 1 // 0)
    assert not session.service.thread.locked()
