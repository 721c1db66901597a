from __future__ import annotations

from time import process_time
from unicodedata import category, normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import folding
from mailserver.message.folding import collapse, fold, folded
from tests.message.messages import SETTINGS


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Hello", "HELLO"),
        ("GRÖSSTENTEILS", "größtenteils"),
        ("Müller", "mu"),
        ("Müller", "MU\u0308LLER"),
        ("ﬁle", "FILE"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("ﾌｧｲﾙ", "ファイル"),
        ("ISTANBUL", "ıstanbul"),
        ("한국어", "\u1112\u1161\u11ab"),
        ("\u1112\u1161\u11ab\u1100\u116e\u11a8", "한국"),
        ("①②", "12"),
        ("ℌ", "h"),
        ("e\u0323\u0301", "é\u0323"),
    ],
)
def test_found(text: str, query: str) -> None:
    assert fold(query) in fold(text)


@pytest.mark.parametrize(("text", "query"), [("résumé", "resumé"), ("한", "하"), ("a", "b")])
def test_not_found(text: str, query: str) -> None:
    assert fold(query) not in fold(text)


def casemap(text: str) -> str:
    """i;unicode-casemap (RFC 5051 §2): simple title case, then full decomposition."""
    return normalize("NFKD", "".join(char.title() if len(char.title()) == 1 else char for char in text))


def test_what_is_equal_in_rfc5051_is_equal_here() -> None:
    """All of Unicode but ideographs and the private area, against RFC 5051; the exceptions are those of the module."""
    differing = set()
    for start, stop in ((0, 0x3400), (0xA000, 0xD800), (0xE000, 0x20000), (0x2F800, 0x2FA20)):
        for char in map(chr, range(start, stop)):
            if category(char) not in ("Cn", "Co", "Cs") and fold(casemap(char)) != fold(char):
                differing.add(char)
    circled = {chr(code) for first in (0x320E, 0x326E) for code in range(first, first + 17)}
    assert differing == circled | {"\ufdfa", "\ufdfb"}


@SETTINGS
@given(st.text(max_size=30), st.text(max_size=30))
def test_a_part_of_a_text_is_found_in_it(before: str, after: str) -> None:
    # Between letters that combine with nothing; inside a cluster, cutting changes what it is.
    assert fold(before + "x" + after).startswith(fold(before + "x"))
    assert fold("x" + after) in fold(before + "x" + after)


def test_collapse() -> None:
    assert collapse(" a\t\r\n b\u00a0\u2003c ") == "a b c"
    assert collapse(" \n ") == ""


@pytest.mark.parametrize(
    "unit", ["\u0301\u0323", "a" + "\u0301\u0323" * 20, "\u0f71\u0f72", "\ufdfa", "\u3300", "\u1161"]
)
def test_bombs_are_folded_in_linear_time(unit: str) -> None:
    text = unit * (300_000 // len(unit))
    start = process_time()
    assert len(fold(text)) <= 7 * len(text)
    assert process_time() - start < 3


SPECIAL = [
    "a",
    "ß",
    "\u0301",
    "\u0323",
    " ",
    "\u00a0",
    "\n",
    "한",
    "\u1112",
    "\u1161",
    "\u11ab",
    "ﾌ",
    "ﾞ",
    "か",
    "\u3099",
]
SPECIAL += ["\ufdfa", "¨", "文", "İ", "ı", "Σ", "\U00011099", "\U000110ba", "\u0f71", "\u0f72", "\u3300", "①", "－"]


@SETTINGS
@given(st.lists(st.text(st.sampled_from(SPECIAL), max_size=4) | st.text(max_size=3), max_size=12))
def test_pieces_are_folded_as_the_whole(pieces: list[str]) -> None:
    assert "".join(folded(pieces)) == collapse(fold("".join(pieces)))


def test_nothing_combines_with_what_begins() -> None:
    """All of Unicode but ideographs: cutting before a letter that counts as a border changes nothing."""
    for char in map(chr, [*range(0x80, 0x3400), *range(0xA000, 0x20000)]):
        if folding._begins(char):
            for before in ("e\u0323\u0301", "\u1112\u1161", "が", "한"):
                assert fold(before) + fold(char) == fold(before + char), hex(ord(char))


@pytest.mark.parametrize("unit", ["\u0301\u0323", "\u1161", "①"])
def test_what_has_no_border_is_not_held_for_ever(unit: str) -> None:
    pieces = [unit * 1000] * 200
    assert max(map(len, folded(pieces))) < 7 * (folding.MAX_HELD + 2000)
