"""Replies on the wire: whole, octet by octet, with the next one behind them; and what is none."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.protocols.smtp.reply import MAX_LINE, MAX_LINES, MAX_REPLY, MAX_TEXT, BadReply, Reply, ReplyReader

PIECES = [1, 2, 3, 5, 10**9]
NEXT = b"221 bye\r\n"


def read(octets: bytes, piece: int = 10**9) -> tuple[list[Reply], bool]:
    """The replies, and whether a part of one is left."""
    reader = ReplyReader()
    replies = [reply for at in range(0, len(octets), piece) for reply in reader.feed(octets[at : at + piece])]
    return replies, reader.pending


GOOD = [
    (b"250 OK\r\n", Reply(250, ("OK",))),
    (b"250 OK\n", Reply(250, ("OK",))),
    (b"250\r\n", Reply(250, ("",))),
    (b"250 \r\n", Reply(250, ("",))),
    (b"250\n", Reply(250, ("",))),
    (b"250-a\r\n250 b\r\n", Reply(250, ("a", "b"))),
    (b"250-a\n250-\r\n250\r\n", Reply(250, ("a", "", ""))),
    (b"250-a\r\n250-b\r\n250 c-d\r\n", Reply(250, ("a", "b", "c-d"))),
    (b"250--a\r\n250  b\r\n", Reply(250, ("-a", " b"))),
    (b"354 go\r\n", Reply(354, ("go",))),
    (b"599 x\r\n", Reply(599, ("x",))),
    (b"299 x\r\n", Reply(299, ("x",))),
    ("250 grüß\r\n".encode(), Reply(250, ("grüß",))),
    (b"250 \xff\x00\x1b\ta\rb\r\n", Reply(250, ("\ufffd\x00\x1b\ta\rb",))),
    (b"250 " + b"x" * (MAX_LINE - 4) + b"\r\n", Reply(250, ("x" * (MAX_LINE - 4),))),
    (b"250-\r\n" * (MAX_LINES - 1) + b"250 \r\n", Reply(250, ("",) * MAX_LINES)),
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(("octets", "reply"), GOOD)
def test_replies(octets: bytes, reply: Reply, piece: int) -> None:
    assert read(octets, piece) == ([reply], False)
    assert read(octets + NEXT, piece) == ([reply, Reply(221, ("bye",))], False)
    assert read(octets + octets + b"22", piece) == ([reply, reply], True)
    assert read(octets[:-1], piece) == ([], True)


BAD = [
    (b"\r\n", "code"),
    (b"\n", "code"),
    (b"OK\r\n", "code"),
    (b"25 OK\r\n", "code"),
    (b"2500 OK\r\n", "code"),
    (b"250+OK\r\n", "code"),
    (b"250\tOK\r\n", "code"),
    (b" 250 OK\r\n", "code"),
    (b"150 OK\r\n", "code"),
    (b"650 OK\r\n", "code"),
    (b"\x00250 OK\r\n", "code"),
    ("٢٥٠ OK\r\n".encode(), "code"),
    (b"HTTP/1.1 400 Bad Request\r\n", "code"),
    (b"* OK IMAP4rev1\r\n", "code"),
    (b"\x16\x03\x01\x02\x00\x01\n", "code"),
    (b"250-a\r\n251 b\r\n", "different"),
    (b"250-a\r\nb\r\n", "code"),
    (b"250 " + b"x" * (MAX_LINE - 3) + b"\r\n", "line"),
    (b"x" * (MAX_LINE + 2), "line"),
    (b"\r" * (MAX_LINE + 2), "line"),
    (b"250-\r\n" * (MAX_LINES + 1), "too long"),
    (b"250-\r\n" * MAX_LINES + b"250 \r\n", "too long"),
    ((b"250-" + b"x" * 1018 + b"\r\n") * (MAX_REPLY // 1024) + b"250\r\n", "too long"),
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize(("octets", "reason"), BAD)
def test_what_is_no_reply(octets: bytes, reason: str, piece: int) -> None:
    with pytest.raises(BadReply, match=reason):
        read(octets, piece)


@pytest.mark.parametrize(("octets", "reason"), BAD)
def test_replies_before_a_bad_one_stand(octets: bytes, reason: str) -> None:
    with pytest.raises(BadReply, match=reason) as bad:
        read(b"250 first\r\n221-second\r\n221 end\r\n" + octets)
    assert bad.value.replies == [Reply(250, ("first",)), Reply(221, ("second", "end"))]


def test_endless_lines_are_not_kept() -> None:
    reader = ReplyReader()
    tracemalloc.start()
    with pytest.raises(BadReply):
        for _ in range(100_000):
            reader.feed(b"250-" + b"x" * 60 + b"\r\n")
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_REPLY
    tracemalloc.stop()


ENHANCED = [
    (250, ["2.0.0 OK"], "2.0.0", "OK"),
    (250, ["OK"], "", "OK"),
    (250, ["5.0.0 OK"], "", "5.0.0 OK"),
    (550, ["5.1.1 no", "5.1.1 such", "5.1.1 user"], "5.1.1", "no such user"),
    (550, ["Blocked.", "5.7.1 See there"], "5.7.1", "Blocked. See there"),
    (550, ["5.1.1 a", "5.1.10 b"], "5.1.1", "a 5.1.10 b"),
    (550, ["5.1.1"], "5.1.1", ""),
    (550, ["5.1.1.1 x"], "", "5.1.1.1 x"),
    (550, ["5.1.1234 x"], "", "5.1.1234 x"),
    (550, ["5.100.999\tx"], "5.100.999", "x"),
    (550, [" 5.1.1 x"], "", "5.1.1 x"),
    (550, ["٥.١.١ x"], "", "٥.١.١ x"),
    (354, ["3.0.0 go"], "", "3.0.0 go"),
    (250, [""], "", ""),
    (250, ["a", "", "b"], "", "a b"),
    (250, ["a\tb\x00c\x1bd\u202ee\u2028f"], "", "a b?c?d?e?f"),
    (250, ["grüß dich"], "", "grüß dich"),
    (250, ["x" * 700, "y" * 700], "", "x" * 700 + " " + "y" * 299),
]


@pytest.mark.parametrize(("code", "lines", "enhanced", "text"), ENHANCED)
def test_enhanced_code_and_text(code: int, lines: list[str], enhanced: str, text: str) -> None:
    reply = Reply(code, tuple(lines))
    assert (reply.enhanced, reply.text) == (enhanced, text)


@pytest.mark.parametrize(
    ("code", "classes"), [(200, "2"), (299, "2"), (354, "3"), (400, "4"), (499, "4"), (500, "5"), (599, "5")]
)
def test_classes(code: int, classes: str) -> None:
    reply = Reply(code, ("",))
    found = {
        "2": reply.is_positive,
        "3": reply.is_intermediate,
        "4": reply.is_transient,
        "5": reply.is_permanent,
    }
    assert [name for name, holds in found.items() if holds] == [classes]


LINES = st.lists(st.sampled_from([b"250 a", b"250-b", b"550-5.1.1 x", b"\r\n", b"\n", b"\r", b"", b"\0", b"25"]))


@given(LINES.map(b"".join), st.integers(1, 9))
def test_pieces_make_no_difference(octets: bytes, piece: int) -> None:
    def outcome(piece: int) -> tuple[list[Reply], str]:
        reader = ReplyReader()
        replies: list[Reply] = []
        for at in range(0, len(octets), piece):
            try:
                replies += reader.feed(octets[at : at + piece])
            except BadReply as bad:
                return replies + bad.replies, str(bad)
        return replies, ""

    assert outcome(piece) == outcome(10**9)


@given(st.integers(200, 599), st.lists(st.text(max_size=50), min_size=1, max_size=5).map(tuple))
def test_any_text(code: int, lines: tuple[str, ...]) -> None:
    text = Reply(code, lines).text
    assert text.isprintable() and len(text) <= MAX_TEXT
