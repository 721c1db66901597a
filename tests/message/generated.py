"""Awkward messages that are made by code, with the answers that the way they are made implies."""

from __future__ import annotations

from itertools import product
from typing import Any

from tests.message.corpus_reader import Case

NO_ENVELOPE = (None,) * 10
NO_EXTENSION = (None,) * 4
US_ASCII = (b"charset", b"us-ascii")

Sections = dict[str, bytes | None]


def text(octets: bytes) -> tuple[Any, ...]:
    """The structure of a text/plain part without a header (RFC 2045 §5.2)."""
    return (b"text", b"plain", US_ASCII, None, None, b"7bit", len(octets), octets.count(b"\n"), *NO_EXTENSION)


def nested_multiparts(depth: int) -> Case:
    """Each level holds a text and the next level, which is part 2 of it."""
    octets, structure = b"\r\nthe bottom", text(b"the bottom")
    bodies = {(): b"the bottom"}
    for level in range(depth, 0, -1):
        boundary = b"level%d" % level
        note = b"note %d" % level
        body = b"--%b\r\n\r\n%b\r\n--%b\r\n%b\r\n--%b--" % (boundary, note, boundary, octets, boundary)
        bodies = {(2, *path): inner for path, inner in bodies.items()}
        if level < depth:  # what part 2 of this level is: the multipart below
            bodies[(2,)] = octets.partition(b"\r\n\r\n")[2]
        bodies[(1,)] = note
        octets = b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n%b" % (boundary, body)
        structure = (text(note), structure, b"mixed", (b"boundary", boundary), None, None, None)
    sections: Sections = {".".join(map(str, path)): body for path, body in bodies.items()}
    deepest = ".".join(["2"] * (depth - 1))
    sections |= {f"{deepest}.3": None, f"{deepest}.2.1": None, f"{deepest}.2.MIME": b"\r\n"}
    return Case(f"{depth} multiparts in each other", octets, NO_ENVELOPE, structure, sections)


def nested_messages(depth: int) -> Case:
    """Each message is the body of the one around it: part 1, 1.1, 1.1.1 …"""
    octets, structure = b"Subject: 0\r\n\r\nthe bottom\r\n", text(b"the bottom\r\n")
    sections: Sections = {}
    messages = [octets]
    for level in range(1, depth + 1):
        envelope = (None, b"%d" % (level - 1), *NO_ENVELOPE[2:])
        tail = (envelope, structure, octets.count(b"\n"), *NO_EXTENSION)
        structure = (b"message", b"rfc822", None, None, None, b"7bit", len(octets), *tail)
        octets = b"Subject: %d\r\nContent-Type: message/rfc822\r\n\r\n" % level + octets
        messages.append(octets)
    for level in range(depth):
        path = ".".join(["1"] * (depth - level))
        header, _, body = messages[level].partition(b"\r\n\r\n")
        sections |= {path: messages[level], f"{path}.HEADER": header + b"\r\n\r\n", f"{path}.TEXT": body}
    sections[".".join(["1"] * (depth + 1))] = b"the bottom\r\n"
    sections[".".join(["1"] * (depth + 2))] = None
    envelope = (None, b"%d" % depth, *NO_ENVELOPE[2:])
    return Case(f"{depth} messages in each other", octets, envelope, structure, sections)


def many_parts(count: int) -> Case:
    """Parts that are no text, each of its own size."""
    bodies = [b"x" * number for number in range(count)]
    pieces = [b"--b\r\nContent-Type: image/gif\r\n\r\n" + body + b"\r\n" for body in bodies]
    octets = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"".join(pieces) + b"--b--\r\n"
    parts = [(b"image", b"gif", None, None, None, b"7bit", number, *NO_EXTENSION) for number in range(count)]
    structure = (*parts, b"mixed", (b"boundary", b"b"), None, None, None)
    sections: Sections = {str(number + 1): body for number, body in enumerate(bodies)}
    sections |= {str(count + 1): None, f"{count}<{count - 2}.9>": b"x"}
    return Case(f"{count} parts", octets, NO_ENVELOPE, structure, sections)


def line_ends(header: bytes, inner: bytes, body: bytes) -> Case:
    """Every mixture of line ends: of the header, of the delimiters, of the text."""
    line = b"one" + body + b"two" + body
    octets = b"Subject: x" + header + b"Content-Type: multipart/mixed; boundary=b" + header + header
    octets += (
        b"--b" + inner + inner + line + inner + b"--b" + inner + b"X: y" + inner + inner + inner + b"--b--" + inner
    )
    structure = (text(line), text(b""), b"mixed", (b"boundary", b"b"), None, None, None)
    sections: Sections = {"1": line, "1.MIME": inner, "2": b"", "2.MIME": b"X: y" + inner + inner, "3": None}
    name = "line ends " + " ".join({b"\r\n": "CRLF", b"\n": "LF"}[kind] for kind in (header, inner, body))
    return Case(name, octets, (None, b"x", *NO_ENVELOPE[2:]), structure, sections)


def long_lines() -> Case:
    body = b"x" * 200_000 + b"\r\n" + bytes(range(1, 256)) * 200
    header = b"Subject: " + b"y" * 10_000 + b"\r\n\t" + b"z" * 5_000 + b"\r\n\r\n"
    envelope = (None, b"y" * 10_000 + b"\t" + b"z" * 5_000, *NO_ENVELOPE[2:])
    sections: Sections = {
        "1": body,
        "HEADER": header,
        "1<199998.6>": b"xx\r\n\x01\x02",
        "1<250000.9000>": body[250_000:],
    }
    return Case("long lines", header + body, envelope, text(body), sections)


def many_fields() -> Case:
    header = b"".join(b"X-%d: %d\r\n" % (number, number) for number in range(2000))
    header += b"To: " + b",\r\n ".join(b"a%d@x.example" % number for number in range(500)) + b"\r\n\r\n"
    to = tuple((None, None, b"a%d" % number, b"x.example") for number in range(500))
    envelope = (*NO_ENVELOPE[:5], to, *NO_ENVELOPE[6:])
    return Case("many fields", header, envelope, text(b""), {"HEADER": header, "TEXT": b"", "1": b""})


def cases() -> list[Case]:
    both = (b"\r\n", b"\n")
    return [
        nested_multiparts(2),
        nested_multiparts(50),
        nested_messages(30),
        many_parts(300),
        *(line_ends(*kinds) for kinds in product(both, both, both)),
        long_lines(),
        many_fields(),
    ]
