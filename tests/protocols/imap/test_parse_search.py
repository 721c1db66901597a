from __future__ import annotations

import time
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.protocols.imap.commands import (
    And,
    BadSyntax,
    BodyHas,
    Compare,
    Everything,
    HasFlag,
    HasKeyword,
    HeaderHas,
    InSet,
    IsRecent,
    Larger,
    ModSeq,
    Not,
    Or,
    Received,
    Refused,
    Search,
    SearchKey,
    Sent,
    Smaller,
    SystemFlag,
    TextHas,
)
from mailserver.protocols.imap.framing import Framed, Framer, Limits
from mailserver.protocols.imap.parse import parse
from mailserver.protocols.imap.parse_search import MAX_DEPTH
from mailserver.protocols.imap.sequence_set import parse as sequence_set


def read(keys: bytes) -> SearchKey:
    framer = Framer(Limits(command=1 << 20))
    framer.feed(b"t SEARCH " + keys + b"\r\n")
    event = framer.next_event()
    assert isinstance(event, Framed)
    command = parse(event)
    assert isinstance(command, Search)
    return command.key


SEEN = HasFlag(SystemFlag.SEEN)
DAY = date(1994, 2, 1)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b"ALL", Everything()),
        (b"answered", HasFlag(SystemFlag.ANSWERED)),
        (b"DELETED", HasFlag(SystemFlag.DELETED)),
        (b"DRAFT", HasFlag(SystemFlag.DRAFT)),
        (b"FLAGGED", HasFlag(SystemFlag.FLAGGED)),
        (b"SEEN", SEEN),
        (b"UNANSWERED", Not(HasFlag(SystemFlag.ANSWERED))),
        (b"UNDELETED", Not(HasFlag(SystemFlag.DELETED))),
        (b"UNDRAFT", Not(HasFlag(SystemFlag.DRAFT))),
        (b"UNFLAGGED", Not(HasFlag(SystemFlag.FLAGGED))),
        (b"UNSEEN", Not(SEEN)),
        (b"KEYWORD $Junk", HasKeyword("$Junk")),
        (b"UNKEYWORD Junk", Not(HasKeyword("Junk"))),
        (b"RECENT", IsRecent()),
        (b"OLD", Not(IsRecent())),
        (b"NEW", And((IsRecent(), Not(SEEN)))),
        (b"1:3,5", InSet(sequence_set(b"1:3,5"), by_uid=False)),
        (b"*", InSet(sequence_set(b"*"), by_uid=False)),
        (b"UID 7:*", InSet(sequence_set(b"7:*"), by_uid=True)),
        (b"LARGER 100", Larger(100)),
        (b"MODSEQ 0", ModSeq(0)),
        (b"modseq 9223372036854775807", ModSeq(2**63 - 1)),
        (b'MODSEQ "/flags/\\\\draft" all 620162338', ModSeq(620_162_338)),
        (b'MODSEQ "/flags/x" priv 7', ModSeq(7)),
        (b"SMALLER 0", Smaller(0)),
        (b"BEFORE 1-Feb-1994", Received(Compare.BEFORE, DAY)),
        (b'ON "01-FEB-1994"', Received(Compare.ON, DAY)),
        (b"SINCE 01-feb-1994", Received(Compare.SINCE, DAY)),
        (b"SENTBEFORE 1-Feb-1994", Sent(Compare.BEFORE, DAY)),
        (b"SENTON 1-Feb-1994", Sent(Compare.ON, DAY)),
        (b"SENTSINCE 1-Feb-1994", Sent(Compare.SINCE, DAY)),
        (b"BCC a", HeaderHas("bcc", "a")),
        (b"CC a", HeaderHas("cc", "a")),
        (b'FROM "Ann Smith"', HeaderHas("from", "Ann Smith")),
        (b'SUBJECT ""', HeaderHas("subject", "")),
        (b"TO {3+}\r\na b", HeaderHas("to", "a b")),
        (b'HEADER Message-ID "<a@b>"', HeaderHas("message-id", "<a@b>")),
        (b"BODY x", BodyHas("x")),
        (b"TEXT x", TextHas("x")),
        (b"NOT SEEN", Not(SEEN)),
        (b"NOT UNSEEN", SEEN),
        (b"OR SEEN DRAFT", Or((SEEN, HasFlag(SystemFlag.DRAFT)))),
        (b"(SEEN)", SEEN),
        (b"SEEN SMALLER 5", And((SEEN, Smaller(5)))),
        # RFC 3501 §6.4.4, the examples
        (
            b'FLAGGED SINCE 1-Feb-1994 NOT FROM "Smith"',
            And((HasFlag(SystemFlag.FLAGGED), Received(Compare.SINCE, DAY), Not(HeaderHas("from", "Smith")))),
        ),
        (b"CHARSET UTF-8 TEXT {6+}\r\n\xd0\xbc\xd0\xb8\xd1\x80", TextHas("мир")),
        # Charsets
        (b"CHARSET us-ascii SUBJECT a", HeaderHas("subject", "a")),
        (b'charset "KOI8-R" SUBJECT {3+}\r\n\xcd\xc9\xd2', HeaderHas("subject", "мир")),
        (b"CHARSET ISO-8859-1 SUBJECT {1+}\r\n\xe4", HeaderHas("subject", "ä")),
        (b"CHARSET ISO-2022-JP SUBJECT {8+}\r\n\x1b$BF|\x1b(B", HeaderHas("subject", "日")),
        (b'SUBJECT "\xc3\xa4"', HeaderHas("subject", "ä")),
    ],
)
def test_keys(text: bytes, key: SearchKey) -> None:
    assert read(text) == key


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b"((SEEN) (SMALLER 5 (LARGER 1)))", And((SEEN, Smaller(5), Larger(1)))),
        (b"OR SEEN OR SMALLER 5 LARGER 1", Or((SEEN, Smaller(5), Larger(1)))),
        (b"OR OR SEEN SMALLER 5 LARGER 1", Or((SEEN, Smaller(5), Larger(1)))),
        (b"OR (SEEN ALL) (OR SMALLER 5 LARGER 1)", Or((And((SEEN, Everything())), Smaller(5), Larger(1)))),
        (b"NOT NOT SEEN", SEEN),
        (b"NOT NOT NOT SEEN", Not(SEEN)),
        (b"NOT (NOT (SEEN ALL)) ALL", And((SEEN, Everything(), Everything()))),
        (b"NOT (SEEN ALL) ALL", And((Not(And((SEEN, Everything()))), Everything()))),
        (b"NEW SEEN", And((IsRecent(), Not(SEEN), SEEN))),
        (b"NOT NEW", Not(And((IsRecent(), Not(SEEN))))),
        (b"NOT OR SEEN ALL NOT SEEN", And((Not(Or((SEEN, Everything()))), Not(SEEN)))),
    ],
)
def test_nesting_that_means_nothing_is_dissolved(text: bytes, key: SearchKey) -> None:
    assert read(text) == key


@pytest.mark.parametrize(
    "text",
    [
        b"()",
        b"(",
        b")",
        b"(SEEN",
        b"SEEN)",
        b"( SEEN)",
        b"(SEEN )",
        b"SEEN,DRAFT",
        b"NOT",
        b"NOT ",
        b"OR",
        b"OR SEEN",
        b"OR SEEN ",
        b"OR (SEEN DRAFT)",
        b"NOT(SEEN)",
        b"FOO",
        b"SUBJECT",
        b"SUBJECT ",
        b"HEADER a",
        b"HEADER a ",
        b"KEYWORD",
        b"KEYWORD (a)",
        b"KEYWORD \\Seen",
        b"UID",
        b"UID a",
        b"0",
        b"1:",
        b"LARGER",
        b"LARGER -1",
        b"LARGER 4294967296",
        b"LARGER a",
        b"ON",
        b"ON 1-Foo-1994",
        b"ON 31-Feb-1994",
        b"ON 0-Feb-1994",
        b"ON 1-Feb-0000",
        b"ON 1-Feb-94",
        b'ON "1-Feb-1994',
        b"ON 1.2.1994",
        b"ON 001-Feb-1994",
        b"CHARSET",
        b"CHARSET UTF-8",
        b"CHARSET UTF-8 ",
        b"SEEN CHARSET UTF-8",
        b"SUBJECT {1+}\r\n\xff",
        b"CHARSET US-ASCII SUBJECT {1+}\r\n\xe4",
        b"CHARSET UTF-16 SUBJECT a",
        b"SUBJECT {1+}\r\n\0",
        b"SEEN  DRAFT",
    ],
)
def test_rubbish(text: bytes) -> None:
    with pytest.raises(BadSyntax) as caught:
        read(text)
    assert caught.value.tag == "t"


@pytest.mark.parametrize(
    "name", [b"X", b"base64", b"rot13", b"zlib", b"idna", b"punycode", b"unicode_escape", b"../x", b"os", b'""']
)
def test_charsets_that_are_none(name: bytes) -> None:
    with pytest.raises(Refused) as caught:
        read(b"CHARSET " + name + b" SEEN")
    assert caught.value.code.startswith("BADCHARSET")


def depth(key: SearchKey) -> int:
    if isinstance(key, And | Or):
        return 1 + max(map(depth, key.keys))
    return 1 + depth(key.key) if isinstance(key, Not) else 1


def test_parentheses_ten_thousand_deep() -> None:
    assert read(b"(" * 10_000 + b"SEEN" + b")" * 10_000) == SEEN
    for text in (b"(" * 10_000, b"(" * 10_000 + b"SEEN", b"(" * 9_999 + b"SEEN" + b")" * 10_000):
        with pytest.raises(BadSyntax):
            read(text)


@pytest.mark.parametrize(
    "text",
    [
        b"(ALL " * 10_000 + b"OR SEEN DRAFT" + b")" * 10_000,
        b"NOT " * 20_000 + b"SEEN",
        b"OR SEEN " * 20_000 + b"DRAFT",
        b"OR " * 20_000 + b"SEEN" + b" DRAFT" * 20_000,
        b"NOT (" * 10_000 + b"SEEN DRAFT" + b")" * 10_000,
        b"SEEN " * 20_000 + b"DRAFT",
        b"NOT (NOT (" * 2_000 + b"SEEN " * 10_000 + b"DRAFT" + b"))" * 2_000,
    ],
)
def test_long_programs_are_flat_and_quickly_read(text: bytes) -> None:
    started = time.process_time()
    assert depth(read(text)) <= 3
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "text",
    [
        b"OR SEEN (ALL " * 10_000 + b"DRAFT" + b")" * 10_000,
        b"NOT (ALL " * 10_000 + b"DRAFT" + b")" * 10_000,
        b"OR ALL NOT " * 10_000 + b"SEEN",
    ],
)
def test_trees_that_are_truly_deep_are_refused(text: bytes) -> None:
    started = time.process_time()
    with pytest.raises(BadSyntax, match="deep"):
        read(text)
    assert time.process_time() - started < 2


def test_the_deepest_tree_that_is_not_refused() -> None:
    text = b"SEEN"
    for _ in range(MAX_DEPTH // 2 - 1):
        text = b"OR ALL (ALL " + text + b")"
    assert MAX_DEPTH - 3 < depth(read(text)) <= MAX_DEPTH


# A tree is written, read and compared by what it says about every combination of three flags.

LEAVES = st.sampled_from(["SEEN", "UNSEEN", "DRAFT", "FLAGGED", "UNFLAGGED", "ALL"])
TREES = st.recursive(
    LEAVES,
    lambda tree: st.one_of(
        tree.map(lambda a: ("NOT", a)),
        st.tuples(tree, tree).map(lambda pair: ("OR", *pair)),
        st.lists(tree, min_size=1, max_size=3).map(lambda keys: ("AND", *keys)),
    ),
    max_leaves=12,
)


def written(tree: object) -> str:
    if isinstance(tree, str):
        return tree
    assert isinstance(tree, tuple)
    kind, *keys = tree
    texts = [written(key) for key in keys]
    return "(" + " ".join(texts) + ")" if kind == "AND" else " ".join([kind, *texts])


def says(tree: object, flags: int) -> bool:
    if isinstance(tree, str):
        return tree == "ALL" or bool(flags & SystemFlag[tree.removeprefix("UN")]) != tree.startswith("UN")
    assert isinstance(tree, tuple)
    kind, *keys = tree
    values = [says(key, flags) for key in keys]
    return not values[0] if kind == "NOT" else any(values) if kind == "OR" else all(values)


def key_says(key: SearchKey, flags: int) -> bool:
    match key:
        case Everything():
            return True
        case HasFlag(flag):
            return bool(flags & flag)
        case Not(inner):
            assert not isinstance(inner, Not)
            return not key_says(inner, flags)
        case And(keys) | Or(keys):
            assert len(keys) > 1
            assert not any(type(inner) is type(key) for inner in keys)
            return (all if isinstance(key, And) else any)([key_says(inner, flags) for inner in keys])
    raise AssertionError(key)


@settings(derandomize=True, max_examples=500, deadline=None)
@given(TREES)
def test_the_tree_means_what_was_written(tree: object) -> None:
    key = read(written(tree).encode())
    for flags in range(32):
        assert key_says(key, flags) == says(tree, flags)
