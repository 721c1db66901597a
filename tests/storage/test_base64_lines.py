from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import base64_lines


def canonical(octets: bytes) -> bytes:
    return base64.encodebytes(octets).rstrip(b"\n").replace(b"\n", b"\r\n")


SIZES = [0, 1, 2, 3, 56, 57, 58, 113, 114, 115, 171, 172, 57 * 256 - 1, 57 * 256, 57 * 256 + 1, 57 * 600 + 20]


@pytest.mark.parametrize("size", SIZES)
def test_lines_of_76_digits(size: int) -> None:
    octets = bytes(i * 7 & 255 for i in range(size))
    text = base64_lines.encode(octets)
    assert text == canonical(octets)
    assert base64_lines.encoded_length(size) == len(text)
    assert base64_lines.decode(text) == (octets if size else None)


@given(
    st.binary(min_size=1, max_size=400), st.integers(0, 500), st.sampled_from([b"", b"\r\n", b" ", b"=", b"A", b"\n"])
)
@settings(max_examples=200, derandomize=True)
def test_only_what_comes_back_exactly_is_decoded(octets: bytes, at: int, rubbish: bytes) -> None:
    text = canonical(octets)
    changed = text[:at] + rubbish + text[at:]
    raw = base64_lines.decode(changed)
    assert raw is None or base64_lines.encode(raw) == changed


@pytest.mark.parametrize(
    "text",
    [b"QUJD\r\n", b"QUI", b"QUJ=", b"QU JD", b"QUJD\r\nQUJD", b"Q" * 77, b"QUJDQ", b"====", b"\r\nQUJD", b"QR=="],
)
def test_other_forms_stay_as_they_are(text: bytes) -> None:
    assert base64_lines.decode(text) is None


def test_canonical_means_every_octet() -> None:
    octets = random.Random(7).randbytes(30_000)
    text = canonical(octets)
    for at in (0, 75, 76, 77, 78, 19_966, 19_967, 19_968, 19_969, len(text) - 1):
        for octet in (b"!", b"\r", b"\n", b"="):
            assert base64_lines.decode(text[:at] + octet + text[at + 1 :]) in (None, octets)
            if text[at : at + 1] != octet:
                assert base64_lines.decode(text[:at] + octet + text[at + 1 :]) is None
    assert base64_lines.decode(b"") is None


@pytest.mark.parametrize("size", [0, 1, 56, 57, 58, 114, 500])
def test_a_range_is_that_of_the_whole(size: int) -> None:
    data = bytes(range(250)) * 2
    whole = base64_lines.encode(data[:size])
    for start in range(0, len(whole) + 1, 3):
        for stop in range(start, len(whole) + 1):
            assert base64_lines.encode_range(data[:size], start, stop) == whole[start:stop]
