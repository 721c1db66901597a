"""How SEARCH compares text: both sides are folded and their white space collapsed.

ASCII is put in lower case. Other text becomes NFKD(casefold(NFKD(s))) with ı as i, which finds what i;unicode-casemap
(RFC 5051) finds and more (ß = ss, ﬁ = FI); accents are kept. Hangul syllables stay composed, so that a syllable does
not match the beginning of a longer one; conjoining jamo are composed to them. So circled Hangul (㉮) does not match
plain Hangul, nor the two ligatures below their letters: all that differs from RFC 5051, see the tests. `str.lower`
would not do: it depends on context.

Bounds: a run of more than MAX_RUN marks or symbols is normalised in pieces of that length, for Python orders combining
marks in quadratic time; the two ligatures of which NFKD makes 18 and 8 letters stay whole, so that folded text is at
most about six times as long. Linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from unicodedata import normalize

MAX_RUN = 32

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
