"""Columns of integers as rows have them: one `bytea`, fixed width, big-endian, parallel to the row's other columns.

As an array of the database each element would be built, sent and read one by one, here and there. Packed, appending
is `||`, and what Python makes of it are arrays, at the speed of copying memory.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence

UINT4 = "I"
"""The typecode of UIDs and sizes, 4 octets (int4send)."""
INT8 = "q"
"""The typecode of everything else, 8 octets (int8send)."""

_SWAPPED = sys.byteorder == "little"


def pack(column: array[int]) -> bytes:
    """The octets of a column."""
    if _SWAPPED:
        column = column[:]
        column.byteswap()
    return column.tobytes()


def unpack(typecode: str, octets: bytes) -> array[int]:
    """The column of these octets; ValueError where they are no whole number of elements."""
    column = array(typecode, octets)
    if _SWAPPED:
        column.byteswap()
    return column


def fit(typecodes: Sequence[str], columns: Sequence[bytes | None]) -> bool:
    """Do packed columns have one whole number of elements?"""
    sizes = {
        0.5 if octets is None else len(octets) / array(typecode).itemsize
        for typecode, octets in zip(typecodes, columns, strict=True)
    }
    return len(sizes) == 1 and sizes.pop().is_integer()


def listed(numbers: Iterable[int]) -> str:
    """Numbers as an argument that the statement casts to text and then to an array.

    Of a list, the driver looks at every element as if it might be a list itself.
    """
    return f"{{{','.join(map(str, numbers))}}}"


def integers(column: str, table: str, condition: str) -> str:
    """SQL: what a column of INT8 holds, in all rows of a table that fulfil the condition, as rows (n).

    The inner SELECT takes each value out of its compressed form once, not once an element.
    """
    return f"""
SELECT ('x' || encode(substr(octets, 8 * at - 7, 8), 'hex'))::bit(64)::bigint AS n
FROM (SELECT {column} || ''::bytea AS octets FROM {table} WHERE {condition} OFFSET 0) AS packed,
    generate_series(1, octet_length(octets) / 8) AS at
"""
