from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols.imap.sequence_set import SequenceSet, compact, parse


def numbers_of(chosen: SequenceSet, maximum: int) -> list[int]:
    return [number for low, high in chosen.resolve(maximum) for number in range(low, high + 1)]


@pytest.mark.parametrize(
    ("text", "maximum", "numbers"),
    [
        (b"1", 9, [1]),
        (b"3:1", 9, [1, 2, 3]),
        (b"2,4:7,9,12:*", 15, [2, 4, 5, 6, 7, 9, 12, 13, 14, 15]),
        (b"*", 7, [7]),
        (b"*:4", 7, [4, 5, 6, 7]),
        (b"4:*", 7, [4, 5, 6, 7]),
        # RFC 3501 §6.4.8: the last message is always in it.
        (b"559:*", 7, [7]),
        (b"*:559,559", 7, [7]),
        (b"9:*,3:*,5:*", 4, [3, 4]),
        (b"1:3,2:5,6", 9, [1, 2, 3, 4, 5, 6]),
        (b"5,1,5,1", 9, [1, 5]),
        (b"10:20", 9, []),
        (b"1:4294967295", 3, [1, 2, 3]),
        (b"1:*", 0, []),
        (b"*:*", 3, [3]),
        (b"1:2,*", 3, [1, 2, 3]),
    ],
)
def test_numbers(text: bytes, maximum: int, numbers: list[int]) -> None:
    assert numbers_of(parse(text), maximum) == numbers


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"0",
        b"0:1",
        b"1:0",
        b"01",
        b"1,",
        b",1",
        b"1,,2",
        b"1:2:3",
        b"1:",
        b":1",
        b"**",
        b"1*",
        b"-1",
        b"1 ",
        b"a",
        b"4294967296",
        b"4294967296:*",
        b"99999999999",
        b"1:99999999999",
        b"$",
        b"1\n",
    ],
)
def test_rubbish(text: bytes) -> None:
    with pytest.raises(ValueError, match="message number"):
        parse(text)


@pytest.mark.parametrize(("text", "largest"), [(b"*", 0), (b"1:7,3", 7), (b"9:*,2", 9), (b"*:9", 9), (b"*:*", 0)])
def test_largest(text: bytes, largest: int) -> None:
    assert parse(text).largest == largest


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], b""), ([5], b"5"), ([1, 2, 3, 5, 7, 8], b"1:3,5,7:8"), ([3, 2, 1], b"3,2,1"), ([4, 5, 1, 2], b"4:5,1:2")],
)
def test_compact_keeps_the_order(numbers: list[int], text: bytes) -> None:
    assert compact(numbers) == text


@pytest.mark.parametrize(
    "text",
    [
        b",".join(b"%d" % n for n in range(1, 40_000, 2)),
        b"1:*," * 25_000 + b"1",
        b"*," * 50_000 + b"*",
        b"9:1," * 25_000 + b"2",
    ],
)
def test_a_set_of_100_kb_is_read_quickly(text: bytes) -> None:
    started = time.process_time()
    chosen = parse(text)
    assert chosen.resolve(9)
    assert time.process_time() - started < 1


def test_100_kb_of_rubbish_is_refused_quickly() -> None:
    started = time.process_time()
    for text in (b"1," * 50_000, b"1" * 100_000, b"1:" * 50_000, b":" * 100_000):
        with pytest.raises(ValueError):
            parse(text)
    assert time.process_time() - started < 1


NUMBERS = st.integers(1, 60)
ENDS = st.one_of(NUMBERS, st.just("*"))


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(st.tuples(ENDS, ENDS), min_size=1, max_size=8), st.integers(0, 40))
def test_against_the_words_of_the_rfc(ranges: list[tuple[int | str, int | str]], maximum: int) -> None:
    text = ",".join(f"{low}:{high}" for low, high in ranges).encode()
    expected: set[int] = set()
    for ends in ranges:
        low, high = sorted(maximum if end == "*" else int(end) for end in ends)
        expected |= set(range(low, high + 1)) & set(range(1, maximum + 1))
    found = parse(text).resolve(maximum)
    assert [number for low, high in found for number in range(low, high + 1)] == sorted(expected)
    assert all(high + 1 < low for (_, high), (low, _) in pairwise(found))


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sets(st.integers(1, 200), min_size=1))
def test_a_set_of_numbers_comes_back(numbers: set[int]) -> None:
    assert numbers_of(parse(compact(sorted(numbers))), 200) == sorted(numbers)
