"""Flags as a client reads them: a message's bits and its mailbox's keywords make one ready-made text.

A mailbox shows few combinations of flags, so the text of each is made once per list of keywords and then looked up.
\\Recent belongs to a session and not to the mailbox (RFC 3501 §2.3.2); it is the bit RECENT, above all stored ones.
"""

from __future__ import annotations

from functools import lru_cache

from storage.records import KEYWORDS_AT, MAX_KEYWORDS, Flag

RECENT = 1 << 63

_SYSTEM = (
    (Flag.ANSWERED, b"\\Answered"),
    (Flag.FLAGGED, b"\\Flagged"),
    (Flag.DELETED, b"\\Deleted"),
    (Flag.SEEN, b"\\Seen"),
    (Flag.DRAFT, b"\\Draft"),
    (RECENT, b"\\Recent"),
)
_MOST = 4096
"""Combinations remembered for one list of keywords; beyond it the table starts afresh."""


class Texts(dict[int, bytes]):
    """Flag bits to the text between the parentheses of `FLAGS (…)`."""

    __slots__ = ("_names",)

    def __init__(self, keywords: tuple[str, ...]) -> None:
        names = [(int(bit), name) for bit, name in _SYSTEM]
        names += [(1 << KEYWORDS_AT + i, name.encode()) for i, name in enumerate(keywords) if name]
        self._names = names

    def __missing__(self, bits: int) -> bytes:
        if len(self) >= _MOST:
            self.clear()
        text = self[bits] = b" ".join([name for bit, name in self._names if bits & bit])
        return text


@lru_cache(maxsize=256)
def texts(keywords: tuple[str, ...]) -> Texts:
    """The table of a mailbox whose keywords are these, by flag bit."""
    return Texts(keywords)


def defined(keywords: tuple[str, ...]) -> bytes:
    """All flags that the mailbox knows: the list of an untagged FLAGS response."""
    names = [name for bit, name in _SYSTEM if bit != RECENT]
    return b" ".join(names + [name.encode() for name in keywords if name])


def permanent(keywords: tuple[str, ...]) -> bytes:
    """The list of PERMANENTFLAGS; `\\*` only while there is room for another keyword (RFC 3501 §7.1)."""
    room = sum(1 for name in keywords if name) < MAX_KEYWORDS
    return defined(keywords) + (b" \\*" if room else b"")
