"""Ids as clients see them (RFC 8474, and JSON): a letter for the kind, then base32 of a fixed width in lower case.

`M` is a message's EMAILID, `T` its THREADID, `F` the MAILBOXID, which needs the account's id as well because mailboxes
are numbered in each account, `C` a contact. Only the one form that is written here is read back.
"""

from __future__ import annotations

from base64 import b32decode, b32encode

_OCTETS = 8
_DIGITS = 13
_TOP = 1 << 63


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
    return b32encode(number.to_bytes(_OCTETS, "big"))[:_DIGITS].decode("ascii").lower()


def _number(digits: str) -> int | None:
    try:
        number = int.from_bytes(b32decode(digits.upper() + "==="), "big")
    except ValueError:
        return None
    return number if number < _TOP and _digits(number) == digits else None
