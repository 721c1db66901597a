"""What became of a recipient in one attempt: delivered, to be tried again, or failed for good.

An outcome is a value that is stored whole and shown to people: to administrators in the queue, to senders in a bounce.
Its text and host come from another server, so both are bounded and printable from the moment the value is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_TEXT = 1000
MAX_HOST = 255

_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")
_TOO_MANY_RECIPIENTS = ("", "5.5.3")

DEFAULT_ENHANCED = {
    251: "2.1.5",
    421: "4.3.2",
    450: "4.2.0",
    452: "4.3.1",
    454: "4.7.0",
    455: "4.5.4",
    500: "5.5.2",
    501: "5.5.4",
    502: "5.5.1",
    503: "5.5.1",
    504: "5.5.4",
    521: "5.3.2",
    530: "5.7.0",
    534: "5.7.9",
    535: "5.7.8",
    538: "5.7.11",
    551: "5.1.6",
    552: "5.2.2",
    553: "5.1.3",
    555: "5.5.4",
    556: "5.1.10",
}
"""For servers that give none (RFC 3463, RFC 5248, RFC 7504). 550 and 554 are said of recipients and contents alike, so
they get the code that says nothing, as does every other."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """code: of the SMTP reply, 0 where there was none; enhanced: RFC 3463; host: who said so, "" where nobody did."""

    code: int
    enhanced: str
    text: str
    host: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", printable(self.text, MAX_TEXT))
        object.__setattr__(self, "host", printable(self.host, MAX_HOST))


@dataclass(frozen=True, slots=True)
class Delivered(_Outcome):
    """The other server has taken responsibility (RFC 5321 §6.1)."""


@dataclass(frozen=True, slots=True)
class Deferred(_Outcome):
    """Not delivered, and another attempt may do better."""


@dataclass(frozen=True, slots=True)
class Failed(_Outcome):
    """Not delivered, and no other attempt will be made."""


Outcome = Delivered | Deferred | Failed


def of_reply(code: int, enhanced: str, text: str, host: str = "", *, to_rcpt: bool = False) -> Outcome:
    """What a final reply of a server means for a recipient (RFC 5321 §4.2.1).

    enhanced: "" where the server gave none; one that contradicts the code counts as none. to_rcpt: it answers RCPT. A
    reply that is neither 2xx, 4xx nor 5xx answers nothing, and is a fault that may pass.
    """
    if to_rcpt and code == 552 and enhanced in _TOO_MANY_RECIPIENTS:
        return Deferred(452, "4.5.3", text, host)  # RFC 5321 §4.5.3.1.10: what RFC 821 called 552 is 452
    if 200 <= code <= 299:
        return Delivered(code, _fitting(code, enhanced), text, host)
    if 400 <= code <= 499:
        return Deferred(code, _fitting(code, enhanced), text, host)
    if 500 <= code <= 599:
        return Failed(code, _fitting(code, enhanced), text, host)
    return Deferred(code, "4.5.0", text, host)


def printable(text: str, limit: int) -> str:
    """On one line and harmless on a terminal, of at most limit characters: spaces for white space, `?` for controls."""
    spaced = " ".join(text[: 4 * limit].split())
    if not spaced.isprintable():
        spaced = "".join(char if char.isprintable() else "?" for char in spaced)
    return spaced if len(spaced) <= limit else spaced[: limit - 3] + "..."


def _fitting(code: int, enhanced: str) -> str:
    """The enhanced code where it agrees with the code (RFC 2034 §4), else the code's usual one."""
    kind = str(code // 100)
    if enhanced.startswith(kind) and _ENHANCED.fullmatch(enhanced):
        return enhanced
    return DEFAULT_ENHANCED.get(code, f"{kind}.0.0")
