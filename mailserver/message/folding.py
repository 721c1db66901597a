"""How SEARCH compares text: both sides are folded and their white space collapsed.

ASCII is put in lower case. Other text becomes NFKD(casefold(NFKD(s))) with ı as i, which finds what i;unicode-casemap
(RFC 5051) finds and more (ß = ss, ﬁ = FI); accents are kept. Hangul syllables stay composed, so that a syllable does
not match the beginning of a longer one; conjoining jamo are composed to them. So circled Hangul (㉮) does not match
plain Hangul, nor the two ligatures below their letters: all that differs from RFC 5051, see the tests. `str.lower`
would not do: it depends on context.

Bounds: a run of more than MAX_RUN marks or symbols is normalised in pieces of that length, for Python orders combining
marks in quadratic time; the two ligatures of which NFKD makes 18 and 8 letters stay whole, so that folded text is at
most about six times as long. Linear in the text, which may come in pieces; where these hold no border within MAX_HELD
characters, one that would need a closer look is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from unicodedata import combining, normalize

MAX_RUN = 32
MAX_HELD = 32 * 1024
_LOOK_BACK = 1024

_HANGUL = re.compile("([\u1100-\u11ff\uac00-\ud7a3]+)")
_LONG_RUN = re.compile(rf"([^\w\s\x00-\x7f]{{{MAX_RUN},}})")
_EXPLOSIVE = re.compile("([\ufdfa\ufdfb]+)")


def fold(text: str) -> str:
    """The text as it is compared; white space is left as it is."""
    if text.isascii():
        return text.lower()
    return _apart(text, _HANGUL, lambda jamo: normalize("NFC", jamo), _fold_marks)


def collapse(text: str) -> str:
    """The text with every run of white space as one space, none at its ends."""
    return " ".join(text.split())


def folded(pieces: Iterable[str]) -> Iterator[str]:
    """`collapse(fold(text))` of a text in pieces; many of the results are empty."""
    begun = spaced = False
    for piece in _at_borders(pieces):
        text = fold(piece)
        words = text.split()
        if words:
            yield (" " if begun and (spaced or text[0].isspace()) else "") + " ".join(words)
            begun, spaced = True, text[-1].isspace()
        else:
            yield ""
            spaced = spaced or bool(text)


def _at_borders(pieces: Iterable[str]) -> Iterator[str]:
    """The text in pieces that may be folded one by one."""
    held = ""
    for piece in pieces:
        held += piece
        at = _border(held)
        yield held[:at]
        held = held[at:]
    yield held


def _border(text: str) -> int:
    """The last place behind ASCII or before what nothing combines with, and which belongs to no run."""
    for at in range(len(text), max(0, len(text) - _LOOK_BACK), -1):
        if text[at - 1] < "\x80":
            return at
        if _begins(text[at - 1]):
            return at - 1
    return len(text) if len(text) > MAX_HELD else 0


def _begins(char: str) -> bool:
    return char.isalnum() and not "\u1100" <= char <= "\u11ff" and not combining(fold(char)[0])


def _fold_marks(text: str) -> str:
    return _apart(text, _LONG_RUN, _fold_run, _fold_short)


def _fold_run(run: str) -> str:
    return "".join([_fold_short(run[at : at + MAX_RUN]) for at in range(0, len(run), MAX_RUN)])


def _fold_short(text: str) -> str:
    return _apart(text, _EXPLOSIVE, str, _fold_plain)


def _fold_plain(text: str) -> str:
    return normalize("NFKD", normalize("NFKD", text).casefold().replace("ı", "i"))


def _apart(text: str, pattern: re.Pattern[str], special: Callable[[str], str], plain: Callable[[str], str]) -> str:
    """Treats what the pattern's one group matches apart from the rest."""
    if not pattern.search(text):
        return plain(text)
    pieces = pattern.split(text)
    pieces[0::2] = [plain(piece) if piece else piece for piece in pieces[0::2]]
    pieces[1::2] = [special(piece) for piece in pieces[1::2]]
    return "".join(pieces)
