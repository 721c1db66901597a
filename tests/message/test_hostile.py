"""Bombs: everything that is done with a message when it comes in or is searched, within a bound of CPU time and size.

A third of a megabyte each; a quadratic step anywhere would take minutes. The bound is wide: a busy machine holds it.
"""

from __future__ import annotations

from time import process_time

import pytest

from mailserver.delivery import take_apart
from mailserver.message import bodystructure, decode, edit, headers, structure, summary
from storage import base64_lines, layout

SIZE = 300_000
SECONDS = 4.0

MIXED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
DEEP = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(100)) + b"\r\n"


def text(kind: bytes, unit: bytes | str) -> bytes:
    return filled(b"Content-Type: text/" + kind + b"\r\n\r\n", unit)


def filled(head: bytes, unit: bytes | str, tail: bytes = b"") -> bytes:
    octets = unit.encode() if isinstance(unit, str) else unit
    return head + octets * (SIZE // len(octets)) + tail


BOMBS = {
    "parts without anything": filled(MIXED, b"--b\r\n"),
    "parts": filled(MIXED, b"--b\r\n\r\nx\r\n"),
    "near misses": filled(MIXED, b"--bx\n"),
    "deep, then text": filled(DEEP, b"text\r\n"),
    "deep, then delimiters": filled(DEEP, b"\r\n--b99"),
    "deep, then near misses": filled(DEEP, b"\n--b1x"),
    "messages in messages": filled(b"", b"Content-Type: message/rfc822\r\n\r\n"),
    "messages in messages, then text": filled(b"Content-Type: message/rfc822\r\n\r\n" * 100, b"\n\n"),
    "header lines": filled(b"", b"x\n"),
    "header fields": filled(b"", b"To:\n"),
    "continuations": filled(b"Subject: a", b"\r\n "),
    "no line end": filled(b"Subject: ", b"x"),
    "headers of parts": filled(MIXED, b"--b\n" + b"to:\n" * 500),
    "addresses": filled(b"To: ", b"user <user@example.com>,\r\n ", b"\r\n\r\n"),
    "address fields": filled(b"", b"To: user <user@example.com>\r\n"),
    "routes": filled(b"To: ", b"<@,", b"\r\n\r\n"),
    "parentheses": filled(b"To: ", b"(", b"\r\n\r\n"),
    "comments": filled(b"To: ", b"()", b"\r\n\r\n"),
    "quotes": filled(b'To: "', b'\\",', b"\r\n\r\n"),
    "colons": filled(b"To: ", b"a ", b"@" + b":" * SIZE + b"\r\n\r\n"),
    "brackets": filled(b"To: ", b"[", b"\r\n\r\n"),
    "addresses in messages": filled(MIXED, b"--b\nContent-Type: message/rfc822\n\nFrom: " + b"<@," * 3000 + b"\n\n"),
    "parameters": filled(b"Content-Type: text/plain", b"; a=b", b"\r\n\r\n"),
    "parameters without values": filled(b"Content-Type: text/plain", b";a", b"\r\n\r\n"),
    "comments in types": filled(b"Content-Type: text/plain", b"(", b"\r\n\r\n"),
    "quotes in types": filled(b"Content-Type: text/plain; a=", b'"\\', b"\r\n\r\n"),
    "languages": filled(b"Content-Language: ", b"a,", b"\r\n\r\n"),
    "encoded words": filled(b"Subject: ", b"=?utf-8?q?=C3=A9?= ", b"\r\n\r\n"),
    "encoded words never closed": filled(b"Subject: ", b"=?a?q?", b"\r\n\r\n"),
    "encoded words of all charsets": b"Subject: " + b"".join(b"=?x%d?q?a?= " % n for n in range(35_000)) + b"\r\n\r\n",
    "encoded words in UTF-7": filled(b"Subject: ", b"=?utf-7?q?+2AA-?= ", b"\r\n\r\n"),
    "references": b"References: " + b"".join(b"<%d@b> " % n for n in range(45_000)) + b"\r\n\r\n",
    "brackets in references": filled(b"References: ", b"<a", b"\r\n\r\n"),
    "a date of spaces": filled(b"Date: ", b" ", b"\r\n\r\n"),
    "tags": text(b"html", b"<"),
    "tags never closed": text(b"html", b"<a "),
    "comments never closed": text(b"html", b"<!--"),
    "empty comments": text(b"html", b"<!---->"),
    "styles": text(b"html", b"<style></style>"),
    "styles never closed": text(b"html", b"<style>"),
    "entities": text(b"html", b"&notin"),
    "an entity": text(b"html\r\n\r\n&#", b"1"),
    "attributes": text(b'html\r\n\r\n<a href="', b' href="'),
    "padding": text(b"plain\r\nContent-Transfer-Encoding: base64", b"QUE="),
    "soft breaks": text(b"plain\r\nContent-Transfer-Encoding: quoted-printable", b"=\r\n"),
    "uuencode": text(b"plain\r\nContent-Transfer-Encoding: x-uuencode", b"M\n"),
    "UTF-7": text(b"plain; charset=utf-7", b"\xff"),
    "a table with holes": text(b"plain; charset=windows-1253", b"\xaa"),
    "escapes": text(b"plain; charset=iso-2022-jp", b"\x1b$B\xff"),
    "marks": text(b"plain; charset=utf-8", "\u0301\u0323"),
    "ligatures": text(b"plain; charset=utf-8", "\ufdfa"),
    "squares": text(b"plain; charset=utf-8", "\u3300 "),
    "base64": b"Content-Transfer-Encoding: base64\r\n\r\n" + base64_lines.encode(bytes(SIZE)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(name: str) -> None:
    octets = BOMBS[name]
    start = process_time()
    tree = structure.parse(octets)
    made = summary.summarize(octets, tree, arrived=1)
    bodystructure.without_extensions(made.bodystructure)
    split = take_apart.split(octets, tree, 65_536)
    assert b"".join(layout.rebuild(split.layout, split.front, b"".join(split.inline), split.blobs)) == octets
    found = decode.searchable(octets, tree)
    headers.select(octets[: tree.header_end], frozenset((b"to",)))
    edit.submission(octets, date=0, message_id=b"<x>", sender=b"x@y")
    assert process_time() - start < SECONDS
    assert len(made.envelope) + len(made.bodystructure) < 4 * len(octets) + 1000
    assert len(found.header) + len(found.body) < 4 * len(octets) + 1000
