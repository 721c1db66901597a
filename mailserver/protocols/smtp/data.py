"""The octets of a message on the wire: DATA with its dots (RFC 5321 §4.5.2), BDAT with its counts (RFC 3030 §2).

Octets are taken in as large pieces as they come, and each piece is looked at once by functions that run in C: the end
of data and the doubled dots are found by bytes.find and bytes.replace, line ends are counted. Nothing is done line by
line.

The end of data is CR LF . CR LF and nothing else. A CR or LF that is not part of a CR LF is refused, whatever stands
around it: another server may have taken `LF . LF` for an end or not, and a message that two servers read differently
can smuggle a second one past the first (RFC 5321 §2.3.8, §4.1.1.4). NUL is refused as well. Text behind a fault is
still read to its end, and dropped, so that the dialogue stays in step; the fault is the reply.

A piece never ends inside a sequence that matters: what may be the beginning of one waits for the next piece.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.replies import Reply

END = b"\r\n.\r\n"

SMALL_PIECE = 4096
"""What is kept of a message lies in pieces at least so long, so that the octets are what costs memory."""

_HOP = re.compile(rb"^received[ \t]*:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a message may be at most."""

    message_octets: int
    line_octets: int
    header_octets: int
    header_fields: int
    hops: int


class Body:
    """A message being received: the pieces kept, and the first thing that is wrong with it.

    held: octets in memory. received: octets taken in, those dropped included.
    """

    __slots__ = ("_bounds", "_line", "_pieces", "fault", "held", "received")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._pieces: list[bytes] = []
        self._line = 0  # octets of the line that is not at its end yet
        self.fault: Reply | None = None
        self.held = 0
        self.received = 0

    def refuse(self, fault: Reply) -> None:
        """The message is lost; what is held of it goes, what is still to come will be dropped."""
        self.fault = self.fault or fault
        self._pieces.clear()
        self.held = 0

    def message(self) -> bytes | Reply:
        """The octets, once all are there; or what is wrong with them."""
        if self.fault is not None:
            return self.fault
        message = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        return _header_fault(message, self._bounds) or message

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        if self._pieces and len(self._pieces[-1]) < SMALL_PIECE:
            self._pieces[-1] += piece
        else:
            self._pieces.append(piece)
        self.held += len(piece)
        if self.held > self._bounds.message_octets:
            self.refuse(replies.TOO_BIG)

    def _inspect(self, piece: bytes) -> None:
        """Line ends, line lengths and NUL; `piece` never splits a CR LF."""
        if not _all_crlf(piece):
            self.refuse(replies.BARE_NEWLINE)
        elif b"\0" in piece:
            self.refuse(replies.HAS_NUL)
        elif self._line + len(piece) > self._bounds.line_octets:
            self._measure(piece)
        else:
            last = piece.rfind(b"\n")
            self._line = self._line + len(piece) if last < 0 else len(piece) - last - 1

    def _measure(self, piece: bytes) -> None:
        """Is any line too long? Looks back from where the longest line would end, so most line ends are skipped."""
        longest = self._bounds.line_octets
        begin = -self._line
        while begin + longest < len(piece):
            end = piece.rfind(b"\n", max(begin, 0), begin + longest)
            if end < 0:
                self.refuse(replies.MESSAGE_LINE_TOO_LONG)
                return
            begin = end + 1
        last = piece.rfind(b"\n")
        self._line = self._line + len(piece) if last < 0 else len(piece) - last - 1


class DataBody(Body):
    """What follows the 354 to DATA."""

    __slots__ = ("_carry", "_first")

    most: Final = None
    """How much of what has come may belong to it: any of it."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds)
        # The text begins at the beginning of a line, as if a CR LF stood before it.
        self._carry = b"\r\n"
        self._first = True

    def feed(self, data: bytes) -> bytes | None:
        """None while the end has not come; else what stands behind it."""
        self.received += len(data)
        if self._carry:
            data = self._carry + data
        # One look for a dot says that there is neither an end nor a doubled dot, as in most pieces of an attachment.
        dot = data.find(b"\r\n.") if b"." in data else -1
        end = data.find(END, dot) if dot >= 0 else -1
        if end >= 0:
            self._take(data[: end + 2], dotted=dot < end)
            return data[end + 5 :]
        keep = _unfinished(data)
        self._carry = data[len(data) - keep :]
        if keep < len(data):
            self._take(data[:-keep] if keep else data, dotted=dot >= 0)
        return None

    def _take(self, piece: bytes, *, dotted: bool) -> None:
        if self.fault is not None:
            return
        self._inspect(piece)
        if self.fault is None:
            # RFC 5321 §4.5.2: a leading dot was added by the sender; remove one.
            text = piece.replace(b"\r\n.", b"\r\n") if dotted else piece
            self._keep(text[2:] if self._first else text)
            self._first = False


class ChunkedBody(Body):
    """What follows BDAT commands, one chunk after the other."""

    __slots__ = ("_cr", "most")

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds)
        self.most = 0  # octets of the chunk that are still to come
        self._cr = False

    def begin(self, size: int) -> None:
        """The next so many octets are a chunk."""
        self.most = size
        if self.held + size > self._bounds.message_octets:
            self.refuse(replies.TOO_BIG)

    def feed(self, data: bytes) -> bytes | None:
        """None while octets of the chunk are missing; else what stands behind it."""
        chunk, rest = (data, b"") if len(data) <= self.most else (data[: self.most], data[self.most :])
        self.most -= len(chunk)
        self.received += len(chunk)
        if chunk and self.fault is None:
            self._take(chunk)
        return None if self.most else rest

    def finish(self) -> None:
        """The last chunk is there."""
        if self._cr:
            self.refuse(replies.BARE_NEWLINE)

    def _take(self, piece: bytes) -> None:
        if self._cr:
            piece = b"\r" + piece
        self._cr = piece.endswith(b"\r")
        if self._cr:
            piece = piece[:-1]
        if piece:
            self._inspect(piece)
        if self.fault is None:
            self._keep(piece)


def _all_crlf(piece: bytes) -> bool:
    """Does every line end in CR LF, and is there no other CR or LF? Then each line end is two octets long.

    splitlines() ends a line at a CR, a LF and a CR LF. It costs half of counting those.
    """
    if piece[-1] == 13:
        return False  # the octet behind it, kept for the next piece, is a CR too
    lines = piece.splitlines()
    ends = len(lines) if piece[-1] == 10 else len(lines) - 1
    return sum(map(len, lines)) + 2 * ends == len(piece)


def _unfinished(data: bytes) -> int:
    """How many octets at the end may be the beginning of the end of data."""
    if data[-1:] not in (b"\r", b"\n", b"."):
        return 0
    for length in (4, 3, 2, 1):
        if data.endswith(END[:length]):
            return length
    return 0


def _header_fault(message: bytes, bounds: Bounds) -> Reply | None:
    end = 0 if message.startswith(b"\r\n") else message.find(b"\r\n\r\n", 0, bounds.header_octets + 2)
    if end < 0:
        if len(message) > bounds.header_octets:
            return replies.HEADER_TOO_BIG
        end = len(message)
    header = message[: end + 2]
    lines = header.count(b"\n")
    # Each line that does not begin with a blank begins a field (RFC 5322 §2.2.3).
    most = bounds.header_fields
    if lines > most and lines - header.count(b"\n ") - header.count(b"\n\t") > most:
        return replies.TOO_MANY_FIELDS
    if lines >= bounds.hops and len(_HOP.findall(header)) >= bounds.hops:
        return replies.LOOP
    return None
