"""A message made from what a program says of it: addresses, subject, text and HTML, attachments (RFC 5322, MIME).

What comes out is 7 bit: bodies are encoded as they need it, text that is not ASCII stands in encoded words (RFC 2047)
and in parameters with a charset (RFC 2231). The one exception are local parts of addresses that are not ASCII, which
have no other form than UTF-8 (RFC 6532); `needs_smtputf8` says whether there are any.

The structure: text and HTML are alternatives; around them stand attachments as multipart/mixed.

Time and chance come from outside. Nothing in a value can begin a new line: controls become spaces.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote_from_bytes

import pybase64

from mailserver.message import dates

LINE = 76
_MAX_LINE = 998
_WORD_OCTETS = 39
"""Of a text in one encoded word: 52 digits of base64, which with the rest and a field's name fit on a line."""

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_PLAIN = re.compile(r"[!-~]{1,60}(?: [!-~]{1,60})*")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]{1,127}")
_LINE_END = re.compile("\r\n|\r|\n")
_LONG_LINE = re.compile(rb"[^\n]{%d}" % _MAX_LINE)
_OCTET_STREAM = ("application", "octet-stream")


class Mailbox(NamedTuple):
    """address: as it is written in mail, its domain in A-labels."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """media_type: `type/subtype`; what is no such thing counts as application/octet-stream."""

    filename: str
    media_type: str
    octets: bytes


@dataclass(frozen=True, slots=True)
class Draft:
    """A message to be composed. date: epoch seconds; message_id: with its brackets.

    boundary: a random token of letters and digits, so that no content holds it.
    """

    sender: Mailbox
    to: Sequence[Mailbox]
    cc: Sequence[Mailbox]
    subject: str
    text: str | None
    html: str | None
    attachments: Sequence[Attachment]
    date: int
    message_id: str
    boundary: str


def compose(draft: Draft) -> bytes:
    """The octets of the message."""
    fields = [
        b"Date: " + dates.format_rfc5322(draft.date),
        address_field("From", [draft.sender]),
        *([address_field("To", draft.to)] if draft.to else []),
        *([address_field("Cc", draft.cc)] if draft.cc else []),
        unstructured("Subject", draft.subject),
        b"Message-ID: " + draft.message_id.encode(),
        b"MIME-Version: 1.0",
    ]
    octets = b"\r\n".join([*fields, _body(draft)])
    return octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def needs_smtputf8(octets: bytes) -> bool:
    """Is there anything in the header of a composed message that is not ASCII?"""
    return not octets[: octets.find(b"\r\n\r\n")].isascii()


def address_field(name: str, mailboxes: Sequence[Mailbox]) -> bytes:
    """A field with a list of addresses, one behind the other as far as a line reaches, without its line end."""
    lines = [f"{name}:".encode()]
    for number, mailbox in enumerate(mailboxes, 1):
        text = _mailbox(mailbox) + (b"," if number < len(mailboxes) else b"")
        if len(lines[-1]) + 1 + len(text) > LINE and not lines[-1].endswith(b":"):
            lines.append(b"")
        lines[-1] += b" " + text
    return b"\r\n".join(lines)


def unstructured(name: str, value: str) -> bytes:
    """A field of free text, folded, without its line end."""
    head, value = f"{name}:", _clean(value)
    if not value:
        return head.encode()
    if not _PLAIN.fullmatch(value) or "=?" in value:
        return b"%b %b" % (head.encode(), b"\r\n ".join(_encoded_words(value)))
    lines = [head]
    for word in value.split(" "):
        if len(lines[-1]) + 1 + len(word) > LINE and lines[-1] != head:
            lines.append("")
        lines[-1] += f" {word}"
    return "\r\n".join(lines).encode()


def _mailbox(mailbox: Mailbox) -> bytes:
    name = _clean(mailbox.name).strip()
    if not name:
        return mailbox.address.encode()
    if not name.isascii() or "=?" in name or len(name) > LINE - 4:
        shown = b"\r\n ".join(_encoded_words(name))
    elif _ATOMS.fullmatch(name):
        shown = name.encode()
    else:
        shown = b'"%b"' % name.replace("\\", "\\\\").replace('"', '\\"').encode()
    return b"%b <%b>" % (shown, mailbox.address.encode())


def _encoded_words(text: str) -> list[bytes]:
    """RFC 2047 §2: words of at most 75 characters, none of which cuts a character in two."""
    pieces: list[bytes] = []
    for char in text:
        octets = char.encode("utf-8", "replace")
        if not pieces or len(pieces[-1]) + len(octets) > _WORD_OCTETS:
            pieces.append(b"")
        pieces[-1] += octets
    return [b"=?utf-8?b?%b?=" % pybase64.b64encode(piece) for piece in pieces] or [b""]


def _clean(text: str) -> str:
    return _CONTROLS.sub(" ", text)


# Bodies --------------------------------------------------------------------------------------------------------------


def _body(draft: Draft) -> bytes:
    """The fields that describe the body, an empty line, and the body."""
    shown = [_text("plain", draft.text)] if draft.text is not None or draft.html is None else []
    if draft.html is not None:
        shown.append(_text("html", draft.html))
    content = shown[0] if len(shown) == 1 else _multipart("alternative", f"{draft.boundary}-a", shown)
    if not draft.attachments:
        return content
    return _multipart("mixed", f"{draft.boundary}-m", [content, *map(_attachment, draft.attachments)])


def _multipart(subtype: str, boundary: str, parts: Sequence[bytes]) -> bytes:
    pieces = [f'Content-Type: multipart/{subtype}; boundary="{boundary}"\r\n'.encode()]
    for part in parts:
        pieces += [f"\r\n--{boundary}\r\n".encode(), part]
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return b"".join(pieces)


def _text(subtype: str, text: str | None) -> bytes:
    octets = _LINE_END.sub("\n", text or "").replace("\0", "").encode("utf-8", "replace")
    charset = "us-ascii" if octets.isascii() else "utf-8"
    encoding, body = _encoded_text(octets)
    head = f"Content-Type: text/{subtype}; charset={charset}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + body


def _encoded_text(octets: bytes) -> tuple[str, bytes]:
    """7bit where that holds it, else the shorter of quoted-printable and base64."""
    if octets.isascii() and not _LONG_LINE.search(octets):
        return "7bit", octets.replace(b"\n", b"\r\n")
    quoted = binascii.b2a_qp(octets)
    digits = base64_lines(octets.replace(b"\n", b"\r\n"))
    if len(quoted) <= len(digits):
        return "quoted-printable", quoted.replace(b"\n", b"\r\n")
    return "base64", digits


def _attachment(attachment: Attachment) -> bytes:
    type_, subtype = _media_type(attachment.media_type)
    lines = [
        f"Content-Type: {type_}/{subtype}",
        _disposition(_clean(attachment.filename).strip()),
        "Content-Transfer-Encoding: base64\r\n\r\n",
    ]
    return "\r\n".join(lines).encode() + base64_lines(attachment.octets)


def _media_type(text: str) -> tuple[str, str]:
    """RFC 2046 §5 and §5.2: what is multipart or a message may not be encoded, so it counts as octets."""
    type_, _, subtype = text.partition(";")[0].strip().lower().partition("/")
    if not _TOKEN.fullmatch(type_) or not _TOKEN.fullmatch(subtype) or type_ in ("multipart", "message"):
        return _OCTET_STREAM
    return type_, subtype


def _disposition(filename: str) -> str:
    """RFC 2183, with the name in pieces where it is long and with its charset where it is not ASCII (RFC 2231)."""
    head = "Content-Disposition: attachment"
    if not filename:
        return head
    if filename.isascii() and len(filename) <= LINE - 20:
        escaped = filename.replace("\\", "\\\\").replace('"', '\\"')
        return f'{head};\r\n filename="{escaped}"'
    pieces = [""]
    for char in filename:
        octets = quote_from_bytes(char.encode("utf-8", "replace"), safe="")
        if len(pieces[-1]) + len(octets) > LINE - 30:
            pieces.append("")
        pieces[-1] += octets
    if len(pieces) == 1:
        return f"{head};\r\n filename*=utf-8''{pieces[0]}"
    numbered = [f"filename*{n}*={'' if n else 'utf-8' + 2 * chr(39)}{piece}" for n, piece in enumerate(pieces)]
    return ";\r\n ".join([head, *numbered])


def base64_lines(octets: bytes) -> bytes:
    """Lines of 76 digits with CRLF between them and none behind the last (RFC 2045 §6.8)."""
    digits = pybase64.b64encode(octets)
    return b"\r\n".join([digits[at : at + LINE] for at in range(0, len(digits), LINE)])
