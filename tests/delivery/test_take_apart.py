from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.delivery import take_apart
from mailserver.delivery.take_apart import Split
from mailserver.message import structure
from storage import layout
from storage.layout import BLOB_BASE64, BLOB_RAW, INLINE_BASE64
from tests.message.messages import SETTINGS, Model, soup, well_formed

THRESHOLD = 65_536
DATA = random.Random(7).randbytes(100_000)


def lines(data: bytes, newline: bytes = b"\r\n", width: int = 76) -> bytes:
    digits = base64.b64encode(data)
    return newline.join(digits[at : at + width] for at in range(0, len(digits), width))


def taken_apart(octets: bytes, threshold: int = THRESHOLD) -> Split:
    split = take_apart.split(octets, structure.parse(octets), threshold)
    assert b"".join(layout.rebuild(split.layout, split.front, b"".join(split.inline), split.blobs)) == octets
    assert len(split.front) + sum(piece.encoded_length for piece in layout.unpack(split.layout)) == len(octets)
    return split


def kinds(split: Split) -> list[int]:
    return [piece.kind for piece in layout.unpack(split.layout)]


def leaf(body: bytes, encoding: bytes = b"base64") -> bytes:
    return b"Content-Type: application/pdf\r\nContent-Transfer-Encoding: %b\r\n\r\n%b" % (encoding, body)


@SETTINGS
@given(soup, st.sampled_from([0, 1, 5, 76, 1024, THRESHOLD]))
def test_any_message_is_rebuilt_exactly(octets: bytes, threshold: int) -> None:
    taken_apart(octets, threshold)


@SETTINGS
@given(well_formed, st.sampled_from([1, 50, 1500, 3000, THRESHOLD]))
def test_well_formed_messages_are_rebuilt_exactly(model: Model, threshold: int) -> None:
    taken_apart(model.octets, threshold)


@SETTINGS
@given(st.binary(max_size=3000), st.binary(max_size=3), st.integers(0, 4100), st.sampled_from([1, 1024, THRESHOLD]))
def test_base64_with_an_octet_changed_is_rebuilt_exactly(data: bytes, junk: bytes, at: int, threshold: int) -> None:
    text = lines(data)
    taken_apart(leaf(text[:at] + junk + text[at + 1 :]), threshold)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lines(DATA), [BLOB_BASE64]),
        (lines(DATA) + b"\r\n", [BLOB_BASE64]),
        (lines(DATA) + b"\r\n\r\n\r\n", [BLOB_BASE64]),
        (lines(DATA[:49_000]), [BLOB_BASE64]),
        (lines(DATA[:47_000]), [INLINE_BASE64]),
        (lines(DATA[:768]), [INLINE_BASE64]),
        (lines(DATA[:740]), []),
        # Whole last lines, and ends of all three lengths.
        *((lines(DATA[: 57 * 100 + more]), [INLINE_BASE64]) for more in (0, 1, 2, 3)),
        # Not canonical: small ones stay, large ones become blobs of what they are.
        (lines(DATA[:3000], b"\n"), []),
        (lines(DATA[:3000], width=72), []),
        (lines(DATA[:3000], width=60), []),
        (base64.b64encode(DATA[:3000]), []),
        (lines(DATA[:3000])[:-1], []),
        (lines(DATA[:3001]).rstrip(b"="), []),
        (lines(DATA[:3000]) + b"\n", []),
        (b"\r\n" + lines(DATA[:3000]), []),
        (lines(DATA[:3000]).replace(b"A", b" A", 1), []),
        (lines(DATA[:3000]).replace(b"\r\n", b"\r\r", 1), []),
        (lines(b"\0" * 3000)[:-1] + b"B", [INLINE_BASE64]),
        (lines(b"\0" * 2999)[:-2] + b"B=", []),  # bits that no octet owns
        (lines(DATA, b"\n"), [BLOB_RAW]),
        (base64.b64encode(DATA), [BLOB_RAW]),
        (b"=" * 70_000, [BLOB_RAW]),
    ],
)
def test_what_base64_becomes(body: bytes, expected: list[int]) -> None:
    split = taken_apart(leaf(body))
    assert kinds(split) == expected
    if expected == [BLOB_BASE64]:
        assert DATA.startswith(split.blobs[0])
    if not expected:
        assert split == (leaf(body), (), (), None)


def test_other_large_leaves_become_blobs_of_their_octets() -> None:
    text = b"some text\r\n" * 7000
    split = taken_apart(b"Subject: x\r\n\r\n" + text)
    assert (split.front, split.blobs, kinds(split)) == (b"Subject: x\r\n\r\n", (text,), [BLOB_RAW])
    small = taken_apart(b"Subject: x\r\n\r\n" + text[:60_000])
    assert small.layout is None


def test_equal_attachments_meet() -> None:
    mixed = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\nhi\r\n--b\r\n%b\r\n--b\r\n%b\r\n\r\n--b\r\n%b\r\n--b--\r\n"
    )
    split = taken_apart(mixed % (leaf(lines(DATA)), leaf(lines(DATA)), leaf(lines(DATA[:2000]))))
    assert split.blobs == (DATA, DATA)
    assert split.inline == (DATA[:2000],)
    assert kinds(split) == [BLOB_BASE64, BLOB_BASE64, INLINE_BASE64]
    assert len(split.layout or b"") < 20


def test_parts_of_messages_inside_are_taken_out_too() -> None:
    split = taken_apart(b"Content-Type: message/rfc822\r\n\r\n" + leaf(lines(DATA)))
    assert split.blobs == (DATA,)


def test_ten_thousand_parts() -> None:
    part = b"--b\r\n" + leaf(lines(DATA[:900])) + b"\r\n"
    split = taken_apart(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 10_000 + b"--b--")
    assert len(split.inline) == 10_000 and set(split.inline) == {DATA[:900]}
