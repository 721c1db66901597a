from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import content_type, decode, structure
from mailserver.message.decode import fold
from tests.message.messages import SETTINGS, soup

WORDS = [
    (b"plain", "plain"),
    (b"", ""),
    # RFC 2047 §8.
    (b"=?US-ASCII?Q?Keith_Moore?= <moore@cs>", "Keith Moore <moore@cs>"),
    (b"=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?=", "Keld Jørn Simonsen"),
    (b"=?ISO-8859-1?Q?Andr=E9?= Pirard", "André Pirard"),
    (
        b"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?=    =?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
        "If you can read this you understand the example.",
    ),
    (b"=?ISO-8859-1?Q?a?=", "a"),
    (b"(=?ISO-8859-1?Q?a?= b)", "(a b)"),
    (b"=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
    (b"=?ISO-8859-1?Q?a?=  \t =?ISO-8859-1?Q?b?=", "ab"),
    (b"=?ISO-8859-1?Q?a_b?=", "a b"),
    (b"=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
    (b"=?iso-8859-8?b?7eXs+SDv4SDp7Oj08A==?=", "םולש ןב ילטפנ"),
    # RFC 2231 §5: a language.
    (b"=?US-ASCII*EN?Q?Keith_Moore?=", "Keith Moore"),
    # A character cut in two by the sender; without padding; in lower case; space inside; next to text.
    (b"=?utf-8?b?w6TD?= =?utf-8?b?vA==?=", "äü"),
    (b"=?UTF-8?Q?=C3?=  =?utf-8?q?=BC?=", "ü"),
    (b"=?utf-8?B?w7w?=", "ü"),
    (b"=?utf-8?q?two words?=", "two words"),
    (b"Re:=?utf-8?q?=C3=BC?=x", "Re:üx"),
    (b"=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=\t=?iso-2022-jp?B?GyRCOGwbKEI=?=", "日本語"),
    # Raw octets, and words that are none.
    ("ü".encode() + b" =?utf-8?q?=C3=BC?=", "ü ü"),
    (b"\xfc =?utf-8?q?x?= \xfc", "ü x ü"),
    (b"=?utf-8?x?abc?=", "=?utf-8?x?abc?="),
    (b"=?utf-8?q?abc", "=?utf-8?q?abc"),
    (b"=??q?abc?=", "=??q?abc?="),
    (b"=?no-such?q?abc?= =?zlib?q?=FC?=", "abcü"),
    (b"=?utf-8?q??=", ""),
    (b"a =?utf-8?q??= b", "a  b"),
    (b"=?utf-8?q?a=0D=0Ab=00c?=", "a b c"),
    (b"=?utf-8?b?====?=x", "x"),
]


@pytest.mark.parametrize(("value", "text"), WORDS)
def test_words(value: bytes, text: str) -> None:
    assert decode.words(value) == text


PARAMETERS = [
    (b"; filename=plain.txt", "plain.txt"),
    (b'; filename="=?utf-8?q?=C3=BC.txt?="', "ü.txt"),
    (b"; filename=\xfc.txt", "ü.txt"),
    # RFC 2231 §3 and §4.
    (b'; filename*0="ftp://"; filename*1="cs.utk/x"', "ftp://cs.utk/x"),
    (b"; filename*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A", "This is ***fun***"),
    (
        b"; filename*0*=us-ascii'en'Even%20more%20; filename*1*=%2A%2A%2Afun%2A%2A%2A%20; filename*2=\"isn't it!\"",
        "Even more ***fun*** isn't it!",
    ),
    (b"; filename*1=b; filename*0=a; filename*2=c", "abc"),
    (b"; filename*0*=utf-8''%C3; filename*1*=%BC", "ü"),
    (b"; filename=fallback; filename*=utf-8''%C3%BC", "ü"),
    # Broken: no charset, a hole, a section twice, numbers of no end.
    (b"; filename*=%C3%BC", "ü"),
    (b"; filename*0=a; filename*2=c", "a"),
    (b"; filename*1=b", None),
    (b"; filename*0=a; filename*99999999999999999999=b; filename*x=c", "a"),
    (b"; filename*=''", ""),
    (b"; filename*=utf-8''a%0D%0Ab%00", "a b "),
    (b"; filename*=utf-8''%ZZ%", "%ZZ%"),
    (b"; other=x", None),
    (b"", None),
]


@pytest.mark.parametrize(("text", "expected"), PARAMETERS)
def test_parameter(text: bytes, expected: str | None) -> None:
    assert decode.parameter(content_type.parameters(text), b"filename") == expected


def searchable(octets: bytes, piece: int = decode.PIECE) -> tuple[str, str]:
    """Header and body as SEARCH compares them."""
    tree = structure.parse(octets)
    texts = decode.header_texts(octets, tree, piece), decode.body_texts(octets, tree, piece)
    return "".join(texts[0]), "".join(texts[1])


def test_what_search_sees_of_a_message() -> None:
    octets = (
        b"Subject: =?utf-8?q?=C3=9Cber?=\r\n =?utf-8?q?_uns?= and\r\n\tmore\r\nX-Spaced : VALUE\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n"
        b"--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe,\r\n  two   li=\r\nnes\r\n"
        b"--b\r\nContent-Type: text/html; charset=iso-8859-1\r\n\r\n<p>H\xf6rt <a href='http://x.example'>her</a></p>\r\n"
        b"--b\r\nContent-Type: application/pdf; name=A.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nSGVsbG8=\r\n"
        b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: Inner\r\n\r\nInner TEXT\r\n--b--\r\n"
    )
    header, body = searchable(octets)
    assert header == (
        f" \n subject: {fold('über uns')} and more \n x-spaced: value \n content-type: multipart/mixed; boundary=b"
        " \n content-transfer-encoding: quoted-printable"
        " \n content-type: text/html; charset=iso-8859-1"
        " \n content-type: application/pdf; name=a.pdf \n content-transfer-encoding: base64"
        " \n content-type: message/rfc822 "
    )
    assert body == (
        f" \n {fold('Grüße,')} two lines \n {fold('hört')} http://x.example her \n subject: inner \n inner text "
    )


def test_borders_cannot_be_forged() -> None:
    found = searchable(b"Subject: =?utf-8?q?a=0A_from:_x=00?=\r\n\r\nb\0c\nd\x00")
    assert found == (" \n subject: a from: x ", " \n b c d ")


def test_a_message_without_text() -> None:
    assert searchable(b"") == (" ", " \n  ")
    assert searchable(b"Content-Type: image/gif\r\n\r\nGIF") == (" \n content-type: image/gif ", " ")


def test_delivery_reports_are_searched() -> None:
    assert "final-recipient" in searchable(b"Content-Type: message/delivery-status\r\n\r\nFinal-Recipient: x\r\n")[1]


@SETTINGS
@given(soup)
def test_any_message_is_searched(octets: bytes) -> None:
    found = searchable(octets)
    for text in found:
        assert "\0" not in text and "\r" not in text
        text.encode()
        for line in text.split("\n")[1:]:
            assert line.startswith(" ") and line.endswith(" ")
            assert decode.collapse(line) == line.strip(" ")


@SETTINGS
@given(st.text(max_size=40), st.sampled_from(["utf-8", "utf-16-le", "utf-7"]), st.sampled_from("bq"))
def test_encoded_words_come_back(text: str, charset: str, encoding: str) -> None:
    octets = text.encode(charset)
    if encoding == "b":
        word = base64.b64encode(octets)
    else:
        word = b"".join(b"=%02X" % octet for octet in octets)
    shown = "".join(" " if char in "\0\r\n" else char for char in text)
    made = decode.words(b"=?%b?%b?%b?=" % (charset.encode(), encoding.encode(), word))
    assert made.split() == shown.split()


@SETTINGS
@given(
    st.lists(
        st.sampled_from([b"=?", b"?=", b"?", b"=", b"q", b"b", b"utf-8", b"utf-7", b" ", b"+2AA-", b"\xff", b"QQ=="])
    )
)
def test_anything_is_read(pieces: list[bytes]) -> None:
    decode.words(b"".join(pieces)).encode()
    decode.parameter(content_type.parameters(b"; filename*=" + b"".join(pieces)), b"filename")


@SETTINGS
@given(soup, st.integers(1, 50))
def test_pieces_are_those_of_the_whole(octets: bytes, piece: int) -> None:
    # But for lines of these encodings that are longer than a piece.
    octets = octets.replace(b"quoted-printable", b"7bit").replace(b"=?", b"")
    assert searchable(octets, piece) == searchable(octets)
