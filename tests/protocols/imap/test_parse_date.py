from __future__ import annotations

from datetime import date

import pytest

from mailserver.protocols.imap.commands import BadSyntax
from mailserver.protocols.imap.cursor import Cursor
from mailserver.protocols.imap.parse_date import date_time, search_date


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b'"01-Jan-1970 00:00:00 +0000"', 0),
        (b'" 1-Jan-1970 00:00:00 +0000"', 0),
        (b'"01-Jan-1970 01:00:00 +0100"', 0),
        (b'"31-Dec-1969 23:00:00 -0100"', 0),
        (b'"17-Jul-1996 02:44:25 -0700"', 837_596_665),
        (b'"29-FEB-2024 23:59:60 +0000"', 1_709_251_200),
        (b'"01-Jan-0001 23:59:00 +2359"', -62_135_596_800),
        (b'"31-Dec-9999 00:00:59 -2359"', 253_402_300_799),
    ],
)
def test_date_time(text: bytes, seconds: int) -> None:
    assert date_time(Cursor((text,))) == seconds


@pytest.mark.parametrize(
    "text",
    [
        b'"1-Jan-1970 00:00:00 +0000"',
        b'"01-Jan-1970 00:00:00"',
        b'"01-Jan-1970 00:00 +0000"',
        b'"01-Jan-70 00:00:00 +0000"',
        b"01-Jan-1970 00:00:00 +0000",
        b'"01-Jan-1970 24:00:00 +0000"',
        b'"01-Jan-1970 00:60:00 +0000"',
        b'"01-Jan-1970 00:00:61 +0000"',
        b'"01-Jan-1970 00:00:00 +2400"',
        b'"01-Jan-1970 00:00:00 +0060"',
        b'"30-Feb-1970 00:00:00 +0000"',
        b'"00-Jan-1970 00:00:00 +0000"',
        b'"01-Foo-1970 00:00:00 +0000"',
        b'"01-Jan-0000 00:00:00 +0000"',
        b'"01-Jan-0001 00:00:00 +0001"',
        b'"31-Dec-9999 23:59:59 -0001"',
        b'"01-Jan-1970 00:00:00 UTC"',
        b'""',
    ],
)
def test_no_date_time(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        date_time(Cursor((text,)))


@pytest.mark.parametrize(
    ("text", "day"),
    [(b"1-Feb-2024", date(2024, 2, 1)), (b'"29-feb-2024"', date(2024, 2, 29)), (b"09-DEC-0001", date(1, 12, 9))],
)
def test_search_date(text: bytes, day: date) -> None:
    c = Cursor((text,))
    assert search_date(c) == day
    assert c.at_end
