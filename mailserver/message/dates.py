"""Dates of RFC 5322 §3.3 (and §4.3, obsolete ones), and INTERNALDATE (RFC 3501 §9, date-time); both ways, no clock.

A Date field is read loosely: white space and comments anywhere, the day of the week missing or wrong, one-digit days,
full names of months, two- and three-digit years, seconds missing, zones by name or not at all (then UTC, as for
military letters, RFC 5322 §4.3), and the order of C's asctime(). Fields out of range make it unusable.

Times are seconds since 1970-01-01T00:00:00Z, zones are minutes east of UTC. Only the first MAX_OCTETS are looked at.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

MAX_OCTETS = 256

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_DAYS = (b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed")  # 1970-01-01 was a Thursday
_MONTH_NUMBER = {name.lower(): number for number, name in enumerate(_MONTHS, 1)}
_MONTH_LENGTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_ZONES = {
    zone: hours * 60
    for hours, zones in (
        (0, (b"ut", b"gmt", b"utc", b"z", b"wet")),
        (1, (b"cet", b"bst", b"west")),
        (2, (b"cest", b"eet")),
        (3, (b"eest", b"msk")),
        (9, (b"jst", b"kst")),
        (-4, (b"edt",)),
        (-5, (b"est", b"cdt")),
        (-6, (b"cst", b"mdt")),
        (-7, (b"mst", b"pdt")),
        (-8, (b"pst",)),
    )
    for zone in zones
}

_TIME = rb"(\d{1,2})[ \t]*[:.][ \t]*(\d{1,2})(?:[ \t]*[:.][ \t]*(\d{1,2})(?:[.,]\d{1,9})?)?"
_ZONE = rb"(?:[ \t]*([+-]\d{4}|[+-]\d{2}:\d{2}|[A-Za-z]{1,5}))?"
_WEEKDAY = rb"[ \t]*(?:[A-Za-z]{2,9}\.?[ \t]*(?:,[ \t]*)?)?"
_PART = rb"(?:[ \t]*-[ \t]*|[ \t]+)"  # 17-Jul-96 and 17 Jul 96
_MONTH = rb"([A-Za-z]{3})[a-z]{0,6}\.?,?"
_DATE = re.compile(_WEEKDAY + rb"(\d{1,2})" + _PART + _MONTH + _PART + rb"(\d{2,4}),?[ \t]+" + _TIME + _ZONE)
_ASCTIME = re.compile(_WEEKDAY + _MONTH + rb"[ \t]+(\d{1,2}),?[ \t]+" + _TIME + _ZONE + rb"[ \t]+(\d{4})" + _ZONE)
_INTERNAL = re.compile(rb"([ \d]\d)-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-]\d{4})")
_COMMENT = re.compile(rb"\([^()]*\)")


class Moment(NamedTuple):
    """A time, and the zone that it was written in."""

    epoch: int
    zone: int

    @property
    def day(self) -> int:
        """The date as written, without regard to its zone, in days since 1970-01-01 (RFC 3501 §6.4.4, SENTON)."""
        return (self.epoch + 60 * self.zone) // 86_400


def parse(value: bytes) -> int | None:
    """The time that a Date field's value names; None where it is unusable."""
    moment = parse_moment(value)
    return None if moment is None else moment.epoch


def parse_moment(value: bytes) -> Moment | None:
    """As `parse`, with the zone."""
    value = value[:MAX_OCTETS]
    found = _DATE.match(value)
    if found is None or (found[7] is None and b"(" in value):
        value = _clean(value)
        found = _DATE.match(value)
    if found is not None:
        day, month, year, hour, minute, second, zone = found.groups()
        return _moment(year, month, day, hour, minute, second, zone)
    found = _ASCTIME.match(value)
    if found is None:
        return None
    month, day, hour, minute, second, zone, year, later_zone = found.groups()
    return _moment(year, month, day, hour, minute, second, zone or later_zone)


def parse_internal(value: bytes) -> Moment | None:
    """An INTERNALDATE as APPEND gives it, without its quotes: `17-Jul-1996 02:44:25 -0700`. Strict."""
    found = _INTERNAL.fullmatch(value)
    if found is None:
        return None
    day, month, year, hour, minute, second, zone = found.groups()
    return _moment(year, month, day, hour, minute, second, zone)


def format_internal(epoch: int, zone: int = 0) -> bytes:
    """An INTERNALDATE without its quotes: ` 7-Jul-1996 02:44:25 -0700`."""
    days, seconds = divmod(epoch + 60 * zone, 86_400)
    return b"%b %02d:%02d:%02d %b" % (_internal_day(days), *_clock(seconds), _offset(zone))


@lru_cache(maxsize=4096)
def _internal_day(days: int) -> bytes:
    year, month, day, _ = _civil(86_400 * days)
    return b"%2d-%b-%04d" % (day, _MONTHS[month - 1], year)


def format_rfc5322(epoch: int, zone: int = 0) -> bytes:
    """A date-time for Date: and Received: fields: `Wed, 17 Jul 1996 02:44:25 -0700`."""
    local = epoch + 60 * zone
    year, month, day, seconds = _civil(local)
    weekday = _DAYS[local // 86_400 % 7]
    return b"%b, %02d %b %04d %02d:%02d:%02d %b" % (
        *(weekday, day, _MONTHS[month - 1], year),
        *(*_clock(seconds), _offset(zone)),
    )


def days_since_epoch(year: int, month: int, day: int) -> int:
    """The number of days from 1970-01-01 to a day of the Gregorian calendar."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def month_number(name: bytes) -> int:
    """1 for Jan, in any case of letters; 0 for what is no month's three letters."""
    return _MONTH_NUMBER.get(name.lower(), 0)


def _clean(value: bytes) -> bytes:
    """The value without its comments, nested ones too, and with every run of white space as one space."""
    for _ in range(8):
        if b"(" not in value:
            break
        value = _COMMENT.sub(b" ", value)
    return b" ".join(value.split())


def _moment(
    year: bytes, month: bytes, day: bytes, hour: bytes, minute: bytes, second: bytes | None, zone: bytes | None
) -> Moment | None:
    y, m, d = _full_year(year), month_number(month), int(day)
    hours, minutes, seconds = int(hour), int(minute), int(second or 0)
    if not (m and 1 <= d <= _MONTH_LENGTH[m - 1] and hours < 24 and minutes < 60 and seconds <= 60):
        return None
    if m == 2 and d == 29 and (y % 4 or (y % 100 == 0 and y % 400)):
        return None
    offset = _zone(zone)
    epoch = days_since_epoch(y, m, d) * 86_400 + hours * 3600 + minutes * 60 + seconds
    return Moment(epoch - 60 * offset, offset)


def _full_year(year: bytes) -> int:
    """RFC 5322 §4.3: two digits below 50 are of this century, other two and three digits count from 1900."""
    number = int(year)
    if len(year) == 2 and number < 50:
        return number + 2000
    return number + 1900 if len(year) < 4 else number


def _zone(zone: bytes | None) -> int:
    """Minutes east of UTC; 0 for what is unknown, as RFC 5322 §4.3 wants it."""
    if zone is None:
        return 0
    if zone[0] in b"+-":
        digits = zone[1:].replace(b":", b"")
        minutes = int(digits[:2]) * 60 + int(digits[2:])
        if minutes >= 24 * 60:
            return 0
        return -minutes if zone[0] == 45 else minutes
    return _ZONES.get(zone.lower(), 0)


def _civil(local: int) -> tuple[int, int, int, int]:
    """Year, month, day and second of the day."""
    days, seconds = divmod(local, 86_400)
    era, of_era = divmod(days + 719_468, 146_097)
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    index = (5 * of_year + 2) // 153
    month = index + (3 if index < 10 else -9)
    return year + era * 400 + (month <= 2), month, of_year - (153 * index + 2) // 5 + 1, seconds


def _clock(seconds: int) -> tuple[int, int, int]:
    return seconds // 3600, seconds // 60 % 60, seconds % 60


@lru_cache(maxsize=64)
def _offset(zone: int) -> bytes:
    minutes = abs(zone)
    return b"%c%02d%02d" % (b"-" if zone < 0 else b"+", minutes // 60, minutes % 60)
