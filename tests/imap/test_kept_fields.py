"""Texts of header fields that were searched are kept within a bound."""

from __future__ import annotations

from mailserver.imap.kept_fields import KeptFields

SUBJECT, FROM = frozenset({b"subject"}), frozenset({b"from"})


def test_texts_belong_to_a_message_and_names() -> None:
    kept = KeptFields(1 << 20)
    kept.put(1, 7, SUBJECT, ((b"subject", "lunch "),))
    kept.put(1, 8, SUBJECT, ())
    assert kept.get(1, 7, SUBJECT) == ((b"subject", "lunch "),)
    assert kept.get(1, 8, SUBJECT) == ()
    assert kept.get(1, 7, FROM) is None
    assert kept.get(2, 7, SUBJECT) is None


def test_the_longest_unused_goes_first() -> None:
    kept = KeptFields(10_000)
    for number in range(9):
        kept.put(1, number, SUBJECT, ((b"subject", "x" * 600),))
        kept.get(1, 0, SUBJECT)
    assert [number for number in range(9) if kept.get(1, number, SUBJECT)] == [0, 2, 3, 4, 5, 6, 7, 8]
    kept.octets = 0
    kept.put(1, 9, SUBJECT, ())
    assert [number for number in range(10) if kept.get(1, number, SUBJECT) is not None] == []


def test_names_count() -> None:
    """Of 64 KiB of them a client may make as many as it likes."""
    kept = KeptFields(200_000)
    for number in range(9):
        kept.put(1, 7, frozenset({b"%d" % number + b"x" * 60_000}), ())
    assert len(kept._fields) == 3
