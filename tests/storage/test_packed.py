from __future__ import annotations

from array import array

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.packed import INT8, UINT4, fit, listed, pack, unpack


@pytest.mark.parametrize(
    ("typecode", "values", "octets"),
    [
        (UINT4, [1, 2**32 - 2], b"\0\0\0\1\xff\xff\xff\xfe"),
        (INT8, [-2, 2**40], b"\xff\xff\xff\xff\xff\xff\xff\xfe\0\0\1\0\0\0\0\0"),
        (INT8, [], b""),
    ],
)
def test_columns_are_big_endian(typecode: str, values: list[int], octets: bytes) -> None:
    column = array(typecode, values)
    assert pack(column) == octets
    assert unpack(typecode, octets) == column == array(typecode, values), "packing leaves the column as it was"


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_what_was_packed_is_unpacked(values: list[int]) -> None:
    assert unpack(INT8, pack(array(INT8, values))).tolist() == values


def test_torn_columns() -> None:
    with pytest.raises(ValueError, match="multiple"):
        unpack(INT8, b"1234567")


@pytest.mark.parametrize(
    ("columns", "fits"),
    [
        ((b"", b""), True),
        ((b"1234", b"12345678"), True),
        ((b"1234", b"1234"), False),
        ((b"1234", b""), False),
        ((b"12", b"1234"), False),
        ((b"1234", None), False),
    ],
)
def test_fit(columns: tuple[bytes | None, ...], fits: bool) -> None:
    assert fit((UINT4, INT8), columns) == fits


async def test_the_database_packs_alike(database: str) -> None:
    conn = await asyncpg.connect(database)
    values = [0, 1, -1, 2**40 + 3, -(2**63), 2**63 - 1]
    packed = b"".join([await conn.fetchval("SELECT int8send($1)", value) for value in values])
    assert unpack(INT8, packed).tolist() == values
    assert await conn.fetchval("SELECT $1::text::bigint[]", listed(values)) == values
    await conn.close()
