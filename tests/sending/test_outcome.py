"""What replies mean for a recipient, and that what other servers say is harmless and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.sending.outcome import DEFAULT_ENHANCED, Deferred, Delivered, Failed, of_reply, printable

REPLIES = [
    # code, enhanced, outcome
    (250, "2.1.5", Delivered(250, "2.1.5", "text", "mx")),
    (250, "", Delivered(250, "2.0.0", "text", "mx")),
    (251, "", Delivered(251, "2.1.5", "text", "mx")),
    (421, "", Deferred(421, "4.3.2", "text", "mx")),
    (450, "4.7.1", Deferred(450, "4.7.1", "text", "mx")),
    (451, "", Deferred(451, "4.0.0", "text", "mx")),
    (499, "", Deferred(499, "4.0.0", "text", "mx")),
    (550, "5.1.1", Failed(550, "5.1.1", "text", "mx")),
    (550, "", Failed(550, "5.0.0", "text", "mx")),
    (552, "", Failed(552, "5.2.2", "text", "mx")),
    (556, "", Failed(556, "5.1.10", "text", "mx")),
    (599, "", Failed(599, "5.0.0", "text", "mx")),
    # An enhanced code that contradicts the code, or is none.
    (250, "5.1.1", Delivered(250, "2.0.0", "text", "mx")),
    (450, "5.1.1", Deferred(450, "4.2.0", "text", "mx")),
    (550, "4.1.1", Failed(550, "5.0.0", "text", "mx")),
    (550, "5.1", Failed(550, "5.0.0", "text", "mx")),
    (550, "5.1.1000", Failed(550, "5.0.0", "text", "mx")),
    (550, "5.1.1\n", Failed(550, "5.0.0", "text", "mx")),
    (550, "5.٣.1", Failed(550, "5.0.0", "text", "mx")),
    # What is no final reply.
    (354, "", Deferred(354, "4.5.0", "text", "mx")),
    (199, "", Deferred(199, "4.5.0", "text", "mx")),
    (0, "", Deferred(0, "4.5.0", "text", "mx")),
    (600, "", Deferred(600, "4.5.0", "text", "mx")),
    (-1, "", Deferred(-1, "4.5.0", "text", "mx")),
]

# RFC 5321 §4.5.3.1.10, in answer to RCPT.
TO_RCPT = [
    (552, "", Deferred(452, "4.5.3", "text")),
    (552, "5.5.3", Deferred(452, "4.5.3", "text")),
    (552, "5.2.2", Failed(552, "5.2.2", "text")),
    (550, "", Failed(550, "5.0.0", "text")),
    (250, "2.1.5", Delivered(250, "2.1.5", "text")),
]

TEXTS = [
    ("No such user", 100, "No such user"),
    ("  two\r\n lines\t here ", 100, "two lines here"),
    ("red \x1b[31m and bell \x07", 100, "red ?[31m and bell ?"),
    ("right to left \u202e\ud800", 100, "right to left ??"),
    ("größer", 100, "größer"),
    ("", 10, ""),
    ("0123456789", 10, "0123456789"),
    ("0123456789a", 10, "0123456..."),
]


@pytest.mark.parametrize(("code", "enhanced", "outcome"), REPLIES)
def test_what_a_reply_means(code: int, enhanced: str, outcome: object) -> None:
    assert of_reply(code, enhanced, "text", "mx") == outcome


@pytest.mark.parametrize(("code", "enhanced", "outcome"), TO_RCPT)
def test_what_a_reply_to_rcpt_means(code: int, enhanced: str, outcome: object) -> None:
    assert of_reply(code, enhanced, "text", to_rcpt=True) == outcome


def test_defaults_agree_with_their_codes() -> None:
    for code, enhanced in DEFAULT_ENHANCED.items():
        assert of_reply(code, enhanced, "") == of_reply(code, "", "")


def test_the_three_are_told_apart() -> None:
    assert len({Delivered(0, "", ""), Deferred(0, "", ""), Failed(0, "", "")}) == 3


@pytest.mark.parametrize(("text", "limit", "shown"), TEXTS)
def test_printable(text: str, limit: int, shown: str) -> None:
    assert printable(text, limit) == shown


def test_an_outcome_bounds_what_another_server_said() -> None:
    outcome = Failed(550, "5.1.1", "no\r\nBcc: x " + "y" * 1_000_000, "mx\0" * 1_000_000)
    assert outcome.text.startswith("no Bcc: x y") and len(outcome.text) == 1000
    assert outcome.host.startswith("mx?mx?") and len(outcome.host) == 255


@given(st.integers(-1, 1000), st.text(max_size=10), st.text(max_size=3000))
def test_nothing_that_is_said_surprises(code: int, enhanced: str, text: str) -> None:
    outcome = of_reply(code, enhanced, text)
    assert outcome.text.isprintable() and len(outcome.text) <= 1000
    assert outcome.enhanced[:2] == {Delivered: "2.", Deferred: "4.", Failed: "5."}[type(outcome)]
