"""An SMTP server on loopback that keeps what it is sent, and does what bad servers do, when it is told to.

    with running_sink(faults=[Fault("rcpt", "hang")]) as sink:
        sink.port
        sink.messages[0].octets                         # as sent: without the dots of DATA
        sink.commands                                   # every line that came as a command

It works in a thread of its own, so that it serves tests with and without a loop, and other processes. Inside a loop:
`await sink.start()`, `await sink.stop()`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from base64 import b64decode
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "content", "end", "quit"]
"""ehlo: HELO, too. data: the reply to DATA, or the first to BDAT. content: when some of the message has come. end: the
reply to all of it."""

Kind = Literal["4xx", "5xx", "421", "hang", "drop", "reset", "drip", "garbage", "bad tls", "inject"]
"""421: and closes. drop: closes without a word. drip: an octet of the reply at a time, slowly, for ever; in `content`
the message is read that way. bad tls: agrees to STARTTLS and says something else. inject: agrees, and adds a reply in
clear."""

EXTENSIONS = ("PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "ENHANCEDSTATUSCODES")

_REFUSALS = ("4xx", "5xx")
_SECONDS = 10
_READ = 65_536
_DRIP_SECONDS = 0.02
_CONTENT = 32_768  # octets of a message after which a fault in it happens


@dataclass(frozen=True)
class Fault:
    """times: for the first so many connections only, 0 for all."""

    phase: Phase
    kind: Kind
    times: int = 0


@dataclass(frozen=True)
class Received:
    """mail, recipients: the lines of the commands that were accepted. connection: its number, from 1."""

    mail: str
    recipients: tuple[str, ...]
    octets: bytes
    tls: bool
    connection: int


@dataclass
class Sink:
    """replies: to `RCPT` for an address, instead of 250. accounts: names and passwords for AUTH, which is offered where
    there are any; tls: its context; STARTTLS is offered where there is one, unless implicit_tls."""

    faults: Sequence[Fault] = ()
    extensions: Sequence[str] = EXTENSIONS
    helo_only: bool = False
    greeting: str = "220 sink.example ESMTP"
    host: str = "127.0.0.1"
    replies: Mapping[str, str] = field(default_factory=dict)
    accounts: Mapping[str, str] = field(default_factory=dict)
    mechanisms: str = "PLAIN LOGIN"
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    receive_buffer: int = 0
    """Octets of the kernel's buffer, 0 for its own choice."""
    port: int = 0
    connections: int = 0
    open: int = 0
    messages: list[Received] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)
    content_octets: int = 0
    """Of messages that came, whole or not."""

    def fault(self, phase: Phase, connection: int) -> Kind | None:
        for fault in self.faults:
            if fault.phase == phase and (not fault.times or connection <= fault.times):
                return fault.kind
        return None

    async def start(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or replies wait for ACKs
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.receive_buffer:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        listening.bind((self.host, self.port))
        self.port = listening.getsockname()[1]
        context = self.tls if self.implicit_tls else None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, sock=listening, ssl=context)

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)

    def drop_all(self) -> None:
        """Closes the connections that are open, from any thread."""
        for task in list(self._tasks):
            task.get_loop().call_soon_threadsafe(task.cancel)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            await _Dialogue(self, reader, writer, self.connections).run()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, _Over):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()


class _Over(Exception):
    """The connection is."""


class _Dialogue:
    def __init__(self, sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        self.sink = sink
        self.reader = reader
        self.writer = writer
        self.connection = connection
        self.buffer = bytearray()
        self.secure = sink.implicit_tls
        self.forget()

    def forget(self) -> None:
        self.mail = ""
        self.recipients: list[str] = []
        self.octets = bytearray()
        self.in_chunks = False

    async def run(self) -> None:
        await self.say("greeting", self.sink.greeting)
        handlers: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
            "EHLO": self.hello,
            "HELO": self.hello,
            "STARTTLS": self.starttls,
            "AUTH": self.auth,
            "MAIL": self.mail_from,
            "RCPT": self.rcpt_to,
            "DATA": self.data,
            "BDAT": self.bdat,
            "RSET": self.rset,
            "QUIT": self.quit,
        }
        while True:
            line = await self.line()
            self.sink.commands.append(line)
            handler = handlers.get(line.split(" ", 1)[0].upper())
            if handler is None:
                await self.say(None, "500 5.5.1 What?")
            else:
                await handler(line)

    # Commands

    async def hello(self, line: str) -> None:
        if self.sink.helo_only and line.upper().startswith("EHLO"):
            await self.say(None, "500 What?")
            return
        self.forget()
        words = ["sink.example"]
        if line.upper().startswith("EHLO"):
            words += self.sink.extensions
            words += ["STARTTLS"] if self.sink.tls and not self.secure else []
            words += [f"AUTH {self.sink.mechanisms}"] if self.sink.accounts else []
        lines = [f"250-{word}" for word in words[:-1]] + [f"250 {words[-1]}"]
        await self.say("ehlo", "\r\n".join(lines))

    async def starttls(self, line: str) -> None:
        kind = self.sink.fault("starttls", self.connection)
        if kind == "inject":
            self.writer.write(b"220 2.0.0 Go\r\n250 2.0.0 injected\r\n")
            await self.hang()
        if kind == "bad tls":
            self.writer.write(b"220 2.0.0 Go\r\n")
            await self.reader.read(1)
            self.writer.write(b"this is no TLS\r\n")
            await self.hang()
        if await self.say("starttls", "220 2.0.0 Go"):
            assert self.sink.tls is not None
            await self.writer.start_tls(self.sink.tls)
            self.secure = True

    async def auth(self, line: str) -> None:
        words = line.split(" ")[1:]
        if words[0].upper() == "LOGIN":
            name, password = [await self.challenge(word) for word in ("VXNlcm5hbWU6", "UGFzc3dvcmQ6")]
        else:
            response = words[1] if len(words) > 1 else await self.challenge("")
            name, password = b64decode(response).decode().split("\0")[1:]
        good = self.sink.accounts.get(name) == password
        if await self.say("auth", "235 2.7.0 Welcome" if good else "535 5.7.8 Who?"):
            self.sink.logins.append(name)

    async def challenge(self, text: str) -> str:
        await self.say(None, f"334 {text}")
        line = await self.line()
        return line if text == "" else b64decode(line).decode()

    async def mail_from(self, line: str) -> None:
        if self.mail:
            await self.say(None, "503 5.5.1 RSET first")
        elif await self.say("mail", "250 2.1.0 Sender"):
            self.mail = line

    async def rcpt_to(self, line: str) -> None:
        address = line.partition("<")[2].rpartition(">")[0]
        if not self.mail:
            await self.say(None, "503 5.5.1 MAIL first")
        elif await self.say("rcpt", self.sink.replies.get(address, "250 2.1.5 Recipient")):
            self.recipients.append(line)

    async def data(self, line: str) -> None:
        if not self.recipients:
            await self.say(None, "503 5.5.1 RCPT first")
        elif await self.say("data", "354 Go on"):
            await self.dotted()
            await self.finish()

    async def bdat(self, line: str) -> None:
        words = line.upper().split(" ")
        size, last = int(words[1]), words[2:] == ["LAST"]
        if not self.in_chunks and (self.sink.fault("data", self.connection) or not self.recipients):
            await self.take(size)
            await self.say("data", "503 5.5.1 RCPT first")
            return
        self.in_chunks = True
        self.octets += await self.take(size)
        if len(self.octets) >= _CONTENT and self.sink.fault("content", self.connection) in _REFUSALS:
            self.forget()  # RFC 3030 §2: a chunk is refused when all of it has come, and those behind it as well
            await self.say("content", "")
        elif last:
            await self.finish()
        else:
            await self.say(None, "250 2.0.0 More")

    async def finish(self) -> None:
        received = Received(self.mail, tuple(self.recipients), bytes(self.octets), self.secure, self.connection)
        self.forget()
        if await self.say("end", "250 2.0.0 Taken"):
            self.sink.messages.append(received)

    async def rset(self, line: str) -> None:
        self.forget()
        await self.say(None, "250 2.0.0 Forgotten")

    async def quit(self, line: str) -> None:
        await self.say("quit", "221 2.0.0 Bye")
        raise _Over

    # What comes

    async def more(self, octets: int = _READ) -> None:
        data = await self.reader.read(octets)
        if not data:
            raise _Over
        self.buffer += data

    async def line(self) -> str:
        while b"\n" not in self.buffer:
            await self.more()
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.removesuffix(b"\r").decode()

    async def dotted(self) -> None:
        """A message up to the line with a dot."""
        looked = len(self.buffer)
        while not self.buffer.startswith(b".\r\n"):
            end = self.buffer.find(b"\r\n.\r\n", max(0, looked - 5))
            if end >= 0:
                break
            looked = len(self.buffer)
            await self.more()
            await self.in_content(len(self.buffer))
        else:
            end = -2
        message = bytes(self.buffer[: end + 2])
        del self.buffer[: end + 5]
        self.sink.content_octets += len(message)
        self.octets += undotted(message)

    async def take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            await self.more()
            await self.in_content(len(self.octets) + len(self.buffer))
        octets = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.sink.content_octets += size
        return octets

    async def in_content(self, came: int) -> None:
        fault = self.sink.fault("content", self.connection)
        if came < _CONTENT or fault is None or (self.in_chunks and fault in _REFUSALS):
            return
        if fault == "drip":
            while True:
                await asyncio.sleep(_DRIP_SECONDS)
                await self.more(1)
        await self.say("content", "250 2.0.0 never said")
        while await self.reader.read(_READ):
            pass
        raise _Over

    # What is said

    async def say(self, phase: Phase | None, reply: str) -> bool:
        """The reply, or the fault of that phase. Is it good news?"""
        fault = self.sink.fault(phase, self.connection) if phase else None
        if fault == "hang":
            await self.hang(reads=phase != "content")
        if fault == "drop":
            raise _Over
        if fault == "reset":
            await asyncio.sleep(_DRIP_SECONDS)  # for what was said before: a reset destroys what is not read yet
            endpoint = self.writer.get_extra_info("socket")
            endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
            raise _Over
        if fault == "drip":
            self.writer.write(reply[:3].encode())
            while True:
                self.writer.write(b"-")
                await self.writer.drain()
                await asyncio.sleep(_DRIP_SECONDS)
        refusals = {
            "4xx": f"451 4.3.0 Not now ({phase})",
            "5xx": f"550 5.7.1 Not ever ({phase})",
            "421": f"421 4.3.2 Closing ({phase})",
            "garbage": f"GET {phase} HTTP/1.1",
        }
        reply = refusals[fault] if fault else reply
        self.writer.write(reply.encode() + b"\r\n")
        await self.writer.drain()
        if fault == "421" and phase != "content":  # there, unread octets would destroy the reply
            raise _Over
        return reply[0] in "23"

    async def hang(self, *, reads: bool = True) -> None:
        """Says nothing, until the client leaves; where it does not read either it would not notice."""
        if not reads:
            self.writer.transport.pause_reading()
            await asyncio.Event().wait()
        while await self.reader.read(_READ):
            pass
        raise _Over


def undotted(message: bytes) -> bytes:
    """RFC 5321 §4.5.2: a leading dot was doubled by the sender."""
    return message.removeprefix(b".").replace(b"\r\n..", b"\r\n.")


@contextmanager
def running_sink(**options: Any) -> Iterator[Sink]:
    """A sink in a thread; options: fields of Sink."""
    sink = Sink(**options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(sink.start(), loop).result(_SECONDS)
        yield sink
    finally:
        asyncio.run_coroutine_threadsafe(sink.stop(), loop).result(_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_SECONDS)
        loop.close()
