"""Flags as text."""

from __future__ import annotations

import pytest

from mailserver.imap import flags
from storage.records import MAX_KEYWORDS


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0, b""),
        (1, b"\\Seen"),
        (1 | 2 | 4 | 8 | 16, b"\\Answered \\Flagged \\Deleted \\Seen \\Draft"),
        (1 << 5, b"$Junk"),
        (1 << 6, b""),
        (1 << 7 | 1, b"\\Seen Work"),
        (flags.RECENT | 1, b"\\Seen \\Recent"),
    ],
)
def test_texts(bits: int, text: bytes) -> None:
    """The second keyword's place is free."""
    assert flags.texts(("$Junk", "", "Work"))[bits] == text


def test_a_table_is_shared_and_bounded() -> None:
    keywords = tuple(f"k{i}" for i in range(20))
    table = flags.texts(keywords)
    assert flags.texts(keywords) is table
    for bits in range(5000):
        assert table[bits << 5] is not None
    assert len(table) <= 4096


def test_what_a_mailbox_offers() -> None:
    assert flags.defined(("$Junk", "")) == b"\\Answered \\Flagged \\Deleted \\Seen \\Draft $Junk"
    assert flags.permanent(()).endswith(b"\\Draft \\*")
    full = tuple(f"k{i}" for i in range(MAX_KEYWORDS))
    assert b"\\*" not in flags.permanent(full)
    assert b"\\*" in flags.permanent((*full[:-1], ""))
