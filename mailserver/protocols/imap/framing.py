"""Octets in, whole commands out: lines and literals, before any grammar (RFC 3501 §4.3, RFC 7888).

A command is a line; where the line ends in `{n}` or `{n+}`, n octets follow, then the next line of the same command,
and so on. That rule alone decides what is a literal. It holds for every command, known or not, right or wrong, accepted
or not, so the octets of a literal are never taken for commands and a session stays in step whatever it is sent.

The driver feeds what it received and pulls events one by one, finishing each before it asks for the next: what a
command changes (login, limits, `expect_line`) then holds for the next one even if that was pipelined.

    framer.feed(b"a1 LOGIN {3}\\r\\n")
    framer.next_event() == Continue(3, "a1")               # answer "+ ", or call framer.refuse()
    framer.feed(b"ann {6+}\\r\\nsecret\\r\\n")
    framer.next_event() == Framed((b"a1 LOGIN ", b"ann", b" ", b"secret", b""))

Bounds. A command's lines and literals together keep within `Limits.command`, each literal counting somewhat more than
its octets; only the message of an APPEND is counted apart, against `Limits.append`. What is too large is refused with a
tag: a synchronising literal at once, since the client waits and will not send it; anything else is skipped, holding
none of it, up to `Limits.skip` octets a command, and refused at the command's end. Beyond that the stream is given up:
`Fatal`, answer BYE and close.

`buffered` says how many octets wait to be pulled: a driver with much there stops reading. Work is linear in the octets
however they are cut: each is looked at once, and large literals go to their place without passing the buffer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO

_LITERAL = re.compile(rb"\{([0-9]+)(\+?)\}\Z")
_TAIL = 64
"""How much of a skipped line is remembered, so that a literal announced at its end is still seen."""
_MAX_DIGITS = 20
_TAG = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\+]{1,128}\Z")
_APPEND = re.compile(rb"[^ ]+ APPEND ", re.IGNORECASE)
_LITERAL_COST = 64
"""What a literal counts besides its octets and its announcement, about what is held for it."""
_SKIPPED_LITERALS = 4096
"""A refused command has no more literals than this: each counts for at least such a part of what may be skipped."""
_HEAD = 256
"""How much of a command's text is looked at, and kept if it is refused, for its tag."""


@dataclass(slots=True)
class Limits:
    """Octets. append is 0 until the client may append at all: then every literal counts as command text."""

    command: int = 65_536
    append: int = 0
    skip: int = 100 << 20


@dataclass(frozen=True, slots=True)
class Framed:
    """A whole command: text and literals by turns, text first and last. The text has no `{n}` and no line ends."""

    pieces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """The line that `expect_line` asked for, without its end."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Continue:
    """The client waits for leave to send a literal of so many octets."""

    octets: int
    tag: str


@dataclass(frozen=True, slots=True)
class TooBig:
    """A literal over its limit: answer `tag NO [TOOBIG]`. The session is in step."""

    tag: str


@dataclass(frozen=True, slots=True)
class TooLong:
    """A command's or line's text over its limit: answer BAD. The session is in step."""

    tag: str


@dataclass(frozen=True, slots=True)
class Fatal:
    """More than may be skipped: answer BYE and close. No event follows."""

    text: str


Event = Framed | Line | Continue | TooBig | TooLong | Fatal


def tag_of(text: bytes) -> str:
    """The tag that a command's text begins with, "*" where there is none that may be repeated in an answer."""
    match = _TAG.match(text[:_HEAD].split(b" ", 1)[0])
    return match[0].decode() if match else "*"


class Framer:
    """The framing of one connection."""

    __slots__ = (
        "_appended",
        "_buffer",
        "_failure",
        "_fatal",
        "_head",
        "_left",
        "_literal",
        "_pieces",
        "_raw",
        "_scanned",
        "_skipped",
        "_text",
        "limits",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._buffer = bytearray()
        self._scanned = 0
        self._raw = 0
        self._fatal = False
        self._begin()

    def _begin(self) -> None:
        """Forgets the command: the next octet begins another."""
        self._pieces: list[bytes] = []
        self._text = 0
        self._appended = 0
        self._literal: BytesIO | None = None
        self._left = 0
        self._failure: type[TooBig] | type[TooLong] | None = None
        self._head = b""
        self._skipped = 0

    # What the driver calls

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Takes what was received; the caller may use its buffer again at once."""
        if self._fatal:
            return
        if self._left and not self._buffer:
            taken = min(self._left, len(data))
            with memoryview(data) as view:
                self._take_literal(view[:taken])
                self._buffer += view[taken:]
        else:
            self._buffer += data

    def next_event(self) -> Event | None:
        """The next event; None until more is fed."""
        while not self._fatal:
            self._literal_from_buffer()
            if self._left:
                return None
            if self._literal is not None:
                self._pieces.append(self._literal.getvalue())
                self._literal = None
            line = self._next_line()
            if line is None:
                return Fatal("Too much to skip") if self._fatal else None
            event = self._line(line)
            if event is not None:
                return event
        return None

    def expect_line(self, limit: int) -> None:
        """The next octets are no command but one line: a SASL response, or the DONE of IDLE."""
        self._raw = limit

    def refuse(self) -> None:
        """In answer to Continue: the literal will not be read and the command is over. Answer it with NO."""
        self._begin()

    def clear(self) -> None:
        """Forgets what was fed: octets sent in clear behind STARTTLS came from anyone (RFC 3501 §6.2.1)."""
        self._buffer.clear()
        self._scanned = 0
        self._raw = 0
        self._begin()

    @property
    def buffered(self) -> int:
        """How many octets were fed and not yet pulled."""
        return len(self._buffer)

    @property
    def held(self) -> int:
        """How many octets the unfinished command holds besides, literals included."""
        return self._text + self._appended - (self._left if self._literal is not None else 0)

    # Lines

    def _next_line(self) -> bytes | None:
        """A line without its end; None where it is not complete, or where skipping went too far."""
        buffer = self._buffer
        end = buffer.find(b"\n", self._scanned)
        length = end if end >= 0 else len(buffer)
        # A CR may yet turn out to be half of the line's end.
        text = length - buffer.endswith(b"\r", 0, length)
        if text > (self._raw or self.limits.command - self._text):
            self._fail(TooLong, buffer)
        if end < 0:
            self._shorten()
            self._scanned = len(buffer)
            return None
        if self._failure is not None and not self._skip(end):
            return None
        line = bytes(buffer[: end - 1 if end and buffer[end - 1] == 13 else end])
        del buffer[: end + 1]
        self._scanned = 0
        return line

    def _shorten(self) -> None:
        """Of a line that will be refused and is not complete only the end is kept."""
        gone = len(self._buffer) - _TAIL
        if self._failure is not None and gone > 0 and self._skip(gone):
            del self._buffer[:gone]

    def _line(self, line: bytes) -> Event | None:
        """What a line that came to its end means."""
        if self._raw:
            self._raw = 0
            failed = self._failure is not None
            self._begin()
            return TooLong("*") if failed else Line(line)
        match = _LITERAL.match(line, max(line.rfind(b"{"), 0))
        if match is None:
            return self._end(line)
        if self._failure is None:
            self._text += len(line) + _LITERAL_COST  # so empty literals are not endless either
        return self._announced(line[: match.start()], _number(match[1]), synchronising=not match[2])

    def _end(self, line: bytes) -> Event:
        failure, head = self._failure, self._head
        pieces = (*self._pieces, line)
        self._begin()
        return Framed(pieces) if failure is None else failure(tag_of(head))

    # Literals

    def _announced(self, text: bytes, octets: int, *, synchronising: bool) -> Event | None:
        if self._failure is None and not self._fits(text, octets):
            self._fail(TooBig, text)
        if self._failure is not None:
            return self._announced_in_vain(octets, synchronising=synchronising)
        self._pieces.append(text)
        self._left = octets
        self._literal = BytesIO()
        return Continue(octets, tag_of(self._pieces[0])) if synchronising else None

    def _fits(self, text: bytes, octets: int) -> bool:
        """Whether the literal keeps within its bound; counts it if so."""
        if self.limits.append and self._is_message(text):
            if self._appended + octets > self.limits.append:
                return False
            self._appended += octets
            return True
        if self._text + octets > self.limits.command:
            return False
        self._text += octets
        return True

    def _is_message(self, text: bytes) -> bool:
        """Whether the literal after `text` is an APPEND's, and not its first argument, which is the mailbox."""
        match = _APPEND.match(self._pieces[0] if self._pieces else text)
        return match is not None and (bool(self._pieces) or len(text) > match.end())

    def _announced_in_vain(self, octets: int, *, synchronising: bool) -> Event | None:
        """A literal that is too large, or one of a command that is refused already."""
        if synchronising:
            # The client waits for "+" and gets its answer instead: it sends no literal, and the command is over.
            return self._end(b"")
        if not self._skip(max(octets, self.limits.skip // _SKIPPED_LITERALS)):
            return Fatal("Too much to skip")
        self._left = octets
        return None

    def _literal_from_buffer(self) -> None:
        taken = min(self._left, len(self._buffer))
        if taken:
            with memoryview(self._buffer) as view, view[:taken] as part:
                self._take_literal(part)
            del self._buffer[:taken]

    def _take_literal(self, part: memoryview) -> None:
        if self._literal is not None:
            self._literal.write(part)
        self._left -= len(part)

    # Refusals

    def _fail(self, failure: type[TooBig] | type[TooLong], text: bytes | bytearray) -> None:
        """The command will be refused: lets go of what it holds, but for the beginning, where its tag is."""
        if self._failure is None:
            self._failure = failure
            self._head = bytes((self._pieces[0] if self._pieces else text)[:_HEAD])
            self._pieces = []
            self._text = self._appended = 0

    def _skip(self, octets: int) -> bool:
        """Counts octets that are passed over; False once they are too many."""
        self._skipped += octets
        if self._skipped > self.limits.skip:
            self._fatal = True
            self._buffer.clear()
            self._begin()
        return not self._fatal


def _number(digits: bytes) -> int:
    """A literal's size. The digits are as many as the client liked; beyond any limit the value does not matter."""
    digits = digits.lstrip(b"0")
    return int(digits or b"0") if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS
