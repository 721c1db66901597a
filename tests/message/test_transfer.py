from __future__ import annotations

import base64
import binascii
import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import transfer
from tests.message.messages import SETTINGS


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", b""),
        (b"QUJD", b"ABC"),
        (b"QUI=", b"AB"),
        (b"QUI", b"AB"),
        (b"QQ==", b"A"),
        (b"QQ", b"A"),
        (b"Q", b""),
        (b"QUJDR", b"ABC"),
        (b"QU\r\nJD\r\n", b"ABC"),
        (b" Q*U-J_D! ", b"ABC"),
        (b"QQ==QUJD", b"AABC"),
        (b"QQ==\r\nQUI=\r\n", b"AAB"),
        (b"====", b""),
        (b"Q=U=J=D", b""),
        (b"QUJD\xff\0", b"ABC"),
    ],
)
def test_base64(octets: bytes, expected: bytes) -> None:
    assert transfer.decode(octets, b"base64") == expected


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"a=20b=\r\nc", b"a bc"),
        (b"=C3=BC", "ü".encode()),
        (b"=c3=bc", "ü".encode()),
        (b"a=\nb", b"ab"),
        (b"100=% =", b"100=% "),
        (b"=ZZ=4", b"=ZZ=4"),
        (b"raw \xff", b"raw \xff"),
        (b"under_score", b"under_score"),
    ],
)
def test_quoted_printable(octets: bytes, expected: bytes) -> None:
    assert transfer.decode(octets, b"quoted-printable") == expected


def test_uuencode() -> None:
    data = bytes(range(256))
    text = b"".join(binascii.b2a_uu(data[at : at + 45]) for at in range(0, 256, 45))
    assert transfer.decode(b"begin 644 x\n" + text + b"`\nend\n", b"x-uuencode") == data
    assert transfer.decode(b"begin 644 x\r\n" + b"\xff\xff\r\n" + b"#0V%T\r\n", b"x-uue") == b"Cat"


@pytest.mark.parametrize("encoding", [b"7bit", b"8bit", b"binary", b"", b"x-unknown"])
def test_others_are_the_octets(encoding: bytes) -> None:
    assert transfer.decode(b"=41\0\xff", encoding) == b"=41\0\xff"


@SETTINGS
@given(st.binary(max_size=300))
def test_what_was_encoded_comes_back(data: bytes) -> None:
    assert transfer.decode(base64.encodebytes(data), b"base64") == data
    assert transfer.decode(base64.b64encode(data).rstrip(b"="), b"base64") == data
    assert transfer.decode(quopri.encodestring(data), b"quoted-printable") == data


@SETTINGS
@given(st.binary(max_size=100), st.sampled_from([b"base64", b"quoted-printable", b"x-uuencode"]))
def test_anything_is_read(data: bytes, encoding: bytes) -> None:
    transfer.decode(data, encoding)


@SETTINGS
@given(st.lists(st.sampled_from([b"QUJD", b"Q", b"Q=", b"==", b"\r\n", b"-", b"\xff"])), st.integers(1, 9))
def test_base64_in_pieces(parts: list[bytes], piece: int) -> None:
    octets = b"(" + b"".join(parts) + b")"
    assert b"".join(transfer.pieces(octets, 1, len(octets) - 1, b"base64", piece)) == transfer.base64(octets)


@SETTINGS
@given(
    st.lists(st.sampled_from([b"=C3", b"=", b"=\r\n", b"\r", b"\n", b"x", b"= ", b"M#0V%T"]), max_size=9).map(b"".join),
    st.sampled_from([b"quoted-printable", b"x-uuencode"]),
    st.integers(60, 200),
)
def test_lines_in_pieces(line: bytes, encoding: bytes, piece: int) -> None:
    octets = (line + b"\n") * 20
    whole = transfer.decode(octets, encoding)
    assert b"".join(transfer.pieces(octets, 0, len(octets), encoding, piece)) == whole


@pytest.mark.parametrize("piece", [3, 4, 5, 6, 7])
def test_a_long_line_is_not_cut_within_an_escape(piece: int) -> None:
    octets = b"=C3=BC." * 50
    assert b"".join(transfer.pieces(octets, 0, len(octets), b"quoted-printable", piece)) == "ü.".encode() * 50


def test_pieces_are_small() -> None:
    for encoding in (b"7bit", b"base64", b"quoted-printable", b"x-uuencode"):
        for octets in (b"QUJDREVG\r\n" * 20_000, b"x" * 200_000, b"=" * 200_000):
            longest = max(map(len, transfer.pieces(octets, 0, 200_000, encoding)))
            # A line of uuencode may say that it stands for more octets than it has.
            assert longest <= transfer.PIECE * (32 if encoding == b"x-uuencode" else 1)
