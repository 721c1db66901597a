"""What a server offers, as its reply to EHLO says (RFC 5321 §4.1.1.1).

The first line names the server, each further line an extension: a keyword, perhaps with parameters, in any case.
Unknown keywords and parameters are nothing to us. Some servers write `AUTH=PLAIN LOGIN`, from before RFC 4954.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mailserver.protocols.smtp.reply import Reply

MAX_SIZE_DIGITS = 20  # RFC 1870 §4


@dataclass(frozen=True, slots=True)
class Extensions:
    """The extensions of which a client makes use. After HELO there are none.

    domain: the name that the server gave itself, "" for none. size: octets of the largest message that it takes, 0
    where it announced no limit, None where it does not offer SIZE (RFC 1870). auth: SASL mechanisms in capitals.
    """

    domain: str = ""
    size: int | None = None
    pipelining: bool = False  # RFC 2920
    eight_bit: bool = False  # 8BITMIME, RFC 6152
    smtputf8: bool = False  # RFC 6531
    chunking: bool = False  # RFC 3030
    starttls: bool = False  # RFC 3207
    dsn: bool = False  # RFC 3461
    enhanced: bool = False  # ENHANCEDSTATUSCODES, RFC 2034
    auth: frozenset[str] = frozenset()  # RFC 4954

    @classmethod
    def from_ehlo(cls, reply: Reply) -> Extensions:
        """Those that a positive reply to EHLO announces."""
        offered: dict[str, list[str]] = {}
        for keyword, parameters in _announcements(reply.lines[1:]):
            offered.setdefault(keyword, []).extend(parameters)
        return cls(
            domain=_domain(reply),
            size=_size(offered["SIZE"]) if "SIZE" in offered else None,
            pipelining="PIPELINING" in offered,
            eight_bit="8BITMIME" in offered,
            smtputf8="SMTPUTF8" in offered,
            chunking="CHUNKING" in offered,
            starttls="STARTTLS" in offered,
            dsn="DSN" in offered,
            enhanced="ENHANCEDSTATUSCODES" in offered,
            auth=frozenset(offered.get("AUTH", ())),
        )

    @classmethod
    def from_helo(cls, reply: Reply) -> Extensions:
        """None, whatever the reply to HELO says (RFC 5321 §3.2)."""
        return cls(domain=_domain(reply))


def _announcements(lines: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    for line in lines:
        words = line.upper().split()
        if words and words[0].startswith("AUTH="):
            words[:1] = words[0].split("=", 1)
        if words:
            yield words[0], [word for word in words[1:] if word]


def _domain(reply: Reply) -> str:
    return (reply.lines[0].split(maxsplit=1) or [""])[0]


def _size(parameters: list[str]) -> int:
    """The limit. What is no number is none."""
    digits = parameters[0] if parameters else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= MAX_SIZE_DIGITS else 0
