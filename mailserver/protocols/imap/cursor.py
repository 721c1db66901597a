"""A place in a framed command, with methods that read like RFC 3501's grammar (§9).

Two families: `accept…` and `…_if` try and say whether they moved; all else demands, and raises BadSyntax with the
command's tag. A literal stands between two texts, so it is there exactly where a text has come to its end and another
follows; no other method passes that border.
"""

from __future__ import annotations

import re
from typing import NoReturn

from mailserver.protocols.imap.commands import BadSyntax
from mailserver.protocols.imap.sequence_set import SequenceSet
from mailserver.protocols.imap.sequence_set import parse as parse_set

MAX_NUMBER = 0xFFFFFFFF
MAX_MODSEQ = (1 << 63) - 1

_ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_ASTRING = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
_LIST_MAILBOX = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]+')
# RFC 6855 §3: octets above 127 are UTF-8, whether the client has enabled it or not.
_QUOTED = re.compile(rb'"([^"\\\r\n\x00]*(?:\\["\\][^"\\\r\n\x00]*)*)"')
_ESCAPED = re.compile(rb'\\(["\\])')
_NUMBER = re.compile(rb"[0-9]+")
_SET = re.compile(rb"[0-9*:,]+")
_SET_BEGINS = tuple(b"%c" % octet for octet in b"0123456789*")
_REST = re.compile(rb" *\Z")
_WORD = re.compile(rb"[A-Za-z0-9.]+")


class Cursor:
    """Reads the pieces of one command, from left to right."""

    __slots__ = ("_at", "_next", "_pieces", "_text", "tag")

    def __init__(self, pieces: tuple[bytes, ...], tag: str = "*") -> None:
        self._pieces = pieces
        self._text = pieces[0]
        self._at = 0
        self._next = 1
        self.tag = tag

    def fail(self, text: str) -> NoReturn:
        raise BadSyntax(self.tag, text)

    # The ends of things

    @property
    def at_end(self) -> bool:
        """Whether nothing is left. Spaces at the very end are forgiven, as by other servers."""
        return self._next == len(self._pieces) and _REST.match(self._text, self._at) is not None

    def end(self) -> None:
        if not self.at_end:
            self.fail("Unexpected argument")

    def accept(self, token: bytes) -> bool:
        """Passes `token` if it is next, exactly so written."""
        if self._text.startswith(token, self._at):
            self._at += len(token)
            return True
        return False

    def expect(self, token: bytes) -> None:
        if not self.accept(token):
            self.fail(f"Expected {token.decode()!r}")

    def space(self) -> None:
        if not self.accept(b" "):
            self.fail("Missing argument" if self.at_end else "Expected a space")

    def accept_word(self, word: bytes) -> bool:
        """`accept` without regard to case; `word` is in upper case."""
        end = self._at + len(word)
        if self._text[self._at : end].upper() != word:
            return False
        self._at = end
        return True

    def looking_at(self, token: bytes) -> bool:
        return self._text.startswith(token, self._at)

    def looking_at_set(self) -> bool:
        """Whether a set of message numbers is next."""
        return self._text[self._at : self._at + 1] in _SET_BEGINS

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """Passes what `pattern` matches here."""
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match

    # Words and numbers

    def word(self) -> bytes:
        """A run of letters, digits and dots, in upper case: the keywords of FETCH, SEARCH and STATUS; b"" for none."""
        match = self.match(_WORD)
        return match[0].upper() if match else b""

    def atom(self) -> bytes:
        match = self.match(_ATOM)
        if match is None:
            self.fail("Expected an atom")
        return match[0]

    def number(self) -> int:
        match = self.match(_NUMBER)
        if match is None or len(match[0]) > 10 or int(match[0]) > MAX_NUMBER:
            self.fail("Expected a number below 2^32")
        return int(match[0])

    def nz_number(self) -> int:
        return self.number() or self.fail("Expected a number above zero")

    def mod_sequence(self) -> int:
        """A mod-sequence value, or zero (RFC 7162 §7, mod-sequence-valzer)."""
        match = self.match(_NUMBER)
        if match is None or len(match[0]) > 19 or int(match[0]) > MAX_MODSEQ:
            self.fail("Expected a mod-sequence")
        return int(match[0])

    def sequence_set(self) -> SequenceSet:
        match = self.match(_SET)
        if match is None:
            self.fail("Expected a set of message numbers")
        try:
            return parse_set(match[0])
        except ValueError as error:
            self.fail(f"Invalid set: {error}")

    # Strings

    def literal_if(self) -> bytes | None:
        """The literal that is next, any octets, or None."""
        if self._at < len(self._text) or self._next == len(self._pieces):
            return None
        octets = self._pieces[self._next]
        self._text = self._pieces[self._next + 1]
        self._next += 2
        self._at = 0
        return octets

    def string_if(self) -> bytes | None:
        match = self.match(_QUOTED)
        if match is not None:
            if not match[1].isascii():
                self.text(match[1])
            return _ESCAPED.sub(rb"\1", match[1]) if b"\\" in match[1] else match[1]
        octets = self.literal_if()
        if octets is not None and b"\0" in octets:
            self.fail("NUL in a string")
        return octets

    def string(self) -> bytes:
        octets = self.string_if()
        if octets is None:
            self.fail("Expected a string")
        return octets

    def nstring(self) -> bytes | None:
        octets = self.string_if()
        if octets is None and self.atom().upper() != b"NIL":
            self.fail("Expected a string or NIL")
        return octets

    def astring(self) -> bytes:
        return self._string_or(_ASTRING)

    def list_mailbox(self) -> bytes:
        return self._string_or(_LIST_MAILBOX)

    def _string_or(self, atom: re.Pattern[bytes]) -> bytes:
        octets = self.string_if()
        if octets is None:
            match = self.match(atom)
            if match is None:
                self.fail("Missing argument" if self.at_end else "Expected a string")
            octets = match[0]
        return octets

    def text(self, octets: bytes) -> str:
        """`octets` as UTF-8."""
        try:
            return octets.decode()
        except UnicodeDecodeError:
            self.fail("Not UTF-8")
