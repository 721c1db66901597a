"""The messages of a run: the same every time, but each with a Message-ID of its own.

`text` and `attachment` make one message of a wanted size for SMTP. `corpus` makes the mix that a mailbox holds: plain
text, text with HTML, attachments; about 1 KiB to 400 KiB, half of them below 6 KiB.
"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass

SEARCHED_WORD = "zyzzyva"
"""Stands in the body of every 500th message of a corpus and nowhere else."""

_ID_SLOT = b"0000000000000000"
_TEXT = """
    the of and to a in is that it was for on are with as his they at be this have from or by one had not but what all
    were when we there can an your which their said if do will each about how up out them then she many some so these
    would other into has more her two like him see time could no make than first been its who now people my made over
    know report budget meeting project schedule delivery customer server release contract question answer review draft
    version please attached regards update status team office travel order account payment quarter forecast invoice
"""
_WORDS = _TEXT.split()


@dataclass(frozen=True, slots=True)
class Template:
    """A message with a slot for the number that makes it unique."""

    before: bytes
    after: bytes

    def numbered(self, number: int) -> bytes:
        return b"%b%016x%b" % (self.before, number, self.after)


def text(octets: int, sender: str = "sender@example.org", to: str = "user@example.test") -> Template:
    """A plain text message of about so many octets, with the few header fields of an injected one."""
    chooser = random.Random(octets)
    header = _header(chooser, sender, to, b"Content-Type: text/plain; charset=utf-8\r\n")
    return _template(header + b"\r\n" + _paragraphs(chooser, octets - len(header) - 2))


def realistic(octets: int, sender: str = "sender@example.org", to: str = "user@example.test") -> Template:
    """What another server passes on: traces, a signature, both text and HTML."""
    chooser = random.Random(octets + 1)
    boundary = b"=_alternative_%016x" % chooser.getrandbits(64)
    kind = b'Content-Type: multipart/alternative; boundary="%b"\r\n' % boundary
    header = _traces(chooser) + _header(chooser, sender, to, kind)
    half = (octets - len(header) - 320) // 2
    plain, html = _paragraphs(chooser, half), _paragraphs(chooser, half)
    return _template(header + b"\r\n" + _alternative(boundary, plain, html))


def attachment(octets: int, sender: str = "sender@example.org", to: str = "user@example.test") -> Template:
    """A short text and one base64 attachment that fills the message to about so many octets."""
    chooser = random.Random(octets + 2)
    boundary = b"=_mixed_%016x" % chooser.getrandbits(64)
    header = _header(chooser, sender, to, b'Content-Type: multipart/mixed; boundary="%b"\r\n' % boundary)
    payload = chooser.randbytes(max(0, octets - len(header) - 600) * 57 // 78)
    return _template(header + b"\r\n" + _mixed(boundary, _paragraphs(chooser, 200), payload))


def corpus(count: int) -> list[bytes]:
    """So many messages of the mix, in the order of their dates."""
    chooser = random.Random(20240517)
    return [_one_of_the_mix(chooser, number) for number in range(count)]


def _one_of_the_mix(chooser: random.Random, number: int) -> bytes:
    sender = f"{chooser.choice(_WORDS)}.{chooser.choice(_WORDS)}@corp{number % 9}.example"
    body = _paragraphs(chooser, chooser.randint(300, 5000))
    if number % 500 == 0:
        body += b"A %b sat here.\r\n" % SEARCHED_WORD.encode()
    kind = chooser.random()
    boundary = b"=_%016x" % chooser.getrandbits(64)
    if kind < 0.45:
        content, rest = b"Content-Type: text/plain; charset=utf-8\r\n", body
    elif kind < 0.82:
        content = b'Content-Type: multipart/alternative; boundary="%b"\r\n' % boundary
        rest = _alternative(boundary, body, body)
    else:
        content = b'Content-Type: multipart/mixed; boundary="%b"\r\n' % boundary
        rest = _mixed(boundary, body, chooser.randbytes(min(300_000, int(chooser.lognormvariate(10.0, 1.0)))))
    header = _traces(chooser) + _header(chooser, sender, "user@example.test", content)
    return _template(header + b"\r\n" + rest).numbered(number + 1)


def _template(message: bytes) -> Template:
    before, slot, after = message.partition(_ID_SLOT)
    if not slot:
        raise ValueError("a message without a slot for its number")
    return Template(before, after)


def _header(chooser: random.Random, sender: str, to: str, content: bytes) -> bytes:
    subject = " ".join(chooser.choice(_WORDS) for _ in range(6))
    return (
        f"From: A Sender <{sender}>\r\nTo: {to}\r\nSubject: {subject}\r\n"
        f"Date: Tue, {chooser.randint(10, 28)} Nov 2026 10:{chooser.randint(10, 59)}:00 +0000\r\n"
        f"Message-ID: <{_ID_SLOT.decode()}.bench@example.org>\r\nMIME-Version: 1.0\r\n"
    ).encode() + content


def _traces(chooser: random.Random) -> bytes:
    """The header fields that hops and signers leave behind."""
    hops = b"".join(
        b"Received: from mx%d.example.org (mx%d.example.org [192.0.2.%d])\r\n"
        b"\tby relay%d.example.net with ESMTPS id %012x\r\n"
        b"\tfor <user@example.test>; Tue, 10 Nov 2026 10:00:00 +0000\r\n"
        % (hop, hop, chooser.randint(1, 254), hop, chooser.getrandbits(48))
        for hop in range(3)
    )
    signature = base64.b64encode(chooser.randbytes(256))
    return b"".join(
        (
            b"Return-Path: <bounce@example.org>\r\n",
            hops,
            b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s1;\r\n",
            b"\th=from:to:subject:date;\r\n\tb=",
            b"\r\n\t ".join(signature[start : start + 72] for start in range(0, len(signature), 72)),
            b"\r\nList-Id: <list.example.org>\r\nList-Unsubscribe: <https://example.org/u/%016x>\r\n"
            % chooser.getrandbits(64),
        )
    )


def _alternative(boundary: bytes, plain: bytes, html: bytes) -> bytes:
    return (
        b"--%b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n%b\r\n"
        b"--%b\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        b"<html><body><p>%b</p></body></html>\r\n--%b--\r\n"
    ) % (boundary, plain, boundary, html, boundary)


def _mixed(boundary: bytes, body: bytes, payload: bytes) -> bytes:
    encoded = base64.encodebytes(payload).replace(b"\n", b"\r\n")
    return (
        b"--%b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n%b\r\n"
        b'--%b\r\nContent-Type: application/pdf; name="report.pdf"\r\nContent-Transfer-Encoding: base64\r\n'
        b'Content-Disposition: attachment; filename="report.pdf"\r\n\r\n%b\r\n--%b--\r\n'
    ) % (boundary, body, boundary, encoded, boundary)


def _paragraphs(chooser: random.Random, octets: int) -> bytes:
    """Lines of words, about so many octets, without a line that begins with a dot."""
    lines: list[str] = []
    length = 0
    while length < octets:
        line = " ".join(chooser.choice(_WORDS) for _ in range(12))
        lines.append(line)
        length += len(line) + 2
    return ("\r\n".join(lines)[: max(0, octets - 2)] + "\r\n").encode()
