"""Ids as clients see them."""

from __future__ import annotations

from base64 import b32encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import object_ids

NUMBERS = st.integers(0, 2**63 - 1)


@given(NUMBERS, NUMBERS)
def test_round_trip(number: int, account: int) -> None:
    for kind, make in (("M", object_ids.email_id), ("T", object_ids.thread_id), ("C", object_ids.contact_id)):
        text = make(number)
        assert text == kind + b32encode(number.to_bytes(8, "big")).decode().lower().rstrip("=")
        assert object_ids.number_of(text, kind) == number
    assert object_ids.mailbox_of(object_ids.mailbox_id(account, number), account) == number


NONE = """
M MAAAAAAAAAAAAA Taaaaaaaaaaaaa Maaaaaaaaaaaa1 Maaaaaaaaaaaab M7777777777777 Maaaaaaaaaaaaaa
Maaaaaa======= Mäaaaaaaaaaaaa
"""


@pytest.mark.parametrize("text", ["", "Maaaaaaaaaaaa ", *NONE.split()])
def test_only_the_one_form_is_read(text: str) -> None:
    assert object_ids.number_of(text, "M") is None


def test_a_mailbox_of_another_account_is_none() -> None:
    text = object_ids.mailbox_id(7, 1)
    assert object_ids.mailbox_of(text, 7) == 1
    assert object_ids.mailbox_of(text, 8) is None
    assert object_ids.mailbox_of(text[:-1], 7) is None
