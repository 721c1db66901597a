"""Commands as they come off the wire, as tables; and that nothing but its own errors ever comes out of the parser."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols.imap import commands as c
from mailserver.protocols.imap.commands import BadSyntax, Command, Flags, ListOption, Refused, StatusItem, StoreMode
from mailserver.protocols.imap.framing import Framed, Framer, Limits
from mailserver.protocols.imap.mailbox_name import PLAIN, Pattern, Wire
from mailserver.protocols.imap.parse import parse
from mailserver.protocols.imap.sequence_set import parse as sequence_set
from mailserver.protocols.imap.server_states import ALLOWED


def frame(line: bytes) -> Framed:
    """What the framer makes of a command, literals written as `{n+}` CR LF and their octets."""
    framer = Framer(Limits(command=200_000, append=1 << 20))
    framer.feed(line + b"\r\n")
    event = framer.next_event()
    assert isinstance(event, Framed), event
    assert framer.next_event() is None
    return event


def read(line: bytes, wire: Wire = PLAIN) -> Command:
    return parse(frame(b"t " + line), wire)


ONE_TO_THREE = sequence_set(b"1:3")

COMMANDS: list[tuple[bytes, Command]] = [
    (b"CAPABILITY", c.Capability("t")),
    (b"noop", c.Noop("t")),
    (b"Logout", c.Logout("t")),
    (b"ID NIL", c.Id("t")),
    (b"ID ()", c.Id("t")),
    (b'ID ("name" "x" "Version" NIL)', c.Id("t", {"name": "x", "version": None})),
    (b'ID ("name" {3+}\r\na"b)', c.Id("t", {"name": 'a"b'})),
    (b'ID ( "name" "x" "version" NIL )', c.Id("t", {"name": "x", "version": None})),
    (b"STARTTLS", c.StartTls("t")),
    (b"AUTHENTICATE plain", c.Authenticate("t", "PLAIN")),
    (b"AUTHENTICATE PLAIN =", c.Authenticate("t", "PLAIN", b"=")),
    (b"AUTHENTICATE PLAIN AGEAYg==", c.Authenticate("t", "PLAIN", b"AGEAYg==")),
    (b"LOGIN ann secret", c.Login("t", "ann", "secret")),
    (b'LOGIN "ann@example.org" "a \\"b\\\\ c"', c.Login("t", "ann@example.org", 'a "b\\ c')),
    (b"LOGIN {3+}\r\nann {0+}\r\n", c.Login("t", "ann", "")),
    (b'LOGIN ann "p\xc3\xa4ss"', c.Login("t", "ann", "päss")),
    (b"LOGIN ann {5+}\r\np\xc3\xa4ss", c.Login("t", "ann", "päss")),
    (b"LOGIN a]b c]", c.Login("t", "a]b", "c]")),
    (b"ENABLE CONDSTORE", c.Enable("t", c.Extension.CONDSTORE)),
    (b"ENABLE X-UNKNOWN condstore imap4rev9", c.Enable("t", c.Extension.CONDSTORE)),
    (b"SELECT inbox", c.Select("t", ("INBOX",))),
    (b"SELECT a (condstore)", c.Select("t", ("a",), condstore=True)),
    (b"EXAMINE a (CONDSTORE)", c.Select("t", ("a",), read_only=True, condstore=True)),
    (b"SELECT NIL", c.Select("t", ("NIL",))),
    (b"EXAMINE a/b", c.Select("t", ("a", "b"), read_only=True)),
    (b'CREATE "a/b/"', c.Create("t", ("a", "b"))),
    (b"DELETE &U,BTFw-", c.Delete("t", ("台北",))),
    (b"CREATE a (USE ())", c.Create("t", ("a",))),
    (b"CREATE a (use (\\sent \\Drafts \\SENT))", c.Create("t", ("a",), ("\\Sent", "\\Drafts"))),
    (b"RENAME a {3+}\r\nb/c", c.Rename("t", ("a",), ("b", "c"))),
    (b"SUBSCRIBE a", c.Subscribe("t", ("a",))),
    (b"UNSUBSCRIBE a", c.Unsubscribe("t", ("a",))),
    (b'LIST "" *', c.List("t", (Pattern("*"),))),
    (b'LIST "" "a/%"', c.List("t", (Pattern("a\0%"),))),
    (b"LIST a/ %]", c.List("t", (Pattern("a\0%]"),))),
    (b'LIST "" ""', c.List("t", ())),
    (b'LIST "" (a b {1+}\r\nc "")', c.List("t", (Pattern("a"), Pattern("b"), Pattern("c")), extended=True)),
    (b'LIST () "" *', c.List("t", (Pattern("*"),), extended=True)),
    (b'LIST (REMOTE) "" ""', c.List("t", (), extended=True, only=ListOption.REMOTE)),
    (b'LIST "" % RETURN ()', c.List("t", (Pattern("%"),), extended=True)),
    (
        b'LIST (SUBSCRIBED RECURSIVEMATCH subscribed) "" ("a%" b*) RETURN (CHILDREN STATUS (UNSEEN) SUBSCRIBED)',
        c.List(
            "t",
            (Pattern("a%"), Pattern("b*")),
            extended=True,
            only=ListOption.SUBSCRIBED | ListOption.RECURSIVEMATCH,
            show=ListOption.CHILDREN | ListOption.SUBSCRIBED,
            status=(StatusItem.UNSEEN,),
        ),
    ),
    (
        b'LIST "" * RETURN (STATUS (SIZE) SPECIAL-USE STATUS (SIZE RECENT))',
        c.List(
            "t",
            (Pattern("*"),),
            extended=True,
            show=ListOption.SPECIAL_USE,
            status=(StatusItem.SIZE, StatusItem.RECENT),
        ),
    ),
    (
        b'LIST (SPECIAL-USE) "" *',
        c.List("t", (Pattern("*"),), extended=True, only=ListOption.SPECIAL_USE, show=ListOption.SPECIAL_USE),
    ),
    (b'LSUB "" {1+}\r\n*', c.Lsub("t", (Pattern("*"),))),
    (b"NAMESPACE", c.Namespace("t")),
    (
        b"STATUS a (UNSEEN messages unseen)",
        c.Status("t", ("a",), (StatusItem.UNSEEN, StatusItem.MESSAGES)),
    ),
    (b"APPEND a {3+}\r\nx\0y", c.Append("t", ("a",), b"x\0y")),
    (b"STATUS a (size APPENDLIMIT)", c.Status("t", ("a",), (StatusItem.SIZE, StatusItem.APPENDLIMIT))),
    (b"APPEND a UTF8 (~{3+}\r\nx\0y)", c.Append("t", ("a",), b"x\0y")),
    (b"APPEND a (\\Seen) utf8 (~{1+}\r\nx)", c.Append("t", ("a",), b"x", Flags(1))),
    (b"APPEND a () {1+}\r\nx", c.Append("t", ("a",), b"x")),
    (
        b'APPEND {1+}\r\na (\\seen $Label1) "17-Jul-1996 02:44:25 -0700" {1+}\r\nx',
        c.Append("t", ("a",), b"x", Flags(1, ("$Label1",)), 837_596_665),
    ),
    (b"IDLE", c.Idle("t")),
    (b"CHECK", c.Check("t")),
    (b"CLOSE", c.Close("t")),
    (b"UNSELECT", c.Unselect("t")),
    (b"EXPUNGE", c.Expunge("t")),
    (b"UID EXPUNGE 1:3", c.Expunge("t", ONE_TO_THREE)),
    (b"uid Fetch 1:3 UID", c.Fetch("t", ONE_TO_THREE, (c.Attribute.UID,), by_uid=True)),
    (b"SEARCH ALL", c.Search("t", c.Everything())),
    (b"UID SEARCH ALL", c.Search("t", c.Everything(), by_uid=True)),
    (b"SEARCH RETURN () ALL", c.Search("t", c.Everything(), returns=frozenset({c.SearchReturn.ALL}))),
    (
        b"UID SEARCH return (min COUNT) CHARSET utf-8 ALL",
        c.Search("t", c.Everything(), by_uid=True, returns=frozenset({c.SearchReturn.MIN, c.SearchReturn.COUNT})),
    ),
    (b"FETCH 1:3 UID (CHANGEDSINCE 12)", c.Fetch("t", ONE_TO_THREE, (c.Attribute.UID,), changedsince=12)),
    (b"FETCH 1:3 UID (CHANGEDSINCE 0)", c.Fetch("t", ONE_TO_THREE, (c.Attribute.UID,), changedsince=0)),
    (b"FETCH 1:3 (UID MODSEQ)", c.Fetch("t", ONE_TO_THREE, (c.Attribute.UID, c.Attribute.MODSEQ))),
    (
        b"STORE 1:3 (UNCHANGEDSINCE 0) +FLAGS.SILENT (\\Deleted)",
        c.Store("t", ONE_TO_THREE, StoreMode.ADD, Flags(8), silent=True, unchangedsince=0),
    ),
    (b"STORE 1:3 FLAGS ()", c.Store("t", ONE_TO_THREE, StoreMode.REPLACE, Flags())),
    (b"STORE 1:3 +flags (\\Deleted)", c.Store("t", ONE_TO_THREE, StoreMode.ADD, Flags(8))),
    (
        b"UID STORE 1:3 -FLAGS.SILENT \\Answered \\FLAGGED Junk junk",
        c.Store("t", ONE_TO_THREE, StoreMode.REMOVE, Flags(6, ("Junk",)), silent=True, by_uid=True),
    ),
    (b"STORE 1:3 FLAGS (\\Recent \\Draft)", c.Store("t", ONE_TO_THREE, StoreMode.REPLACE, Flags(16))),
    (b"COPY 1:3 a/b", c.Copy("t", ONE_TO_THREE, ("a", "b"))),
    (b"UID COPY 1:3 a", c.Copy("t", ONE_TO_THREE, ("a",), by_uid=True)),
    (b"MOVE 1:3 a", c.Move("t", ONE_TO_THREE, ("a",))),
    (b"UID MOVE 1:3 a", c.Move("t", ONE_TO_THREE, ("a",), by_uid=True)),
    (b"NOOP  ", c.Noop("t")),
]


@pytest.mark.parametrize(("line", "command"), COMMANDS, ids=[line.decode("latin-1") for line, _ in COMMANDS])
def test_commands(line: bytes, command: Command) -> None:
    assert read(line) == command


def test_every_command_is_in_the_table() -> None:
    assert {type(command) for _, command in COMMANDS} == set(ALLOWED)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b" NOOP",
        b"XYZZY",
        b"UID",
        b"UID NOOP",
        b"UID ",
        b"NOOP x",
        b"NOOP {1+}\r\nx",
        b"NOOPX",
        b"{4+}\r\nNOOP",
        b"DONE",
        b"ID",
        b"ID x",
        b'ID ("a")',
        b"ID (a b)",
        b'ID ("a" "b" "c")',
        b'ID ("a""b")',
        b"AUTHENTICATE",
        b"AUTHENTICATE (",
        b"AUTHENTICATE PLAIN a b",
        b"LOGIN",
        b"LOGIN a",
        b"LOGIN a b c",
        b'LOGIN a "b',
        b'LOGIN a b"',
        b'LOGIN "a"b',
        b'LOGIN a "\\x"',
        b"LOGIN a\0 b",
        b"LOGIN a {1+}\r\n\0",
        b"LOGIN a {1+}\r\nb c",
        b"LOGIN a {1+}\r\n\xff",
        b"LOGIN {1+}\r\na{1+}\r\nb",
        b"LOGIN \xc3\xa4 b",
        b"SELECT",
        b"SELECT  a",
        b"SELECT a b",
        b"SELECT (a)",
        b"SELECT a%",
        b"SELECT a*",
        b"SELECT a\rb",
        b"SELECT a\x01",
        b"RENAME a",
        b"LIST",
        b'LIST ""',
        b'LIST "" a b',
        b"LIST () a",
        b'LIST "" ()',
        b'LIST "" (a',
        b'LIST "" (a b) RETURN',
        b'LIST "" a RETURN CHILDREN',
        b'LIST "" a RETURN (CHILDREN',
        b'LIST "" a RETURN (FROBNICATE)',
        b'LIST "" a RETURN (REMOTE)',
        b'LIST "" a RETURN (STATUS)',
        b'LIST "" a RETURN (STATUS ())',
        b'LIST "" a RETURN (STATUS (FROB))',
        b'LIST (RECURSIVEMATCH) "" a',
        b'LIST (REMOTE RECURSIVEMATCH) "" a',
        b'LIST (CHILDREN) "" a',
        b'LIST (SUBSCRIBED REMOTE "" a',
        b'LIST (SUBSCRIBED)"" a',
        b'LIST (SUBSCRIBEDREMOTE) "" a',
        b'LSUB () "" a',
        b'LSUB "" (a)',
        b'LSUB "" a RETURN ()',
        b"CREATE a (",
        b"CREATE a ()",
        b"CREATE a (USE)",
        b"CREATE a (USE \\Sent)",
        b"CREATE a (USE (Sent))",
        b"CREATE a (USE (\\Sent)",
        b"CREATE a (USE (\\Sent) USE (\\Sent))",
        b"CREATE a (FROB (\\Sent))",
        b'SELECT "\xc3"',
        b'LOGIN "\xe4" b',
        b"APPEND a UTF8 (~{1+}\r\nx",
        b"APPEND a UTF8 ({1+}\r\nx)",
        b"APPEND a UTF8 {1+}\r\nx",
        b"APPEND a ~{1+}\r\nx",
        b"STATUS a",
        b"STATUS a ()",
        b"STATUS a MESSAGES",
        b"STATUS a (SIZES)",
        b"STATUS a (MESSAGES",
        b"STATUS a (MESSAGES )",
        b"APPEND",
        b"APPEND a",
        b"APPEND a b",
        b'APPEND a "x"',
        b"APPEND a {1+}\r\nx y",
        b"APPEND a{1+}\r\nx",
        b"APPEND a (\\Seen){1+}\r\nx",
        b"APPEND a (\\Foo) {1+}\r\nx",
        b"APPEND a (a b {1+}\r\nx",
        b"APPEND a (  ) {1+}\r\nx",
        b'APPEND a "yesterday" {1+}\r\nx',
        b'APPEND a "17-Jul-1996 02:44:25 -0700"{1+}\r\nx',
        b"ENABLE",
        b"ENABLE (CONDSTORE)",
        b"SELECT a ()",
        b"SELECT a (XYZZY)",
        b"SELECT a (CONDSTORE",
        b"SELECT a (CONDSTORE CONDSTORE)",
        b"SEARCH RETURN",
        b"SEARCH RETURN ALL",
        b"SEARCH RETURN (MIN)",
        b"SEARCH RETURN (FOO) ALL",
        b"SEARCH RETURN (MIN,MAX) ALL",
        b"FETCH 1 UID ()",
        b"FETCH 1 UID (CHANGEDSINCE)",
        b"FETCH 1 UID (CHANGEDSINCE 9223372036854775808)",
        b"FETCH 1 UID (CHANGEDSINCE 1",
        b"STORE 1 () FLAGS a",
        b"STORE 1 (UNCHANGEDSINCE) FLAGS a",
        b"STORE 1 (UNCHANGEDSINCE -1) FLAGS a",
        b"STORE 1 (UNCHANGEDSINCE 1)FLAGS a",
        b"EXPUNGE 1",
        b"UID EXPUNGE",
        b"UID EXPUNGE 0",
        b"UID EXPUNGE *:",
        b"UID EXPUNGE a",
        b"FETCH",
        b"FETCH 1",
        b"FETCH 1 ()",
        b"FETCH 0 UID",
        b"FETCH 1 XYZZY",
        b"STORE 1",
        b"STORE 1 FLAGS",
        b"STORE 1 FLAGS (a",
        b"STORE 1 FLAGS a b)",
        b"STORE 1 *FLAGS a",
        b"STORE 1 FLAG a",
        b"STORE 1 FLAGS.LOUD a",
        b"STORE 1 FLAGS (\\*)",
        b"STORE 1 FLAGS \\",
        b"STORE 1 FLAGS (\\Seen\\Draft)",
        b"STORE 1 FLAGS (a\xff)",
        b"STORE 1 FLAGS a]",
        b"COPY 1",
        b"COPY a b",
        b"COPY 1:: b",
        b"COPY 4294967296 a",
        b"MOVE 1 ",
        b"SEARCH",
        b"SEARCH ",
    ],
)
def test_bad_syntax_keeps_the_tag(line: bytes) -> None:
    with pytest.raises(BadSyntax) as caught:
        read(line)
    assert caught.value.tag == "t"
    assert caught.value.text


@pytest.mark.parametrize("line", [b"", b"* NOOP", b"+ NOOP", b"(t) NOOP", b'"t" NOOP', b"\xff NOOP", b"a+ NOOP"])
def test_no_tag(line: bytes) -> None:
    with pytest.raises(BadSyntax) as caught:
        parse(frame(line))
    assert caught.value.tag == "*"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"SELECT &", "CANNOT"),
        (b'SELECT ""', "CANNOT"),
        (b"CREATE a//b", "CANNOT"),
        (b"DELETE a/", "CANNOT"),
        (b'CREATE "a\tb"', "CANNOT"),
        (b"CREATE {1+}\r\n\xe4", "CANNOT"),
        (b"CREATE a (USE (\\All))", "USEATTR"),
        (b"CREATE a (USE (\\Sent \\Flagged))", "USEATTR"),
        (b"CREATE a (USE (\\Frob))", "USEATTR"),
        (b'LIST "" (' + b" ".join(b"%d" % n for n in range(101)) + b")", "LIMIT"),
        (b"STORE 1 FLAGS " + b"k" * 129, "LIMIT"),
        (b"SEARCH CHARSET X-KLINGON ALL", "BADCHARSET (US-ASCII UTF-8)"),
        (b"FETCH 1 (" + b" ".join(b"BODY[%d]" % n for n in range(1, 1002)) + b")", "LIMIT"),
    ],
)
def test_refused(line: bytes, code: str) -> None:
    with pytest.raises(Refused) as caught:
        read(line)
    assert (caught.value.tag, caught.value.code) == ("t", code)


def test_the_separator_is_the_servers() -> None:
    assert read(b"CREATE a.b/c", Wire(".")) == c.Create("t", ("a", "b/c"))


def test_names_in_utf_8() -> None:
    """RFC 6855 §3: in quoted strings and literals, before and after it is enabled; then `&` stands for itself."""
    for wire in (PLAIN, Wire(utf8=True)):
        assert read('SELECT "Entwürfe"'.encode(), wire) == c.Select("t", ("Entwürfe",))
        assert read("SELECT {9+}\r\nEntwürfe".encode(), wire) == c.Select("t", ("Entwürfe",))
    assert read(b"SELECT &Jjo-", PLAIN) == c.Select("t", ("☺",))
    assert read(b"SELECT &Jjo-", Wire(utf8=True)) == c.Select("t", ("&Jjo-",))


def test_no_charset_once_all_is_utf_8() -> None:
    """RFC 6855 §3."""
    assert read(b"SEARCH CHARSET UTF-8 ALL") == read(b"SEARCH ALL", Wire(utf8=True))
    with pytest.raises(BadSyntax):
        read(b"SEARCH CHARSET UTF-8 ALL", Wire(utf8=True))


def test_id_of_many_pairs_is_cut_off() -> None:
    pairs = b" ".join(b'"k%d" "v"' % n for n in range(100))
    command = read(b"ID (" + pairs + b")")
    assert isinstance(command, c.Id)
    assert len(command.parameters) == 30


def test_passwords_and_messages_are_not_shown() -> None:
    assert "secret" not in repr(read(b"LOGIN ann secret"))
    assert "secret" not in repr(read(b"APPEND a {6+}\r\nsecret"))


@pytest.mark.parametrize(("line", "_command"), COMMANDS, ids=[line.decode("latin-1") for line, _ in COMMANDS])
def test_with_any_octet_missing_or_changed_there_is_an_answer(line: bytes, _command: Command) -> None:
    """The pieces are damaged behind the framing, so that also what a framer never makes is tried."""
    pieces = frame(b"t " + line).pieces
    for index, piece in enumerate(pieces):
        for at in range(len(piece)):
            for instead in (b"", b" ", b"(", b'"', b"\0", b"\xff", b"0"):
                damaged = (*pieces[:index], piece[:at] + instead + piece[at + 1 :], *pieces[index + 1 :])
                try:
                    parse(Framed(damaged))
                except (BadSyntax, Refused):
                    pass


WORDS = st.sampled_from(
    [
        b" ",
        b"(",
        b")",
        b'"',
        b"\\",
        b"[",
        b"]",
        b"<",
        b">",
        b"1",
        b"0",
        b"*",
        b":",
        b",",
        b"{",
        b"}",
        b"\xff",
        b"\0",
        b"a",
        b"FETCH",
        b"UID",
        b"BODY",
        b"HEADER.FIELDS",
        b"SEARCH",
        b"NOT",
        b"OR",
        b"SUBJECT",
        b"CHARSET",
        b"STORE",
        b"FLAGS",
        b"\\Seen",
        b"APPEND",
        b"LIST",
        b"STATUS",
        b"ID",
        b"NIL",
        b"1-Feb-2024",
        b"MESSAGES",
        b"INBOX",
        b"&",
        b"&-",
    ]
)


@settings(derandomize=True, max_examples=1500, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=12).map(b"".join), min_size=1, max_size=5))
def test_rubbish_has_an_answer(pieces: list[bytes]) -> None:
    if len(pieces) % 2 == 0:
        pieces.append(b"")
    pieces[0] = b"t " + pieces[0]
    try:
        tag = parse(Framed(tuple(pieces))).tag
    except (BadSyntax, Refused) as error:
        tag = error.tag
    assert tag == "t"
