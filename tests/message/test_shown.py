"""What people are shown of a message, by way of the ENVELOPE and BODYSTRUCTURE that are stored of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import shown, structure, summary
from mailserver.message.shown import Envelope, Parts, Person

HEAD = b'From: =?utf-8?q?Al=C3=AFce?= <alice@example.org>\r\nTo: Bob <bob@example.org>, "C \\"x\\" D" <c@d.example>\r\n'


def stored(octets: bytes) -> tuple[bytes, bytes]:
    tree = structure.parse(octets)
    return summary.envelope(tree), summary.bodystructure(tree)


def envelope(octets: bytes) -> Envelope:
    return shown.envelope(stored(octets)[0])


def parts(octets: bytes) -> Parts:
    return shown.parts(stored(octets)[1])


def test_envelope() -> None:
    found = envelope(
        HEAD
        + b"Subject: =?utf-8?b?w6k=?= and more\r\nCc: group: x@y.example, z@y.example;\r\nReply-To: r@y.example\r\n"
        b"Message-ID: <1@x>\r\nIn-Reply-To: <0@x>\r\n\r\n"
    )
    alice = Person("Alïce", "alice@example.org")
    assert found == Envelope(
        "é and more",
        [alice],
        [alice],
        [Person("", "r@y.example")],
        [Person("Bob", "bob@example.org"), Person('C "x" D', "c@d.example")],
        [Person("", "x@y.example"), Person("", "z@y.example")],
        [],
        "<0@x>",
        "<1@x>",
    )


def test_an_empty_envelope() -> None:
    assert envelope(b"\r\n") == Envelope("", [], [], [], [], [], [], "", "")


def test_a_header_that_needs_literals() -> None:
    found = envelope("Subject: é\r\nFrom: é <é@example.org>\r\nTo: bob\r\n\r\n".encode())
    assert (found.subject, found.from_, found.to) == ("é", [Person("é", "é@example.org")], [Person("", "bob")])


ATTACHED = (
    b"Content-Type: multipart/mixed; boundary=m\r\n\r\n"
    b"--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n"
    b"--a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhi\r\n"
    b"--a\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: Quoted-Printable\r\n\r\n<p>hi\r\n--a--\r\n"
    b"--m\r\nContent-Type: application/pdf; name=old.pdf\r\nContent-Disposition: attachment;\r\n"
    b" filename*0*=utf-8''%C3%A9; filename*1=.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\nQUFB\r\n"
    b"--m\r\nContent-Type: image/png; name=i.png\r\nContent-ID: <cid1>\r\nContent-Disposition: inline\r\n\r\nx\r\n"
    b"--m\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment; filename=m.eml\r\n\r\n"
    b"Subject: inner\r\n\r\ninner\r\n"
    b"--m\r\nContent-Type: text/plain\r\nContent-Disposition: attachment; filename=notes.txt\r\n\r\nnotes\r\n"
    b"--m--\r\n"
)


def test_parts() -> None:
    found = parts(ATTACHED)
    assert found.text is not None and found.html is not None
    assert (found.text.part, found.text.charset, found.text.size) == ("1.1", b"utf-8", 2)
    assert (found.html.part, found.html.encoding) == ("1.2", b"quoted-printable")
    assert [(leaf.part, leaf.media_type, leaf.filename, leaf.disposition) for leaf in found.attachments] == [
        ("2", "application/pdf", "é.pdf", "attachment"),
        ("3", "image/png", "i.png", "inline"),
        ("4", "message/rfc822", "m.eml", "attachment"),
        ("5", "text/plain", "notes.txt", "attachment"),
    ]
    assert found.attachments[1].content_id == "cid1"


@pytest.mark.parametrize(
    ("octets", "text", "html", "attachments"),
    [
        (b"\r\nhello", "1", None, []),
        (b"Content-Type: text/html\r\n\r\nx", None, "1", []),
        (b"Content-Type: image/png\r\n\r\nx", None, None, ["1"]),
        (b"Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\nx", None, None, ["1"]),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nnothing", "1", None, []),
        (b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nx", None, None, ["1"]),
        (b"Content-Type: multipart/x; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--", "1", None, ["2"]),
    ],
)
def test_what_is_shown(octets: bytes, text: str | None, html: str | None, attachments: list[str]) -> None:
    found = parts(octets)
    assert (found.text.part if found.text else None) == text
    assert (found.html.part if found.html else None) == html
    assert [leaf.part for leaf in found.attachments] == attachments
    tree = structure.parse(octets)
    for leaf in (found.text, found.html, *found.attachments):
        assert leaf is None or structure.locate(tree, leaf.path) is not None


@pytest.mark.parametrize("octets", [HEAD + ATTACHED, "Subject: é\r\nTo: é <a@b>\r\n\r\n".encode()])
def test_text_that_is_cut_off_anywhere(octets: bytes) -> None:
    for text in stored(octets):
        for end in range(len(text)):
            shown.envelope(text[:end])
            shown.parts(text[:end])
    whole = envelope(HEAD + ATTACHED)
    assert shown.envelope(stored(HEAD + ATTACHED)[0][:-15]).to == whole.to


@given(st.binary(max_size=200) | st.text('()"{}\\ 1\r\nNIL', max_size=200).map(str.encode))
def test_nothing_raises(octets: bytes) -> None:
    shown.envelope(octets)
    shown.parts(octets)
    shown.parts(b"(" * 5000 + octets)
