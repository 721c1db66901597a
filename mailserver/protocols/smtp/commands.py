"""MAIL and RCPT as values that cannot be wrong."""

from __future__ import annotations

from typing import NamedTuple

from mailserver.protocols.smtp.dsn import Notify


class Mail(NamedTuple):
    """MAIL FROM. sender: "" is the null reverse-path; size: octets announced, 0 where none were (RFC 1870).

    ret, envid: as they were said (RFC 3461), "" where they were not.
    """

    sender: str
    size: int = 0
    body: str = "7BIT"
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


class Rcpt(NamedTuple):
    """RCPT TO. recipient: an address, or `postmaster` alone (RFC 5321 §4.1.1.3).

    notify: None where there was none (RFC 3461 §4.1); orcpt: as it was said, "" where it was not.
    """

    recipient: str
    notify: Notify | None = None
    orcpt: str = ""


class Chunk(NamedTuple):
    """BDAT (RFC 3030 §2)."""

    size: int
    last: bool
