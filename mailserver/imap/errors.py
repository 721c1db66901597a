"""How a command ends: `Done`, or a refusal; and the one table from what storage refuses to what the client reads.

What is in no table is a fault of ours: the client gets `NO [SERVERBUG]` with an id, the log gets the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from mailserver.imap.view import NoSuchMessage
from storage.errors import AlreadyExists, Damaged, LimitReached, NotAllowed, NotFound, OverQuota, Unavailable, UseTaken


@dataclass(frozen=True, slots=True)
class Done:
    """`tag OK [code] text`."""

    text: str
    code: str = ""


class Refusal(Exception):
    """`tag NO [code] text`, or BAD: the command is not carried out."""

    def __init__(self, text: str, code: str = "", *, condition: str = "NO") -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.condition = condition


class Goodbye(Exception):
    """The session cannot go on: `* BYE [code] text` and no tagged line."""

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.code = code


def bad(text: str) -> Refusal:
    """The client's mistake."""
    return Refusal(text, condition="BAD")


def read_only() -> Refusal:
    return Refusal("Mailbox is read-only", "READ-ONLY")


# Condition, code (RFC 5530) and text by error; without a text storage's own words are said.
_ANSWERS: tuple[tuple[type[Exception], str, str, str], ...] = (
    (NotFound, "NO", "NONEXISTENT", "No such mailbox"),
    (AlreadyExists, "NO", "ALREADYEXISTS", "Mailbox already exists"),
    (OverQuota, "NO", "OVERQUOTA", "Not enough room: the account would be over its quota"),
    (LimitReached, "NO", "LIMIT", ""),
    (UseTaken, "NO", "USEATTR", ""),
    (NotAllowed, "NO", "CANNOT", ""),
    (Unavailable, "NO", "UNAVAILABLE", "The mail store does not answer, try again later"),
    (Damaged, "NO", "CORRUPTION", "The mail that is stored is damaged"),
    (NoSuchMessage, "BAD", "", "No such message"),
)


def refusal(error: Exception) -> Refusal | None:
    """What the client is told of an error that we expect; None for a fault."""
    if isinstance(error, Refusal):
        return error
    for kind, condition, code, text in _ANSWERS:
        if isinstance(error, kind):
            return Refusal(text or _sentence(str(error)), code, condition=condition)
    return None


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] if text else "Refused"
