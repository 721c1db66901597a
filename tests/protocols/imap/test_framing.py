"""The framer, by dialogues: whole, octet by octet, and with another command behind; and what hostile input costs."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols.imap.commands import BadSyntax, Refused
from mailserver.protocols.imap.framing import (
    Continue,
    Fatal,
    Framed,
    Framer,
    Limits,
    Line,
    TooBig,
    TooLong,
    tag_of,
)
from mailserver.protocols.imap.parse import parse


def framer(*, command: int = 1000, append: int = 0, skip: int = 100_000) -> Framer:
    return Framer(Limits(command, append, skip))


class Server:
    """Answers each event by one line, so that a dialogue shows the framing and nothing else."""

    def __init__(self, **limits: int) -> None:
        self.framer = framer(**limits)
        self.said: list[str] = []

    def feed(self, data: bytes) -> None:
        self.framer.feed(data)
        while (event := self.framer.next_event()) is not None:
            self.said.append(self.answer(event))

    def answer(self, event: object) -> str:
        match event:
            case Continue():
                return "+"
            case TooBig(tag):
                return f"{tag} NO [TOOBIG]"
            case TooLong(tag):
                return f"{tag} BAD too long"
            case Fatal():
                return "* BYE"
            case Line(octets):
                return f"line {octets.decode()}"
            case Framed():
                try:
                    command = parse(event)
                except BadSyntax as error:
                    return f"{error.tag} BAD"
                except Refused as error:
                    return f"{error.tag} NO"
                return f"{command.tag} {type(command).__name__}"
        raise AssertionError(event)


def play(dialogue: str) -> tuple[list[tuple[bytes, list[str]]], bytes]:
    """Turns of a dialogue: what the client sends, and what the server has said when it has taken all of it."""
    turns: list[tuple[bytes, list[str]]] = []
    for line in dialogue.strip().splitlines():
        who, _, text = line.strip().partition(" ")
        if who == "C:":
            if not turns or turns[-1][1]:
                turns.append((b"", []))
            sent = text.encode("latin-1").decode("unicode_escape").encode("latin-1")
            turns[-1] = (turns[-1][0] + sent + b"\r\n", [])
        else:
            assert who == "S:", line
            turns[-1][1].append(text)
    return turns, b"z9 NOOP\r\n"


DIALOGUES = {
    "a plain command": """
        C: a1 NOOP
        S: a1 Noop
    """,
    "pipelined commands": """
        C: a1 NOOP
        C: a2 CAPABILITY
        S: a1 Noop
        S: a2 Capability
    """,
    "synchronising literals": """
        C: a1 LOGIN {3}
        S: +
        C: ann {6}
        S: +
        C: secret
        S: a1 Login
    """,
    "non-synchronising literals, one of them empty": """
        C: a1 LOGIN {3+}
        C: ann {0+}
        C:
        S: a1 Login
    """,
    "a literal holds lines that look like commands": r"""
        C: a1 LOGIN {23+}
        C: x\r\na7 NOOP\r\na8 LOGOUT\r\n {1+}
        C: y
        S: a1 Login
    """,
    "so does one of a command that does not exist": r"""
        C: a1 FOO {9+}
        C: a2 NOOP\r\n bar
        S: a1 BAD
    """,
    "and one behind a syntax error": r"""
        C: a1 SELECT ((("x {9+}
        C: a2 NOOP\r\n
        S: a1 BAD
    """,
    "and one without a command": r"""
        C: {9+}
        C: a2 NOOP\r\n
        S: * BAD
    """,
    "what looks like a literal inside a line is none": """
        C: a1 LOGIN {3} x
        S: a1 BAD
        C: a2 LOGIN x "{3}"
        S: a2 Login
    """,
    "nor is one without a number": """
        C: a1 LOGIN {}
        S: a1 BAD
        C: a1 LOGIN {+}
        S: a1 BAD
        C: a1 LOGIN {-3}
        S: a1 BAD
        C: a1 LOGIN {3++}
        S: a1 BAD
        C: a1 LOGIN {3x}
        S: a1 BAD
    """,
    "leading zeros are a number": """
        C: a1 LOGIN {000000000000000000000000000000000000000000000000000000000000000000000000000000000000001+}
        C: x y
        S: a1 Login
    """,
    "a synchronising literal over the limit is refused without +": """
        C: a1 LOGIN {4294967295}
        S: a1 NO [TOOBIG]
        C: a2 LOGIN {99999999999999999999999999999999999999999999999999}
        S: a2 NO [TOOBIG]
    """,
    "the second literal of a command counts with the first": f"""
        C: a1 LOGIN {{600+}}
        C: {"x" * 600} {{600}}
        S: a1 NO [TOOBIG]
    """,
    "a non-synchronising literal over the limit is skipped": f"""
        C: a1 LOGIN {{2000+}}
        C: {"x" * 2000} pass
        S: a1 NO [TOOBIG]
    """,
    "and what follows it in the same command too": rf"""
        C: a1 LOGIN {{2000+}}
        C: {"x" * 2000} {{9+}}
        C: a2 NOOP\r\n {{5}}
        S: a1 NO [TOOBIG]
        C: a3 NOOP
        S: a3 Noop
    """,
    "a long line is skipped": f"""
        C: a1 LOGIN {"x" * 5000}
        S: a1 BAD too long
    """,
    "with its literals": rf"""
        C: a1 LOGIN {"x" * 5000} {{11+}}
        C: \r\na2 NOOP\r\n
        S: a1 BAD too long
        C: a1 LOGIN {"x" * 5000} {{11}}
        S: a1 BAD too long
    """,
    "a long line after a literal is known by the first line's tag": f"""
        C: a1 LOGIN {{1+}}
        C: x {"y" * 2000}
        S: a1 BAD too long
    """,
    "a command of exactly the limit": f"""
        C: {"a1 LOGIN x ".ljust(1000, "y")}
        S: a1 Login
        C: {"a1 LOGIN x ".ljust(1001, "y")}
        S: a1 BAD too long
    """,
    "tags that cannot be repeated": r"""
        C: NOOP
        S: NOOP BAD
        C:
        S: * BAD
        C: + NOOP
        S: * BAD
        C: a* NOOP
        S: * BAD
        C: "a" NOOP
        S: * BAD
        C: \xff\xfe NOOP
        S: * BAD
        C: \x00\x00
        S: * BAD
    """,
    "endless tags": f"""
        C: {"t" * 200} NOOP
        S: * BAD
        C: {"t" * 2000} NOOP
        S: * BAD too long
    """,
    "lines that end in LF alone": r"""
        C: a1 NOOP\na2 CAPABILITY
        S: a1 Noop
        S: a2 Capability
    """,
    "a bare CR is no line end": r"""
        C: a1 NOOP\ra2 NOOP
        S: a1 BAD
    """,
}


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("trailing", [False, True], ids=["alone", "pipelined"])
@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "octets"])
def test_dialogue(name: str, bytewise: bool, trailing: bool) -> None:
    turns, probe = play(DIALOGUES[name])
    server = Server()
    for at, (sent, expected) in enumerate(turns):
        last = at == len(turns) - 1
        if last and trailing:
            sent, expected = sent + probe, [*expected, "z9 Noop"]
        for piece in [bytes([octet]) for octet in sent] if bytewise else [sent]:
            server.feed(piece)
        assert server.said == expected
        server.said.clear()
    assert server.framer.buffered == 0
    assert server.framer.held == 0


def test_append_has_a_bound_of_its_own() -> None:
    server = Server(append=5000)
    server.feed(b"a1 APPEND INBOX (\\Seen) {5000}\r\n" + b"x" * 5000 + b"\r\n")
    server.feed(b"a2 APPEND {5+}\r\nINBOX {5000+}\r\n" + b"x" * 5000 + b"\r\n")
    server.feed(b"a3 append INBOX {5001}\r\n")
    assert server.said == ["+", "a1 Append", "a2 Append", "a3 NO [TOOBIG]"]


def test_append_mailbox_is_no_message() -> None:
    server = Server(append=5000)
    server.feed(b"a1 APPEND {1001}\r\n")
    server.feed(b"a2 APPENDIX x {1001}\r\n")
    assert server.said == ["a1 NO [TOOBIG]", "a2 NO [TOOBIG]"]


def test_append_before_login_is_command_text() -> None:
    server = Server()
    server.feed(b"a1 APPEND INBOX {1001}\r\n")
    assert server.said == ["a1 NO [TOOBIG]"]


def test_limits_may_change_between_commands() -> None:
    server = Server()
    server.framer.limits.append = 2000
    server.feed(b"a1 APPEND INBOX {1500+}\r\n" + b"x" * 1500 + b"\r\n")
    assert server.said == ["a1 Append"]


def test_several_messages_of_one_append_count_together() -> None:
    server = Server(append=2000)
    server.feed(b"a1 APPEND INBOX {1500+}\r\n" + b"x" * 1500 + b" {501}\r\n")
    assert server.said == ["a1 NO [TOOBIG]"]


def test_append_octets_are_unchanged() -> None:
    message = bytes(range(256)) * 3 + b"\r\n\0{3+}\r\n"
    f = framer(append=5000)
    f.feed(b"a APPEND x {%d+}\r\n%b\r\n" % (len(message), message))
    event = f.next_event()
    assert isinstance(event, Framed)
    assert event.pieces == (b"a APPEND x ", message, b"")


def test_continue_tells_what_is_announced_and_may_be_refused() -> None:
    f = framer(append=5000)
    f.feed(b"a1 APPEND {5+}\r\nNoBox {3000}\r\n")
    assert f.next_event() == Continue(3000, "a1")
    f.refuse()
    f.feed(b"a2 NOOP\r\n")
    assert f.next_event() == Framed((b"a2 NOOP",))


def test_more_than_may_be_skipped_is_fatal() -> None:
    f = framer(skip=3000)
    f.feed(b"a1 LOGIN {3001+}\r\n")
    assert isinstance(f.next_event(), Fatal)
    f.feed(b"a2 NOOP\r\n")
    assert f.next_event() is None


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_an_endless_line_is_fatal(size: int) -> None:
    f = framer(skip=3000)
    events = []
    for _ in range(10_000 // size + 1):
        f.feed(b"x" * size)
        events.append(f.next_event())
        assert f.buffered <= max(1000, size + 64)
    assert [event for event in events if event is not None] == [Fatal("Too much to skip")]


def test_skipping_is_counted_for_each_command_anew() -> None:
    server = Server(skip=3000)
    for _ in range(5):
        server.feed(b"a1 LOGIN {2000+}\r\n" + b"x" * 2000 + b"\r\n")
    assert server.said == ["a1 NO [TOOBIG]"] * 5


def test_a_bare_line_is_no_command() -> None:
    server = Server()
    server.framer.expect_line(100)
    server.feed(b"DONE {5}\r\na1 NOOP\r\n")
    assert server.said == ["line DONE {5}", "a1 Noop"]
    server.framer.expect_line(100)
    server.feed(b"x" * 101 + b"\r\na2 NOOP\r\n")
    assert server.said[2:] == ["* BAD too long", "a2 Noop"]


def test_the_driver_decides_between_events() -> None:
    f = framer()
    f.feed(b"a1 IDLE\r\nDONE\r\na2 NOOP\r\n")
    assert f.next_event() == Framed((b"a1 IDLE",))
    f.expect_line(100)
    assert f.next_event() == Line(b"DONE")
    assert f.next_event() == Framed((b"a2 NOOP",))


def test_clear_drops_what_came_behind_starttls() -> None:
    f = framer()
    f.feed(b"a1 STARTTLS\r\na2 LOGIN {5}\r\n")
    assert f.next_event() == Framed((b"a1 STARTTLS",))
    f.clear()
    assert f.next_event() is None
    f.feed(b"a3 NOOP\r\n")
    assert f.next_event() == Framed((b"a3 NOOP",))


def test_held_counts_what_has_come() -> None:
    f = framer(append=5000)
    f.feed(b"a APPEND x {3000+}\r\n" + b"y" * 1000)
    assert f.next_event() is None
    announced = f.held - 1000
    assert 0 < announced < 100
    f.feed(memoryview(b"y" * 2000))
    assert f.next_event() is None
    assert f.held == announced + 3000


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        (b"a1 NOOP", "a1"),
        (b"a]=1", "a]=1"),
        (b"", "*"),
        (b" NOOP", "*"),
        (b"a+ NOOP", "*"),
        (b"a{5}", "*"),
        (b"a\r\n", "*"),
        (b"a" * 128, "a" * 128),
        (b"a" * 129, "*"),
    ],
)
def test_tag_of(text: bytes, tag: str) -> None:
    assert tag_of(text) == tag


def test_work_is_linear_byte_by_byte() -> None:
    """A quadratic framer takes minutes for this."""
    f = framer(command=400_000)
    line = b"a1 LOGIN " + b"x" * 300_000 + b" {100000+}\r\n" + b"y" * 90_000
    started = time.process_time()
    for octet in line:
        f.feed(bytes([octet]))
        assert f.next_event() is None
    assert time.process_time() - started < 5


def test_many_commands_in_one_piece_are_linear() -> None:
    f = framer()
    f.feed(b"a NOOP\r\n" * 200_000)
    started = time.process_time()
    count = 0
    while f.next_event() is not None:
        count += 1
    assert count == 200_000
    assert time.process_time() - started < 5


def test_a_large_literal_is_held_once() -> None:
    size = 20 << 20
    chunk = memoryview(bytes(65_536))
    f = framer(append=size)
    f.feed(b"a APPEND x {%d+}\r\n" % size)
    assert f.next_event() is None
    tracemalloc.start()
    try:
        for _ in range(size // len(chunk)):
            f.feed(chunk)
            assert f.next_event() is None
        f.feed(b"\r\n")
        event = f.next_event()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(event, Framed)
    assert len(event.pieces[1]) == size
    assert peak < 1.5 * size


def test_a_skipped_literal_is_not_held() -> None:
    f = framer(skip=100 << 20)
    f.feed(b"a LOGIN {%d+}\r\n" % (50 << 20))
    assert f.next_event() is None
    chunk = bytes(65_536)
    tracemalloc.start()
    try:
        for _ in range((50 << 20) // len(chunk)):
            f.feed(chunk)
            assert f.next_event() is None
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    f.feed(b"\r\nb NOOP\r\n")
    assert f.next_event() == TooBig("a")
    assert f.next_event() == Framed((b"b NOOP",))


PIECES = st.sampled_from(
    [
        b"a1",
        b" ",
        b"\r\n",
        b"\n",
        b"\r",
        b"{3}",
        b"{3+}",
        b"{2000+}",
        b"{",
        b"}",
        b'"',
        b"NOOP",
        b"APPEND",
        b"x" * 300,
        b"\0",
        b"\xff",
    ]
)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=40), st.lists(st.integers(1, 50), min_size=1, max_size=10))
def test_events_do_not_depend_on_how_the_octets_are_cut(pieces: list[bytes], cuts: list[int]) -> None:
    data = b"".join(pieces)
    whole = framer(append=2500, skip=5000)
    whole.feed(data)
    expected = []
    while (event := whole.next_event()) is not None:
        expected.append(event)
    cut = framer(append=2500, skip=5000)
    found = []
    at = turn = 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        turn += 1
        cut.feed(data[at : at + size])
        at += size
        while (event := cut.next_event()) is not None:
            found.append(event)
    # How soon an endless line is given up depends on the cut; that it is skipped does not.
    assert found[: len(expected)] == expected[: len(found)]
    assert len(found) == len(expected) or isinstance((found or expected)[-1], Fatal)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=30), st.booleans()), max_size=5))
def test_whatever_a_literal_holds_the_next_command_is_found(literals: list[tuple[bytes, bool]]) -> None:
    f = framer()
    f.feed(b"a1 XYZZY")
    for octets, synchronising in literals:
        f.feed(b" {%d%b}\r\n" % (len(octets), b"" if synchronising else b"+"))
        if synchronising:
            assert isinstance(f.next_event(), Continue)
        f.feed(octets)
    f.feed(b"\r\nb2 NOOP\r\n")
    event = f.next_event()
    assert isinstance(event, Framed)
    assert list(event.pieces[1::2]) == [octets for octets, _ in literals]
    assert f.next_event() == Framed((b"b2 NOOP",))
