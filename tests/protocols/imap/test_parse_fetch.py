from __future__ import annotations

import pytest

from mailserver.protocols.imap.commands import Attribute, BadSyntax, BodySection, Fetch, FetchItem
from mailserver.protocols.imap.framing import Framed, Framer, Limits
from mailserver.protocols.imap.parse import parse


def read(items: bytes) -> Fetch:
    framer = Framer(Limits())
    framer.feed(b"t FETCH 1 " + items + b"\r\n")
    event = framer.next_event()
    assert isinstance(event, Framed)
    command = parse(event)
    assert isinstance(command, Fetch)
    return command


def fields(*names: bytes) -> frozenset[bytes]:
    return frozenset(names)


A = Attribute
FAST: list[FetchItem] = [A.FLAGS, A.INTERNALDATE, A.SIZE]


@pytest.mark.parametrize(
    ("text", "items"),
    [
        (b"FAST", FAST),
        (b"all", [*FAST, A.ENVELOPE]),
        (b"Full", [*FAST, A.ENVELOPE, A.BODY]),
        (b"UID", [A.UID]),
        (b"(uid flags RFC822.SIZE)", [A.UID, A.FLAGS, A.SIZE]),
        (b"(UID UID)", [A.UID]),
        (b"BODY", [A.BODY]),
        (b"BODYSTRUCTURE", [A.BODYSTRUCTURE]),
        (b"BODY[]", [BodySection(b"BODY[]")]),
        (b"body.peek[]", [BodySection(b"BODY[]", peek=True)]),
        (b"RFC822", [BodySection(b"RFC822")]),
        (b"RFC822.HEADER", [BodySection(b"RFC822.HEADER", kind="HEADER", peek=True)]),
        (b"RFC822.TEXT", [BodySection(b"RFC822.TEXT", kind="TEXT")]),
        (b"BODY[header]", [BodySection(b"BODY[HEADER]", kind="HEADER")]),
        (b"BODY[TEXT]<0.100>", [BodySection(b"BODY[TEXT]<0>", kind="TEXT", partial=(0, 100))]),
        (b"BODY[1]", [BodySection(b"BODY[1]", part=(1,))]),
        (b"BODY[4.2.2.1]", [BodySection(b"BODY[4.2.2.1]", part=(4, 2, 2, 1))]),
        (b"BODY[4.2.MIME]", [BodySection(b"BODY[4.2.MIME]", part=(4, 2), kind="MIME")]),
        (b"BODY[3.HEADER]", [BodySection(b"BODY[3.HEADER]", part=(3,), kind="HEADER")]),
        (
            b"BODY.PEEK[HEADER.FIELDS (Date From)]",
            [
                BodySection(
                    b"BODY[HEADER.FIELDS (Date From)]", (), "HEADER.FIELDS", fields(b"date", b"from"), None, True
                )
            ],
        ),
        (
            b'BODY[2.HEADER.FIELDS.NOT ("X y" {3+}\r\na\r\n NIL)]<5.7>',
            [
                BodySection(
                    b'BODY[2.HEADER.FIELDS.NOT ("X y" {3}\r\na\r\n "NIL")]<5>',
                    (2,),
                    "HEADER.FIELDS.NOT",
                    fields(b"x y", b"a\r\n", b"nil"),
                    (5, 7),
                )
            ],
        ),
        # Asked for twice: answered once, and \Seen is set if either sets it.
        (b"(BODY.PEEK[] BODY[])", [BodySection(b"BODY[]")]),
        (b"(BODY[] BODY.PEEK[])", [BodySection(b"BODY[]")]),
        (
            b"(BODY[]<0.5> BODY[]<0.5> BODY[]<5.5>)",
            [BodySection(b"BODY[]<0>", partial=(0, 5)), BodySection(b"BODY[]<5>", partial=(5, 5))],
        ),
    ],
)
def test_items(text: bytes, items: list[FetchItem]) -> None:
    assert list(read(text).items) == items


@pytest.mark.parametrize(
    "text",
    [
        b"()",
        b"( UID)",
        b"(UID )",
        b"(UID",
        b"UID)",
        b"UID FLAGS",
        b"(UID,FLAGS)",
        b"(ALL)",
        b"(FAST)",
        b"ALL FAST",
        b"FOO",
        b"BODY.PEEK",
        b"BODY[",
        b"BODY[]x",
        b"BODY[FOO]",
        b"BODY[MIME]",
        b"BODY[0]",
        b"BODY[1.]",
        b"BODY[.1]",
        b"BODY[1.0]",
        b"BODY[01]",
        b"BODY[1..2]",
        b"BODY[1.TEXT.2]",
        b"BODY[99999999999]",
        b"BODY[HEADER.FIELDS]",
        b"BODY[HEADER.FIELDS ()]",
        b"BODY[HEADER.FIELDS (a]",
        b"BODY[HEADER.FIELDS (a ]",
        b"BODY[HEADER (a)]",
        b"BODY[1 ]",
        b"BODY[1a]",
        b"BODY[]<>",
        b"BODY[]<0>",
        b"BODY[]<0.0>",
        b"BODY[]<0.1",
        b"BODY[]<-1.1>",
        b"BODY[]<1.4294967296>",
        b"BODY []",
        b"RFC822.PEEK",
        b"RFC822[]",
        b"FLAGS[]",
    ],
)
def test_rubbish(text: bytes) -> None:
    with pytest.raises(BadSyntax):
        read(text)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (b"(UID FLAGS BODYSTRUCTURE)", False),
        (b"BODY.PEEK[]", False),
        (b"RFC822.HEADER", False),
        (b"RFC822", True),
        (b"RFC822.TEXT", True),
        (b"(UID BODY[TEXT])", True),
    ],
)
def test_seen(text: bytes, seen: bool) -> None:
    assert read(text).sets_seen == seen
