"""The IMAP client: answers are counted, not parsed, so that it never limits the server.

A command's tag is not guessable from mail, so the end of its answer is the line that begins with it, and the octets in
between need not be taken apart. The beginning of an answer is kept for those who need to read it.
"""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmark.errors import BenchError
from benchmark.ports import LOOPBACK

_KEPT_OCTETS = 1 << 20
_FETCH = re.compile(rb"\r\n\* \d+ FETCH ")


@dataclass(slots=True)
class Answer:
    """What came back for one command, up to and with its tagged line."""

    seconds: float = 0.0
    octets: int = 0
    fetches: int = 0
    kept: bytearray = field(default_factory=bytearray)
    status: bytes = b""


class Client:
    """One IMAP connection."""

    def __init__(self, port: int, user: str = "", password: str = "pw", seconds: float = 120.0) -> None:
        self._socket = socket.create_connection((LOOPBACK, port), timeout=seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._salt = secrets.token_hex(4)
        self._tags = 0
        self._buffer = bytearray(1 << 18)
        self._unread = b""
        self._literal_plus: bool | None = None
        self._line()
        if user:
            self.must(f"LOGIN {user} {password}")

    def must(self, command: str) -> Answer:
        """Run a command that has to succeed."""
        answer = self.run(command)
        if not answer.status.startswith(b"OK"):
            raise BenchError(f"{command[:60]}: {answer.status.decode(errors='replace').strip()}")
        return answer

    def run(self, command: str) -> Answer:
        """Run a command, whatever comes back."""
        tag = self.tag()
        began = time.monotonic()
        self._socket.sendall(b"%b %b\r\n" % (tag, command.encode()))
        answer = self.answer(tag)
        answer.seconds = time.monotonic() - began
        return answer

    def tag(self) -> bytes:
        self._tags += 1
        return f"T{self._salt}x{self._tags}".encode()

    def answer(self, tag: bytes) -> Answer:
        """Read until the line that begins with the tag."""
        wanted = b"\r\n" + tag + b" "
        answer = Answer()
        tail = b"\r\n"
        while True:
            chunk = self._unread or self._receive()
            self._unread = b""
            window = tail + chunk
            found = window.find(wanted)
            if found >= 0:
                status, rest = self._finish_line(window[found + len(wanted) :])
                _note(answer, tail, window[: found + 2])
                answer.status = status
                self._unread = rest
                return answer
            keep = min(len(window), len(wanted) + 24)
            _note(answer, tail, window)
            tail = window[-keep:]

    def _finish_line(self, octets: bytes) -> tuple[bytes, bytes]:
        while b"\r\n" not in octets:
            octets += self._receive()
        status, _, rest = octets.partition(b"\r\n")
        return status, rest

    def append(self, mailbox: str, message: bytes) -> None:
        """One message, and wait for its answer."""
        self.must_answer(self.append_soon(mailbox, message), "APPEND")

    def append_soon(self, mailbox: str, message: bytes) -> bytes:
        """Send one message and return its tag; where there is no LITERAL+ the `+` is awaited in between."""
        plus = self.literal_plus()
        tag = self.tag()
        command = b'%b APPEND "%b" {%d%b}\r\n' % (tag, mailbox.encode(), len(message), b"+" if plus else b"")
        if plus:
            self._socket.sendall(command + message + b"\r\n")
        else:
            self._socket.sendall(command)
            self._line()
            self._socket.sendall(message + b"\r\n")
        return tag

    def must_answer(self, tag: bytes, what: str) -> None:
        answer = self.answer(tag)
        if not answer.status.startswith(b"OK"):
            raise BenchError(f"{what}: {answer.status.decode(errors='replace')}")

    def load(self, mailbox: str, messages: Sequence[bytes], depth: int = 50) -> None:
        """Append them all, so many at a time without waiting where the server allows it."""
        waiting: list[bytes] = []
        for message in messages:
            waiting.append(self.append_soon(mailbox, message))
            if len(waiting) >= (depth if self.literal_plus() else 1):
                self.must_answer(waiting.pop(0), "APPEND")
        for tag in waiting:
            self.must_answer(tag, "APPEND")

    def literal_plus(self) -> bool:
        if self._literal_plus is None:
            self._literal_plus = b"LITERAL+" in self.must("CAPABILITY").kept.upper()
        return self._literal_plus

    def count(self, mailbox: str = "INBOX") -> int:
        """The number of messages, by STATUS."""
        answer = self.must(f'STATUS "{mailbox}" (MESSAGES)')
        found = re.search(rb"MESSAGES (\d+)", answer.kept)
        if not found:
            raise BenchError("STATUS gave no number of messages")
        return int(found[1])

    def fresh(self, mailbox: str) -> None:
        """Make the mailbox, empty."""
        self.run(f'DELETE "{mailbox}"')
        self.must(f'CREATE "{mailbox}"')

    def idle(self) -> None:
        """Enter IDLE; nothing else may follow but `fileno` and `logout`-less `close`."""
        self._socket.sendall(self.tag() + b" IDLE\r\n")
        line = self._line()
        if not line.startswith(b"+"):
            raise BenchError(f"IDLE: {line.decode(errors='replace')}")

    def receive_now(self) -> bytes:
        """What came unasked; empty when nothing did."""
        self._socket.setblocking(False)
        try:
            return self._receive()
        except BlockingIOError:
            return b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def logout(self) -> None:
        self.run("LOGOUT")
        self.close()

    def close(self) -> None:
        self._socket.close()

    def _line(self) -> bytes:
        """The next line; what comes after it stays for later."""
        octets = self._unread
        while b"\r\n" not in octets:
            octets += self._receive()
        line, _, self._unread = octets.partition(b"\r\n")
        return line

    def _receive(self) -> bytes:
        length = self._socket.recv_into(self._buffer)
        if not length:
            raise BenchError("the server closed the connection")
        return bytes(memoryview(self._buffer)[:length])


def _note(answer: Answer, tail: bytes, window: bytes) -> None:
    """Count what is new in the window; it begins with what the one before ended with."""
    new = len(window) - len(tail)
    answer.octets += max(0, new)
    answer.fetches += len(_FETCH.findall(window)) - len(_FETCH.findall(tail))
    if len(answer.kept) < _KEPT_OCTETS and new > 0:
        answer.kept += window[len(tail) :]
