from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import dates
from tests.message.messages import SETTINGS


def epoch(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp())


# Value, seconds since 1970, minutes east of UTC.
DATES = [
    (b"Wed, 17 Jul 1996 02:23:25 -0700", epoch(1996, 7, 17, 9, 23, 25), -420),
    (b"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)", epoch(1996, 7, 17, 9, 23, 25), -420),
    (b"17 Jul 1996 02:23:25 +0530", epoch(1996, 7, 16, 20, 53, 25), 330),
    (b"17 Jul 1996 02:23 +0000", epoch(1996, 7, 17, 2, 23), 0),
    (b"Wed,17 Jul 1996 2:23:25 GMT", epoch(1996, 7, 17, 2, 23, 25), 0),
    (b"Sat, 1 Jan 2000 00:00:00 UT", epoch(2000, 1, 1), 0),
    # RFC 5322 §4.3: obsolete zones, years of two and three digits, A.6.2.
    (b"21 Nov 97 09:55:06 GMT", epoch(1997, 11, 21, 9, 55, 6), 0),
    (b"21 Nov 07 09:55:06 EST", epoch(2007, 11, 21, 14, 55, 6), -300),
    (b"21 Nov 49 00:00:00 PDT", epoch(2049, 11, 21, 7), -420),
    (b"21 Nov 50 00:00:00 Z", epoch(1950, 11, 21), 0),
    (b"21 Nov 107 00:00:00 +0000", epoch(2007, 11, 21), 0),
    (b"21 Nov 1997 00:00:00 A", epoch(1997, 11, 21), 0),
    (b"21 Nov 1997 00:00:00 XYZ", epoch(1997, 11, 21), 0),
    (b"21 Nov 1997 00:00:00", epoch(1997, 11, 21), 0),
    # RFC 5322 A.5 and A.6.3: comments and white space anywhere.
    (b"Thu,\t13\tFeb  1969 23:32 -0330 (Newfoundland Time)", epoch(1969, 2, 14, 3, 2), -210),
    (b"Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", epoch(1997, 11, 21, 15, 55, 6), -360),
    (b"Fri, 21 Nov 1997 09:55:06 (why (not)) -0600", epoch(1997, 11, 21, 15, 55, 6), -360),
    # What is sent although no grammar allows it.
    (b"wednesday, 17 july 1996 02:23:25 -0700", epoch(1996, 7, 17, 9, 23, 25), -420),
    (b"17-Jul-1996 02:23:25 -0700", epoch(1996, 7, 17, 9, 23, 25), -420),
    (b"Wed, 17-Jul-96 02:23:25 GMT", epoch(1996, 7, 17, 2, 23, 25), 0),
    (b"Wed Jul 17 02:23:25 1996", epoch(1996, 7, 17, 2, 23, 25), 0),
    (b"Wed Jul 17 02:23:25 EDT 1996", epoch(1996, 7, 17, 6, 23, 25), -240),
    (b"Wed Jul 17 02:23:25 1996 -0700", epoch(1996, 7, 17, 9, 23, 25), -420),
    (b"Tue, 17 Jul 1996 02:23:25 +02:00", epoch(1996, 7, 17, 0, 23, 25), 120),
    (b"Sat, 31 Dec 2016 23:59:60 +0000", epoch(2017, 1, 1), 0),
    (b"Tue, 29 Feb 2000 00:00:00 +0000", epoch(2000, 2, 29), 0),
    (b"1 Jan 1900 00:00:00 +0000", epoch(1900, 1, 1), 0),
    (b"1 Jan 2024 00:00:00 +9999", epoch(2024, 1, 1), 0),
]

UNUSABLE = [
    *(b"", b"now", b"32 Jan 2000 00:00:00 +0000", b"0 Jan 2000 00:00:00 +0000", b"1 Foo 2000 00:00:00 +0000"),
    *(
        b"29 Feb 1900 00:00:00 +0000",
        b"30 Feb 2000 00:00:00 +0000",
        b"1 Jan 2000 24:00:00 +0000",
        b"2000-01-01T00:00:00Z",
    ),
    *(
        b"1 Jan 2000 00:60:00 +0000",
        b"1 Jan 2000 00:00:61 +0000",
        b"1 Jan 2000",
        b"Mon, ",
        b"\xff" * 50,
        b"(" * 300,
        b"\0",
    ),
    b" " * 300 + b"1 Jan 2000 00:00:00 +0000",
]


@pytest.mark.parametrize(("value", "seconds", "zone"), DATES)
def test_parse(value: bytes, seconds: int, zone: int) -> None:
    assert dates.parse_moment(value) == (seconds, zone)
    assert dates.parse(value) == seconds


@pytest.mark.parametrize("value", UNUSABLE)
def test_unusable(value: bytes) -> None:
    assert dates.parse(value) is None


def test_the_day_is_the_one_that_was_written() -> None:
    late = dates.parse_moment(b"31 Dec 1999 23:30:00 -0800")
    early = dates.parse_moment(b"1 Jan 2000 00:30:00 +1300")
    assert late is not None and early is not None
    assert late.day == dates.days_since_epoch(1999, 12, 31)
    assert early.day == dates.days_since_epoch(2000, 1, 1)
    assert late.epoch > early.epoch


moments = st.tuples(st.integers(epoch(1, 1, 3), epoch(9999, 12, 30)), st.integers(-1439, 1439))


@SETTINGS
@given(moments)
def test_formats_agree_with_the_standard_library(moment: tuple[int, int]) -> None:
    seconds, zone = moment
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    when = when.astimezone(timezone(timedelta(minutes=zone)))
    assert dates.format_rfc5322(seconds, zone).decode() == format_datetime(when)
    expected = f"{when.day:2d}-{format_datetime(when)[8:11]}-{when.year:04d} {when:%H:%M:%S %z}"
    assert dates.format_internal(seconds, zone).decode() == expected
    assert dates.days_since_epoch(when.year, when.month, when.day) == when.toordinal() - 719_163


@SETTINGS
@given(moments)
def test_round_trips(moment: tuple[int, int]) -> None:
    assert dates.parse_internal(dates.format_internal(*moment)) == moment
    if moment[0] > epoch(1001, 1, 1):  # below, zeros in front make the year look like an obsolete one
        assert dates.parse_moment(dates.format_rfc5322(*moment)) == moment


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"17-Jul-1996 02:44:25 -0700", (epoch(1996, 7, 17, 9, 44, 25), -420)),
        (b" 7-jul-1996 02:44:25 +0000", (epoch(1996, 7, 7, 2, 44, 25), 0)),
        (b"7-Jul-1996 02:44:25 +0000", None),  # date-day-fixed: two characters
        (b"17-Jul-96 02:44:25 +0000", None),
        (b"17-Jul-1996 02:44:25", None),
        (b"31-Jun-1996 02:44:25 +0000", None),
        (b"17-Jul-1996 02:44:25 +0000 ", None),
    ],
)
def test_parse_internal(value: bytes, expected: object) -> None:
    assert dates.parse_internal(value) == expected


@SETTINGS
@given(
    st.lists(
        st.sampled_from([b"1", b"17", b"1996", b" ", b"Jul", b"-", b":", b"(", b")", b"+0700", b",", b"\xff"]),
        max_size=20,
    )
)
def test_anything_is_read(pieces: list[bytes]) -> None:
    dates.parse(b"".join(pieces))
    dates.parse_internal(b"".join(pieces))


def test_month_number() -> None:
    assert [dates.month_number(name) for name in (b"Jan", b"DEC", b"Foo", b"")] == [1, 12, 0, 0]
