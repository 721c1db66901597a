"""Sessions against input that wants to break them: in step, in bounds, closed only after BYE, others served meanwhile.

Each attack is watched by a task that wants to run all the time, as other sessions do: what the loop works between two
of its turns is the time that they would have waited. CPU time is what is asserted, since the machine may be busy.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import re
import socket
import ssl
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mailserver.imap.session import FREE_OCTETS, READ_AHEAD
from storage import Store
from tests.imap.conftest import PATIENCE, Client, Server, running
from tests.imap.mail import put, put_octets
from tests.protocols.imap.corpus import COMMANDS, HOSTILE

STALL_SECONDS = 0.25
INSIDE = b"x\r\nb NOOP\r\nc LOGOUT\r\n"
_TAGGED = re.compile(rb"(?:^|\n)(t[0-9]+) (OK|NO|BAD) ")


class Watch:
    """The longest that the loop worked without a pause, in seconds of its own CPU time."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0.0005)
            self.worst = max(self.worst, time.thread_time() - began)


@pytest.fixture(autouse=True)
def _frozen() -> Iterator[None]:
    """As a worker does at its start: what is there by now is not gone through by every collection."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _without_a_fault(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever clients do, nothing of it is a fault of the server."""
    yield
    assert not [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


@asynccontextmanager
async def others_served() -> AsyncIterator[Watch]:
    watch = Watch()
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
    assert watch.worst < STALL_SECONDS


async def answer(client: Client, tag: bytes) -> bytes:
    """The tagged line, whatever stands before it; or BYE."""
    tail = b""
    wanted = re.compile(rb"(?:^|\n)((?:%b (?:OK|NO|BAD)|\* BYE) [^\r\n]*)\r\n\Z" % re.escape(tag))
    while (found := wanted.search(tail)) is None:
        async with asyncio.timeout(4 * PATIENCE):
            data = await client.reader.read(65_536)
        assert data, f"closed without BYE after {tail!r}"
        tail = (tail + data)[-1000:]
        await asyncio.sleep(0)
    return found[1]


async def attack(client: Client, octets: bytes) -> bytes:
    """What is said to a command; then the session is in step, or at its end."""
    await client.send(b"t1 " + octets + b"\r\n")
    said = await answer(client, b"t1")
    if said.startswith(b"* BYE"):
        assert await client.closed()
    else:
        await client.ask("NOOP")
    return said


async def everything(client: Client, octets: bytes) -> bytes:
    """All that is said to these octets until the server closes; the client sends no more."""
    client.writer.write(octets)
    client.writer.write_eof()
    async with asyncio.timeout(4 * PATIENCE):
        return await client.reader.read()


async def selected(server: Server, *, slow: bool = False) -> Client:
    client = await server.logged_in(slow=slow)
    await client.ask("SELECT INBOX")
    return client


# What costs much


async def fill(server: Server) -> None:
    for number in range(20):
        await put(server, b"hello %d\r\n" % number * 20)
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(2000))
    await put(server, b"x" * 200_000, header=b"Subject: many fields\r\n" + fields)
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(90))
    await put_octets(server, nested + b"\r\nx")


FETCHES = {
    "a long label for each message": b"FETCH 1:* BODY.PEEK[HEADER.FIELDS (%b)]" % b" ".join([b"X"] * 30_000),
    "a thousand header items": b"FETCH 1:* (%b)" % b" ".join(b"BODY.PEEK[HEADER.FIELDS (%d)]" % n for n in range(999)),
    "a thousand parts": b"FETCH 1:* (%b)" % b" ".join(b"BODY.PEEK[%d]" % n for n in range(1, 1000)),
    "a thousand levels": b"FETCH 1:* (BODY.PEEK[%b1] BODY.PEEK[%bMIME])" % (b"1." * 999, b"1." * 1000),
    "a thousand partials": b"FETCH 1:* (%b)" % b" ".join(b"BODY[]<%d.9>" % n for n in range(1000)),
    "partials of the largest size": b"FETCH 1:* (BODY[]<4294967295.4294967295> BODY[1]<0.4294967295>)",
    "all structures": b"FETCH 1:* (BODY BODYSTRUCTURE ENVELOPE)",
    "a thousand searches for headers": b"SEARCH %b" % b" ".join(b"NOT HEADER X-%d z" % n for n in range(2500)),
    "a hundred searches for text": b"SEARCH %b" % b" ".join(b"NOT TEXT z%d" % n for n in range(100)),
}


async def test_costly_commands(server: Server) -> None:
    await fill(server)
    client = await selected(server)
    bob = await server.logged_in("bob")
    for name, command in {**HOSTILE, **FETCHES}.items():
        async with others_served():
            said = await attack(client, command)
        assert not said.startswith(b"* BYE"), name
        await bob.ask("NOOP")


async def test_what_is_asked_for_many_times_is_held_once(server: Server) -> None:
    await put(server, b"x" * (1 << 20))
    client = await selected(server, slow=True)
    tracemalloc.start()
    try:
        items = b" ".join(b"BODY.PEEK[TEXT]<%d.4294967295>" % number for number in range(60))
        assert (await attack(client, b"FETCH 1 (%b)" % items)).startswith(b"t1 OK")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 << 20, "60 MiB were answered"


async def test_large_headers_are_not_held_together(server: Server) -> None:
    fields = (b"X-Long: " + b"y" * 900 + b"\r\n") * 570
    for _ in range(24):
        await put(server, b"x", header=fields)
    client = await selected(server, slow=True)
    tracemalloc.start()
    try:
        async with others_served():
            assert (await attack(client, b"FETCH 1:* BODY.PEEK[HEADER]")).startswith(b"t1 OK")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20, "12 MiB were answered"


async def test_a_header_is_not_gone_through_without_end(server: Server) -> None:
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(40_000))
    await put(server, b"x", header=fields)
    client = await selected(server)
    items = b" ".join(b"BODY.PEEK[HEADER.FIELDS.NOT (X-%d)]<0.1>" % number for number in range(999))
    async with others_served():
        said = await attack(client, b"FETCH 1 (%b)" % items)
    assert said.startswith(b"t1 NO [LIMIT] Too much is asked of one header")


# Literals


async def test_what_a_literal_holds_is_never_carried_out(server: Server) -> None:
    for logged_in in (False, True):
        for command, said in (
            (b"FROB {%d}", "BAD"),
            (b"FROB {%d+}", "BAD"),
            (b"NOOP {%d+}", "BAD"),
            (b"SELECT ((( {%d+}", "BAD"),
            (b"LOGIN {%d+}", "BAD"),
            (b'LOGIN "x {%d}', "BAD"),
            (b"IDLE {%d}", "BAD"),
            (b"STARTTLS {%d}", "BAD"),
            (b"AUTHENTICATE PLAIN {%d+}", "BAD"),
            (b"LOGOUT {%d+}", "BAD"),
            (b"{%d+}", "BAD"),
            (b"APPEND {0000000000%d}", "NO"),
            (b"APPEND INBOX ~{%d+}", "BAD"),
        ):
            client = await (server.logged_in() if logged_in else server.connect())
            if not logged_in:
                await client.line()
            await client.send(b"a " + command % len(INSIDE) + b"\r\n" + INSIDE + b"\r\n")
            if b"+" not in command:
                assert (await client.line()).startswith("+ ")
            assert (await client.line()).startswith(f"a {said} "), command
            await client.ask("NOOP")
            client.close()


async def test_literals_that_are_refused(store: Store, certificate: Path) -> None:
    """By size, by state, for lack of TLS: what was sent of them is skipped, and the session is in step."""
    async with running(
        store, certificate, imap={"max_append_octets": 2000}, server={"insecure_loopback_auth": False}
    ) as s:
        client = await s.connect()
        await client.line()
        inside = INSIDE * 1000
        for command, said in (
            (b"a LOGIN alice {2+}\r\npw", "a NO [PRIVACYREQUIRED]"),
            (b"a LOGIN {%d+}\r\n%b pw" % (len(INSIDE), INSIDE), "a NO [PRIVACYREQUIRED]"),
            (b"a LOGIN x {%d+}\r\n%b" % (len(inside), inside), "a NO [TOOBIG]"),
            (b"a APPEND INBOX {%d+}\r\n%b" % (len(inside), inside), "a NO [TOOBIG]"),
            (b"a APPEND INBOX {%d}" % len(inside), "a NO [TOOBIG]"),
            (b"a APPEND INBOX {%d+}\r\n%b" % (len(INSIDE), INSIDE), "a BAD Command is not allowed"),
            (b"a FROB {%d+}\r\n%b" % (len(inside), inside), "a NO [TOOBIG]"),
            (b"a {4294967295}", "a NO [TOOBIG]"),
        ):
            await client.send(command + b"\r\n")
            assert (await client.line()).startswith(said)
            await client.ask("NOOP")
        for announced in (b"{262145+}", b"{4294967295+}", b"{99999999999999999999999+}"):
            client = await s.connect()
            await client.line()
            await client.send(b"a FROB " + announced + b"\r\n" + INSIDE)
            assert await client.line() == "* BYE [TOOBIG] Too much to skip"
            assert await client.closed()
    async with running(store, certificate, imap={"max_append_octets": 2000}) as s:
        client = await s.logged_in()
        message = (INSIDE * 100)[:2001]
        for command, said in (
            (b"a APPEND INBOX {2001+}\r\n" + message, "a NO [TOOBIG]"),
            (b"a APPEND INBOX (\\Seen) {2001}", "a NO [TOOBIG]"),
            (b"a APPEND INBOX {2000+}\r\n" + message[:2000], "a OK [APPENDUID"),
            (b"a APPEND nowhere {2000+}\r\n" + message[:2000], "a NO [TRYCREATE]"),
        ):
            await client.send(command + b"\r\n")
            assert (await client.line()).startswith(said)
            await client.ask("NOOP")


async def test_literals_that_never_come(server: Server) -> None:
    """What is announced costs nothing; what is sent is counted against the worker's memory, and given back."""
    room = server.memory.left
    clients = [await server.logged_in() for _ in range(12)]
    for client in clients:
        await client.send(b"a APPEND INBOX {50000000}\r\n")
        assert (await client.line()).startswith("+ ")
    assert server.memory.left == room
    for client in clients:
        await client.send(b"x" * 1_000_000)
    async with asyncio.timeout(PATIENCE):
        while sum(session.framer.held for session in server.made) < 12_000_000:
            await asyncio.sleep(0.001)
    assert room - server.memory.left >= 12 * (1_000_000 - FREE_OCTETS)
    async with others_served():
        server.deadlines.sweep(max(session.deadline for session in server.made))
        for client in clients:
            assert await client.line() == "* BYE Idle for too long"
            assert await client.closed()
    async with asyncio.timeout(PATIENCE):
        while server.memory.left != room:
            await asyncio.sleep(0.001)


# Commands that are read in another way


async def test_idle_with_rubbish(server: Server) -> None:
    for sent, said in (
        (b"i IDLE\r\nROT\r\n", "i BAD Expected DONE"),
        (b"i IDLE\r\n\r\n", "i BAD Expected DONE"),
        (b"i IDLE\r\nDONE {5}\r\n", "i BAD Expected DONE"),
        (b"i IDLE\r\nD\0NE\r\n", "i BAD Expected DONE"),
        (b"i IDLE\r\n" + bytes(range(11, 256)) + b"\r\n", "i BAD Expected DONE"),
        (b"i IDLE\r\n" + b"DONE" * 300_000 + b"\r\n", "i BAD Expected DONE"),
        (b"i IDLE\r\ni2 IDLE\r\n", "i BAD Expected DONE"),
        (b"i IDLE\r\ndone\n", "i OK IDLE completed"),
        (b"i AUTHENTICATE PLAIN\r\n*\r\n", "i BAD Command is not allowed"),
        (b"i STARTTLS\r\n", "i BAD Command is not allowed"),
    ):
        client = await selected(server)
        await client.send(sent + b"z NOOP\r\n")
        found = [await client.line()]
        while not found[-1].startswith("z "):
            found.append(await client.line())
        assert [line for line in found if line.startswith(said)], found
        assert found[-1].startswith("z OK")
        client.close()


async def test_authenticate_with_rubbish(server: Server) -> None:
    for sent, said in (
        (b"a AUTHENTICATE PLAIN\r\n\xff\xfe\0\r\n", "a BAD Invalid base64"),
        (b"a AUTHENTICATE PLAIN\r\n\r\n", "a BAD Invalid PLAIN response"),
        (b"a AUTHENTICATE PLAIN\r\n=\r\n", "a BAD Invalid base64"),
        (b"a AUTHENTICATE PLAIN\r\n*\r\n", "a BAD Authentication cancelled"),
        (b"a AUTHENTICATE PLAIN\r\n" + b"A" * 100_000 + b"\r\n", "a BAD Invalid PLAIN response"),
        (b"a AUTHENTICATE PLAIN " + b"A" * 16_000 + b"\r\n", "a BAD Invalid PLAIN response"),
        (b"a AUTHENTICATE PLAIN " + b"A" * 17_000 + b"\r\n", "a BAD Command is too long"),
        (b"a AUTHENTICATE PLAIN ==\r\n", "a BAD Invalid base64"),
        (b"a AUTHENTICATE PLAIN\r\n{5}\r\n", "a BAD Invalid base64"),
        (b"a AUTHENTICATE LOGIN =\r\n", "a BAD Invalid LOGIN response"),
        (b"a AUTHENTICATE LOGIN\r\nYWxpY2U=\r\n*\r\n", "a BAD Authentication cancelled"),
        (b"a AUTHENTICATE LOGIN\r\nYWxpY2U=\r\nz NOOP\r\n", "a BAD Invalid base64"),
        (b"a AUTHENTICATE PLAIN =\r\n", "a BAD Invalid PLAIN response"),
        (b"a AUTHENTICATE PLAIN " + b"AAAA" * 700 + b"\r\n", "a BAD Invalid PLAIN response"),
        (b"a AUTHENTICATE {5+}\r\nPLAIN\r\n", "a BAD Expected an atom"),
        (b'a AUTHENTICATE "PLAIN"\r\n', "a BAD Expected an atom"),
        (b"a AUTHENTICATE X\0Y\r\n", "a BAD"),
    ):
        client = await server.connect()
        await client.line()
        await client.send(sent + b"y CAPABILITY\r\n")
        lines = [await client.line()]
        while not lines[-1].startswith("y "):
            lines.append(await client.line())
        assert next(line for line in lines if line[0] not in "+*").startswith(said), lines
        assert lines[-1].startswith("y OK")
        await client.ask("LOGIN alice pw")
        client.close()


async def test_clear_text_behind_starttls(server: Server) -> None:
    """Neither a command, nor half of one, nor a literal's octets are left over for what is said under TLS."""
    for behind in (b"b NOOP\r\n", b"b LOG", b"b LOGIN {10}\r\nx", b"b NOOP\r\n" * 1000):
        client = await server.connect()
        await client.line()
        await client.send(b"a STARTTLS\r\n" + behind)
        assert (await client.line()).startswith("a OK")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        await client.writer.start_tls(context)
        assert [line[0] for line in await client.ask("CAPABILITY")] == ["*", "x"]
        await client.ask("LOGIN alice pw")


# Mixtures


async def test_each_command_gets_one_answer_in_order(server: Server) -> None:
    """Pipelines of everything, right and wrong, in any state and in any pieces, until one ends with BYE."""
    await fill(server)
    rng = random.Random(3)
    ended = 0
    for _ in range(25):
        client = await server.connect()
        stream, tags = _pipeline(rng)
        sending = asyncio.create_task(_send_in_pieces(client, stream, rng))
        async with asyncio.timeout(4 * PATIENCE):
            said = await client.reader.read()
        await asyncio.gather(sending, return_exceptions=True)
        answered = [tag for tag, _ in _TAGGED.findall(said)]
        assert answered == tags[: len(answered)]
        if len(answered) < len(tags):
            assert b"\r\n* BYE " in said
            ended += 1
    assert ended < 20


def _pipeline(rng: random.Random) -> tuple[bytes, list[bytes]]:
    """Some commands, what they wait for behind them, and their tags."""
    stream, tags = b"", []
    login = rng.randrange(10)
    for number in range(40):
        name, data = rng.choice(COMMANDS)
        if number == login:
            name, data = "Login", b"x LOGIN alice {2+}\r\npw\r\n"
        elif number == login + 1:
            name, data = "Select", b"x SELECT INBOX\r\n"
        elif name in ("StartTls", "Logout") and rng.random() < 0.95:
            continue
        elif rng.random() < 0.2:
            data = rng.choice(
                [
                    b"x FROB\r\n",
                    b"x NOOP {3+}\r\n\r\nx\r\n",
                    b"x\r\n",
                    b"x FETCH ((\r\n",
                    b"x " + b"y" * 70_000 + b"\r\n",
                ]
            )
        if name == "StartTls":
            continue
        tags.append(b"t%d" % number)
        stream += (
            tags[-1] + data[data.index(b" " if b" " in data else b"\r") :]
            if data[:2] == b"x "
            else tags[-1] + data[len(data.split()[0]) :]
        )
        stream += {"Idle": b"DONE\r\n", "Authenticate": b"*\r\n"}.get(name, b"")
    return stream + b"t999 LOGOUT\r\n", [*tags, b"t999"]


async def _send_in_pieces(client: Client, stream: bytes, rng: random.Random) -> None:
    at = 0
    while at < len(stream):
        size = rng.choice([1, 2, 10, 100, 5000, 100_000])
        await client.send(stream[at : at + size])
        await asyncio.sleep(0)
        at += size


async def test_commands_octet_by_octet(server: Server) -> None:
    await put(server, b"x")
    server.chunk = 1
    client = await selected(server)
    await client.send(
        b"".join(data for name, data in COMMANDS if name in {"Fetch", "Search", "Noop", "Append", "List"})
    )
    await client.send(b"z LOGOUT\r\n")
    async with asyncio.timeout(PATIENCE):
        said = (await client.reader.read()).decode("latin-1")
    tagged = re.findall(r"(?:^|\n)([a-i][0-9]) (OK|NO|BAD)", said)
    assert len(tagged) == sum(name in {"Fetch", "Search", "Noop", "Append", "List"} for name, _ in COMMANDS)
    assert said.endswith("z OK LOGOUT completed\r\n")


# What is echoed


async def test_nothing_that_is_echoed_breaks_a_line(server: Server) -> None:
    await server.logged_in()
    client = await server.connect()
    nasty = [
        b"\0",
        b"\x07\x1b[31m",
        b"\xff\xfe",
        b"\r",
        b"]",
        b'"',
        b"\\",
        b"[ALERT] ",
        b"* BYE",
        "ü".encode(),
        b"%s",
        b"{3}",
    ]
    sent = b"x LOGIN alice pw\r\n"
    for octets in nasty:
        for template in (
            b"%b NOOP",
            b"a%b NOOP",
            b"a %b",
            b"a SELECT %b",
            b"a FETCH %b FLAGS",
            b"a AUTHENTICATE %b",
            b"a LIST %b *",
        ):
            sent += template % octets + b" x\r\n"
        if len(sent) > 2500:
            sent += b"a NOOP\r\n"
        literal = b"{%d+}\r\n%b" % (len(octets), octets)
        for template in (
            b"a SELECT %b",
            b"a STATUS %b (UNSEEN)",
            b"a SEARCH CHARSET %b ALL",
            b"a LOGIN %b x",
            b"a COPY 1 %b",
        ):
            sent += template % literal + b"\r\n"
        sent += b"a NOOP\r\n"
    said = await everything(client, sent)
    for line in said.removesuffix(b"\r\n").split(b"\r\n"):
        assert re.fullmatch(
            rb"(?:\*|\+|[^\x00-\x20\x7f-\xff(){%*\"\\+]+) (?:OK|NO|BAD|BYE|CAPABILITY|Ready)[\x20-\x7e]*", line
        ), line


async def test_names_of_any_octets(server: Server) -> None:
    """Mailboxes and keywords: taken and said again in lines that are whole, or refused."""
    rng = random.Random(4)
    alphabet = [
        b"&",
        b"-",
        b"/",
        b"%",
        b"*",
        b" ",
        b'"',
        b"\\",
        b"(",
        b"]",
        b"\r\n",
        b"\x7f",
        b"\xff",
        "é".encode(),
        b"e\xcc\x81",
    ]
    alphabet += [b"&AOk-", b"INBOX", b"a", "\uf02f".encode(), "\U0001f600".encode(), b"&2D0-", b"~", b"#", b".", b"{1}"]
    client = await server.logged_in()
    await put(server, b"x")
    await client.ask("SELECT INBOX")
    for number in range(60):
        name = b"".join(rng.choices(alphabet, k=rng.randrange(6)))
        literal = b"{%d+}\r\n%b" % (len(name), name)
        for command in (
            b"CREATE %b",
            b"SUBSCRIBE %b",
            b"STATUS %b (MESSAGES)",
            b"RENAME %%b n%d" % number,
            b'LIST "" %b',
        ):
            assert not (await attack(client, command % literal)).startswith(b"* BYE")
        assert not (await attack(client, b"STORE 1 +FLAGS (%b)" % name.replace(b"\r\n", b""))).startswith(b"* BYE")
    client.writer.write(b'a LIST "" *\r\nb LSUB "" *\r\nc LOGOUT\r\n')
    async with asyncio.timeout(PATIENCE):
        said = await client.reader.read()
    lines = said.split(b"\r\n")
    assert len([line for line in lines if line.startswith(b"* LIST (")]) > 20
    for line in lines[:-1]:
        assert re.fullmatch(
            rb'\* L(IST|SUB) \([^()]*\) "/" (?:"(?:[^"\\]|\\["\\])+"|[^ "(){%*\\]+)|[abc*] [A-Z ]+\b.*', line
        ), line


async def test_logins_of_any_octets(server: Server) -> None:
    names = [
        b"",
        b"@",
        b"a@",
        b"@b",
        b"a@b@c",
        b"alice@",
        b"x" * 10_000,
        b"\xff",
        "ä".encode() * 500,
        b'"',
        b"\\",
        b"%",
        b"a b",
        b"\t",
        b"\r\n",
    ]
    client = await server.connect()
    await client.line()
    for name in names:
        literal = b"{%d+}\r\n%b" % (len(name), name)
        for command in (
            b"LOGIN %b x" % literal,
            b"LOGIN alice %b" % literal,
            b"LOGIN %b@example.org {0+}\r\n" % name.replace(b"\r\n", b""),
        ):
            await client.send(b"t1 " + command + b"\r\n")
            said = await answer(client, b"t1")
            assert re.match(rb"t1 (BAD|NO \[(AUTHENTICATIONFAILED|UNAVAILABLE)\])", said), (name, said)
        await client.ask("NOOP")


# Peers that go, or do not read


async def test_half_closed(server: Server) -> None:
    """What came whole is answered, what did not is forgotten, and nothing is left of the session."""
    room = server.memory.left
    await put(server, b"x" * 10_000)
    for sent, last in (
        (b"", b"* OK"),
        (b"a NOO", b"* OK"),
        (b"a LOGIN {5}\r\nab", b"+ "),
        (b"a LOGIN alice pw\r\nb APPEND INBOX {1000000}\r\n" + b"x" * 500_000, b"+ "),
        (b"a AUTHENTICATE PLAIN\r\n", b"+ "),
        (b"a LOGIN alice pw\r\nb SELECT INBOX\r\nc IDLE\r\n", b"+ "),
        (b"a LOGIN alice pw\r\nb SELECT INBOX\r\n" + b"c FETCH 1:* BODY[]\r\n" * 50, b"c OK"),
        (b"a LOGIN alice pw\r\n" + b"c NOOP\r\n" * 5000, b"c OK"),
    ):
        said = await everything(await server.connect(), sent)
        assert said.removesuffix(b"\r\n").rpartition(b"\r\n")[2].startswith(last)
        assert said.count(b"\r\nc OK") == sent.count(b"\nc NOOP") + sent.count(b"\nc FETCH")
        async with asyncio.timeout(PATIENCE):
            while server.sessions.accounts() or server.memory.left != room:
                await asyncio.sleep(0.001)


async def test_clients_that_never_read(server: Server) -> None:
    """Each holds its backlog and what was read ahead of it, and no more; others are served."""
    await put(server, b"x" * 500_000)
    attackers = [await server.logged_in(slow=True) for _ in range(8)]
    for client in attackers:
        await client.ask("SELECT INBOX")
    async with others_served():
        for client in attackers:
            client.writer.write(b"a FETCH 1 BODY.PEEK[]\r\n" * 30_000)
        async with asyncio.timeout(PATIENCE):
            while not all(session.blocked for session in server.made):
                await asyncio.sleep(0.001)
        bob = await server.logged_in("bob")
        for _ in range(20):
            await bob.ask("STATUS INBOX (MESSAGES)")
    for session in server.made[:8]:
        assert session.transport.get_write_buffer_size() < 3 * server.config.imap.backlog_octets
        assert session.framer.buffered <= READ_AHEAD + 256 * 1024


async def test_a_flood_of_connections_that_say_nothing(server: Server) -> None:
    async with others_served():
        clients = [await server.connect() for _ in range(200)]
        bob = await server.logged_in("bob")
        await bob.ask("STATUS INBOX (MESSAGES)")
    for client in clients:
        assert (await client.line()).startswith("* OK")
    server.deadlines.sweep(max(session.deadline for session in server.made if session.account is None))
    for client in clients:
        assert await client.line() == "* BYE No login in time"
        assert await client.closed()


async def test_rubbish_ends_with_bye(server: Server) -> None:
    for rubbish in (
        b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(range(256)) + b"\r\n",
        b"\x16\x03\x01\x02\0\r\n",
    ):
        client = await server.connect()
        sending = asyncio.create_task(client.send(rubbish * 400))
        async with asyncio.timeout(PATIENCE):
            said = await client.reader.read()
        await asyncio.gather(sending, return_exceptions=True)
        assert said.endswith(b"* BYE Too many bad commands\r\n")


async def test_a_reset_in_the_middle_leaves_nothing(server: Server) -> None:
    await put(server, b"x" * 500_000)
    room = server.memory.left
    for sent in (
        b"a FETCH 1 BODY[]\r\n" * 100,
        b"a APPEND INBOX {9000000}\r\n" + b"x" * 900_000,
        b"a IDLE\r\n",
        b"a SEARCH " + b"(" * 60_000,
    ):
        client = await selected(server)
        await client.send(sent)
        sock = client.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.writer.transport.abort()
    async with asyncio.timeout(PATIENCE):
        while server.sessions.accounts() or server.memory.left != room:
            await asyncio.sleep(0.001)
