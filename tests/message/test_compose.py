"""Composed messages, read back by the standard library's parser and by our own."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import compose, structure, summary
from mailserver.message.compose import Attachment, Draft, Mailbox

ALICE = Mailbox("Alice", "alice@example.org")
BOB = Mailbox("", "bob@example.org")
IMAGE = Attachment("", "image/png", b"")
MIXED = ["multipart/mixed", "multipart/alternative", "text/plain", "text/html"]


def draft(**fields: Any) -> Draft:
    plain = Draft(ALICE, [BOB], [], "Hello", "Hi Bob\n", None, [], 1_700_000_000, "<1@example.org>", "b0undary")
    return replace(plain, **fields)


def read(octets: bytes) -> EmailMessage:
    """By another parser; the form that SMTP asks for is checked on the way."""
    assert b"\0" not in octets and octets.endswith(b"\r\n")
    assert octets.replace(b"\r\n", b"").count(b"\n") == octets.replace(b"\r\n", b"").count(b"\r") == 0
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    message = message_from_bytes(octets, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def test_a_plain_message_is_as_short_as_can_be() -> None:
    assert compose.compose(draft()) == (
        b"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n"
        b"From: Alice <alice@example.org>\r\n"
        b"To: bob@example.org\r\n"
        b"Subject: Hello\r\n"
        b"Message-ID: <1@example.org>\r\n"
        b"MIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=us-ascii\r\n"
        b"Content-Transfer-Encoding: 7bit\r\n"
        b"\r\n"
        b"Hi Bob\r\n"
    )


@pytest.mark.parametrize(
    ("fields", "types"),
    [
        ({}, ["text/plain"]),
        ({"text": None}, ["text/plain"]),
        ({"text": None, "html": "<p>x"}, ["text/html"]),
        ({"html": "<p>x"}, ["multipart/alternative", "text/plain", "text/html"]),
        (
            {"attachments": [Attachment("a.pdf", "application/pdf", b"%PDF")]},
            ["multipart/mixed", "text/plain", "application/pdf"],
        ),
        (
            {"html": "<p>x", "attachments": [IMAGE, Attachment("m", "message/rfc822", b"x")]},
            [*MIXED, "image/png", "application/octet-stream"],
        ),
    ],
)
def test_structure(fields: dict[str, Any], types: list[str]) -> None:
    octets = compose.compose(draft(**fields))
    message = read(octets)
    assert [part.get_content_type() for part in message.walk()] == types
    tree = structure.parse(octets)
    assert f"{tree.type.decode()}/{tree.subtype.decode()}" == types[0]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(TEXTS)
def test_any_subject_comes_back(text: str) -> None:
    found = str(read(compose.compose(draft(subject=text)))["Subject"])
    assert found.split() == compose._clean(text).split()


@given(TEXTS)
def test_any_name_comes_back_and_nothing_else_does(text: str) -> None:
    octets = compose.compose(
        draft(sender=Mailbox(text, "alice@example.org"), cc=[Mailbox(text, "bob@example.org")] * 3)
    )
    envelope = summary.envelope(structure.parse(octets))
    assert envelope.count(b'"bob" "example.org"') == 4
    message = read(octets)
    assert "Bcc" not in message and len(message["From"].addresses) == 1
    assert len(message.keys()) == len({"Date", "From", "To", "Cc", "Subject", "Message-ID", "MIME-Version"}) + 2


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=300) | st.text("a\r\n =.é-", max_size=2000))
def test_any_text_comes_back(text: str) -> None:
    message = read(compose.compose(draft(text=text)))
    found = message.get_content().replace("\r\n", "\n")
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    assert found.rstrip("\n") == wanted.rstrip("\n")


def test_a_long_line_and_a_lone_dot() -> None:
    text = "x" * 5000 + "\n.\n"
    assert read(compose.compose(draft(text=text))).get_content().replace("\r\n", "\n") == text


@given(TEXTS, st.binary(max_size=2000))
def test_any_attachment_comes_back(filename: str, octets: bytes) -> None:
    message = read(compose.compose(draft(attachments=[Attachment(filename, "application/x", octets)])))
    (part,) = message.iter_attachments()
    assert part.get_content() == octets
    wanted = compose._clean(filename).strip()
    assert (part.get_filename() or "").split() == wanted.split()


@pytest.mark.parametrize(
    ("given", "type_"),
    [
        ("IMAGE/PNG; x=y", "image/png"),
        ("", "application/octet-stream"),
        ("text", "application/octet-stream"),
        ("a/b\r\nBcc: x", "application/octet-stream"),
        ("multipart/mixed", "application/octet-stream"),
        ("message/rfc822", "application/octet-stream"),
        ("text/html", "text/html"),
    ],
)
def test_types_of_attachments(given: str, type_: str) -> None:
    message = read(compose.compose(draft(attachments=[Attachment("x", given, b"x")])))
    assert next(message.iter_attachments()).get_content_type() == type_


def test_nothing_in_a_value_begins_a_line() -> None:
    evil = "x\r\nBcc: evil@example.net\r\n\r\nbody"
    octets = compose.compose(
        draft(subject=evil, sender=Mailbox(evil, "a@example.org"), attachments=[Attachment(evil, evil, b"")])
    )
    assert "Bcc" not in read(octets) and b"\r\nBcc" not in octets


def test_many_recipients_stand_on_lines_of_bounded_length() -> None:
    many = [Mailbox(f"Person {n}", f"person{n}@example.org") for n in range(1000)]
    octets = compose.compose(draft(to=many))
    assert max(map(len, octets.split(b"\r\n"))) <= 80
    assert len(read(octets)["To"].addresses) == 1000


def test_smtputf8() -> None:
    assert not compose.needs_smtputf8(compose.compose(draft(subject="é", text="é")))
    assert compose.needs_smtputf8(compose.compose(draft(to=[Mailbox("", "é@example.org")])))


def test_base64_is_in_the_form_that_is_stored_decoded() -> None:
    from storage import base64_lines

    for size in (0, 1, 56, 57, 58, 5000):
        octets = bytes(size)
        assert compose.base64_lines(octets) == base64_lines.encode(octets)
