"""What stands in summaries beside ENVELOPE and BODYSTRUCTURE, and properties of those; test_corpus.py has the cases."""

from __future__ import annotations

import pytest
from hypothesis import given

from mailserver.message import bodystructure, structure, summary
from mailserver.message.summary import Summary
from tests.message import imap_reader
from tests.message.messages import SETTINGS, soup


def of(octets: bytes, arrived: int = 99) -> Summary:
    return summary.summarize(octets, structure.parse(octets), arrived=arrived)


@SETTINGS
@given(soup)
def test_imap_text_obeys_the_grammar(octets: bytes) -> None:
    tree = structure.parse(octets)
    made = summary.summarize(octets, tree, arrived=1)
    imap_reader.envelope(made.envelope)
    plain = bodystructure.without_extensions(made.bodystructure)
    assert imap_reader.body(plain, extended=False) == imap_reader.body(made.bodystructure, shown=False)
    assert b"\0" not in made.envelope + made.bodystructure
    assert made.header_octets == tree.header_end
    assert made.envelope == summary.envelope(tree) and made.bodystructure == summary.bodystructure(tree)


@SETTINGS
@given(soup)
def test_previews_and_ids_can_be_stored(octets: bytes) -> None:
    made = of(octets)
    assert len(made.preview) <= summary.PREVIEW_CHARACTERS
    assert made.preview == " ".join(made.preview.split())
    assert "\0" not in made.preview and made.preview.encode().decode() == made.preview
    assert 1 <= len(made.msgids) <= summary.MAX_MESSAGE_IDS + 1
    assert all(len(msgid) <= 1000 for msgid in made.msgids)
    assert all(msgid.startswith(b"<") and msgid.endswith(b">") for msgid in made.msgids if msgid)
    assert -(2**63) <= made.sent < 2**63


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"", [b""]),
        (b"Message-ID: <a@x>\r\n", [b"<a@x>"]),
        (b"Message-ID: a@x\r\n", [b"<a@x>"]),
        (b"Message-ID: < a@\r\n x > junk <b@x>\r\n", [b"<a@x>"]),
        (b"Message-ID: <>\r\n", [b""]),
        (b"Message-ID:\r\nReferences: <r@x>\r\n", [b"", b"<r@x>"]),
        (
            (
                b"Message-ID: <a@x>\r\nReferences: <r1@x>\r\n\t<r2@x> (c) <r1@x><a@x>\r\n"
                b'In-Reply-To: "you" <p@x> of <r2@x>\r\n'
            ),
            [b"<a@x>", b"<r1@x>", b"<r2@x>", b"<p@x>"],
        ),
        (b"Message-ID: <" + b"x" * 5000 + b">\r\nReferences: <" + b"y" * 5000 + b"> <z>\r\n", [b"", b"<z>"]),
    ],
)
def test_message_ids(fields: bytes, expected: list[bytes]) -> None:
    assert list(of(fields + b"\r\n").msgids) == expected


def test_of_too_many_references_the_first_and_the_last_are_kept() -> None:
    found = of(b"Message-ID: <m>\r\nReferences: " + b" ".join(b"<%d>" % n for n in range(1000)) + b"\r\n\r\n").msgids
    assert len(found) == summary.MAX_MESSAGE_IDS
    assert found[:3] == (b"<m>", b"<0>", b"<902>") and found[-1] == b"<999>"


@pytest.mark.parametrize(
    ("date", "sent"),
    [
        (b"Thu, 1 Jan 1970 00:01:00 +0000", 60),
        (b"Wed, 31 Dec 1969 23:59:00 +0000", -60),
        (b"yesterday", 99),
        (b"1 Jan 9999 00:00:00 +0000", 253370764800),
        (b"", 99),
    ],
)
def test_sent(date: bytes, sent: int) -> None:
    assert of(b"Date: " + date + b"\r\n\r\n").sent == sent
    assert of(b"\r\n").sent == 99


ALTERNATIVE = b"Content-Type: multipart/alternative; boundary=b\r\n\r\n"


@pytest.mark.parametrize(
    ("message", "preview"),
    [
        (b"\r\nHello,\r\n\r\n  how are\tyou?\r\n", "Hello, how are you?"),
        (b"Subject: x\r\n", ""),
        (b"Content-Type: image/gif\r\n\r\nGIF89a", ""),
        (b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\nGr\xfc\xdfe", "Grüße"),
        (b"\r\n" + "Grüße".encode(), "Grüße"),
        (b"Content-Transfer-Encoding: base64\r\n\r\nSGFs\r\nbG8h", "Hallo!"),
        (b"Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe f=\r\n=C3=BCr dich", "Grüße für dich"),
        (
            (
                b"Content-Type: text/html\r\n\r\n<html><head><title>t</title><style>p{}</style><body>"
                b"<p>A&amp;B <a href=x>c</a>"
            ),
            "A&B c",
        ),
        (b"Content-Type: text/html\r\n\r\n<p>no body tag</p>", "no body tag"),
        (ALTERNATIVE + b"--b\r\nContent-Type: text/html\r\n\r\n<b>h</b>\r\n--b\r\n\r\nplain\r\n--b--", "plain"),
        (ALTERNATIVE + b"--b\r\nContent-Type: text/html\r\n\r\n<b>h</b>\r\n--b--", "h"),
        (
            ALTERNATIVE
            + b"--b\r\nContent-Disposition: Attachment; filename=x\r\n\r\nattached\r\n--b\r\n\r\nshown\r\n--b--",
            "shown",
        ),
        # NUL and other controls cannot be stored or shown; invisible filler of newsletters is no preview.
        (b"\r\na\0b\x1bc", "a b c"),
        ("\r\nOffer\u200c\u00ad\u034f\u200c end".encode(), "Offer end"),
        (b"\r\n" + b"word " * 1000, ("word " * 40).strip()),
    ],
)
def test_preview(message: bytes, preview: str) -> None:
    assert of(message).preview == preview


def test_a_preview_never_ends_in_half_a_character() -> None:
    for padding in range(4):
        octets = b"\r\n" + b"x" * padding + "ä€𝄞".encode() * 500
        assert "\ufffd" not in of(octets).preview
        assert len(of(octets).preview) > 150


def test_address_fields_are_read_up_to_a_bound() -> None:
    inner = b"Content-Type: message/rfc822\r\n\r\nTo: %b\r\n\r\n" % (b"a@b.example," * 20_000)
    octets = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + (b"--b\r\n" + inner) * 12
    read = imap_reader.body(of(octets).bodystructure)
    listed = [part[7][5] is not None for part in read[:12]]
    assert listed == [True] * 4 + [False] * 8


def test_address_fields_are_written_up_to_a_bound() -> None:
    inner = b"Content-Type: message/rfc822\r\n\r\nFrom: %b\r\n\r\n" % (b"a," * 5_000)
    octets = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + (b"--b\r\n" + inner) * 100
    assert 4_000_000 < len(of(octets).bodystructure) < 5_000_000
