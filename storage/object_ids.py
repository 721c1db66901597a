"""Ids as clients see them (RFC 8474, and JSON): a letter for the kind, then base32 of a fixed width in lower case.

`M` is a message's EMAILID, `T` its THREADID, `F` the MAILBOXID, which needs the account's id as well because mailboxes
are numbered in each account, `C` a contact. Only the one form that is written here is read back.
"""

from __future__ import annotations

from typing import Final

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS: Final = [first + second for first in _ALPHABET for second in _ALPHABET]
_VALUES: Final = {digit: value for value, digit in enumerate(_ALPHABET)}
_DIGITS: Final = 13
_TOP: Final = 1 << 63


def email_id(message_id: int) -> str:
    return "M" + _digits(message_id)


def thread_id(number: int) -> str:
    return "T" + _digits(number)


def mailbox_id(account_id: int, number: int) -> str:
    return "F" + _digits(account_id) + _digits(number)


def contact_id(number: int) -> str:
    return "C" + _digits(number)


def number_of(text: str, kind: str) -> int | None:
    """The number behind an id of this kind (its letter); None for what is none."""
    if len(text) != 1 + _DIGITS or text[0] != kind:
        return None
    return _number(text[1:])


def mailbox_of(text: str, account_id: int) -> int | None:
    """The number of the account's mailbox that has this id; None for what is none, or another account's."""
    if len(text) != 1 + 2 * _DIGITS or text[0] != "F" or _number(text[1 : 1 + _DIGITS]) != account_id:
        return None
    return _number(text[1 + _DIGITS :])


def _digits(number: int) -> str:
    """RFC 4648 §6 of the number's 8 octets, without padding: 64 bits and a zero, 5 bits a digit. Lists need many."""
    bits = number << 1
    return (
        _ALPHABET[bits >> 60]
        + _PAIRS[bits >> 50 & 1023]
        + _PAIRS[bits >> 40 & 1023]
        + _PAIRS[bits >> 30 & 1023]
        + _PAIRS[bits >> 20 & 1023]
        + _PAIRS[bits >> 10 & 1023]
        + _PAIRS[bits & 1023]
    )


def _number(digits: str) -> int | None:
    bits = 0
    for digit in digits:
        value = _VALUES.get(digit)
        if value is None:
            return None
        bits = bits << 5 | value
    return None if bits & 1 or bits >> 1 >= _TOP else bits >> 1
