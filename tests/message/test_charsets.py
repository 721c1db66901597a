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


def in_pieces(octets: bytes, charset: str, piece: int) -> str:
    return "".join(charsets.texts(lambda: (octets[at : at + piece] for at in range(0, len(octets), piece)), charset))


@pytest.mark.parametrize("piece", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("utf-8", "Grüße 日本語 🙂"),
        ("utf-16", "Grüße 日本語 🙂"),
        ("utf-16le", "Grüße 🙂"),
        ("utf-7", "Grüße, 日本語"),
        ("iso-2022-jp", "abc 日本語 def"),
        ("shift_jis", "日本語ソ表"),
        ("euc-kr", "한국어"),
        ("gb18030", "中文 ü 🙂"),
        ("big5", "中文"),
        ("hz", "abc 中文 def"),
        ("windows-1252", "Grüße – “x”"),
        ("koi8-r", "Привет"),
    ],
)
def test_characters_across_pieces(charset: str, text: str, piece: int) -> None:
    octets = text.encode(charsets.codec_of(charset) or "")
    assert in_pieces(octets, charset, piece) == text
    # Wrongly declared, it is UTF-8 all the same.
    assert in_pieces(text.encode(), "us-ascii", piece) == text


@SETTINGS
@given(
    st.lists(
        st.sampled_from([b"a", b"\xc3\xbc", b"\xff", b"\x81", b"+2AA-", b"\x1b$B", b"\x1b(B", b"\0"]), max_size=12
    ),
    st.sampled_from(
        ["utf-8", "us-ascii", "utf-16", "utf-7", "shift_jis", "windows-1253", "iso-2022-jp", "x-none", "big5"]
    ),
    st.integers(1, 5),
)
def test_anything_in_pieces_is_what_it_is_as_a_whole(pieces: list[bytes], charset: str, piece: int) -> None:
    octets = b"".join(pieces)
    assert in_pieces(octets, charset, piece) == charsets.to_text(octets, charset)


def test_a_shift_sequence_without_end_is_not_held() -> None:
    pieces = [b"+", *[b"AOQA" * 5000] * 50]
    assert max(map(len, charsets.texts(lambda: pieces, "utf-7"))) < 5 * 20_000
