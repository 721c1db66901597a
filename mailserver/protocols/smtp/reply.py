"""What a server answers, read off the wire (RFC 5321 §4.2).

A reply is one line or several; in each but the last a hyphen follows the code, and the codes agree (§4.2.1). Only the
code decides anything, so text is taken as it comes: any octets, or none at all. A line may end in a LF alone. What is
no reply, and what is longer than any reply need be, is `BadReply`: the stream cannot be trusted any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LINE = 4096
"""Octets of a line, its end not counted. RFC 5321 §4.5.3.1.5 asks for 512; extensions allow more."""

MAX_LINES = 512
MAX_REPLY = 65_536
"""Octets of all lines of a reply with their ends, each counted as two."""

MAX_TEXT = 1000

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?\Z", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\s|\Z)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    """A code from 200 to 599, and the text of each line without it. The text is the server's, whatever it holds."""

    code: int
    lines: tuple[str, ...]

    @property
    def enhanced(self) -> str:
        """The status code of RFC 3463 that the text begins with; "" where there is none, or one of another class."""
        for line in self.lines:
            match = _ENHANCED.match(line)
            if match and match[1][0] == str(self.code)[0]:
                return match[1]
        return ""

    @property
    def text(self) -> str:
        """The lines as one, without the enhanced code (RFC 2034 §4 repeats it in each): printable, and not long."""
        enhanced = self.enhanced
        texts = (_without(enhanced, line).strip() for line in self.lines)
        text = " ".join(text for text in texts if text)[:MAX_TEXT].replace("\t", " ")
        return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)

    @property
    def is_positive(self) -> bool:
        return self.code // 100 == 2

    @property
    def is_intermediate(self) -> bool:
        return self.code // 100 == 3

    @property
    def is_transient(self) -> bool:
        return self.code // 100 == 4

    @property
    def is_permanent(self) -> bool:
        return self.code // 100 == 5


def _without(enhanced: str, line: str) -> str:
    match = _ENHANCED.match(line) if enhanced else None
    return line[match.end(1) :] if match and match[1] == enhanced else line


class BadReply(ValueError):
    """What came is no reply. replies: the whole ones before it, which stand."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.replies: list[Reply] = []


class ReplyReader:
    """The replies of one connection. After a BadReply it is of no further use."""

    __slots__ = ("_buffer", "_code", "_lines", "_octets")

    def __init__(self) -> None:
        self._buffer = b""
        self._begin()

    def _begin(self) -> None:
        self._code = b""
        self._lines: list[str] = []
        self._octets = 0

    @property
    def pending(self) -> bool:
        """Whether a part of a reply has come."""
        return bool(self._buffer or self._lines)

    def feed(self, data: bytes) -> list[Reply]:
        """The replies that are whole now, in the order in which they came. Raises BadReply."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        replies: list[Reply] = []
        try:
            for line in lines:
                if self._is_last(line.removesuffix(b"\r")):
                    replies.append(Reply(int(self._code), tuple(self._lines)))
                    self._begin()
            if len(self._buffer) > MAX_LINE + 1:  # a CR may be the first half of the line's end
                raise BadReply("a line of the reply is too long")
        except BadReply as bad:
            bad.replies = replies
            raise
        return replies

    def _is_last(self, line: bytes) -> bool:
        """Takes a line of the reply. Is it the last one?"""
        if len(line) > MAX_LINE:
            raise BadReply("a line of the reply is too long")
        match = _LINE.match(line)
        if match is None:
            raise BadReply("a line does not begin with a reply code")
        code, separator, text = match.groups()
        if self._lines and code != self._code:
            raise BadReply("the lines of the reply have different codes")
        self._code = code
        self._lines.append((text or b"").decode("utf-8", "replace"))
        self._octets += len(line) + 2
        if len(self._lines) > MAX_LINES or self._octets > MAX_REPLY:
            raise BadReply("the reply is too long")
        return bool(separator != b"-")
