"""An IMAP client (RFC 3501) that tells three things apart: OK, a refusal, and no answer."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_LITERAL = re.compile(rb"\{(\d+)\}\r\n$")
_CODE = re.compile(r"\[(\w+(?:-\w+)*)(?: ([^\]]*))?\]")


class NoAnswer(Exception):
    """The connection ended, or nothing came in time: nobody knows what became of the command."""


@dataclass(slots=True)
class Answer:
    """status: OK, NO or BAD. untagged: lines without their `* `, literals in their places."""

    status: str = ""
    text: str = ""
    untagged: list[bytes] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        return self.status == "OK"

    def code(self, name: str) -> str | None:
        """The arguments of a response code, in the tagged line or in an untagged OK."""
        lines = [self.text, *(line.decode("ascii", "replace") for line in self.untagged if line.startswith(b"OK ["))]
        for line in lines:
            found = _CODE.search(line)
            if found and found[1].upper() == name:
                return found[2] or ""
        return None


class Session:
    """One connection, logged in. Use it in `with`; NoAnswer ends it."""

    def __init__(self, port: int, context: ssl.SSLContext, seconds: float) -> None:
        """seconds: how long the server may be silent."""
        try:
            plain = socket.create_connection(("localhost", port), timeout=seconds)
            try:
                self._socket = context.wrap_socket(plain, server_hostname="localhost")
            except BaseException:
                plain.close()
                raise
            self._file = self._socket.makefile("rb")
        except OSError as error:
            raise NoAnswer(str(error)) from error
        self._tags = 0
        self._line()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def run(self, command: str, literal: bytes | None = None) -> Answer:
        """One command, with a non-synchronizing literal at its end (RFC 7888) where one is given."""
        self._tags += 1
        tag = f"t{self._tags}".encode()
        octets = tag + b" " + command.encode()
        if literal is not None:
            octets += b" {%d+}\r\n" % len(literal) + literal
        try:
            self._socket.sendall(octets + b"\r\n")
        except OSError as error:
            raise NoAnswer(str(error)) from error
        return self._answer(tag)

    def _answer(self, tag: bytes) -> Answer:
        answer = Answer()
        while True:
            line = self._response()
            if line.startswith(tag + b" "):
                status, _, text = line[len(tag) + 1 :].decode("utf-8", "replace").strip().partition(" ")
                answer.status, answer.text = status.upper(), text
                return answer
            if line.startswith(b"* BYE"):
                raise NoAnswer(line.decode("utf-8", "replace").strip())
            answer.untagged.append(line.removeprefix(b"* "))

    def _response(self) -> bytes:
        """One response, with the literals in it."""
        parts = [self._line()]
        while literal := _LITERAL.search(parts[-1]):
            parts.append(self._octets(int(literal[1])))
            parts.append(self._line())
        return b"".join(parts)

    def _line(self) -> bytes:
        line = self._read(self._file.readline)
        if not line.endswith(b"\r\n"):
            raise NoAnswer("the connection has ended")
        return line

    def _octets(self, count: int) -> bytes:
        octets = self._read(lambda: self._file.read(count))
        if len(octets) < count:
            raise NoAnswer("the connection has ended")
        return octets

    @staticmethod
    def _read(read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except (OSError, ValueError) as error:
            raise NoAnswer(str(error)) from error


@dataclass(frozen=True, slots=True)
class Fetched:
    """A FETCH response."""

    uid: int
    flags: frozenset[str]
    octets: bytes


def fetched(answer: Answer) -> Iterator[Fetched]:
    """The FETCH responses that have a UID; \\Recent is left out, since sessions do not agree on it."""
    for line in answer.untagged:
        if not re.match(rb"\d+ FETCH ", line):
            continue
        head, mark, rest = line.partition(b"}\r\n")
        octets = b""
        if mark:
            length = int(head.rpartition(b"{")[2])
            octets, head = rest[:length], head + rest[length:]
        uid = re.search(rb"\bUID (\d+)", head)
        flags = re.search(rb"\bFLAGS \(([^)]*)\)", head)
        if uid:
            names = flags[1].decode().split() if flags else []
            yield Fetched(int(uid[1]), frozenset(names) - {"\\Recent"}, octets)


def numbers(uid_set: str) -> list[int]:
    """A UID set as a list: 3:5,9 → 3, 4, 5, 9."""
    found: list[int] = []
    for part in uid_set.split(","):
        first, _, last = part.partition(":")
        low, high = sorted((int(first), int(last or first)))
        found += range(low, high + 1)
    return found
