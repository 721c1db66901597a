"""MAIL and RCPT as values that cannot be wrong."""

from __future__ import annotations

from typing import NamedTuple


class Mail(NamedTuple):
    """MAIL FROM. sender: "" is the null reverse-path; size: octets announced, 0 where none were (RFC 1870)."""

    sender: str
    size: int = 0
    body: str = "7BIT"
    smtputf8: bool = False


class Rcpt(NamedTuple):
    """RCPT TO. recipient: an address, or `postmaster` alone (RFC 5321 §4.1.1.3)."""

    recipient: str


class Chunk(NamedTuple):
    """BDAT (RFC 3030 §2)."""

    size: int
    last: bool
