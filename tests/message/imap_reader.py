"""A strict reader of IMAP text, written from RFC 3501 §9 alone: what it accepts, any client must.

Values come out as None (NIL), bytes (strings, however they were written), int and tuple. `envelope` and `body` demand
the grammar of their names and raise Malformed with the place where it was broken.
"""

from __future__ import annotations

import re
from typing import Any


class Malformed(AssertionError):
    pass


class Reader:
    def __init__(self, text: bytes) -> None:
        self.text = text
        self.at = 0

    def fail(self, wanted: str) -> Malformed:
        before = self.text[max(0, self.at - 60) : self.at]
        return Malformed(f"{wanted} wanted behind {before!r}, found {self.text[self.at : self.at + 60]!r}")

    def accept(self, octets: bytes) -> bool:
        if self.text.startswith(octets, self.at):
            self.at += len(octets)
            return True
        return False

    def expect(self, octets: bytes) -> None:
        if not self.accept(octets):
            raise self.fail(repr(octets))

    def string(self) -> bytes:
        found = re.compile(rb'"((?:[\x01-\x09\x0b\x0c\x0e-\x21\x23-\x5b\x5d-\x7f]|\\["\\])*)"').match(
            self.text, self.at
        )
        if found:
            self.at = found.end()
            return re.sub(rb"\\(.)", rb"\1", found[1])
        found = re.compile(rb"\{(0|[1-9]\d*)\}\r\n").match(self.text, self.at)
        if not found:
            raise self.fail("a string")
        start, self.at = found.end(), found.end() + int(found[1])
        value = self.text[start : self.at]
        if len(value) != int(found[1]) or b"\0" in value:
            raise self.fail("a literal of CHAR8")
        return value

    def nstring(self) -> bytes | None:
        return None if self.accept(b"NIL") else self.string()

    def number(self) -> int:
        found = re.compile(rb"0|[1-9]\d*").match(self.text, self.at)
        if not found:
            raise self.fail("a number")
        self.at = found.end()
        return int(found[0])

    def sequence(self, *readers: Any) -> tuple[Any, ...]:
        values = []
        for index, reader in enumerate(readers):
            if index:
                self.expect(b" ")
            values.append(reader())
        return tuple(values)

    def address(self) -> tuple[Any, ...]:
        self.expect(b"(")
        value = self.sequence(self.nstring, self.nstring, self.nstring, self.nstring)
        self.expect(b")")
        return value

    def addresses(self) -> tuple[Any, ...] | None:
        if self.accept(b"NIL"):
            return None
        self.expect(b"(")
        values = [self.address()]
        while not self.accept(b")"):
            values.append(self.address())
        return tuple(values)

    def envelope(self) -> tuple[Any, ...]:
        self.expect(b"(")
        lists = (self.addresses,) * 6
        value = self.sequence(self.nstring, self.nstring, *lists, self.nstring, self.nstring)
        self.expect(b")")
        return value

    def params(self) -> tuple[bytes, ...] | None:
        if self.accept(b"NIL"):
            return None
        self.expect(b"(")
        values = [self.string()]
        self.expect(b" ")
        values.append(self.string())
        while self.accept(b" "):
            values.append(self.string())
            self.expect(b" ")
            values.append(self.string())
        self.expect(b")")
        return tuple(values)

    def disposition(self) -> tuple[Any, ...] | None:
        if self.accept(b"NIL"):
            return None
        self.expect(b"(")
        value = self.sequence(self.string, self.params)
        self.expect(b")")
        return value

    def language(self) -> Any:
        if not self.accept(b"("):
            return self.nstring()
        values = [self.string()]
        while self.accept(b" "):
            values.append(self.string())
        self.expect(b")")
        return tuple(values)

    def body(self, extended: bool, shown: bool) -> tuple[Any, ...]:
        """extended: there is extension data; shown: in the result too."""
        self.expect(b"(")
        value: tuple[Any, ...]
        extension: tuple[Any, ...]
        if self.text.startswith(b"(", self.at):
            parts = []
            while self.text.startswith(b"(", self.at):
                parts.append(self.body(extended, shown))
            self.expect(b" ")
            value = (*parts, self.string())
            extension = (self.params, self.disposition, self.language, self.nstring)
        else:
            fields = (self.string, self.string, self.params, self.nstring, self.nstring, self.string, self.number)
            value = self.sequence(*fields)
            kind, subtype = value[0].lower(), value[1].lower()
            if kind == b"text":
                self.expect(b" ")
                value += (self.number(),)
            elif (kind, subtype) == (b"message", b"rfc822"):
                self.expect(b" ")
                value += self.sequence(self.envelope, lambda: self.body(extended, shown), self.number)
            elif kind == b"multipart":
                raise self.fail("at least one body in a multipart")
            extension = (self.nstring, self.disposition, self.language, self.nstring)
        if extended:
            self.expect(b" ")
            data = self.sequence(*extension)
            value += data if shown else ()
        self.expect(b")")
        return value


def envelope(text: bytes) -> tuple[Any, ...]:
    reader = Reader(text)
    value = reader.envelope()
    assert reader.at == len(text), "something follows the envelope"
    return value


def body(text: bytes, *, extended: bool = True, shown: bool = True) -> tuple[Any, ...]:
    """What BODYSTRUCTURE says, or BODY, which is not extended; shown: the extension data too."""
    reader = Reader(text)
    value = reader.body(extended, shown)
    assert reader.at == len(text), "something follows the body structure"
    return value
