"""The messages. The octets of an attempt follow from the seed and its number, so the ledger need not hold them."""

from __future__ import annotations

import base64
import random
import re

_ID = re.compile(rb"^Message-ID: <a(\d+)\.s\d+@chaos\.example\.org>\r$", re.MULTILINE)
_OUR_FIELDS = (b"return-path", b"delivered-to", b"received")
_SHARED = 3
"""So many attachments come again and again, as logos do."""


def message(seed: int, attempt: int, sender: str) -> bytes:
    """300 octets to some hundred KB; each attempt's differ from all others'."""
    chance = random.Random(f"{seed}.{attempt}")
    head = (
        f"From: {sender}\r\nTo: undisclosed-recipients:;\r\nSubject: attempt {attempt}\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <a{attempt}.s{seed}@chaos.example.org>\r\n"
        "MIME-Version: 1.0\r\n"
    ).encode()
    shape = chance.random()
    if shape < 0.6:
        return head + _text(chance, chance.randrange(2, 40))
    if shape < 0.75:
        return head + _text(chance, chance.randrange(300, 1200))
    if shape < 0.9:
        return head + _with_attachment(chance, chance.randbytes(chance.randrange(8_000, 250_000)))
    number = chance.randrange(_SHARED)
    shared = random.Random(f"{seed}.shared.{number}").randbytes(40_000 + 50_000 * number)
    return head + _with_attachment(chance, shared)


def attempt_of(octets: bytes) -> int | None:
    """The number of the attempt that sent this; None for a message of somebody else."""
    found = _ID.search(octets.partition(b"\r\n\r\n")[0] + b"\r\n")
    return None if found is None else int(found[1])


def is_exact(stored: bytes, sent: bytes, *, appended: bool) -> bool:
    """Is it what was sent, behind header fields of ours unless it was appended?"""
    if appended or not stored.endswith(sent):
        return stored == sent
    prefix = stored[: len(stored) - len(sent)]
    fields = re.sub(rb"\r\n[ \t]", b" ", prefix).split(b"\r\n")[:-1] if prefix else []
    return all(field.partition(b":")[0].lower() in _OUR_FIELDS for field in fields)


def _text(chance: random.Random, lines: int) -> bytes:
    """8-bit text, some lines of which begin with a dot."""
    starts = ("", ".", "..", "ä", "From ")
    text = "".join(f"{chance.choice(starts)}{chance.getrandbits(200):050x}\r\n" for _ in range(lines))
    return b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + text.encode()


def _with_attachment(chance: random.Random, content: bytes) -> bytes:
    encoded = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return (
        b'Content-Type: multipart/mixed; boundary="=b"\r\n\r\n--=b\r\n'
        + _text(chance, 3)
        + b"--=b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + encoded
        + b"--=b--\r\n"
    )
