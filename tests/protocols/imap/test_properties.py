"""The framer and the parser together, against input that wants to break them.

What is promised for any octets whatever, however they are cut: an answer or a refusal for each command and no other
exception, framing that does not depend on what a command means, time and memory that are bounded.
"""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols.imap import commands, responses
from mailserver.protocols.imap.commands import BadSyntax, Command, Refused
from mailserver.protocols.imap.framing import Continue, Fatal, Framed, Framer, Limits, TooBig, TooLong
from mailserver.protocols.imap.parse import parse
from mailserver.protocols.imap.server_states import ALLOWED
from tests.protocols.imap.corpus import COMMANDS, HOSTILE

SETTINGS = settings(derandomize=True, max_examples=200, deadline=None, database=None)
LIMITS = (65_536, 100_000, 1 << 20)
PROBE = b"z9 NOOP\r\n"
DONE = commands.Noop("z9")

_LINE_BREAKING = re.compile(rb"[\x00-\x1f\x7f-\xff]")
_ANNOUNCED = re.compile(rb"\{([0-9]+)\+?\}\Z")


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def octets(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        yield data[at : at + 1]


def framed(chunks: Iterable[bytes]) -> list[object]:
    """The events, those without a command left out."""
    framer = Framer(Limits(*LIMITS))
    found: list[object] = []
    for chunk in chunks:
        framer.feed(chunk)
        while (event := framer.next_event()) is not None:
            found += [] if isinstance(event, Continue) else [event]
    return found


def frames(data: bytes) -> list[Framed]:
    """Commands by the rule alone, without bounds: a line, and where it ends in an announcement, so many octets more."""
    found = []
    pieces: list[bytes] = []
    at = 0
    while (end := data.find(b"\n", at)) >= 0:
        line = data[at:end].removesuffix(b"\r")
        at = end + 1
        announced = _ANNOUNCED.search(line)
        if announced is None:
            found.append(Framed((*pieces, line)))
            pieces = []
            continue
        size = int(announced[1])
        if at + size > len(data):
            break
        pieces += [line[: announced.start()], data[at : at + size]]
        at += size
    return found


def outcome(event: object) -> Command | bytes:
    """What comes of an event: a command, or the line that refuses it, which is one line whatever was sent."""
    match event:
        case TooBig(tag) | TooLong(tag):
            return responses.bad(tag, "Too much")
        case Fatal(text):
            return responses.bye(text)
    assert isinstance(event, Framed)
    try:
        return parse(event)
    except BadSyntax as error:
        line = responses.bad(error.tag, error.text)
    except Refused as error:
        line = responses.no(error.tag, error.text, error.code)
    assert line.endswith(b"\r\n") and not _LINE_BREAKING.search(line[:-2]), line
    assert len(line) < 600
    return line


def outcomes(chunks: Iterable[bytes]) -> list[Command | bytes]:
    return [outcome(event) for event in framed(chunks)]


# Valid commands


def test_the_corpus_has_every_command() -> None:
    assert {name for name, _ in COMMANDS} == {kind.__name__ for kind in ALLOWED}


@pytest.mark.parametrize(("name", "data"), COMMANDS, ids=[data.split()[0].decode() for _, data in COMMANDS])
def test_a_command_means_the_same_however_it_arrives(name: str, data: bytes) -> None:
    [command] = outcomes(whole(data))
    assert type(command).__name__ == name
    assert outcomes(octets(data)) == [command]
    assert outcomes(whole(data + PROBE)) == outcomes(octets(data + PROBE)) == [command, DONE]
    assert outcomes([data[:-1], data[-1:] + PROBE]) == [command, DONE]


@settings(SETTINGS, max_examples=100)
@given(st.lists(st.sampled_from([data for _, data in COMMANDS]), max_size=20), st.lists(st.integers(1, 90), min_size=1))
def test_pipelined_commands_in_any_pieces(sent: list[bytes], sizes: list[int]) -> None:
    expected = [outcome for data in sent for outcome in outcomes(whole(data))]
    assert outcomes(_cut(b"".join(sent), sizes)) == expected


def _cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        yield data[at : at + size]
        at, turn = at + size, turn + 1


# Commands that were damaged


def _damaged(data: bytes) -> Iterator[bytes]:
    """Each octet taken out, and replaced by each that means something."""
    for at in range(len(data)):
        yield data[:at] + data[at + 1 :]
        for octet in b'\0\x80\xff()"\r\n{}\\ *9':
            yield data[:at] + bytes([octet]) + data[at + 1 :]


@pytest.mark.parametrize("data", [data for _, data in COMMANDS], ids=[d.split()[0].decode() for _, d in COMMANDS])
def test_a_damaged_command_costs_no_more_than_itself(data: bytes) -> None:
    """Framing is that of the rule, whatever the command has come to mean, and what comes of it is a command or a no."""
    for damaged in _damaged(data):
        stream = damaged + PROBE * 3
        events = framed(whole(stream))
        if any(isinstance(event, (TooBig, TooLong, Fatal)) for event in events):
            continue
        assert events == frames(stream), stream
        for event in events:
            outcome(event)


@pytest.mark.parametrize("data", [data for _, data in COMMANDS[::3]])
def test_a_damaged_command_is_the_same_octet_by_octet(data: bytes) -> None:
    for number, damaged in enumerate(_damaged(data)):
        if number % 7 == 0:
            assert framed(octets(damaged + PROBE)) == framed(whole(damaged + PROBE)), damaged


TOKENS = [
    *(b" ", b"  ", b"(", b")", b"()", b'"', b'""', b'"x"', b"\\", b"\\Seen", b"\0", b"\xff", b"\r", b"*", b"%", b"1:*"),
    *(b"0", b"4294967296", b"1,", b"99999999999999999999", b"-1", b"NIL", b"UID ", b"[", b"]", b"<", b">", b"<0.0>"),
    *(b"BODY[", b"BODY.PEEK[", b"HEADER.FIELDS ", b"1.1.", b"01.", b"CHARSET ", b"utf-7", b"idna", b"rot13", b"NOT "),
    *(b"OR ", b"ALL", b"SUBJECT ", b"30-Feb-2024", b"1-Jan-0000", b'"31-Dec-9999 23:59:59 -2359"', b"(CHANGEDSINCE 1)"),
    *(
        b"RETURN (",
        b"{0+}\r\n",
        b"{3+}\r\nx\ny",
        b"{5}\r\na\r\nb\xff",
        b"~{1+}\r\n\0",
        b"&AOk-",
        b"&&",
        b"&Jjo",
        b"a/b",
    ),
    *(b"FLAGS", b"+FLAGS", b"MESSAGES", b"MODSEQ ", b"UTF8 (", b"=", b"{", b"}", b"{1", b"+}", b"x" * 200),
]


@SETTINGS
@given(
    st.sampled_from(sorted({data.split()[1].split(b"\r")[0] for _, data in COMMANDS} | {b"UID FETCH", b"FROB", b""})),
    st.lists(st.sampled_from(TOKENS), max_size=12),
)
def test_any_arguments_of_any_command(name: bytes, tokens: list[bytes]) -> None:
    stream = b"a " + name + b" " + b"".join(tokens) + b"\r\n" + PROBE
    events = framed(whole(stream))
    assert events == frames(stream)
    for event in events:
        outcome(event)


# Whatever octets


OCTETS = st.binary(max_size=60) | st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass"))


@SETTINGS
@given(OCTETS)
def test_any_octets_as_a_string(value: bytes) -> None:
    """As mailbox, search text, header name, ID value, login: what is taken is kept as sent, or refused in one line."""
    literal = b"{%d+}\r\n%b" % (len(value), value)
    stream = b"".join(
        b"a %b\r\n" % (template % literal)
        for template in (
            *(b"SELECT %b", b"CREATE %b", b'LIST "" %b', b"LSUB %b *", b"STATUS %b (UNSEEN)", b"SEARCH SUBJECT %b"),
            *(b"SEARCH CHARSET %b ALL", b"SEARCH HEADER %b x", b"LOGIN x %b", b'ID ("x" %b)', b"AUTHENTICATE PLAIN %b"),
            *(b"FETCH 1 BODY[HEADER.FIELDS (%b)]", b"APPEND x %b"),
        )
    )
    *found, last = outcomes(whole(stream + PROBE))
    assert last == DONE
    assert len(found) == 13
    if value:
        assert found[-1] == commands.Append("a", ("x",), value)
    fetch = found[11]
    if isinstance(fetch, commands.Fetch):
        [item] = fetch.items
        assert isinstance(item, commands.BodySection)
        assert frames(b"* 1 FETCH (" + item.label + b" NIL)\r\n" + PROBE)[1:] == [Framed((b"z9 NOOP",))]


@SETTINGS
@given(OCTETS)
def test_any_octets_as_a_keyword(value: bytes) -> None:
    """What is taken can be said again in a list of flags."""
    stream = b"a STORE 1 FLAGS (%b)\r\n" % value
    for event in framed(whole(stream + PROBE)):
        command = outcome(event)
        if isinstance(command, commands.Store):
            for keyword in command.flags.keywords:
                assert re.fullmatch(r'[^\x00-\x20\x7f-\U0010ffff(){%*"\\\]]{1,128}', keyword)


@SETTINGS
@given(st.text("0123456789-: +JanFebDecZ\"'é", max_size=30))
def test_any_text_as_a_date(text: str) -> None:
    date = text.encode().replace(b'"', b"")
    stream = b'a APPEND x "%b" {1+}\r\nx\r\na SEARCH ON %b\r\na SEARCH SENTON "%b"\r\n' % (date, date, date)
    *found, last = outcomes(whole(stream + PROBE))
    assert last == DONE
    assert len(found) == 3


@pytest.mark.parametrize(
    "date",
    [
        *(b"31-Feb-2024", b"29-Feb-2023", b"0-Jan-2024", b"32-Jan-2024", b"1-Foo-2024", b"1-Jan-0000", b"1-Jan-99999"),
        *(b"1-Jan-24", b"+1-Jan-2024", b"1--Jan-2024", b"", b'"1-Jan-2024', b"9999999999-Jan-2024", b"1-J\xe4n-2024"),
    ],
)
def test_dates_that_are_none(date: bytes) -> None:
    [found, last] = outcomes(whole(b"a SEARCH SINCE " + date + b"\r\n" + PROBE))
    assert isinstance(found, bytes) and found.startswith(b"a BAD ")
    assert last == DONE


@pytest.mark.parametrize(
    "date",
    [
        *(b"31-Feb-2024 00:00:00 +0000", b"01-Jan-0000 00:00:00 +0000", b"01-Jan-2024 24:00:00 +0000"),
        *(b"01-Jan-2024 00:60:00 +0000", b"01-Jan-2024 00:00:00 +2400", b"01-Jan-2024 00:00:00 +0060"),
        *(b"01-Jan-2024 00:00:00 GMT", b"01-Jan-2024 00:00:00", b"", b"31-Dec-9999 23:59:59 -0001", b"x" * 26),
        *(b"01-Jan-0001 00:00:00 +0001", b"-1-Jan-2024 00:00:00 +0000", b"01-Jan-2024 00:00:00 +00000"),
    ],
)
def test_moments_that_are_none(date: bytes) -> None:
    [found, last] = outcomes(whole(b'a APPEND x "%b" {1+}\r\nx\r\n' % date + PROBE))
    assert isinstance(found, bytes) and found.startswith(b"a BAD ")
    assert last == DONE


# Literals where nobody expects them. What they hold looks like commands and is none.

INSIDE = b"x\r\nb NOOP\r\nc LOGOUT\r\n"
ANNOUNCERS = {
    "of an unknown command": b"a FROB ",
    "of a command without arguments": b"a NOOP ",
    "right behind the command's name": b"a NOOP",
    "instead of the name": b"a ",
    "instead of the tag": b"",
    "in the tag": b"a",
    "behind a tag that is none": b"+ NOOP ",
    "behind spaces": b"   ",
    "behind a syntax error": b"a SELECT ((( ",
    "inside a quoted string": b'a LOGIN "x ',
    "behind a quoted string": b'a LOGIN "x" "y"',
    "behind a NUL": b"a SELECT \0",
    "behind octets above 127": b"a SELECT \xff\xfe",
    "as a literal8": b"a APPEND x ~",
    "in place of a number": b"a FETCH ",
    "in a section": b"a FETCH 1 BODY[",
    "in deep parentheses": b"a SEARCH " + b"(" * 5000,
    "behind an announcement that is none": b"a LOGIN {x} {-1} {5 } {} ",
    "with a bare CR before it": b"a LOGIN x\r",
}


@pytest.mark.parametrize("plus", [b"", b"+"], ids=["synchronising", "non-synchronising"])
@pytest.mark.parametrize("announcer", ANNOUNCERS.values(), ids=ANNOUNCERS)
def test_what_a_literal_holds_is_never_a_command(announcer: bytes, plus: bytes) -> None:
    for digits in (b"%d", b"%05d", b"%050d"):
        stream = announcer + b"{%b%b}\r\n" % (digits % len(INSIDE), plus) + INSIDE + b"\r\n" + PROBE
        for found in (outcomes(whole(stream)), outcomes(octets(stream))):
            assert len(found) == 2
            assert isinstance(found[0], bytes), found[0]
            assert found[1] == DONE


@pytest.mark.parametrize(
    "announced",
    [
        b"{-1}",
        b"{5 }",
        b"{ 5}",
        b"{}",
        b"{+}",
        b"{5++}",
        b"{5-}",
        b"{0x5}",
        b"{5}x",
        b'"{5}"',
        b"{\xd9\xa5}",
        b"{5\0}",
        b"}5{",
    ],
)
def test_what_is_no_announcement_announces_nothing(announced: bytes) -> None:
    found = outcomes(whole(b"a LOGIN x " + announced + b"\r\n" + PROBE))
    assert found[-1] == DONE
    assert len(found) == 2


@pytest.mark.parametrize("digits", [b"65537", b"4294967295", b"4294967296", b"18446744073709551616", b"9" * 5000])
def test_endless_literals_are_refused(digits: bytes) -> None:
    """Without "+" to a synchronising one, whose octets therefore do not come; the others end the session."""
    assert framed(whole(b"a FROB x {" + digits + b"}\r\n" + PROBE)) == [TooBig("a"), Framed((b"z9 NOOP",))]
    for command in (b"a FROB x {", b"a APPEND x {", b"{"):
        events = framed(whole(command + digits + b"+}\r\n" + PROBE))
        assert events in ([Fatal("Too much to skip")], []), "nothing of it is taken for a command"


@pytest.mark.parametrize("announced", [b"{0+}\r\n", b"{0}\r\n", b"{1+}\r\nx", b"{1}\r\nx "])
def test_a_command_has_only_so_many_literals(announced: bytes) -> None:
    framer = Framer(Limits(*LIMITS))
    framer.feed(b"a ID (")
    held = 0
    for _ in range(1000):
        framer.feed(announced * 100)
        while (event := framer.next_event()) is not None:
            if not isinstance(event, Continue):
                assert isinstance(event, (TooLong, TooBig, Fatal)), event
                return
        held = max(held, framer.held)
        assert held <= LIMITS[0] + 200
    pytest.fail("literals without end")


# What hostile commands cost


@pytest.mark.parametrize("command", HOSTILE.values(), ids=HOSTILE)
def test_hostile_commands_are_linear(command: bytes) -> None:
    stream = b"a " + command + b"\r\n" + PROBE
    began = time.process_time()
    *found, last = outcomes(whole(stream))
    assert time.process_time() - began < 3
    assert last == DONE
    assert len(found) == 1


@pytest.mark.parametrize(
    "name", ["parentheses in SEARCH", "OR in parentheses", "many sets", "header fields", "ID pairs"]
)
def test_hostile_commands_take_little_memory(name: str) -> None:
    event = Framed((b"a " + HOSTILE[name],))
    tracemalloc.start()
    try:
        outcome(event)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 400 * len(HOSTILE[name])


def test_lines_of_megabytes() -> None:
    for limit in (LIMITS, (16_384, 0, 262_144)):
        framer = Framer(Limits(*limit))
        events = []
        for _ in range(64):
            framer.feed(b"x" * 65_536)
            events.append(framer.next_event())
            assert framer.buffered + framer.held <= limit[0] + 65_536
        assert [event for event in events if event] == [Fatal("Too much to skip")]
