"""Sets of message numbers (RFC 3501 §9, sequence-set), for sequence numbers and UIDs alike.

A set is kept as ascending ranges that neither touch nor overlap, and apart from them the ranges that end in `*`. The
star is the largest number in use, known only when the set is applied. `n:*` and `*:n` are the same set: the larger and
the smaller of the two are its ends, so it always holds the last message, even where n lies beyond it (RFC 3501 §6.4.8).
Of several such ranges the one that begins earliest holds the others, so one number stands for them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_NUMBER = 0xFFFFFFFF
"""nz-number is below 2³² (RFC 3501 §9)."""

_JUST_STAR = MAX_NUMBER + 1
_SET = re.compile(
    rb"(?:\*|[1-9][0-9]{0,9})(?::(?:\*|[1-9][0-9]{0,9}))?(?:,(?:\*|[1-9][0-9]{0,9})(?::(?:\*|[1-9][0-9]{0,9}))?)*"
)

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SequenceSet:
    """ranges: both ends included. open_from: where the widest `n:*` begins, 2³² for a plain `*`, None without one."""

    ranges: tuple[Range, ...] = ()
    open_from: int | None = None

    @property
    def largest(self) -> int:
        """The largest number that is written out; 0 where all is `*`. Beyond EXISTS it is the client's mistake."""
        last = self.ranges[-1][1] if self.ranges else 0
        return max(last, self.open_from) if self.open_from is not None and self.open_from <= MAX_NUMBER else last

    def resolve(self, maximum: int) -> list[Range]:
        """Ascending disjoint ranges within 1…maximum, the star being `maximum`; nothing where that is 0."""
        if maximum < 1:
            return []
        found = [(low, min(high, maximum)) for low, high in self.ranges if low <= maximum]
        if self.open_from is None:
            return found
        start = min(self.open_from, maximum)
        while found and found[-1][1] >= start - 1:
            start = min(start, found.pop()[0])
        found.append((start, maximum))
        return found


def parse(text: bytes) -> SequenceSet:
    """The set that `text` writes; ValueError where it breaks the grammar."""
    if _SET.fullmatch(text) is None:
        raise ValueError("not a set of message numbers")
    ranges: list[Range] = []
    open_from: int | None = None
    for part in text.split(b","):
        first, colon, last = part.partition(b":")
        if not colon:
            last = first
        if first == b"*" or last == b"*":
            other = first if last == b"*" else last
            start = _JUST_STAR if other == b"*" else _number(other)
            open_from = start if open_from is None else min(open_from, start)
            continue
        low, high = _number(first), _number(last)
        ranges.append((low, high) if low <= high else (high, low))
    return SequenceSet(_merged(ranges), open_from)


def compact(numbers: Iterable[int]) -> bytes:
    """`numbers` in their order, runs that rise by one written as ranges: the uid-set of RFC 4315.

    COPYUID pairs two such sets member by member, so the order stays as given.
    """
    if isinstance(numbers, range) and numbers.step == 1 and len(numbers) > 1:
        return b"%d:%d" % (numbers[0], numbers[-1])
    parts: list[bytes] = []
    first = last = 0
    for number in numbers:
        if first and number == last + 1:
            last = number
            continue
        if first:
            parts.append(b"%d" % first if first == last else b"%d:%d" % (first, last))
        first = last = number
    if first:
        parts.append(b"%d" % first if first == last else b"%d:%d" % (first, last))
    return b",".join(parts)


def _number(digits: bytes) -> int:
    number = int(digits)
    if number > MAX_NUMBER:
        raise ValueError("message number too large")
    return number


def _merged(ranges: list[Range]) -> tuple[Range, ...]:
    ranges.sort()
    merged: list[Range] = []
    for low, high in ranges:
        if merged and low <= merged[-1][1] + 1:
            if high > merged[-1][1]:
                merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return tuple(merged)
