"""The octets of messages: whole, octet by octet, cut at random, with the next command behind them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.data import Bounds, ChunkedBody, DataBody
from mailserver.protocols.smtp.replies import Reply

BOUNDS = Bounds(message_octets=100_000, line_octets=1000, header_octets=500, header_fields=10, hops=5)
NEXT = b"QUIT\r\n"

Result = tuple[bytes | Reply, bytes]


def data(sent: bytes, piece: int = 10**9, bounds: Bounds = BOUNDS) -> Result:
    """The message and what is left, when `sent` comes in pieces of this size."""
    body = DataBody(bounds)
    for at in range(0, len(sent), piece):
        rest = body.feed(sent[at : at + piece])
        if rest is not None:
            return body.message(), rest + sent[at + piece :]
    raise AssertionError("no end of data")


def chunked(message: bytes, cuts: list[int], piece: int = 10**9, bounds: Bounds = BOUNDS) -> Result:
    """The same by BDAT, cut into chunks at these places, all in one stream with something behind each chunk."""
    body = ChunkedBody(bounds)
    edges = [0, *sorted(cut % (len(message) + 1) for cut in cuts), len(message)]
    for begin, end in itertools.pairwise(edges):
        body.begin(end - begin)
        stream = message[begin:end] + NEXT
        rest = None
        for at in range(0, len(stream), piece):
            rest = body.feed(stream[at : at + piece])
            if rest is not None:
                assert rest + stream[at + piece :] == NEXT
                break
        assert rest is not None
    body.finish()
    return body.message(), NEXT


GOOD = [
    (b".\r\n", b""),
    (b"\r\n.\r\n", b"\r\n"),
    (b"hello\r\n.\r\n", b"hello\r\n"),
    (b"a: b\r\n\r\ntext\r\n.\r\n", b"a: b\r\n\r\ntext\r\n"),
    (b"..\r\n.\r\n", b".\r\n"),
    (b"...\r\n..\r\n.\r\n", b"..\r\n.\r\n"),
    (b"a\r\n..b\r\n.c\r\n.\r\n", b"a\r\n.b\r\nc\r\n"),
    (b"a.\r\n.\r\n", b"a.\r\n"),
    (b"a\r\n..\r\n..\r\n.\r\n", b"a\r\n.\r\n.\r\n"),
    (b"\r\n\r\n\r\n.\r\n", b"\r\n\r\n\r\n"),
    (b"\xe4\xff\r\n.\r\n", b"\xe4\xff\r\n"),
]


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 5, 7, 10**9])
@pytest.mark.parametrize(("sent", "message"), GOOD)
def test_dots_and_end_of_data(sent: bytes, message: bytes, piece: int) -> None:
    assert data(sent, piece) == (message, b"")
    assert data(sent + NEXT, piece) == (message, NEXT)
    assert data(sent + b".\r\n" + sent, piece) == (message, b".\r\n" + sent)


# What one server takes for the end of data and another does not: each is no end here, and is refused at the real one.
SMUGGLED = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\r\n.\n",
    b"\r\n\x00.\r\n",
    b"\r\n.\x00\r\n",
    b"\r\n.\r\r\n",
    b"\n\n.\n",
    b"\r\n.\n\r\n",
]


@pytest.mark.parametrize("piece", [1, 2, 3, 10**9])
@pytest.mark.parametrize("trick", SMUGGLED)
def test_no_other_end_of_data(trick: bytes, piece: int) -> None:
    sent = b"a: b\r\n\r\none" + trick + b"MAIL FROM:<x@y>\r\nDATA\r\ntwo\r\n.\r\n"
    message, rest = data(sent + NEXT, piece)
    assert message in (replies.BARE_NEWLINE, replies.HAS_NUL)
    assert rest == NEXT


BARE = [b"\n", b"\r", b"a\n", b"\na", b"\ra", b"a\rb", b"\r\r\n", b"\n\r\n", b"a\r\nb\nc", b"\r\n\n", b"a\n\rb"]


@pytest.mark.parametrize("piece", [1, 2, 3, 10**9])
@pytest.mark.parametrize("text", BARE)
def test_bare_cr_and_lf(text: bytes, piece: int) -> None:
    assert data(text + b"\r\n.\r\n", piece) == (replies.BARE_NEWLINE, b"")
    for cut in range(len(text) + 1):
        assert chunked(text + b"x\r\n", [cut], piece)[0] == replies.BARE_NEWLINE


def test_bare_cr_at_the_end_of_chunks() -> None:
    assert chunked(b"a\r", [])[0] == replies.BARE_NEWLINE
    assert chunked(b"a\r\n", [2])[0] == b"a\r\n"
    assert chunked(b"a", [])[0] == b"a"


@pytest.mark.parametrize("piece", [1, 3, 10**9])
def test_nul(piece: int) -> None:
    assert data(b"a\0b\r\n.\r\n" + NEXT, piece) == (replies.HAS_NUL, NEXT)
    assert chunked(b"a\0b\r\n", [1], piece)[0] == replies.HAS_NUL


@pytest.mark.parametrize("piece", [1, 7, 64, 10**9])
@pytest.mark.parametrize(
    ("text", "good"),
    [
        (b"x" * 998 + b"\r\n", True),
        (b"x" * 999 + b"\r\n", False),
        (b"a\r\n" + b"x" * 998 + b"\r\nb\r\n", True),
        (b"a\r\n" + b"x" * 999 + b"\r\nb\r\n", False),
        ((b"x" * 998 + b"\r\n") * 5, True),
        ((b"x" * 998 + b"\r\n") * 5 + b"x" * 999 + b"\r\n", False),
        (b"x\r\n" * 2000, True),
        (b"x" * 50_000 + b"\r\n", False),
    ],
)
def test_line_length(text: bytes, good: bool, piece: int) -> None:
    text = b"\r\n" + text
    expected = text if good else replies.MESSAGE_LINE_TOO_LONG
    assert data(text + b".\r\n", piece) == (expected, b"")
    assert chunked(text, [100, 1500], piece)[0] == expected


@pytest.mark.parametrize("piece", [1000, 10**9])
def test_size(piece: int) -> None:
    text = b"\r\n" + b"x" * 96 + b"\r\n"
    most = text * 1000
    assert len(most) == BOUNDS.message_octets
    assert data(most + b".\r\n", piece) == (most, b"")
    assert data(most + b"x\r\n.\r\n" + NEXT, piece) == (replies.TOO_BIG, NEXT)
    assert chunked(most, [5], piece)[0] == most
    assert chunked(most + b"x", [5], piece)[0] == replies.TOO_BIG


def test_what_is_refused_is_not_kept() -> None:
    body = DataBody(BOUNDS)
    for _ in range(20):
        body.feed(b"x" * 900 + b"\r\n")
    assert body.held > 17_000
    body.feed(b"a\nb")
    assert (body.held, body._pieces) == (0, [])
    assert body.feed(b"y" * 500_000) is None
    assert body.held == 0
    assert body.received > 500_000
    assert body.feed(b"\r\n.\r\n") == b""
    assert body.message() is replies.BARE_NEWLINE


def test_refused_from_outside() -> None:
    body = DataBody(BOUNDS)
    body.feed(b"x" * 100)
    body.refuse(replies.OUT_OF_MEMORY)
    body.refuse(replies.TOO_BIG)
    assert body.held == 0
    assert body.feed(b"\r\n.\r\n") == b""
    assert body.message() is replies.OUT_OF_MEMORY  # the first fault


HEADERS = [
    (b"f: x\r\n" * 10 + b"\r\n", None),
    (b"f: x\r\n" * 11 + b"\r\n", replies.TOO_MANY_FIELDS),
    (b"f: x\r\n" * 11, replies.TOO_MANY_FIELDS),
    (b"f: x\r\n y\r\n\tz\r\n" * 10 + b"\r\n", None),
    (b"\r\n" + b"f: x\r\n" * 20, None),
    ((b"f: " + b"x" * 245 + b"\r\n") * 2 + b"\r\n", None),
    ((b"f: " + b"x" * 246 + b"\r\n") * 2 + b"\r\n", replies.HEADER_TOO_BIG),
    ((b"f: " + b"x" * 246 + b"\r\n") * 2, replies.HEADER_TOO_BIG),
    (b"Received: x\r\n" * 4 + b"\r\n", None),
    (b"Received: x\r\n" * 5 + b"\r\n", replies.LOOP),
    (b"RECEIVED :x\r\n\ty\r\n" * 5 + b"\r\n", replies.LOOP),
    (b"X-Received: x\r\n" * 5 + b"\r\n", None),
    (b"a: b\r\n\r\n" + b"Received: x\r\n" * 9, None),
]


@pytest.mark.parametrize(("text", "fault"), HEADERS)
def test_header_bounds(text: bytes, fault: Reply | None) -> None:
    assert data(text + b".\r\n") == (fault or text, b"")
    assert chunked(text, [11])[0] == (fault or text)


def reference(text: bytes) -> bytes:
    """RFC 5321 §4.5.2, line by line, the sender's side."""
    lines = text.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


SIMPLE = st.lists(
    st.sampled_from([b".", b"\r\n", b"a", b"..", b"\r\n.", b"bc d", b"\xc3\xa9", b"\r\n.\r\n"]), max_size=40
)


@given(SIMPLE.map(b"".join), st.integers(1, 20), st.lists(st.integers(0, 200), max_size=5))
def test_round_trip(text: bytes, piece: int, cuts: list[int]) -> None:
    text = b"\r\n" + text + b"\r\n"
    assert data(reference(text) + b".\r\n" + NEXT, piece) == (text, NEXT)
    assert chunked(text, cuts, piece) == (text, NEXT)


ANY = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\0", b"x", b"\r\n", b"\r\n.\r\n"]), max_size=30).map(b"".join)


def good_part(result: Result) -> tuple[bytes | None, bytes]:
    """Which of several faults is seen first may depend on the pieces."""
    message, rest = result
    return message if isinstance(message, bytes) else None, rest


@given(ANY, st.integers(1, 10))
def test_pieces_make_no_difference(text: bytes, piece: int) -> None:
    sent = text + b"\r\n.\r\n" + NEXT
    message, rest = data(sent)
    assert good_part(data(sent, piece)) == good_part((message, rest))
    if isinstance(message, bytes):
        # What was accepted has CR and LF in pairs only, and ended at the first CR LF . CR LF.
        assert message.replace(b"\r\n", b"").strip(b"\r\n") == message.replace(b"\r\n", b"")
        assert b"\0" not in message
    end = (b"\r\n" + sent).index(b"\r\n.\r\n")
    assert rest == sent[end + 3 :]


@given(ANY, st.lists(st.integers(0, 100), max_size=6), st.integers(1, 10))
def test_chunks_make_no_difference(text: bytes, cuts: list[int], piece: int) -> None:
    once = chunked(text, [])[0]
    assert good_part(chunked(text, cuts, piece)) == good_part((once, NEXT))
    stray = b"\r" in text.replace(b"\r\n", b"") or b"\n" in text.replace(b"\r\n", b"")
    assert (once in (replies.BARE_NEWLINE, replies.HAS_NUL)) == (stray or b"\0" in text)
