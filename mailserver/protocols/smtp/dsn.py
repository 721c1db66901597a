r"""What a sender asks of delivery reports: RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT (RFC 3461 §4).

ENVID and ORCPT are checked and kept as they were said, since whoever relays must pass them on like that (§5.2.1).
Both are xtext (§4): printable ASCII in which `+2B` stands for a character. An ORCPT of the type utf-8 is not: there
`\x{FC}` stands for a character, and where the transaction has SMTPUTF8 the character itself may stand (RFC 6533 §3).

What is wrong raises `Refused` with the reply (§5.1). Values are what stands behind `=`, None where nothing does.
"""

from __future__ import annotations

import re
from enum import Flag, auto

from mailserver.message.report import ascii_form, utf8_addr_xtext
from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.replies import Refused

MAX_ENVID = 100
MAX_ORCPT = 500
"""Octets of the values, RFC 3461 §5.4."""

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_NOT_XCHAR = re.compile(r"[^!-*,-<>-~]")
_PRINTABLE = re.compile(r"[\t -~]*")
_ADDR_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]+")
_UNITEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2}|[^\x00-\x9f\u2028\u2029\ud800-\udfff])+")
_NOT_QUCHAR = re.compile(r"[\x00-\x20\\+=\x7f]")


class Notify(Flag):
    """Of which events the sender wants to hear. NEVER is none of them, and not the same as no NOTIFY at all."""

    NEVER = 0
    SUCCESS = auto()
    FAILURE = auto()
    DELAY = auto()

    def __str__(self) -> str:
        """The parameter's value."""
        return ",".join(event.name or "" for event in self) or "NEVER"


IMPLIED = Notify.FAILURE | Notify.DELAY
"""What a recipient without NOTIFY asks for (RFC 3461 §4.1)."""

_EVENTS = {event.name: event for event in Notify}


def wants(asked: Notify | None, event: Notify) -> bool:
    """Whether a report of this event is asked for; asked: None where there was no NOTIFY."""
    return event in (IMPLIED if asked is None else asked)


def notify(value: str | None) -> Notify:
    """NOTIFY (RFC 3461 §4.1): NEVER alone, or any of the others, each once."""
    text = (value or "").upper() if (value or "").isascii() else ""
    if text == "NEVER":
        return Notify.NEVER
    asked = Notify.NEVER
    for name in text.split(","):
        event = _EVENTS.get(name)
        if event is None or event in asked:
            raise Refused(replies.SYNTAX.saying("Syntax: NOTIFY=NEVER or NOTIFY=SUCCESS,FAILURE,DELAY"))
        asked |= event
    return asked


def ret(value: str | None) -> str:
    """RET (RFC 3461 §4.3): FULL or HDRS."""
    if value is None or not value.isascii() or value.upper() not in ("FULL", "HDRS"):
        raise Refused(replies.SYNTAX.saying("Syntax: RET=FULL or RET=HDRS"))
    return value.upper()


def envid(value: str | None) -> str:
    """ENVID (RFC 3461 §4.4) as it was said; `decode_xtext` gives what it means."""
    if not value or len(value) > MAX_ENVID or not _is_xtext(value):
        raise Refused(replies.SYNTAX.saying(f"Syntax: ENVID=xtext of at most {MAX_ENVID} octets"))
    return value


def orcpt(value: str | None, *, smtputf8: bool = False) -> str:
    """ORCPT (RFC 3461 §4.2) as it was said. smtputf8: the transaction was begun with it (RFC 6531 §3.4)."""
    said = value or ""
    addr_type, _, address = said.partition(";")
    is_address = _UNITEXT.fullmatch if addr_type.lower() == "utf-8" else _is_xtext
    if not (address and _ADDR_TYPE.fullmatch(addr_type) and is_address(address)) or len(said.encode()) > MAX_ORCPT:
        raise Refused(replies.SYNTAX.saying(f"Syntax: ORCPT=type;xtext of at most {MAX_ORCPT} octets"))
    if not smtputf8 and not address.isascii():
        raise Refused(replies.NEEDS_SMTPUTF8)
    return said


def original_recipient(said: str) -> str:
    """An ORCPT for the field Original-Recipient: its xtext undone, except in the type utf-8, which has none."""
    addr_type, _, address = said.partition(";")
    return said if addr_type.lower() == "utf-8" else f"{addr_type};{decode_xtext(address)}"


def format_orcpt(address: str, *, smtputf8: bool = False) -> str:
    """An ORCPT that names the address of RCPT. smtputf8: the server that it is for takes UTF-8."""
    if address.isascii():
        return f"rfc822;{encode_xtext(address)}"
    if smtputf8:
        return "utf-8;" + _NOT_QUCHAR.sub(lambda char: f"\\x{{{ord(char[0]):02X}}}", address)
    return f"utf-8;{utf8_addr_xtext(address)}"


def ascii_orcpt(said: str) -> str:
    """An ORCPT for a server that does not take UTF-8 (RFC 6533 §3); without any it is as it was."""
    return ascii_form(said)


def encode_xtext(text: str) -> str:
    """ASCII as xtext. ValueError for other text."""
    if not text.isascii():
        raise ValueError("xtext is of ASCII")
    return _NOT_XCHAR.sub(lambda char: f"+{ord(char[0]):02X}", text)


def decode_xtext(value: str) -> str:
    """What an xtext stands for; octets above 127 become characters up to U+00FF. ValueError for what is none."""
    if not _XTEXT.fullmatch(value):
        raise ValueError(f"not xtext: {value!r}")
    return _HEXCHAR.sub(lambda code: chr(int(code[1], 16)), value)


def _is_xtext(value: str) -> bool:
    """Whether it is xtext that stands for printable ASCII, as ENVID and ORCPT have to."""
    return bool(_XTEXT.fullmatch(value) and _PRINTABLE.fullmatch(decode_xtext(value)))
