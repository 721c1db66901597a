"""Rubbish for the SMTP parsers: whole, in any pieces, with an octet more or less. Either an answer or a refusal."""

from __future__ import annotations

import itertools
import re
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols import sasl
from mailserver.protocols.smtp import parse, replies
from mailserver.protocols.smtp.commands import Mail, Rcpt
from mailserver.protocols.smtp.data import Bounds, ChunkedBody, DataBody
from mailserver.protocols.smtp.replies import Refused, Reply

BOUNDED = settings(max_examples=300, deadline=None, derandomize=True, database=None)
BOUNDS = Bounds(message_octets=1_000_000, line_octets=1000, header_octets=500, header_fields=10, hops=5)
NEXT = b"QUIT\r\n"


def broken(text: str, more: str) -> Iterator[str]:
    """The text without each of its characters, with one of `more` before each, cut off at each."""
    for at in range(len(text) + 1):
        yield text[:at] + text[at + 1 :]
        yield text[:at]
        for char in more:
            yield text[:at] + char + text[at:]


# Commands -------------------------------------------------------------------------------------------------------------

MAIL = [
    "FROM:<alice@example.org>",
    "FROM:<> SIZE=1000 BODY=8BITMIME SMTPUTF8",
    'FROM:<"a b\\"c"@example.org> AUTH=a+3Db',
    "FROM:<@a.example,@[192.0.2.1]:b@[IPv6:2001:db8::1]>",
    "FROM:<gr\u00fc\u00dfe@b\u00fccher.example> SMTPUTF8",
]
MORE = '\0\t\r\n \x1b"\\<>@:,;[].=+-a0\x7f\x80\xa0\u0130\u2028\u202e\udc80'


@pytest.mark.parametrize("argument", MAIL)
def test_addresses_with_a_character_more_or_less(argument: str) -> None:
    for text in broken(argument, MORE):
        for parser in (parse.mail, _rcpt):
            path = _found(parser, text)
            if path is None:
                continue
            assert path in ("", "postmaster") or "@" in path
            assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", path), text
            if path.isascii() and '"' not in path:
                assert re.fullmatch(r"[!-;=?-~]*", path), text


def _found(parser: Callable[[str], Mail | Rcpt], text: str) -> str | None:
    """The address, or None where the text is refused, as its grammar or as needing SMTPUTF8 or an unknown parameter."""
    try:
        return parser(text)[0]
    except Refused as refused:
        code = refused.reply.code
    assert code in (501, 553, 555)
    return None


def _rcpt(text: str) -> Rcpt:
    return parse.rcpt(text.replace("FROM:", "TO:", 1).partition(" SIZE")[0], smtputf8=True)


@pytest.mark.parametrize("argument", ["86", "86 LAST", "0 LAST", "18446744073709551615"])
def test_sizes_of_chunks_with_a_character_more_or_less(argument: str) -> None:
    """A size is a run of ASCII digits up to a space or the end; anything else is none."""
    for text in broken(argument, MORE + "\u0665\u00b2LAST"):
        chunk, right = parse.bdat(text)
        digits = re.fullmatch(r" *([0-9]{1,20})(?: +([^ ].*?))? *", text, re.DOTALL)
        assert (chunk is not None) == (digits is not None), repr(text)
        if chunk is not None and digits is not None:
            assert chunk.size == int(digits[1])
            assert right == (digits[2] is None or digits[2].upper() == "LAST" == digits[2].upper().strip(" "))
            assert not right or chunk.last == (digits[2] is not None)


@given(st.text(max_size=200))
@BOUNDED
def test_any_text_for_a_chunk(text: str) -> None:
    chunk, right = parse.bdat(text)
    assert chunk is not None or not right


# Replies --------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=700), st.sampled_from([(250, "2.0.0"), (500, "5.5.1"), (334, ""), (421, "4.4.2")]))
@BOUNDED
def test_no_text_breaks_a_reply(text: str, codes: tuple[int, str]) -> None:
    reply = Reply(codes[0], codes[1], text)
    lines = reply.octets.split(b"\r\n")
    assert lines.pop() == b""
    assert len(lines) == text.count("\n") + 1
    for line in lines:
        assert re.fullmatch(rb"\d{3}(-| |$)[ -~]*", line) and len(line) <= 510
    assert all(line[3:4] == b"-" for line in lines[:-1])
    assert lines[-1][3:4] in (b" ", b"")


# SASL -----------------------------------------------------------------------------------------------------------------

PIECES = st.lists(st.sampled_from([b"\0", b"", b"alice", b"\xff", b"\r\n", b"*", b"=", b"a" * 1025, b"\xc3\xa9"]))


@given(st.one_of(st.binary(max_size=100), PIECES.map(b"".join)))
@BOUNDED
def test_any_response_in_a_login(response: bytes) -> None:
    for name in sasl.MECHANISMS:
        exchange = sasl.MECHANISMS[name]()
        for step in (None, response, response):
            try:
                answer = exchange.step(step)
            except sasl.SaslError:
                break
            if isinstance(answer, sasl.Credentials):
                assert answer.name and answer.password and "\0" not in answer.name + answer.password
                break
        else:
            raise AssertionError("it never ends")


@given(st.one_of(st.binary(max_size=60), st.text("ABab+/=*\r\n ", max_size=20).map(str.encode)))
@BOUNDED
def test_any_line_for_base64(line: bytes) -> None:
    """What is taken is canonical: letters, digits and padding, and nothing around them."""
    try:
        decoded = sasl.decode(line)
    except sasl.SaslError:
        return
    assert re.fullmatch(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", line), line
    assert len(decoded) == len(line) // 4 * 3 - line.count(b"=")


# Messages -------------------------------------------------------------------------------------------------------------


def data(stream: bytes, cuts: tuple[int, ...]) -> tuple[bytes | Reply, bytes] | None:
    """The message and what is left; None where no end of data came."""
    body = DataBody(BOUNDS)
    edges = [0, *cuts, len(stream)]
    for begin, end in itertools.pairwise(edges):
        rest = body.feed(stream[begin:end]) if begin < end else None
        if rest is not None:
            return body.message(), rest + stream[end:]
    return None


def sender_side(text: bytes) -> bytes:
    """RFC 5321 §4.5.2, line by line."""
    return (
        b"".join(b"." + line if line.startswith(b".") else line for line in text.splitlines(keepends=True)) + b".\r\n"
    )


DOTTED = [b".\r\n", b"..\r\n", b".a\r\n.\r\nb.\r\n", b"a\r\n..\r\n\r\n...\r\n", b"\r\n.\r\n", b"a.\r\n.b\r\n"]


@pytest.mark.parametrize("text", DOTTED)
def test_dots_wherever_two_cuts_fall(text: bytes) -> None:
    stream = sender_side(text) + NEXT
    for cuts in itertools.combinations(range(len(stream) + 1), 2):
        assert data(stream, cuts) == (text, NEXT)


def test_every_short_text_of_ends_and_dots() -> None:
    """All texts of up to six of CR, LF, dot and a letter: nothing but CR LF . CR LF ends, nothing bare gets through."""
    for length in range(7):
        for parts in itertools.product((b"\r", b"\n", b".", b"x"), repeat=length):
            stream = b"a\r\n" + b"".join(parts) + b"\r\n.\r\n" + NEXT
            end = stream.index(b"\r\n.\r\n")
            text = stream[: end + 2]
            bare = re.search(rb"\r(?!\n)|(?<!\r)\n", text)
            expected = replies.BARE_NEWLINE if bare else re.sub(rb"(?m)^\.", b"", text)
            assert data(stream, ()) == (expected, stream[end + 5 :]), stream
            assert data(stream, tuple(range(1, len(stream)))) == (expected, stream[end + 5 :]), stream


WHOLE = b"Subject: x\r\n\r\none\r\n..two\r\n.three\r\n\r\n.\r\n"


def test_a_message_with_an_octet_more_or_less() -> None:
    """Whatever comes in place of a message, it ends at the first end of data, or has not ended."""
    for octet in (b"", b"\r", b"\n", b".", b"\0", b"x", b"\xff", b"\r\n", b"\r\n.\r\n"):
        for at in range(len(WHOLE) + 1):
            for stream in (WHOLE[:at] + octet + WHOLE[at:], WHOLE[:at] + octet + WHOLE[at + 1 :]):
                end = (b"\r\n" + stream).find(b"\r\n.\r\n")
                for cuts in ((), tuple(range(1, len(stream))), (at,)):
                    result = data(stream, cuts)
                    assert (result is None) == (end < 0), stream
                    assert result is None or result[1] == stream[end + 3 :], stream


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=10), st.binary(max_size=200), st.integers(1, 50))
@BOUNDED
def test_chunks_take_their_octets_and_no_more(chunks: list[tuple[int, bool]], octets: bytes, piece: int) -> None:
    """Whatever the octets are, and whatever has gone wrong before."""
    body = ChunkedBody(BOUNDS)
    stream = (octets or b"x") * 400
    for size, refuse in chunks:
        if refuse:
            body.refuse(replies.SYNTAX)
        body.begin(size)
        at, rest = 0, body.feed(b"")
        while rest is None:
            rest = body.feed(stream[at : at + piece])
            at += piece
        assert at - len(rest) == size
        assert body.most == 0


def test_tiny_pieces_cost_what_they_hold() -> None:
    for body in (DataBody(BOUNDS), ChunkedBody(BOUNDS)):
        if isinstance(body, ChunkedBody):
            body.begin(60_000)
        tracemalloc.start()
        for _ in range(10_000):
            body.feed(bytes(bytearray(b"ab\r\n")))
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert body.held >= 39_000
        assert held < 2 * body.held
