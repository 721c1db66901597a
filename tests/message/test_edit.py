from __future__ import annotations

import pytest
from hypothesis import given

from mailserver.message import edit, headers, structure
from tests.message.messages import SETTINGS, soup

DATE = b"Date: Thu, 01 Jan 1970 01:00:00 +0100\r\n"
FROM = b"From: <me@x.example>\r\n"
ID = b"Message-ID: <new@x.example>\r\n"
ALL = b"Date: d\r\nFrom: f@x\r\nMessage-ID: <m@x>\r\n"


def edited(octets: bytes) -> bytes:
    return edit.submission(octets, date=0, zone=60, message_id=b"<new@x.example>", sender=b"me@x.example")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ALL + b"\r\nbody", ALL + b"\r\nbody"),
        (ALL + b"Bcc: a@x,\r\n\tb@x\r\nTo: c@x\r\n\r\nBcc: body\r\n", ALL + b"To: c@x\r\n\r\nBcc: body\r\n"),
        (b"bcc : a\r\nRESENT-BCC:\r\n" + ALL + b"Bcc:\r\n\r\n", ALL + b"\r\n"),
        (b"Subject: s\r\n\r\nbody", DATE + FROM + ID + b"Subject: s\r\n\r\nbody"),
        (b"From: f@x\r\nDate: d\r\n\r\n", ID + b"From: f@x\r\nDate: d\r\n\r\n"),
        (b"\r\nbody", DATE + FROM + ID + b"\r\nbody"),
        (b"", DATE + FROM + ID),
        (b"Bcc: a", DATE + FROM + ID),
        # No header at all: the text is a body.
        (b"Hello\r\nthere\r\n", DATE + FROM + ID + b"\r\nHello\r\nthere\r\n"),
        # A message inside keeps what it has.
        (
            ALL + b"Content-Type: message/rfc822\r\n\r\nBcc: x\r\n\r\n",
            ALL + b"Content-Type: message/rfc822\r\n\r\nBcc: x\r\n\r\n",
        ),
    ],
)
def test_submission(before: bytes, after: bytes) -> None:
    assert edited(before) == after


@SETTINGS
@given(soup)
def test_nothing_else_changes(octets: bytes) -> None:
    after = edited(octets)
    assert edited(after) == after
    old, new = (structure.end_of_header(message, 0, len(message)) for message in (octets, after))
    names = [name for name, _, _ in headers.fields(after[:new])]
    assert {b"date", b"from", b"message-id"} <= set(names)
    assert not {b"bcc", b"resent-bcc"} & set(names)
    if any(name for name, _, _ in headers.fields(octets[:old])):
        assert after[new:] == octets[old:]
    else:
        assert after.endswith(octets)
