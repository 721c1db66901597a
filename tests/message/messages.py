"""Messages for property tests: soup without any grammar, and well-formed trees whose right answers are known."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from zlib import crc32

from hypothesis import settings
from hypothesis import strategies as st

SETTINGS = settings(max_examples=120, derandomize=True, deadline=None, database=None)

_INGREDIENTS = [
    *(b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\n\n", b"\r\n\r\n", b" ", b"\t", b"\0", b"\xe9", "ü".encode()),
    *(b"--b", b"--b--", b"\r\n--b\r\n", b"\r\n--b--\r\n", b"\n--bb\n", b"\r\n--bb--\r\n", b"--bb", b"--", b"-"),
    *(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n", b"Content-Type: multipart/digest; boundary=bb\n\n"),
    *(b"Content-Type: multipart/mixed\r\n", b"Content-Type: message/rfc822\r\n\r\n", b"Content-Type: text/html\r\n"),
    *(
        b"Content-Type: ",
        b"text/plain",
        b"; charset=",
        b"; name*0*=utf-8''%C3",
        b'; name="',
        b"; boundary=bb",
        b"image/gif",
    ),
    *(
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n",
        b"iso-2022-jp",
        b"utf-7",
    ),
    *(b"Content-Disposition: attachment; filename=x\r\n", b"Content-Language: de, en\r\n", b"Content-MD5: x\r\n"),
    *(b"Content-ID: <x@y>\r\n", b"Content-Description: d\r\n", b"Content-Location: l\r\n"),
    *(
        b"From: ",
        b"To: ",
        b"Cc: Group:",
        b"Sender:",
        b"Subject: ",
        b"Date: Wed, 17 Jul 1996 02:23:25 -0700",
        b"Bcc: x@y\r\n",
    ),
    *(
        b"Message-ID: <1@x>",
        b"References: <1@x> <2@x>",
        b"In-Reply-To: <",
        b"=?utf-8?q?=C3=BC?=",
        b"=?iso-8859-1?b?/A==?=",
    ),
    *(b"a@b.example", b"<", b">", b"(", b")", b'"', b"\\", b",", b";", b":", b"@", b"[", b"]", b"=", b"?", b"=?"),
    *(
        b"<p>",
        b"</p>",
        b"<style>",
        b"<!--",
        b"-->",
        b"&amp;",
        b"&#",
        b"<a href='x'>",
        b"x",
        b"text ",
        b"QUJD",
        b"A" * 76,
    ),
]

soup = st.lists(st.sampled_from(_INGREDIENTS) | st.binary(max_size=8), max_size=40).map(b"".join)
"""Octets that look like a message in all kinds of wrong ways."""

line_ends = st.sampled_from([b"\r\n", b"\n"])


@dataclass
class Model:
    """A well-formed entity: its octets, and for each part below it section numbers and the octets of its body."""

    octets: bytes
    bodies: dict[tuple[int, ...], bytes] = field(default_factory=dict)
    multipart: bool = False


@st.composite
def _text(draw: st.DrawFn) -> bytes:
    """A body that holds no delimiter."""
    return draw(
        st.one_of(
            st.binary(max_size=60).map(lambda octets: octets.replace(b"-", b"_")),
            st.binary(max_size=4000).map(lambda octets: base64.encodebytes(octets).replace(b"\n", b"\r\n")),
            st.binary(min_size=1, max_size=4000).map(base64.b64encode),
        )
    )


@st.composite
def _leaf(draw: st.DrawFn) -> Model:
    newline = draw(line_ends)
    fields = draw(
        st.lists(
            st.sampled_from(
                [
                    *(b"Content-Type: text/html", b"Content-Type: image/gif; name=x.gif", b"X-Other: 1"),
                    *(b"Content-Transfer-Encoding: base64", b"Content-Disposition: attachment", b"Subject: s"),
                ]
            ),
            max_size=3,
            unique_by=lambda line: line.partition(b":")[0],
        )
    )
    body = draw(_text())
    return Model(b"".join(line + newline for line in fields) + newline + body, {(1,): body})


@st.composite
def _container(draw: st.DrawFn, children: st.SearchStrategy[Model]) -> Model:
    if draw(st.integers(0, 3)) == 0:
        inner = draw(children)
        octets = b"Content-Type: message/rfc822\r\n\r\n" + inner.octets
        bodies: dict[tuple[int, ...], bytes] = {(1,): inner.octets}
        for path, body in inner.bodies.items():
            bodies[(1, *path)] = body
        return Model(octets, bodies)
    parts = draw(st.lists(children, min_size=1, max_size=3))
    # A boundary of its own for each multipart, by what it holds; no text above contains it.
    boundary = b"=_%x" % crc32(b"".join(part.octets for part in parts))
    newline = draw(line_ends)
    octets = b'Content-Type: multipart/mixed; boundary="%b"' % boundary + newline + newline
    octets += draw(st.sampled_from([b"", b"preamble\r\n"]))
    bodies = {}
    for number, part in enumerate(parts, 1):
        octets += b"--" + boundary + newline + part.octets + newline
        for path, body in part.bodies.items():
            # A leaf and a message are part n; what a multipart holds is n.1, n.2 …
            bodies[(number, *path) if part.multipart else (number, *path[1:])] = body
    octets += b"--" + boundary + b"--" + draw(st.sampled_from([b"", newline, newline + b"epilogue"]))
    return Model(octets, bodies, multipart=True)


well_formed = st.recursive(_leaf(), _container, max_leaves=6)
