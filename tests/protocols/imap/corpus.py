r"""Commands: valid ones of every kind (COMMANDS), and such as are meant to cost the server dearly (HOSTILE).

The valid ones are the type's name and the octets that a client sends, line ends included; synchronising literals stand
in them as if the server had said "+" to each.
"""

from __future__ import annotations

_LINES = r"""
Capability   a1 CAPABILITY
Noop         a2 noop
Logout       a3 Logout
Id           a4 ID NIL
Id           a5 ID ("name" "x\"y\\z" "version" NIL)
Id           a6 ID ({4}\r\nname {3+}\r\na\r\n "os" "x")
StartTls     b1 STARTTLS
Login        b2 LOGIN ann secret
Login        b3 LOGIN "ann@example.org" "pass \"word\""
Login        b4 LOGIN {3}\r\nann {6}\r\nse\r\net
Login        b5 LOGIN {3+}\r\nann {0+}\r\n
Authenticate b6 AUTHENTICATE PLAIN
Authenticate b7 AUTHENTICATE PLAIN AGFubgBwdw==
Authenticate b8 AUTHENTICATE LOGIN =
Enable       c1 ENABLE CONDSTORE
Enable       c2 ENABLE UTF8=ACCEPT X-UNKNOWN
Select       c3 SELECT INBOX
Select       c4 SELECT "a/b c" (CONDSTORE)
Select       c5 EXAMINE {5+}\r\nEntw.
Select       c6 SELECT &AOk-t&AOk-
Create       c7 CREATE a/b/
Create       c8 CREATE "Weg" (USE (\Trash))
Delete       c9 DELETE a/b
Rename       d1 RENAME a {1+}\r\nb
Subscribe    d2 SUBSCRIBE a
Unsubscribe  d3 UNSUBSCRIBE "a"
List         d4 LIST "" *
List         d5 LIST "" ""
List         d6 LIST (SUBSCRIBED RECURSIVEMATCH) "" (a* "b%" {1+}\r\nc) RETURN (CHILDREN STATUS (MESSAGES UNSEEN))
List         d7 list {1}\r\na "%" return (special-use)
Lsub         d8 LSUB "" %
Namespace    d9 NAMESPACE
Status       e1 STATUS INBOX (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ SIZE)
Append       e2 APPEND INBOX {9}\r\na: b\r\n\r\nc
Append       e3 APPEND "a b" (\Seen $Label \Recent) "01-Feb-2024 20:10:00 +0100" {12+}\r\nx\r\ny NOOP\r\n{
Append       e4 APPEND {5+}\r\nINBOX " 1-Feb-2024 20:10:00 -0000" {3}\r\n\0\xff\n
Idle         e5 IDLE
Check        f1 CHECK
Close        f2 CLOSE
Unselect     f3 UNSELECT
Expunge      f4 EXPUNGE
Expunge      f5 UID EXPUNGE 1:3,5,*
Search       g1 SEARCH ALL
Search       g2 UID SEARCH CHARSET UTF-8 OR (SUBJECT {4+}\r\nm\xc3\xb6p NOT SEEN) (FROM "x" 1:* UID 3)
Search       g3 SEARCH RETURN (MIN COUNT) BEFORE 1-Feb-2024 SENTSINCE "01-Mar-1999" LARGER 5 SMALLER 4294967295
Search       g4 SEARCH HEADER X-A "" KEYWORD $k UNKEYWORD k BODY {1}\r\nx TEXT y NEW OLD RECENT UNSEEN
Search       g5 SEARCH MODSEQ 620162338 NOT (NOT (OR OR SEEN DELETED DRAFT))
Fetch        h1 FETCH 1 FLAGS
Fetch        h2 UID FETCH 1:*,7 (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY BODYSTRUCTURE MODSEQ)
Fetch        h3 FETCH *:5 (BODY[] BODY.PEEK[]<0.4294967295> BODY[1.2.MIME] BODY[1.HEADER] BODY[TEXT]<5.1>)
Fetch        h4 FETCH 1 BODY.PEEK[HEADER.FIELDS (From "To" {2+}\r\nCc)]
Fetch        h5 FETCH 1 (BODY[2.1.HEADER.FIELDS.NOT (Received)] RFC822 RFC822.HEADER RFC822.TEXT)
Fetch        h6 FETCH 1:2 ALL
Fetch        h7 UID FETCH 1 (FLAGS) (CHANGEDSINCE 12345)
Store        i1 STORE 1 FLAGS ()
Store        i2 UID STORE 1:4 +FLAGS.SILENT (\Deleted $a b)
Store        i3 STORE 1 -FLAGS \Seen \Answered
Store        i4 STORE 1 (UNCHANGEDSINCE 0) FLAGS (\Draft)
Copy         i5 COPY 1:2 a
Copy         i6 UID COPY 1 {1+}\r\na
Move         i7 MOVE 1 "a b"
Move         i8 UID MOVE 2:* a
"""


def _octets(text: str) -> bytes:
    r"""The text's \r, \n, \0 and \x.. are octets; its other backslashes are the client's."""
    for escape, char in (
        ("\\r\\n", "\r\n"),
        ("\\n", "\n"),
        ("\\0", "\0"),
        ("\\xff", "\xff"),
        ("\\xc3\\xb6", "\xc3\xb6"),
    ):
        text = text.replace(escape, char)
    return text.encode("latin-1") + b"\r\n"


COMMANDS = [(line.split()[0], _octets(line.split(maxsplit=1)[1])) for line in _LINES.strip().splitlines()]


# Commands that are as long as they may be, without their tags


def _filled(unit: bytes, between: bytes = b" ", size: int = 64_000) -> bytes:
    return between.join([unit] * (size // (len(unit) + len(between))))


def _numbered(template: bytes, between: bytes = b" ", size: int = 64_000) -> bytes:
    return between.join([template % number for number in range(1, size // (len(template) + 4))])


HOSTILE = {
    "a set of many numbers": b"FETCH " + _numbered(b"%d", b",") + b" FLAGS",
    "a set of many stars": b"FETCH " + _filled(b"*", b",") + b" FLAGS",
    "a set of many ranges": b"UID FETCH " + _filled(b"1:*", b",") + b" FLAGS",
    "parentheses in SEARCH": b"SEARCH " + b"(" * 10_000 + b"ALL" + b")" * 10_000,
    "parentheses that do not close": b"SEARCH " + b"(" * 60_000,
    "parentheses in FETCH": b"FETCH 1 " + b"(" * 10_000,
    "parentheses in STORE": b"STORE 1 FLAGS " + b"(" * 10_000,
    "parentheses in LIST": b"LIST " + b"(" * 10_000,
    "parentheses in ID": b"ID " + b"(" * 10_000,
    "parentheses in STATUS": b"STATUS x " + b"(" * 10_000,
    "NOT of NOT": b"SEARCH " + b"NOT " * 16_000 + b"ALL",
    "OR in OR": b"SEARCH " + b"OR " * 9000 + b"ALL " * 9000 + b"ALL",
    "OR behind OR": b"SEARCH " + b"OR ALL " * 9000 + b"ALL",
    "OR of pairs": b"SEARCH " + b"OR (ALL SEEN) " * 4000 + b"ALL",
    "OR in parentheses": b"SEARCH " + b"(OR SEEN " * 6000 + b"ALL" + b")" * 6000,
    "NOT in parentheses": b"SEARCH " + b"NOT (SEEN " * 5000 + b"ALL" + b")" * 5000,
    "many search keys": b"SEARCH " + _filled(b"ALL"),
    "many sets": b"SEARCH " + _numbered(b"%d"),
    "many search texts": b"SEARCH " + _numbered(b"SUBJECT %d"),
    "one search text": b"SEARCH SUBJECT {60000+}\r\n" + b"x \xff" * 20_000,
    "section numbers": b"FETCH 1 BODY[" + _filled(b"1", b".") + b"]",
    "a thousand levels": b"FETCH 1 BODY[" + b"1." * 1000 + b"MIME]",
    "header fields": b"FETCH 1 BODY[HEADER.FIELDS (" + _numbered(b"X-%d") + b")]",
    "quoted header fields": b"FETCH 1 BODY[HEADER.FIELDS.NOT (" + _filled(b'"\\""') + b")]",
    "FETCH items": b"FETCH 1 (" + _numbered(b"BODY[%d]<0.1>") + b")",
    "the same FETCH item": b"FETCH 1 (" + _filled(b"UID") + b")",
    "keywords": b"STORE 1 FLAGS (" + _numbered(b"k%d") + b")",
    "bare keywords": b"STORE 1 FLAGS " + _numbered(b"k%d"),
    "ID pairs": b"ID (" + _filled(b'"a" "b"') + b")",
    "a quoted string that does not end": b'SELECT "' + b'\\"' * 30_000,
    "patterns": b'LIST "" (' + _filled(b"*") + b")",
    "wildcards": b'LIST "" "' + b"*%" * 30_000 + b'"',
    "a long pattern": b'LIST "" "' + b"*a" * 30_000 + b'"',
    "shifts": b'SELECT "' + b"&AOk-" * 12_000 + b'"',
    "shifts that do not end": b'SELECT "' + b"&" * 60_000 + b'"',
    "one long shift": b'SELECT "&' + b"AOkA" * 15_000 + b'-"',
    "levels": b'CREATE "' + b"a/" * 30_000 + b'"',
    "combining marks": b"CREATE {60000+}\r\n" + "e\u0301\u0323".encode() * 12_000,
    "spaces": b"SEARCH ALL" + b" " * 60_000,
    "STATUS items": b"STATUS x (" + _filled(b"UNSEEN") + b")",
    "ENABLE": b"ENABLE " + _filled(b"x"),
    "charset": b"SEARCH CHARSET " + b"x" * 60_000 + b" ALL",
    "base64": b"AUTHENTICATE PLAIN " + b"A" * 60_000,
    "digits": b"FETCH " + b"9" * 60_000 + b" FLAGS",
}
