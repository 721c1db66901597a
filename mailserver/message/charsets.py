"""Octets to text in any character set that Python knows, and never an error.

Names are looked up in a table made once: a name from a message never reaches the import system, and codecs that are no
character sets (zlib, rot13, idna, unicode-escape …) are not in it. As in browsers (WHATWG Encoding), a name stands for
the superset that senders really use: iso-8859-1 is read as windows-1252, gb2312 as gb18030, shift_jis as windows-31j.

What does not decode as declared is tried as UTF-8, then read as declared with U+FFFD for what is wrong, or as
windows-1252 where the name is unknown. The result holds no surrogates. Linear in the octets.

What comes in pieces is read twice: whether it decodes as declared is known only at its end. A shift sequence of UTF-7
longer than MAX_HELD counts as one that does not decode.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from encodings.aliases import aliases
from itertools import chain
from typing import Final

MAX_HELD: Final = 64 * 1024

_NOT_CHARSETS = frozenset(
    (
        *("base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec", "mbcs", "oem"),
        *("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"),
    )
)
_SUPERSETS = {
    "cp1252": ("iso-8859-1", "latin-1", "windows-1252", "x-cp1252", "x-ansi", "ansi"),
    "cp1254": ("iso-8859-9", "latin-5"),
    "cp874": ("tis-620", "windows-874", "iso-8859-11", "x-windows-874"),
    "cp932": ("shift_jis", "sjis", "x-sjis", "s-jis", "windows-31j", "csshiftjis", "ms_kanji", "ms932"),
    "cp949": ("euc-kr", "ks_c_5601-1987", "ks_c_5601-1989", "ksc5601", "ks_x_1001", "korean", "windows-949", "cseuckr"),
    "gb18030": ("gb2312", "gbk", "x-gbk", "euc-cn", "gb_2312-80", "cp936", "ms936", "windows-936", "chinese"),
    "big5hkscs": ("big5", "cn-big5", "x-x-big5", "csbig5", "big5-tw"),
    "iso2022_jp_ext": ("iso-2022-jp", "csiso2022jp", "x-iso-2022-jp"),
    "euc_jp": ("x-euc-jp", "x-euc", "ujis"),
    "iso8859_8": ("iso-8859-8-i", "iso-8859-8-e", "logical", "visual"),
    "mac_roman": ("macintosh", "x-mac-roman", "mac"),
    "mac_cyrillic": ("x-mac-cyrillic", "x-mac-ukrainian"),
    "koi8_r": ("koi8", "koi", "cskoi8r"),
    "koi8_u": ("koi8-ru",),
    "utf_7": ("unicode-1-1-utf-7", "csunicode11utf7", "x-unicode-2-0-utf-7"),
    "utf_8": ("unicode-1-1-utf-8", "utf8mb4", "x-utf-8", "default", "unknown-8bit", "x-unknown", "_autodetect"),
    "utf_16": ("unicode", "ucs-2", "iso-10646-ucs-2", "csunicode"),
    "utf_32": ("ucs-4", "iso-10646-ucs-4"),
}
_BYTE_ORDERS = {
    "utf_16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf_32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}
_SEPARATORS = re.compile(r"[^a-z0-9]+")


def _key(name: str) -> str:
    return _SEPARATORS.sub("", name.lower())


def _known() -> dict[str, str]:
    known = {}
    for alias, codec in aliases.items():
        if codec not in _NOT_CHARSETS:
            known[_key(alias)] = codec
            known[_key(codec)] = codec
    for codec in ("cp720", "cp737", "cp856", "cp874", "cp875", "cp1006", "koi8_r", "koi8_t", "koi8_u"):
        known[_key(codec)] = codec
    for number in range(1250, 1259):
        known[f"windows{number}"] = known[f"xcp{number}"] = f"cp{number}"
    for codec, names in _SUPERSETS.items():
        known.update({_key(name): codec for name in names})
    return known


_KNOWN = _known()
_SURROGATE = re.compile("[\ud800-\udfff]")


def codec_of(charset: bytes | str) -> str | None:
    """The Python codec that a MIME charset's name stands for; None where there is none."""
    if isinstance(charset, bytes):
        charset = charset[:60].decode("latin-1")
    return _KNOWN.get(_key(charset[:60].partition(":")[0]))  # ISO_8859-1:1987


def to_text(octets: bytes, charset: bytes | str | None = None) -> str:
    """The octets as text; without a charset UTF-8, then windows-1252."""
    codec = codec_of(charset) if charset else None
    if codec is not None and codec != "utf_8":
        text = _strictly(octets, codec)
        if text is not None:
            return text
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        pass
    return _loosely(octets, codec if codec not in (None, "ascii") else "cp1252")


def texts(again: Callable[[], Iterable[bytes]], charset: bytes | str | None = None) -> Iterator[str]:
    """As `to_text`, of octets in pieces, which each call of `again` gives anew. Many of the texts are empty."""
    codec = codec_of(charset) if charset else None
    for candidate in dict.fromkeys((codec or "utf_8", "utf_8")):
        try:
            for _ in _incrementally(again(), candidate, "strict"):
                yield ""
        except (UnicodeError, ValueError):
            continue
        yield from _incrementally(again(), candidate, "strict")
        return
    codec = codec if codec not in (None, "ascii") else "cp1252"
    if _table(codec) is not None:
        yield from (_loosely(piece, codec) for piece in again())
    else:
        yield from _incrementally(again(), codec, "replace")


def _incrementally(pieces: Iterable[bytes], codec: str, errors: str) -> Iterator[str]:
    pieces = iter(pieces)
    if codec in ("utf_16", "utf_32"):
        first = b""
        while len(first) < 4 and (piece := next(pieces, None)) is not None:
            first += piece
        pieces = chain((first,), pieces)
        if not first.startswith(_BYTE_ORDERS[codec]):
            codec += "_le"  # as the decoder of the whole has it
    decoder = codecs.getincrementaldecoder(codec)(errors)
    for piece in pieces:
        text = decoder.decode(piece)
        if len(decoder.getstate()[0]) > MAX_HELD:
            text += decoder.decode(b"", final=True)
        yield _without_surrogates(text)
    yield _without_surrogates(decoder.decode(b"", final=True))


def _strictly(octets: bytes, codec: str) -> str | None:
    try:
        return _without_surrogates(codecs.decode(octets, codec))
    except (UnicodeError, ValueError):
        return None


def _loosely(octets: bytes, codec: str) -> str:
    table = _table(codec)
    if table is not None:
        return codecs.charmap_decode(octets, "strict", table.replace("\ufffe", "\ufffd"))[0]
    try:
        return _without_surrogates(codecs.decode(octets, codec, "replace"))
    except (UnicodeError, ValueError):
        return octets.decode("latin-1")


def _table(codec: str) -> str | None:
    """The characters of a one-octet charset: Python calls back for each octet that is none, with a table there are
    no such octets."""
    table = getattr(sys.modules.get(f"encodings.{codec}"), "decoding_table", None)
    return table if isinstance(table, str) and len(table) == 256 else None


def _without_surrogates(text: str) -> str:
    """UTF-7 and CESU-like octets decode to lone surrogates, which nothing behind us can store."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
