"""Clients that want to break SMTP: what they send, in whatever pieces, gets clear answers, and others are served."""

from __future__ import annotations

import asyncio
import logging
import random
import re
import time
import tracemalloc
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailserver.net.tls import Certificates
from storage import Store
from tests.receiving.tools import PASSWORD, Host, Talk, hosting, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOUNDED = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

STALL = 0.25
"""CPU seconds for which nobody may keep the others waiting; a quiet machine stays far below."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(wire: Host, certificates: Certificates) -> AsyncIterator[Host]:
    """Bears any number of errors and commands, so that a test sees each answer."""
    trusted = ("127.0.0.0/8",)
    async with hosting(
        wire.store, certificates, trusted=trusted, max_errors=10**6, max_commands=10**6, max_recipients=100
    ) as running:
        yield running


@pytest.fixture
def store(wire: Host) -> Store:
    return wire.store


# Octets in, answers out -----------------------------------------------------------------------------------------------

_REPLY_LINE = re.compile(r"([2-5]\d\d)([ -])[ -~]*")


def replies_in(text: str) -> list[str]:
    """The codes of the replies; each must be made of whole lines of printable ASCII (RFC 5321 §4.2, §4.5.3.1.5)."""
    codes, lines = [], text.split("\r\n")
    assert lines.pop() == "", text
    begun = None
    for line in lines:
        match = _REPLY_LINE.fullmatch(line)
        assert match and len(line) <= 510, repr(line)
        assert begun in (None, match[1]), text
        begun = match[1] if match[2] == "-" else None
        if begun is None:
            codes.append(match[1])
    assert begun is None, text
    return codes


async def feed(host: Host, pieces: Sequence[bytes], kind: str = "mx") -> str:
    """What is answered, greeting left out, when exactly these pieces arrive, and then the end of input."""
    talk = await host.talk(kind)
    await talk.reply()
    connection = host.connections.pop()
    for piece in pieces:
        connection.data_received(piece)
    connection.eof_received()
    text = await talk.rest()
    talk.close()
    assert replies_in(text)[-1] in ("221", "421"), text
    return _plain(text)


def _plain(text: str) -> str:
    """Ids left out, and which of several faults of a message is found first."""
    text = re.sub(r"250 2\.0\.0 OK [0-9a-f-]{36}", "250 2.0.0 OK <id>", text)
    return re.sub(r"55[04] 5\.6\.0 [^\r]*", "550 5.6.0 <fault>", text)


def octets_of(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def cut(stream: bytes, seed: int) -> list[bytes]:
    pieces, at, chance = [], 0, random.Random(seed)
    while at < len(stream):
        size = chance.choice((1, 2, 3, 5, 30, 1000))
        pieces.append(stream[at : at + size])
        at += size
    return pieces


# Any mixture, any pieces ----------------------------------------------------------------------------------------------

# Each is answered once, in whatever state it comes.
ANSWERED_ONCE = [
    b"NOOP\r\n",
    b"NOOP and more\r\n",
    b"RSET\r\n",
    b"EHLO client\r\n",
    b"HELO client\r\n",
    b"HELO\r\n",
    b"EHLO \xc3\xa9\r\n",
    b"EHLO \xff\xfe\r\n",
    b"MAIL FROM:<>\r\n",
    b"MAIL FROM:<a@example.net> SIZE=99999999999999999999\r\n",
    b"MAIL FROM:<a@example.net> SIZE=1 SIZE=1\r\n",
    b"MAIL FROM:<a@example.net> AUTH=+zz\r\n",
    b"MAIL FROM:<" + b"@a.example," * 400 + b">\r\n",
    b"RCPT TO:<bob@example.org>\r\n",
    b"RCPT TO:<nobody@example.org>\r\n",
    b"RCPT TO:<bob@example.org> NOTIFY=NEVER\r\n",
    b"RCPT TO:<" + b"x" * 3000 + b"@example.org>\r\n",
    b"DATA now\r\n",
    b"VRFY <bob>\r\n",
    b"HELP\r\n",
    b"XYZZY\r\n",
    b"\r\n",
    b"\n",
    b"NOOP\n",
    b"NO\rOP\r\n",
    b"\0\0\0\0\r\n",
    b"NOOP\0\r\n",
    b"NOOP \x1b[2J\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\r\n",
    b"AUTH PLAIN\r\n",
    b"GET / HTTP/1.1\r\n",
    b"." + b"\r\n",
    b"NOOP " + b"x" * 5_000 + b"\r\n",
    b"x" * 13_000 + b"\r\n",
    b"NOOP " + b" " * 13_000 + b"\r\n",
    b"BDAT 0\r\n",
    b"BDAT 0 LAST\r\n",
    b"BDAT 12 FIRST\r\nQUIT\r\nQUIT\r\n",
    b"BDAT 12\r\nQUIT\r\nNOOP\r\n",
    b"BDAT 12 LAST\r\nQUIT\r\nNOOP\r\n",
    b"BDAT 3 LAST\r\n\n.\n",
    b"BDAT 00000000000000000005 LAST\r\n\0\0\0\0\0",
]

TEXTS = st.lists(
    st.sampled_from([b".", b"\r\n", b"\r\n.", b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\0", b"a: b", b"\r\nQUIT"]),
    max_size=8,
).map(b"".join)


def message(text: bytes) -> tuple[bytes, int]:
    """A transaction that reaches DATA whatever was before, and how many replies it gets."""
    end = (b"\r\n" + text + b"\r\n.\r\n").index(b"\r\n.\r\n")
    text = text[: max(0, end - 2)] + b"\r\n" if end else b""
    begin = b"RSET\r\nHELO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
    return begin + text + b".\r\n", 6


UNITS = st.lists(
    st.one_of(
        st.sampled_from(ANSWERED_ONCE).map(lambda line: (line, 1)),
        st.sampled_from(ANSWERED_ONCE).map(lambda line: (line, 1)),
        TEXTS.map(message),
    ),
    max_size=12,
)


@given(UNITS, st.integers(0, 99))
@BOUNDED
async def test_each_command_is_answered_once_whatever_the_pieces(
    host: Host, units: list[tuple[bytes, int]], seed: int
) -> None:
    stream = b"".join(octets for octets, _ in units)
    whole = await feed(host, [stream] if stream else [])
    assert len(replies_in(whole)) == sum(count for _, count in units) + 1, whole
    assert await feed(host, cut(stream, seed)) == whole
    if len(stream) < 2000:
        assert await feed(host, octets_of(stream)) == whole


FRAGMENTS = [
    *ANSWERED_ONCE,
    *[b"DATA\r\n", b"QUIT\r\n", b"BDAT 4294967295\r\n", b"BDAT 1" + b"0" * 30 + b"\r\n", b"BDAT\r\n", b"BDAT -1\r\n"],
    *[b"BDAT 7 LAST\n", b"AUTH LOGIN\r\n", b"*\r\n", b"=\r\n", b"QUIT", b"BDAT 100 LAST\r\n", b"\r", b".", b"RCPT"],
    *[
        b"MAIL FROM:<alice@example.org>\r\n",
        b"AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U=\r\n",
        b"AUTH PLAIN " + b"A" * 13_000,
    ],
]


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=12), st.sampled_from(["mx", "submission"]), st.integers(0, 99))
@BOUNDED
async def test_pieces_make_no_difference(host: Host, fragments: list[bytes], kind: str, seed: int) -> None:
    stream = b"".join(fragments)
    whole = await feed(host, [stream] if stream else [], kind)
    assert await feed(host, cut(stream, seed), kind) == whole


DIALOGUES = {
    "BDAT": b"MAIL FROM:<a@b.c> SIZE=9\r\nRCPT TO:<nobody@example.org>\r\n"
    b"BDAT 6\r\na: b\r\nBDAT 8 LAST\r\n\r\nNOOP\r\nRSET\r\n",
    "DATA": b"MAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nx\n\r\n..\r\n.\r\nNOOP\r\n",
}


@pytest.mark.parametrize("name", DIALOGUES)
async def test_an_octet_more_or_less(host: Host, name: str) -> None:
    """Every octet of a dialogue removed, and one put before it."""
    stream = DIALOGUES[name]
    for at in range(len(stream)):
        for broken in (stream[:at] + stream[at + 1 :], stream[:at] + b"\n\r\0 9\xff"[at % 6 :][:1] + stream[at:]):
            broken = b"HELO x\r\n" + broken
            assert await feed(host, octets_of(broken)) == await feed(host, [broken]), broken


# Texts of the peer in our answers and our log -------------------------------------------------------------------------

PLACES = """HELO {}|EHLO {}|MAIL FROM:<{}>|MAIL FROM:<{}@example.net>|MAIL FROM:<a@example.net> {}|MAIL FROM:<a@b> {}=x
MAIL FROM:<a@b> SIZE={}|MAIL FROM:<a@b> BODY={}|MAIL FROM:<a@b> AUTH={}|RCPT TO:<{}>|RCPT TO:<{}@example.org>
RCPT TO:<bob@{}>|RCPT TO:<bob@example.org> {}|VRFY {}|EXPN {}|HELP {}|NOOP {}|{}|X{}|AUTH {}|AUTH PLAIN {}|BDAT {}
BDAT 0 {}|RSET {}|DATA {}|STARTTLS {}|QUIT {}"""

EVIL = [
    *[
        "\r",
        "\n",
        "\0",
        "\x1b[2J",
        "\x7f",
        "\x85",
        "\u2028",
        "\u202e",
        "\u00e9",
        "\udcff\udcfe",
        "%s%n",
        "{0}",
        "\t",
        '"',
        "\\",
    ],
    *[
        "OK 250",
        "x" * 4000,
        "x" * 12_000,
        "\u20ac" * 3000,
        "a-b-" * 900,
        "\r250 OK",
        "\n250 OK\n",
        "x\r\n250 y",
        "=",
        "<>",
        " ",
    ],
]


async def test_what_the_peer_says_breaks_no_reply_and_no_log(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for kind in ("mx", "submission"):
        for place in PLACES.replace("\n", "|").split("|"):
            for evil in EVIL[:-1] if place == "STARTTLS {}" else EVIL:
                line = place.format(evil).encode("utf-8", "surrogateescape")
                begin = b"EHLO x\r\n" + (b"MAIL FROM:<>\r\n" if place.startswith("RCPT") and kind == "mx" else b"")
                answers = (await feed(host, [begin + line + b"\r\nNOOP\r\n*\r\nNOOP last\r\n"], kind)).split("\r\n")
                if not answers[-2].startswith(("221 2.0.0", "421 4.5.4")):
                    assert answers[-3:-1] == ["250 2.0.0 OK", "421 4.4.2 Connection ended without QUIT; closing"], line
    for record in caplog.records:
        assert re.fullmatch(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*", record.getMessage()), record.getMessage()


# Lines ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"X" + b" " * 12_000 + b"\x01\r\n",
        b"NOOP" + b" " * 250_000 + b"\x01\r\n",
        b"NOOP " + b"a " * 6_000 + b"\x01\r\n",
        b"NOOP " + b"a" * 250_000 + b"\r\n",
        b"x" * 250_000 + b"\r\n",
        b"MAIL FROM:<" + b"a." * 2_000 + b">\r\n",
        b'MAIL FROM:<"' + b"\\a" * 2_000 + b"\r\n",
        b"MAIL FROM:<a@" + b"a-" * 2_000 + b">\r\n",
        b"MAIL FROM:<a@b>" + b" a=b" * 1_000 + b"\r\n",
    ],
    ids=lambda line: repr(line[:14]),
)
async def test_no_line_costs_more_than_its_length(host: Host, line: bytes) -> None:
    begin = time.process_time()
    assert re.fullmatch(r"5\d\d .*\r\n421 .*\r\n", await feed(host, [line]))
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize("piece", [1, 1000, 10**6])
async def test_a_line_is_too_long_whatever_the_pieces(host: Host, piece: int) -> None:
    """One that is known, one that is not, one that is none."""
    for line in (b"NOOP " + b"x" * 13_000, b"XYZZY " + b"x" * 13_000, b"\0" * 13_000):
        stream = line + b"\r\nNOOP\r\n"
        pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
        assert (await feed(host, pieces)).startswith("500 5.5.2 Line too long\r\n250 2.0.0 OK\r\n421 ")


# BDAT -----------------------------------------------------------------------------------------------------------------

NO_SIZE = [
    b"BDAT\r\n",
    b"BDAT LAST\r\n",
    b"BDAT -5\r\n",
    b"BDAT +5\r\n",
    b"BDAT 5.0\r\n",
    b"BDAT 0x5\r\n",
    b"BDAT 5,LAST\r\n",
    b"BDAT 1" + b"0" * 30 + b"\r\n",
    "BDAT \u0665\r\n".encode(),
    "BDAT 5\u2003LAST\r\n".encode(),
    b"BDAT 5\n",
    b"BDAT 5\r LAST\r\n",
    b"BDAT\t5\r\n",
    b"BDAT 5\tLAST\r\n",
    b"BDAT 5\xff\r\n",
    b"BDAT 5 \xff\r\n",
    b"BDAT 5\0\r\n",
    b" BDAT 5\r\n",
    b"bdat 5 \x01\r\n",
    b"BDAT 5" + b" " * 5_000 + b"LAST\r\n",
    b"BDAT 5 " + b"x" * 20_000 + b"\r\n",
    b"BDAT " + b"9" * 200_000 + b"\r\n",
]


@pytest.mark.parametrize("line", NO_SIZE, ids=lambda line: repr(line[:20]))
async def test_a_chunk_of_unknown_size_ends_the_connection(host: Host, line: bytes) -> None:
    """Its octets are never taken for commands (RFC 3030 §2)."""
    stream = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\n" + line + b"NOOP\r\nNOOP\r\n"
    for pieces in ([stream], cut(stream, 1)):
        answers = await feed(host, pieces)
        assert replies_in(answers) == ["250", "250", "250", "421"], answers
        assert "421 4.5.4" in answers


REFUSED_CHUNKS = [
    (b"", "503 5.5.1"),
    (b"MAIL FROM:<>\r\n", "503 5.5.1"),
    (b"MAIL FROM:<>\r\nRCPT TO:<nobody@example.org>\r\n", "554 5.5.1"),
    (b"MAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nBDAT 1 LAST LAST\r\nx", "503 5.5.1"),
    (b"MAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nBDAT 3 LAST\r\nx\r\n", "503 5.5.1"),
    (b"MAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nBDAT 3\r\nx\0\n", "503 5.5.1"),
    (b"MAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nBDAT 3\r\nx\r\nRSET\r\n", "503 5.5.1"),
    (b"MAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nBDAT 3\r\nx\r\nEHLO y\r\n", "503 5.5.1"),
]


@pytest.mark.parametrize(("begin", "refusal"), REFUSED_CHUNKS)
@pytest.mark.parametrize("last", [b"", b" LAST"])
async def test_the_octets_of_a_refused_chunk_are_no_commands(
    host: Host, begin: bytes, refusal: str, last: bytes
) -> None:
    stream = b"EHLO x\r\n" + begin + b"BDAT 18" + last + b"\r\nQUIT\r\nQUIT\r\nQUIT\r\nVRFY x\r\n"
    for pieces in ([stream], octets_of(stream)):
        answers = (await feed(host, pieces)).split("\r\n")
        assert answers[-4].startswith(refusal), answers
        assert answers[-3].startswith("252 "), answers


async def test_data_and_chunks_do_not_mix(host: Host) -> None:
    begin = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\n"
    answers = await feed(host, [begin + b"BDAT 3\r\nx\r\nDATA\r\nRCPT TO:<bob@example.org>\r\nBDAT 0 LAST\r\nQUIT\r\n"])
    assert replies_in(answers) == ["250", "250", "250", "250", "503", "503", "250", "221"]
    answers = await feed(host, [begin + b"DATA\r\nBDAT 3\r\nx\r\n.\r\nBDAT 3 LAST\r\nx\r\nQUIT\r\n"])
    assert replies_in(answers) == ["250", "250", "250", "354", "250", "503", "221"]


@pytest.mark.parametrize("size", [4_294_967_295, 18_446_744_073_709_551_615])
async def test_a_huge_chunk_is_dropped_as_it_comes(host: Host, size: int) -> None:
    talk = await (await host.talk()).hello()
    await talk.envelope("", "bob@example.org")
    connection = host.connections.pop()
    connection.data_received(b"BDAT %d LAST\r\n" % size)
    tracemalloc.start()
    piece = b"QUIT\r\n" * 10_000
    for _ in range(500):
        connection.data_received(piece)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert host.receiving.memory.used == 0
    connection.eof_received()
    assert (await talk.rest()).startswith("421 4.4.2")


# AUTH -----------------------------------------------------------------------------------------------------------------


def coded(octets: bytes) -> bytes:
    return b64encode(octets)


RESPONSES = [
    (b"*", "501 5.7.0"),
    (b"rubbish!", "501 5.5.2"),
    (b"A", "501 5.5.2"),
    (b"AAA", "501 5.5.2"),
    (b"AGFsaWNlAGNvcnJlY3QgaG9yc2U==", "501 5.5.2"),
    (b"AGFs aWNl", "501 5.5."),
    (b"====", "501 5.5.2"),
    (b"\xff\xfe", "50"),
    ("\u0391\u0391\u0391\u0391".encode(), "501 5.5."),
    (b"\0", "50"),
    (b"A" * 13_000, "500 5.5."),
    (b"A" * 12_000, "501 5.5.2"),
    (coded(b"alice"), "501 5.5.2"),
    (coded(b"\0"), "501 5.5.2"),
    (coded(b"\0\0"), "501 5.5.2"),
    (coded(b"\0\0\0"), "501 5.5.2"),
    (coded(b"\0alice\0"), "501 5.5.2"),
    (coded(b"\0\0secret"), "501 5.5.2"),
    (coded(b"\0alice\0correct\0horse"), "501 5.5.2"),
    (coded(b"\0\0alice\0correct horse"), "501 5.5.2"),
    (coded(b"\0\xff\xfe\0x"), "501 5.5.2"),
    (coded(b"\0" + b"a" * 2000 + b"\0x"), "501 5.5.2"),
    (coded(b"\0alice\0" + b"x" * 1024), "535 5.7.8"),
    (coded(b"\0' OR 1=1 --\0x"), "535 5.7.8"),
    (coded(b"\0\r\n250 OK\r\n\0x"), "535 5.7.8"),
    (coded(b"bob\0alice\0correct horse"), "535 5.7.8"),
    (coded(b"\0alice\0correct horse "), "535 5.7.8"),
]


@pytest.mark.parametrize(("response", "refusal"), RESPONSES, ids=lambda value: repr(value[:24]))
async def test_rubbish_in_a_login(host: Host, response: bytes, refusal: str) -> None:
    """As initial response and as answer to the challenge; the session is in step, and not logged in."""
    tail = b"\r\nNOOP\r\nMAIL FROM:<alice@example.org>\r\n"
    if response != b"*":
        stream = b"EHLO x\r\nAUTH PLAIN " + response + tail
        answers = await feed(host, [stream], "submission")
        assert answers.split("\r\n")[-5].startswith(refusal), answers
        assert answers.split("\r\n")[-3].startswith("530 "), answers
        assert await feed(host, cut(stream, 3), "submission") == answers
    stream = b"EHLO x\r\nAUTH PLAIN\r\n" + response + tail
    answers = await feed(host, [stream], "submission")
    assert answers.split("\r\n")[-6] == "334 ", answers
    assert answers.split("\r\n")[-5].startswith(refusal), answers
    assert answers.split("\r\n")[-3].startswith("530 "), answers
    assert await feed(host, cut(stream, 3), "submission") == answers


async def test_a_response_is_a_line_that_ends_in_cr_lf(host: Host) -> None:
    right = coded(b"\0alice\0" + PASSWORD.encode())
    answers = await feed(host, [b"EHLO x\r\nAUTH PLAIN\r\n" + right + b"\nNOOP\r\n"], "submission")
    assert re.search(r"\r\n334 \r\n500 5\.5\.2 .*\r\n250 2\.0\.0 OK\r\n421 ", answers), answers


async def test_commands_inside_a_login_are_responses(host: Host) -> None:
    stream = (
        b"EHLO x\r\nAUTH LOGIN\r\nQUIT \r\nQUIT now\r\nAUTH PLAIN\r\nSTARTTLS\r\nAUTH LOGIN\r\nBDAT 5 LAST\r\nNOOP\r\n"
    )
    for pieces in ([stream], octets_of(stream)):
        answers = await feed(host, pieces, "submission")
        assert replies_in(answers)[1:] == ["334", "334", "501", "334", "501", "334", "501", "250", "421"], answers


async def test_a_login_that_is_broken_off(host: Host) -> None:
    """By the end of input, and by the server's stop: both are told."""
    answers = await feed(host, [b"EHLO x\r\nAUTH LOGIN\r\n"], "submission")
    assert answers.endswith("334 VXNlcm5hbWU6\r\n421 4.4.2 Connection ended without QUIT; closing\r\n")
    talk = await (await host.talk("submission")).hello()
    assert (await talk.ask("AUTH LOGIN")).startswith("334")
    connection = host.connections.pop()
    server = connection.smtp
    connection.stop()
    assert await talk.rest() == "421 4.3.2 Service is shutting down\r\n"
    talk.close()
    await until(lambda: server._running is None)


async def test_secrets_sent_without_waiting_stay_out_of_the_log(
    store: Store, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """AUTH is refused in clear, and what the client took for its responses are unknown commands."""
    caplog.set_level(logging.DEBUG)
    secret = coded(PASSWORD.encode())
    async with hosting(store, certificates, clear=False) as host:
        await feed(host, [b"EHLO x\r\nAUTH LOGIN\r\nYWxpY2U=\r\n" + secret + b"\r\n"], "submission")
        for line in (b"AUTH PLAIN " + secret + b"\n", b"auth plain " + secret + b"\xff\r\n", b" AUTH PLAIN " + secret):
            await feed(host, [b"EHLO x\r\n" + line + b"\r\n"], "submission")
    assert "refused" in caplog.text
    assert secret.decode() not in caplog.text
    assert "YWxpY2U=" not in caplog.text


# STARTTLS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [b"EHLO injected\r\n", b"\r\n", b"\0", b"\x16\x03\x01", b"QUIT\r\n" * 1000])
async def test_clear_text_behind_starttls(host: Host, behind: bytes) -> None:
    """In one piece with the command it is forgotten; alone it is no handshake, and gets no answer in clear."""
    talk = await (await host.talk()).hello()
    host.connections[-1].data_received(b"STARTTLS\r\n" + behind)
    assert await talk.reply() == "220 2.0.0 Ready to start TLS\r\n"
    await talk.start_tls()
    assert (await talk.ask("MAIL FROM:<>")).startswith("503 5.5.1 Send EHLO first")
    talk.close()

    other = await (await host.talk()).hello()
    assert (await other.ask("STARTTLS")).startswith("220")
    for octet in octets_of(behind):
        host.connections[-1].data_received(octet)
    host.connections[-1].eof_received()
    async with asyncio.timeout(20):
        assert not re.search(rb"\d\d\d[ -]", await other.reader.read())
    other.close()
    await until(lambda: host.connections[-1].is_closing)


# Slow clients ---------------------------------------------------------------------------------------------------------

ANY_TEXT = b"HELLO " * 10_000
DRIPS = {
    "a command": (b"", 300, ANY_TEXT),
    "a command behind others": (b"EHLO x\r\nNOOP\r\nNO", 300, b"OP" + ANY_TEXT),
    "a login": (b"EHLO x\r\nAUTH PLAIN\r\n", 300, b"A" * 1000),
    "a message": (b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n", 600, ANY_TEXT),
    "a chunk": (b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nBDAT 99999 LAST\r\n", 600, ANY_TEXT),
    "a dropped chunk": (b"BDAT 4294967295\r\n", 600, ANY_TEXT),
}


@pytest.mark.parametrize("name", DRIPS)
async def test_an_octet_a_second_is_not_enough(store: Store, certificates: Certificates, name: str) -> None:
    begin, seconds, drip = DRIPS[name]
    kind = "submission" if name == "a login" else "mx"
    async with hosting(store, certificates, trusted=("127.0.0.0/8",), login_timeout_seconds=10_000) as host:
        talk = await host.talk(kind)
        await talk.reply()
        connection = host.connections[-1]
        connection.data_received(begin)
        server = connection.smtp
        await until(lambda: server._running is None or server._wanted is not None)
        start = monotonic()
        for second in range(seconds + 30):
            assert second <= seconds + 2, "it may go on"
            connection.data_received(drip[second : second + 1])
            host.deadlines.sweep(start + second)
            if connection.is_closing:
                break
        assert second >= seconds - 2
        assert (await talk.rest()).endswith("421 4.4.2 Timeout; closing\r\n")
        talk.close()


async def test_an_endless_line_does_not_live_for_ever(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates) as host:
        talk = await host.talk()
        await talk.reply()
        start = monotonic()
        for second in range(302):
            host.connections[-1].data_received(b"x" * 20_000)
            host.deadlines.sweep(start + second)
        assert await talk.rest() == "421 4.4.2 Timeout; closing\r\n"


async def test_whole_commands_buy_time_though_each_piece_ends_in_half_of_one(host: Host) -> None:
    talk = await host.talk()
    await talk.reply()
    connection = host.connections[-1]
    connection.data_received(b"NO")
    start = monotonic()
    for second in range(0, 1000, 100):
        connection.data_received(b"OP\r\nNO")
        host.deadlines.sweep(start + second)
        assert await talk.reply() == "250 2.0.0 OK\r\n"
    connection.abort()


async def test_replies_that_nobody_reads_are_few(host: Host) -> None:
    talk = await host.talk()
    await talk.reply()
    talk.reader._transport.pause_reading()  # type: ignore[attr-defined]
    connection = host.connections[-1]
    most = 0
    for _ in range(3000):
        connection.data_received(b"HELP\r\n" * 100)
        most = max(most, connection.transport.get_write_buffer_size())
        if connection.blocked:
            break
        await asyncio.sleep(0)
    assert connection.blocked
    for _ in range(20):
        connection.data_received(b"HELP\r\n" * 100)
        await asyncio.sleep(0)
    assert max(most, connection.transport.get_write_buffer_size()) < 150_000
    connection.abort()


# Recipients -----------------------------------------------------------------------------------------------------------


async def test_recipients_by_the_thousand(wire: Host) -> None:
    """The rest is for another transaction (RFC 5321 §4.5.3.1.10), and no reason to close before smtp.max_commands."""
    talk = await (await wire.talk()).hello()
    await talk.ask("MAIL FROM:<>")
    talk.send(b"RCPT TO:<bob@example.org>\r\n" * 1500)
    codes = [(await talk.reply())[:9] for _ in range(1500)]
    assert codes == ["250 2.1.5"] * 1000 + ["452 4.5.3"] * 500
    assert (await talk.message(b"\r\n")).startswith("250 2.0.0 OK")
    await talk.ask("MAIL FROM:<>")
    talk.send(b"RCPT TO:<bob@example.org>\r\n" * 100_000)
    codes = replies_in(await talk.rest())
    assert codes == ["250"] * 1000 + ["452"] * (10_000 - 2503 - 1 - 1) + ["421"] or len(codes) < 10_000
    assert codes[-1] == "421"
    talk.close()


async def test_lies_about_the_size(store: Store, certificates: Certificates) -> None:
    """What counts is what comes (RFC 1870 §6.2); what was announced is looked at early."""
    async with hosting(store, certificates, mail={"max_message_octets": 65536}) as host:
        talk = await (await host.talk()).hello()
        for size, octets, reply in ((1, 60_000, "250 2.0.0"), (65536, 2, "250 2.0.0"), (1, 66_000, "552 5.3.4")):
            assert (await talk.ask(f"MAIL FROM:<> SIZE={size}")).startswith("250")
            assert (await talk.ask("RCPT TO:<bob@example.org>")).startswith("250")
            assert (await talk.message(b"\r\n" * (octets // 2))).startswith(reply)
        assert (await talk.ask("MAIL FROM:<> SIZE=99999999999999999999")).startswith("552 5.3.4")
        assert (await talk.ask("MAIL FROM:<> SIZE=-1")).startswith("501 5.5.4")
        assert (await talk.ask("NOOP")).startswith("250")
        talk.close()


# Connections ----------------------------------------------------------------------------------------------------------


async def test_connections_beyond_the_limit(store: Store, certificates: Certificates) -> None:
    async with hosting(store, certificates, max_connections_per_address=10) as host:
        talks = [await host.talk() for _ in range(300)]
        greetings = [await talk.reply() for talk in talks]
        assert sorted(greetings)[289] == "421 4.7.0 Too many connections\r\n"
        assert sum(greeting.startswith("220") for greeting in greetings) == 10
        for talk, greeting in zip(talks, greetings, strict=True):
            if greeting.startswith("421"):
                assert await talk.rest() == ""
            else:
                assert (await talk.ask("NOOP")).startswith("250")
        assert host.receiving.connections.open == 10
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port("mx"), local_addr=("127.0.0.2", 0))
        assert (await Talk(host, reader, writer).reply()).startswith("220")  # others are served
        for talk in talks:
            talk.close()
        writer.close()
        await until(lambda: host.receiving.connections.open == 0)


async def test_trusted_networks_have_no_limit(store: Store, certificates: Certificates) -> None:
    async with hosting(
        store, certificates, trusted=("127.0.0.2/32",), max_connections_per_address=1, max_connections=1
    ) as host:
        first, second = await host.talk(), await host.talk()
        assert (await first.reply()).startswith("220")
        assert (await second.reply()).startswith("421")
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", host.port("mx"), local_addr=("127.0.0.2", 0))
            assert (await Talk(host, reader, writer).reply()).startswith("220")
        first.close()


# Others are served ----------------------------------------------------------------------------------------------------


class Worst:
    cpu = 0.0


@asynccontextmanager
async def ticking() -> AsyncIterator[Worst]:
    """Measures the most CPU that this process spends between two turns of the loop."""
    worst = Worst()

    async def tick() -> None:
        while True:
            begin = time.process_time()
            await asyncio.sleep(0.001)
            worst.cpu = max(worst.cpu, time.process_time() - begin)

    task = asyncio.ensure_future(tick())
    await asyncio.sleep(0.005)
    try:
        yield worst
    finally:
        task.cancel()


def pieces_of(stream: bytes, size: int = 256 * 1024) -> Iterator[bytes]:
    for at in range(0, len(stream), size):
        yield stream[at : at + size]


_MESSAGE = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n"
ATTACKS = {
    "commands": b"NOOP\r\n" * 40_000,
    "unknown commands": b"XYZZY\r\n" * 20_000,
    "HELP": b"HELP\r\n" * 10_000,
    "EHLO": b"EHLO x\r\n" * 10_000,
    "senders": (b"RSET\r\nHELO x\r\nMAIL FROM:<" + b"@a.example," * 300 + b"@b:a@b.example>\r\n") * 500,
    "parameters": (b"RSET\r\nHELO x\r\nMAIL FROM:<a@b>" + b" a=b" * 900 + b"\r\n") * 500,
    "chunks of an octet": b"BDAT 1\r\nx" * 30_000,
    "empty chunks": b"BDAT 0\r\n" * 30_000,
    "blanks": (b"NOOP" + b" " * 12_000 + b"\x01\r\n") * 200,
    "a line": b"x" * 8_000_000 + b"\r\n",
    "empty lines": _MESSAGE + b"\r\n" * 2_000_000 + b".\r\n",
    "dots": _MESSAGE + b"..\r\n" * 1_000_000 + b".\r\n",
    "line feeds": _MESSAGE + b"\n" * 4_000_000 + b"\r\n.\r\n",
    "fields": _MESSAGE + b"a:\r\n" * 200_000 + b"\r\n.\r\n",
    "messages": (b"RSET\r\n" + _MESSAGE + b"\r\n.\r\n") * 50,
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_others_are_served_meanwhile(host: Host, name: str, record_property: pytest.RecordProperty) -> None:
    other = await (await host.talk()).hello()
    attacker = await host.talk()
    await attacker.reply()
    connection = host.connections.pop()
    reading = asyncio.ensure_future(attacker.rest())
    async with ticking() as worst, asyncio.timeout(60):
        for piece in pieces_of(ATTACKS[name]):
            while connection._paused:
                await asyncio.sleep(0)
            connection.data_received(piece)
            assert (await other.ask("NOOP")) == "250 2.0.0 OK\r\n"
        connection.eof_received()
        assert replies_in(await reading)[-1] == "421"
    record_property("worst_stall_ms", round(worst.cpu * 1000, 1))
    print(f"{name}: {worst.cpu * 1000:.1f} ms")
    assert worst.cpu < STALL
    attacker.close()
    other.close()
