from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols.imap import responses as r
from mailserver.protocols.imap.cursor import Cursor
from mailserver.protocols.imap.mailbox_name import Wire


@pytest.mark.parametrize(
    ("built", "line"),
    [
        (r.ok("a1", "Done"), b"a1 OK Done\r\n"),
        (r.no("a1", "No such mailbox", "NONEXISTENT"), b"a1 NO [NONEXISTENT] No such mailbox\r\n"),
        (r.bad("*", "Invalid tag"), b"* BAD Invalid tag\r\n"),
        (r.bye("See you"), b"* BYE See you\r\n"),
        (r.ok("*", "Flags", r"PERMANENTFLAGS (\Seen \*)"), b"* OK [PERMANENTFLAGS (\\Seen \\*)] Flags\r\n"),
        # Nothing that is echoed breaks the line, ends the code or begins one.
        (r.no("a1", "x\r\na2 OK y"), b"a1 NO x a2 OK y\r\n"),
        (r.no("a1", "[ALERT] x"), b"a1 NO (ALERT] x\r\n"),
        (r.no("a1", "x", "A]\r\nB\xe4"), b"a1 NO [A B ] x\r\n"),
        (r.no("a1", "Grüße\0"), b"a1 NO Gr??e\r\n"),
        (r.no("a1", ""), b"a1 NO .\r\n"),
        (r.no("a1", "x" * 9999), b"a1 NO " + b"x" * 400 + b"\r\n"),
        (r.continuation(), b"+ OK\r\n"),
        (r.continuation("idling"), b"+ idling\r\n"),
        (r.challenge(b""), b"+ \r\n"),
        (r.challenge(b"VXNlcm5hbWU6"), b"+ VXNlcm5hbWU6\r\n"),
        (r.quoted(b'a"b\\c'), b'"a\\"b\\\\c"'),
        (r.string(b""), b'""'),
        (r.string(b"a\r\nb"), b"{4}\r\na\r\nb"),
        (r.string(b"\xe4"), b"{1}\r\n\xe4"),
        (r.string(b"a\0"), b"~{2}\r\na\0"),
        (r.string(b"x" * 1001), b"{1001}\r\n" + b"x" * 1001),
        (r.nstring(None), b"NIL"),
        (r.nstring(b"NIL"), b'"NIL"'),
        (r.astring(b"INBOX"), b"INBOX"),
        (r.astring(b"nil"), b'"nil"'),
        (r.astring(b"a b"), b'"a b"'),
        (r.astring(b"a]"), b'"a]"'),
        (r.astring(b""), b'""'),
        (r.literal_head(5), b"{5}\r\n"),
        (r.literal_head(5, binary=True), b"~{5}\r\n"),
        (r.mailbox(("Entwürfe", "a b"), Wire("/")), b'"Entw&APw-rfe/a b"'),
        (
            r.list_entry(["\\HasNoChildren", "\\Sent"], Wire("/"), ("Sent",)),
            b'* LIST (\\HasNoChildren \\Sent) "/" Sent\r\n',
        ),
        (r.list_entry([], Wire("."), ("a", "b"), word=b"LSUB"), b'* LSUB () "." a.b\r\n'),
        (r.mailbox(("Entwürfe",), Wire(".", utf8=True)), '"Entwürfe"'.encode()),
        (r.mailbox(('ä"\\',), Wire(utf8=True)), b'"\xc3\xa4\\"\\\\"'),
        (r.mailbox(("Sent",), Wire(utf8=True)), b"Sent"),
        (r.mailbox(("a b",), Wire(utf8=True)), b'"a b"'),
        (
            r.list_entry(["\\NonExistent"], Wire(), ("Foo",), childinfo=["SUBSCRIBED", "SPECIAL-USE"]),
            b'* LIST (\\NonExistent) "/" Foo ("CHILDINFO" ("SUBSCRIBED" "SPECIAL-USE"))\r\n',
        ),
        (r.list_separator(Wire("/")), b'* LIST (\\Noselect) "/" ""\r\n'),
        (r.list_separator(Wire("."), word=b"LSUB"), b'* LSUB (\\Noselect) "." ""\r\n'),
        (r.namespace(Wire("/")), b'* NAMESPACE (("" "/")) NIL NIL\r\n'),
        (
            r.status(("a b",), Wire("/"), [(b"MESSAGES", 3), (b"UNSEEN", 0)]),
            b'* STATUS "a b" (MESSAGES 3 UNSEEN 0)\r\n',
        ),
        (r.flags(b"\\Seen x"), b"* FLAGS (\\Seen x)\r\n"),
        (r.exists(3), b"* 3 EXISTS\r\n"),
        (r.recent(0), b"* 0 RECENT\r\n"),
        (r.capability(["IMAP4rev1", "IDLE"]), b"* CAPABILITY IMAP4rev1 IDLE\r\n"),
        (r.id_({}), b"* ID NIL\r\n"),
        (r.id_({"name": "Pillarbox", "os": None}), b'* ID ("name" "Pillarbox" "os" NIL)\r\n'),
    ],
)
def test_lines(built: bytes, line: bytes) -> None:
    assert built == line


def test_codes_of_uidplus() -> None:
    assert r.append_uid(9, [5]) == "APPENDUID 9 5"
    assert r.copy_uid(9, [1, 2, 5], [7, 8, 9]) == "COPYUID 9 1:2,5 7:9"


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(max_size=50), st.text(max_size=20))
def test_a_status_line_is_one_line(text: str, code: str) -> None:
    line = r.no("a1", text, code)
    assert re.fullmatch(rb"a1 NO (\[[\x20-\x5c\x5e-\x7e]*\] )?[\x20-\x7e]+\r\n", line)
    if not code:
        assert not line.startswith(b"a1 NO [")


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.binary(max_size=40).filter(lambda octets: b"\0" not in octets))
def test_strings_are_read_back(octets: bytes) -> None:
    for built in (r.string(octets), r.astring(octets)):
        head, announced, literal = built.partition(b"}\r\n")
        pieces = (b"", literal, b"") if announced else (head,)
        c = Cursor(pieces)
        assert c.astring() == octets
        assert c.at_end
