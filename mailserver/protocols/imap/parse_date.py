"""The two forms of dates in commands (RFC 3501 §9): `date` of SEARCH and `date-time` of APPEND."""

from __future__ import annotations

import re
from datetime import date

from mailserver.message.dates import month_number, parse_internal
from mailserver.protocols.imap.cursor import Cursor

_DATE = re.compile(rb'("?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1')
_DATE_TIME = re.compile(rb'"([^"]{21}[+-](?:[01][0-9]|2[0-3])[0-5][0-9])"')

_YEAR_1 = -62_135_596_800
_YEAR_10000 = 253_402_300_800


def search_date(c: Cursor) -> date:
    match = c.match(_DATE)
    if match is None:
        c.fail("Expected a date such as 1-Feb-2024")
    try:
        return date(int(match[4]), month_number(match[3]), int(match[2]))
    except ValueError:
        c.fail("No such day")


def date_time(c: Cursor) -> int:
    """Epoch seconds, of years that INTERNALDATE can show."""
    match = c.match(_DATE_TIME)
    moment = parse_internal(match[1]) if match else None
    if moment is None or not _YEAR_1 <= moment.epoch < _YEAR_10000:
        c.fail('Expected a date and time such as "01-Feb-2024 20:10:00 +0100"')
    return moment.epoch
