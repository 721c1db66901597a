from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import charsets
from tests.message.messages import SETTINGS


@pytest.mark.parametrize(
    ("octets", "charset", "text"),
    [
        (b"abc", None, "abc"),
        ("Grüße".encode(), None, "Grüße"),
        (b"Gr\xfc\xdfe", None, "Grüße"),
        (b"Gr\xfc\xdfe", b"ISO-8859-1", "Grüße"),
        (b"\x80 \x93q\x94", b"iso-8859-1", "€ “q”"),
        ("Grüße".encode(), b"us-ascii", "Grüße"),
        (b"Gr\xfc\xdfe", b"us-ascii", "Grüße"),
        (b"Gr\xfc\xdfe", b"utf-8", "Gr\ufffd\ufffde"),
        (b"Gr\xfc\xdfe", b"x-no-such-charset", "Grüße"),
        ("Привет".encode("koi8-r"), b"KOI8-R", "Привет"),
        ("Привет".encode("cp1251"), b"windows-1251", "Привет"),
        ("日本語".encode("iso-2022-jp"), b"ISO-2022-JP", "日本語"),
        ("日本語".encode("cp932"), b"Shift_JIS", "日本語"),
        ("日本語".encode("euc-jp"), b"euc-jp", "日本語"),
        ("中文".encode("gbk"), b"GB2312", "中文"),
        ("中文".encode("big5"), b"Big5", "中文"),
        ("한국".encode("cp949"), b"ks_c_5601-1987", "한국"),
        ("한국".encode("iso-2022-kr"), b"iso-2022-kr", "한국"),
        ("ไทย".encode("cp874"), b"TIS-620", "ไทย"),
        ("שלום".encode("iso8859-8"), b"iso-8859-8-i", "שלום"),
        ("Ω".encode("utf-16"), b"utf-16", "Ω"),
        ("Ω".encode("utf-32-be"), b"UTF-32BE", "Ω"),
        (b"Hi Mom +Jjo-!", b"UTF-7", "Hi Mom ☺!"),
        (b"caf\x8e", b"macintosh", "café"),
        # Wrong in part: what is right stays.
        (b"\xaa\xe1", b"windows-1253", "\ufffdα"),
        (b"abc\xff", b"euc-jp", "abc\ufffd"),
        # What is declared but no character set, or not declared at all in words that mean that.
        (b"1f8b", b"hex", "1f8b"),
        (b"uryyb", b"rot13", "uryyb"),
        (b"xn--a", b"idna", "xn--a"),
        (b"\\u0041", b"unicode_escape", "\\u0041"),
        ("ü".encode(), b"unknown-8bit", "ü"),
        # Lone surrogates cannot be stored.
        (b"+2AA-", b"utf-7", "\ufffd"),
        (b"\xed\xa0\x80", b"utf-8", "\ufffd\ufffd\ufffd"),
    ],
)
def test_to_text(octets: bytes, charset: bytes | None, text: str) -> None:
    assert charsets.to_text(octets, charset) == text


@pytest.mark.parametrize(
    "name", [b"utf-8", "UTF8", b"Latin1", b"cp-850", b"ISO_8859-15:1998", b"windows-1258", b"x-sjis"]
)
def test_known_names(name: bytes | str) -> None:
    codec = charsets.codec_of(name)
    assert codec is not None
    "x".encode(codec)


@pytest.mark.parametrize("name", [b"", b"nothing", b"zlib", b"base64", b"\xff", b"os.path", b"../../x", b"x" * 1000])
def test_unknown_names(name: bytes) -> None:
    assert charsets.codec_of(name) is None


NAMES = sorted(set(charsets._KNOWN.values()))


@pytest.mark.parametrize("codec", NAMES)
def test_every_codec_of_the_table_decodes_anything(codec: str) -> None:
    for octets in (b"abc", bytes(range(256)), bytes(range(255, -1, -1)) * 2, b"\x1b$B~{\xff\xfe+2AA-"):
        charsets.to_text(octets, codec).encode()


@SETTINGS
@given(st.binary(max_size=30), st.sampled_from(NAMES) | st.binary(max_size=10))
def test_any_octets_become_storable_text(octets: bytes, charset: str | bytes) -> None:
    charsets.to_text(octets, charset).encode()
