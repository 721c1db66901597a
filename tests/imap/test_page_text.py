"""FETCH lines from pages: kept where they may be, made anew where they must be."""

from __future__ import annotations

import pytest

from mailserver.imap.page_text import Columns, line_format, lines
from mailserver.imap.view import Recent, Slice
from mailserver.protocols.imap.commands import Attribute, FetchItem
from storage.pages import Page
from storage.records import KEYWORDS_AT

UID_FLAGS: tuple[FetchItem, ...] = (Attribute.UID, Attribute.FLAGS)


def page(flags: list[int]) -> Page:
    count = len(flags)
    uids = range(10, 10 + count)
    return Page(0, 5, uids, uids, flags, [5] * count, [100] * count, [0] * count, [0] * count)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (UID_FLAGS, b"* 8 FETCH (UID 10 FLAGS (\\Seen))\r\n* 9 FETCH (UID 11 FLAGS (Work))\r\n"),
        ((Attribute.SIZE,), b"* 8 FETCH (RFC822.SIZE 100)\r\n* 9 FETCH (RFC822.SIZE 100)\r\n"),
        (
            (Attribute.INTERNALDATE, Attribute.UID),
            (
                b'* 8 FETCH (INTERNALDATE "01-Jan-1970 00:00:00 +0000" UID 10)\r\n'
                b'* 9 FETCH (INTERNALDATE "01-Jan-1970 00:00:00 +0000" UID 11)\r\n'
            ),
        ),
    ],
)
def test_lines(items: tuple[FetchItem, ...], expected: bytes) -> None:
    text = lines(Slice(page([1, 32]), 7, 0, 2), items, ("Work",), Recent())
    assert text == expected.replace(b'"01-Jan', b'" 1-Jan')


def test_whole_pages_are_kept() -> None:
    one = page([0, 1])
    first = lines(Slice(one, 7, 0, 2), UID_FLAGS, (), Recent())
    assert lines(Slice(one, 7, 0, 2), UID_FLAGS, (), Recent()) is first


def test_what_is_not_kept() -> None:
    """Parts of a page, another place in the mailbox, other keywords, another session's recent messages."""
    one = page([0, 32])
    first = lines(Slice(one, 7, 0, 2), UID_FLAGS, (), Recent())
    assert lines(Slice(one, 7, 1, 2), UID_FLAGS, (), Recent()) == b"* 9 FETCH (UID 11 FLAGS ())\r\n"
    assert lines(Slice(one, 6, 0, 2), UID_FLAGS, (), Recent()).startswith(b"* 7 FETCH (UID 10 ")
    assert b"FLAGS (Work)" in lines(Slice(one, 6, 0, 2), UID_FLAGS, ("Work",), Recent())
    recent = Recent()
    recent.add(11, 12)
    assert b"UID 11 FLAGS (\\Recent)" in lines(Slice(one, 7, 0, 2), UID_FLAGS, (), recent)
    every = Recent()
    every.add(9, 13)
    assert lines(Slice(one, 7, 0, 2), UID_FLAGS, (), every).count(b"(\\Recent)") == 2
    assert lines(Slice(one, 7, 0, 2), UID_FLAGS, (), Recent()) == first


def test_long_texts_are_not_kept() -> None:
    one = page([1 << KEYWORDS_AT] * 40)
    assert len(lines(Slice(one, 0, 0, 40), UID_FLAGS, ("Work",), Recent())) < 2_000 and one.cache
    other = page([1 << KEYWORDS_AT] * 40)
    assert len(lines(Slice(other, 0, 0, 40), UID_FLAGS, ("W" * 255,), Recent())) > 10_000 and not other.cache


def test_few_kinds_are_kept() -> None:
    one = page([0])
    for items in (UID_FLAGS, (Attribute.UID,), (Attribute.FLAGS,), (Attribute.SIZE,)):
        lines(Slice(one, 0, 0, 1), items, (), Recent())
        assert len(one.cache or ()) <= 2


def test_columns() -> None:
    columns = Columns([Slice(page([0, 1, 2]), 0, 1, 3), Slice(page([3]), 3, 0, 1)])
    assert columns.seqs == [2, 3, 4]
    assert columns.flags == [1, 2, 3]
    columns.keep(lambda message_id: message_id != 11)
    assert columns.seqs == [3, 4]
    assert len(columns) == 2


def test_format() -> None:
    assert line_format(UID_FLAGS) == b"* %d FETCH (UID %d FLAGS (%b))\r\n"
