"""Address lists in header fields (RFC 5322 §3.4 and §4.4), read as ENVELOPE wants them (RFC 3501 §7.4.2).

The common forms, `Name <local@host>`, `"Name" <local@host>` and `local@host`, are taken by one pattern each; at the
first address that is anything else a tokeniser reads the rest of the list: groups, comments, quoted strings, routes,
white space and comments around every dot. What is broken is read as RFC 7103 §7.1 advises: excessive or unbalanced
brackets, parentheses and quotes, commas inside brackets, names without an address. Octets above 127 count as letters.

Names, local parts and hosts come out without their quoting and are otherwise as sent: encoded words stay encoded.
A comment serves as the name where there is no other (`gray@cac.example (Terry Gray)`).

Bounds: MAX_OCTETS of a list are read and MAX_ADDRESSES entries kept; linear in the list.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

MAX_OCTETS = 512 * 1024
MAX_ADDRESSES = 10_000


class Address(NamedTuple):
    """One entry of a list.

    host None marks a group: its start where mailbox holds the group's name, its end where mailbox is None too.
    An address without a host has the host b"", so that it is not taken for a group.
    """

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


GROUP_END = Address(None, None, None, None)

_ATOM = rb'[^\x00-\x20\x7f"\\()<>@,:;\[\]]+'
_COMMON = re.compile(
    rb'[ \t]*(?:(?:"([^"\\]*)"|([^\x00-\x1f\x7f"\\()<>@,:;\[\]]*))[ \t]*<(' + _ATOM + rb")@(" + _ATOM + rb")>"
    rb"|(" + _ATOM + rb")@(" + _ATOM + rb"))[ \t]*(?:,|$)"
)
_SPACE_AND_TEXT = rb'(?P<space>[\x00-\x20\x7f]+)|(?P<text>[^\x00-\x20\x7f"\\(<>@,:;\[]+)'
_LITERAL_AND_SPECIAL = rb"(?P<literal>\[[^\[\]]*\])|(?P<special>.)"
_QUOTED = rb'(?P<quoted>"[^"\\]*(?:\\.[^"\\]*)*")'
_TOKEN = re.compile(_SPACE_AND_TEXT + b"|" + _QUOTED + b"|" + _LITERAL_AND_SPECIAL, re.DOTALL)
_TOKEN_NO_QUOTES = re.compile(_SPACE_AND_TEXT + b"|" + _LITERAL_AND_SPECIAL, re.DOTALL)
_COMMENT_PIECE = re.compile(rb"[^()\\]+|\\.|.", re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_RESUME = re.compile(rb"[<,]")

_DOT_STRING = re.compile(r"(?:[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]|[^\x00-\x7f])+")
_AT = b"@"
_Token = tuple[bytes, bool]
"""Its text and whether white space or a comment stood before it."""


def local_part(text: str) -> str:
    """The local part of an entry with the quotes that it needs in SMTP (RFC 5321 §4.1.2); the list came without."""
    if _DOT_STRING.fullmatch(text):
        return text
    return '"{}"'.format(text.replace("\\", "\\\\").replace('"', '\\"'))


def parse(value: bytes) -> list[Address]:
    """The addresses of an unfolded field value, in order."""
    value = value[:MAX_OCTETS]
    found: list[Address] = []
    at, size = 0, len(value)
    match = _COMMON.match
    while at < size and len(found) < MAX_ADDRESSES:
        common = match(value, at)
        if common is None:
            _List(value, found).read(at)
            break
        at = common.end()
        quoted, phrase, local, host, bare_local, bare_host = common.groups()
        if local is None:
            found.append(Address(None, None, bare_local, bare_host))
        else:
            found.append(Address(quoted or b" ".join((phrase or b"").split()) or None, None, local, host))
    return found[:MAX_ADDRESSES]


class _List:
    """The tokeniser and what it has gathered of the present address."""

    __slots__ = (
        *("value", "found", "outer", "inner", "after", "comments", "bracket", "has_at", "in_route"),
        *("in_group", "spaced", "comments_close", "token"),
    )

    def __init__(self, value: bytes, found: list[Address]) -> None:
        self.value = value
        self.found = found
        self.in_group = False
        self.spaced = False
        # A quote or parenthesis that is never closed is looked for once: later ones cannot close either.
        self.token = _TOKEN
        self.comments_close = True
        self.clear()

    def clear(self) -> None:
        self.outer: list[_Token] = []  # before the angle bracket
        self.inner: list[_Token] = []  # inside it
        self.after: list[_Token] = []  # behind it
        self.comments: list[bytes] = []
        self.bracket = ""  # "", "open" or "closed"
        self.has_at = False  # in outer
        self.in_route = False  # inner begins with @ and its colon is still to come

    def read(self, at: int) -> None:
        value, size = self.value, len(self.value)
        while at < size and len(self.found) < MAX_ADDRESSES:
            token = self.token.match(value, at)
            if token is None:  # cannot be: the last alternative takes any octet
                break
            at = token.end()
            kind, text = token.lastgroup, token[0]
            if kind == "space":
                self.spaced = True
            elif kind == "text" or kind == "literal":
                self.word(text)
            elif kind == "quoted":
                self.word(_unquote(text[1:-1]))
            else:
                at = self.special(text, at)
        self.finish()
        if self.in_group:
            self.found.append(GROUP_END)

    def word(self, text: bytes) -> None:
        if not self.bracket:
            self.outer.append((text, self.spaced))
        elif self.bracket == "open":
            self.inner.append((text, self.spaced))
        else:
            self.after.append((text, self.spaced))
        self.spaced = False

    def special(self, char: bytes, at: int) -> int:
        """Acts on one octet that is no word; where to go on."""
        if char == b"(":
            return self.comment(at)
        if char == b'"':  # never closed: it reaches to where an address seems to begin or end (RFC 7103 §7.1.6)
            if self.token is _TOKEN_NO_QUOTES:
                return at
            self.token = _TOKEN_NO_QUOTES
            return self.unclosed(at, self.word)
        if char == b"<":
            if self.bracket == "closed":  # the comma was forgotten
                following = self.after
                self.after = []
                self.finish()
                self.outer = following
            self.bracket = "open"
        elif char == b">":
            if self.bracket == "open":
                self.bracket = "closed"
        elif char == b",":
            if self.in_route:
                self.word(char)
            else:
                self.finish()
        elif char == b";":
            self.finish()
            if self.in_group:
                self.found.append(GROUP_END)
                self.in_group = False
        elif char == b":":
            self.colon()
        elif char == _AT:
            self.at_sign()
        else:
            self.word(char)  # a backslash or bracket that stands alone
        return at

    def at_sign(self) -> None:
        if not self.bracket:
            self.has_at = True
        elif self.bracket == "open" and not self.inner:
            self.in_route = True
        self.word(_AT)

    def colon(self) -> None:
        if self.bracket == "open":
            self.word(b":")
            self.in_route = False
        elif not self.bracket and self.outer and not self.in_group and not self.has_at:
            self.found.append(Address(None, None, _phrase(self.outer), None))
            self.in_group = True
            self.clear()

    def comment(self, at: int) -> int:
        """Past the comment whose parenthesis was just read."""
        self.spaced = True
        end = self.end_of_comment(at) if self.comments_close else 0
        if end:
            self.comments.append(_unquote(self.value[at : end - 1]))
            return end
        self.comments_close = False
        return self.unclosed(at, self.comments.append)

    def end_of_comment(self, at: int) -> int:
        depth = 1
        for piece in _COMMENT_PIECE.finditer(self.value, at):
            octet = piece[0]
            if octet == b"(":
                depth += 1
            elif octet == b")":
                depth -= 1
                if not depth:
                    return piece.end()
        return 0

    def unclosed(self, at: int, take: Callable[[bytes], None]) -> int:
        """Takes what reaches up to the next bracket or comma, or to the end."""
        resume = _RESUME.search(self.value, at)
        end = resume.start() if resume else len(self.value)
        text = self.value[at:end].strip()
        if text:
            take(text)
        return end

    def finish(self) -> None:
        """The present address ends here."""
        if self.bracket:
            self.found.append(self.bracketed())
        elif self.outer:
            self.found.append(self.bare())
        self.clear()
        self.spaced = False

    def bracketed(self) -> Address:
        route, spec = _split_route(self.inner)
        local, host = _local_and_host(spec)
        return Address(_phrase(self.outer) or self.comment_name() or _phrase(self.after), route, local, host)

    def bare(self) -> Address:
        """An address without brackets, a local part alone, or nothing but a name."""
        tokens = self.outer
        places = [index for index, (text, _) in enumerate(tokens) if text == _AT]
        if not places:
            words = _phrase(tokens)
            if any(_parted(tokens, index) for index in range(1, len(tokens))):
                return Address(words, None, b"", b"")
            return Address(self.comment_name(), None, words or b"", b"")
        first = places[-1]
        while first > 0 and not _parted(tokens, first):
            first -= 1
        last = places[-1] + 1
        while last < len(tokens) and not _parted(tokens, last):
            last += 1
        local, host = _local_and_host(tokens[first:last])
        return Address(_phrase(tokens[:first]) or self.comment_name() or _phrase(tokens[last:]), None, local, host)

    def comment_name(self) -> bytes | None:
        return (self.comments[-1].strip() or None) if self.comments else None


def _parted(tokens: list[_Token], index: int) -> bool:
    """Whether white space parts a token from the one before it; around a dot or @ it does not (RFC 5322 §4.4)."""
    text, spaced = tokens[index]
    before = tokens[index - 1][0]
    return spaced and text[:1] not in (b".", _AT) and before[-1:] != b"." and before != _AT


def _phrase(tokens: list[_Token]) -> bytes | None:
    pieces = [b" " + text if spaced and index else text for index, (text, spaced) in enumerate(tokens)]
    return b"".join(pieces) or None


def _split_route(tokens: list[_Token]) -> tuple[bytes | None, list[_Token]]:
    """`@one,@two:` and what follows it (RFC 5322 §4.4, obs-route)."""
    if tokens and tokens[0][0] == _AT:
        for index, (text, _) in enumerate(tokens):
            if text == b":":
                return b"".join(text for text, _ in tokens[:index]), tokens[index + 1 :]
    return None, tokens


def _local_and_host(tokens: list[_Token]) -> tuple[bytes, bytes]:
    """What stands before and behind the last @; without one there is no host."""
    pieces = [b" " + text if index and _parted(tokens, index) else text for index, (text, _) in enumerate(tokens)]
    for index in range(len(tokens) - 1, -1, -1):
        if tokens[index][0] == _AT:
            return b"".join(pieces[:index]), b"".join(pieces[index + 1 :])
    return b"".join(pieces), b""


def _unquote(text: bytes) -> bytes:
    return _QUOTED_PAIR.sub(rb"\1", text) if b"\\" in text else text
