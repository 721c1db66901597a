from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import codec
from storage.errors import Damaged


@given(st.binary(max_size=2000) | st.text(max_size=2000).map(str.encode))
@settings(max_examples=80, derandomize=True)
def test_round_trip(octets: bytes) -> None:
    form, stored = codec.compress(octets)
    assert codec.expand(form, stored) == octets
    assert len(stored) <= len(octets)


@pytest.mark.parametrize(("octets", "form"), [(b"short", codec.RAW), (b"text " * 100, codec.LZ4)])
def test_only_what_shrinks_is_compressed(octets: bytes, form: int) -> None:
    assert codec.compress(octets)[0] == form


def test_a_seal_opens_under_its_key_and_label_only() -> None:
    cipher = AESGCM(b"k" * 32)
    sealed = codec.seal(cipher, b"octets", b"message 1")
    assert b"octets" not in sealed
    assert codec.unseal(cipher, sealed, b"message 1") == b"octets"
    assert codec.seal(cipher, b"octets", b"message 1") != sealed
    for other, label in ((AESGCM(b"o" * 32), b"message 1"), (cipher, b"message 2")):
        with pytest.raises(Damaged):
            codec.unseal(other, sealed, label)
