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
