"""Bombs: everything that is done with a message when it comes in or is searched, within a bound of CPU time and size.

A third of a megabyte each, some of them more; a quadratic step anywhere would take minutes. The bound is wide: a busy
machine holds it.
"""

from __future__ import annotations

from itertools import chain
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.delivery import take_apart
from mailserver.message import bodystructure, dates, decode, edit, headers, structure, summary
from storage import base64_lines, layout
from tests.message import imap_reader
from tests.message.messages import SETTINGS, soup

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


MANY = 100_000
LARGE = {
    "header fields": b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(MANY)) + b"\r\n",
    "one header field": b"Subject: " + b"x y " * 2_500_000 + b"\r\n\r\n",
    "one header field of address": b"To: " + b"\xc3\xbc <a@x.example>, " * MANY + b"\r\n\r\n",
    "parts": MIXED + b"".join(b"--b\r\nContent-ID: <%d>\r\n\r\n%d\r\n" % (n, n) for n in range(MANY)),
    "multiparts in multiparts": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(10_000)
    ),
    "messages in messages": b"Content-Type: message/rfc822\r\n\r\n" * 10_000,
    "encoded words": b"Subject: " + b"=?utf-8?b?w7w=?=\r\n " * MANY + b"\r\n\r\n",
    "parameters": b"Content-Type: a/b" + b"".join(b";\r\n p%d=%d" % (n, n) for n in range(MANY)) + b"\r\n\r\n",
    "sections of a parameter": b"Content-Disposition: attachment"
    + b"".join(b"; name*%d*=%%41" % n for n in range(MANY))
    + b"\r\n\r\n",
    "groups": b"To: " + b"G:a@x.example;, " * MANY + b"\r\n\r\n",
    "nested comments": b"To: " + b"(" * MANY + b")" * MANY + b" a@x.example\r\nDate: " + b"(" * MANY + b"\r\n\r\n",
    "addresses of messages": MIXED + (b"--b\nContent-Type: message/rfc822\n\nFrom: " + b"a," * 5000 + b"\n\n") * 60,
}
SUMMARY_OCTETS = 16 * 1024 * 1024
"""More than the bounds of structure.py, summary.py and imap_text.py add up to."""


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(name: str) -> None:
    octets = BOMBS[name]
    made = everything(octets)
    assert len(made.envelope) + len(made.bodystructure) < 4 * len(octets) + 1000


@pytest.mark.parametrize("name", LARGE)
def test_large_bomb(name: str) -> None:
    made = everything(LARGE[name], 3 * SECONDS)
    assert len(made.envelope) + len(made.bodystructure) < SUMMARY_OCTETS


def everything(octets: bytes, seconds: float = SECONDS) -> summary.Summary:
    """All that is done with a message, within so much CPU time."""
    start = process_time()
    tree = structure.parse(octets)
    made = summary.summarize(octets, tree, arrived=1)
    bodystructure.without_extensions(made.bodystructure)
    split = take_apart.split(octets, tree, 65_536)
    assert b"".join(layout.rebuild(split.layout, split.front, b"".join(split.inline), split.blobs)) == octets
    found = sum(map(len, chain(decode.header_texts(octets, tree), decode.body_texts(octets, tree))))
    headers.select(octets[: tree.header_end], frozenset((b"to",)))
    edit.submission(octets, date=0, message_id=b"<x>", sender=b"x@y")
    assert process_time() - start < seconds
    assert found < 4 * len(octets) + 1000
    return made


@SETTINGS
@given(soup, st.integers(1, 200))
def test_any_octets_are_taken(octets: bytes, threshold: int) -> None:
    """Never an error, offsets in bounds, the octets come back, and strict readers can read what is told of them."""
    made = everything(octets)
    imap_reader.envelope(made.envelope)
    imap_reader.body(made.bodystructure)
    tree = structure.parse(octets)
    assert structure.unpack(made.parts, len(octets), made.header_octets).end == len(octets)
    stack = [tree]
    while stack:
        part = stack.pop()
        inside = [*part.children, *([part.message] if part.message else [])]
        assert 0 <= part.start <= part.header_end <= part.end <= len(octets)
        assert all(part.header_end <= inner.start and inner.end <= part.end for inner in inside)
        stack += inside
    split = take_apart.split(octets, tree, threshold)
    assert b"".join(layout.rebuild(split.layout, split.front, b"".join(split.inline), split.blobs)) == octets
    spans = layout.spans(split.layout, len(split.front))
    assert [span.start for span in spans] == [0, *[span.stop for span in spans[:-1]]][: len(spans)]


DATES = st.lists(
    st.sampled_from(
        [
            *(b"Mon", b"Mon,", b",", b"31", b"29", b"0", b"Feb", b"Dec", b"1900", b"99", b"99999", b"-", b"+", b":"),
            *(
                b"23:59:60",
                b"24:00",
                b"1:1:1.5",
                b"+0000",
                b"-9999",
                b"+24:00",
                b"GMT",
                b"Z",
                b"EST",
                b"(",
                b")",
                b"\\",
            ),
            *(
                b" ",
                b"\t",
                b"\0",
                b"\xff",
                "\u0661".encode(),
                b"(a (b)",
                b"1 Jan 2024 00:00:00",
                b"Jan  1 00:00:00 2024",
            ),
        ]
    ),
    max_size=12,
)


@SETTINGS
@given(st.one_of(DATES.map(b" ".join), DATES.map(b"".join), st.binary(max_size=40)))
def test_any_date_is_read(value: bytes) -> None:
    moment = dates.parse_moment(value)
    if moment is not None:
        assert dates.parse(value) == moment.epoch
        assert abs(moment.zone) < 24 * 60
        assert isinstance(dates.format_internal(moment.epoch, moment.zone), bytes)
        assert dates.parse_moment(dates.format_rfc5322(moment.epoch, moment.zone)) is not None or moment.epoch < 0
    dates.parse_internal(value)
    made = everything(b"Date: " + value.replace(b"\n", b"") + b"\r\n\r\n")
    assert abs(made.sent) <= 253_402_300_799
