"""Plans without a store: what pages decide, against each message asked one by one; what each level can say."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.search_plan import Facts, Level, Plan, positions, term
from mailserver.imap.search_text import FieldsLook, Look
from mailserver.imap.view import Recent
from mailserver.protocols.imap.commands import Search
from mailserver.protocols.imap.framing import Framed
from mailserver.protocols.imap.parse import parse
from storage import Brief, Mailbox, MailboxId, MessageId
from storage.pages import Page, Snapshot
from storage.records import AccountId

DAY = 86_400
NOON = int(datetime(2024, 2, 1, 12, tzinfo=UTC).timestamp())


def mailbox(*keywords: str) -> Mailbox:
    return Mailbox(AccountId(1), MailboxId(1), ("INBOX",), 1, 999, 1, 1, 0, 1, None, keywords, 0, 0, 0, 0, 0)


def snapshot(messages: list[tuple[int, int, int, int]], *keywords: str) -> Snapshot:
    """messages: UID, flags, size, received."""
    pages: dict[int, list[tuple[int, int, int, int]]] = {}
    for message in messages:
        pages.setdefault(message[0] >> 6, []).append(message)
    return Snapshot(
        mailbox(*keywords),
        [
            Page(number, 1, uids, uids, flags, [1] * len(uids), sizes, received, received)
            for number, rows in pages.items()
            for uids, flags, sizes, received in [zip(*rows, strict=True)]
        ],
    )


def plan(text: str, on: Snapshot, recent: Recent | None = None) -> Plan:
    command = parse(Framed((b"t SEARCH " + text.encode(),)))
    assert isinstance(command, Search)
    return Plan(command.key, on, recent or Recent())


def seqs(text: str, on: Snapshot, recent: Recent | None = None) -> list[int]:
    """What pages alone find; they must decide everything."""
    made = plan(text, on, recent)
    assert made.root.level is Level.PAGES
    found = []
    for stretch in made.stretches():
        surely, possibly = made.root.look(stretch)
        assert surely == possibly
        found += [stretch.first + at for at in positions(surely)]
    return found


BOX = snapshot(
    [
        (3, 0, 100, NOON - DAY),
        (5, 1, 200, NOON),
        (6, 1 | 4, 300, NOON + DAY),
        (70, 32, 400, NOON),
        (71, 8 | 64, 500, NOON + 2 * DAY),
    ],
    "$Junk",
    "Work",
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ALL", [1, 2, 3, 4, 5]),
        ("SEEN", [2, 3]),
        ("UNSEEN", [1, 4, 5]),
        ("FLAGGED SEEN", [3]),
        ("OR FLAGGED DELETED", [3, 5]),
        ("NOT OR FLAGGED DELETED", [1, 2, 4]),
        ("KEYWORD $junk", [4]),
        ("KEYWORD WORK", [5]),
        ("UNKEYWORD work", [1, 2, 3, 4]),
        ("KEYWORD unknown", []),
        ("UNKEYWORD unknown", [1, 2, 3, 4, 5]),
        ("2:3,5", [2, 3, 5]),
        ("*", [5]),
        ("4:*", [4, 5]),
        ("900:*", [5]),
        ("900", []),
        ("900:1000", []),
        ("UID 4:70", [2, 3, 4]),
        ("UID 900:*", [5]),
        ("UID 900", []),
        ("UID 1:4,7:69", [1]),
        ("NOT UID 5", [1, 3, 4, 5]),
        ("LARGER 300", [4, 5]),
        ("SMALLER 300", [1, 2]),
        ("SMALLER 0", []),
        ("ON 1-Feb-2024", [2, 4]),
        ("BEFORE 1-Feb-2024", [1]),
        ("SINCE 2-Feb-2024", [3, 5]),
        ("NOT SINCE 2-Feb-2024", [1, 2, 4]),
        ("RECENT", [4, 5]),
        ("OLD", [1, 2, 3]),
        ("NEW", [4, 5]),
        ("NEW SMALLER 450", [4]),
    ],
)
def test_what_pages_decide(text: str, found: list[int]) -> None:
    recent = Recent()
    recent.add(7, 100)
    assert seqs(text, BOX, recent) == found


@pytest.mark.parametrize("text", ["ALL", "1:*", "*", "UID 1:*", "UNSEEN", "NOT SEEN", "RECENT", "BEFORE 1-Feb-2024"])
def test_an_empty_mailbox(text: str) -> None:
    assert seqs(text, snapshot([])) == []


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    st.sets(st.integers(1, 500), max_size=120),
    st.lists(st.sampled_from(["SEEN", "NOT SEEN", "1:40", "UID 30:300", "OR 1:3 UID 200:*", "NOT 20:*"]), min_size=1),
)
def test_sets_and_flags_against_one_by_one(uids: set[int], keys: list[str]) -> None:
    messages = [(uid, uid % 2, uid, NOON) for uid in sorted(uids)]
    on = snapshot(messages)
    count, top = len(uids), max(uids, default=0)

    def holds(key: str, seq: int, uid: int) -> bool:
        return {
            "SEEN": uid % 2 == 1,
            "NOT SEEN": uid % 2 == 0,
            "1:40": seq <= 40,
            "UID 30:300": 30 <= uid <= 300,
            "OR 1:3 UID 200:*": seq <= 3 or uid >= min(200, top),
            "NOT 20:*": seq < min(20, count),
        }[key]

    expected = [seq for seq, uid in enumerate(sorted(uids), 1) if all(holds(key, seq, uid) for key in keys)]
    assert seqs(" ".join(keys), on) == expected


def test_positions() -> None:
    assert positions(0) == []
    assert positions(0b1001101) == [0, 2, 3, 6]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("Hello", "hello"),
        ("a \t\r\n b", "a b"),
        (" a", " a"),
        ("a\n", "a "),
        ("  ", " "),
        ("a\u00a0b", "a b"),
        ("ﬁn", "fin"),
        ("STRAßE", "strasse"),
    ],
)
def test_terms(text: str, wanted: str) -> None:
    assert term(text) == wanted


# Levels


def row(sent: int) -> Brief:
    return Brief(MessageId(1), b"", 1, sent)


def decide(text: str, facts: Facts) -> bool | None:
    made = plan(text, BOX)
    for stretch in made.stretches():
        made.root.look(stretch)
    if facts.header is not None:
        assert FieldsLook(made, facts).go_on(60)
    return made.root.decide(facts)


def look(text: str, facts: Facts, octets: bytes) -> None:
    made = plan(text, BOX)
    for stretch in made.stretches():
        made.root.look(stretch)
    assert Look(made, facts, octets).go_on(60)


@pytest.mark.parametrize(
    ("text", "date_field", "sent", "early", "late"),
    [
        # By the summary where the day is far; by the field, in its own zone, where it is near.
        ("SENTON 1-Feb-2024", "Thu, 1 Feb 2024 23:30:00 -0800", NOON + DAY, None, True),
        ("SENTON 2-Feb-2024", "Thu, 1 Feb 2024 23:30:00 -0800", NOON + DAY, None, False),
        ("SENTON 1-Feb-2024", "Fri, 1 Mar 2024 12:00:00 +0000", NOON + 29 * DAY, False, False),
        ("SENTBEFORE 1-Feb-2024", "Thu, 1 Feb 2024 00:30:00 +0200", NOON - DAY, None, False),
        ("SENTBEFORE 1-Feb-2024", "Thu, 1 Jan 2024 00:30:00 +0200", NOON - 31 * DAY, True, True),
        ("SENTSINCE 1-Feb-2024", "Thu, 1 Feb 2024 00:30:00 +0200", NOON - DAY, None, True),
        ("SENTSINCE 1-Feb-2024", "Sat, 1 Feb 2025 00:30:00 +0200", NOON + 365 * DAY, True, True),
        # Without a usable date it is the day of arrival, which is what the summary has.
        ("SENTON 1-Feb-2024", "yesterday", NOON, None, True),
        ("SENTON 2-Feb-2024", "", NOON, None, False),
    ],
)
def test_sent(text: str, date_field: str, sent: int, early: bool | None, late: bool) -> None:
    facts = Facts(0, row(sent))
    assert decide(text, facts) is early
    facts.header = b"Date: " + date_field.encode() + b"\r\n\r\n"
    assert decide(text, facts) is late


MESSAGE = (
    "Received: from a by b\r\n"
    "From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\n"
    "To: Ann\r\n <ann@example.com>, bob@example.com\r\n"
    "Subject: Re:  the   quick\r\n\tbrown fox\r\n"
    "X-Empty:\r\n"
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n"
    "preamble\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\nSubject: inner\r\n\r\n"
    "Der Straße\r\nentlang\r\n--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    "PGI+Ym9sZDwvYj4gdGV4dA==\r\n--b--\r\n"
).encode()


@pytest.mark.parametrize(
    ("text", "matches", "level"),
    [
        ("SUBJECT quick", True, Level.HEADER),
        ('SUBJECT "the quick brown FOX"', True, Level.HEADER),
        ("SUBJECT inner", False, Level.HEADER),
        ('SUBJECT ""', True, Level.HEADER),
        ('CC ""', False, Level.HEADER),
        ('FROM "JÜRGEN"', True, Level.HEADER),
        ("FROM j@example.org", True, Level.HEADER),
        ("FROM ann", False, Level.HEADER),
        ('TO "Ann <ann"', True, Level.HEADER),
        ("TO bob", True, Level.HEADER),
        ('HEADER x-empty ""', True, Level.HEADER),
        ("HEADER X-Empty a", False, Level.HEADER),
        ('HEADER X-Absent ""', False, Level.HEADER),
        ('HEADER "to: ann" "<"', False, Level.HEADER),
        ('HEADER "" quick', False, Level.HEADER),
        ('HEADER ubject ""', False, Level.HEADER),
        ('NOT HEADER X-Absent ""', True, Level.HEADER),
        ("TEXT quick", True, Level.TEXT),
        ("TEXT inner", True, Level.TEXT),
        ('BODY "STRASSE ENTLANG"', True, Level.TEXT),
        ('BODY "bold text"', True, Level.TEXT),
        ("BODY quick", False, Level.TEXT),
        ("TEXT bold", True, Level.TEXT),
        ("TEXT nowhere", False, Level.TEXT),
        ('BODY ""', True, Level.TEXT),
        ("NOT BODY bold", False, Level.TEXT),
        ("OR SUBJECT quick BODY nowhere", True, Level.HEADER),
        ("SUBJECT quick BODY bold", True, Level.TEXT),
        ("SUBJECT slow BODY bold", False, Level.HEADER),
        ("DELETED BODY bold", False, Level.PAGES),
        ("OR 1 BODY bold", True, Level.PAGES),
    ],
)
def test_the_level_at_which_a_message_is_decided(text: str, matches: bool, level: Level) -> None:
    facts = Facts(0, row(NOON))
    answers = [decide(text, facts)]
    facts.header = MESSAGE[: MESSAGE.index(b"\r\n\r\n") + 4]
    answers.append(decide(text, facts))
    look(text, facts, MESSAGE)
    answers.append(decide(text, facts))
    expected_from = {Level.PAGES: 0, Level.HEADER: 1, Level.TEXT: 2}[level]
    assert answers == [None] * expected_from + [matches] * (3 - expected_from)


def test_cheap_keys_come_first() -> None:
    made = plan("BODY x SUBJECT y SENTON 1-Feb-2024 SEEN", BOX)
    assert [node.level for node in made.root._nodes] == sorted(node.level for node in made.root._nodes)  # type: ignore[attr-defined]
    assert (made.sent, [*made.fields], len(made.texts)) == (True, [b"subject"], 1)


def test_a_large_mailbox_is_looked_at_in_slices_of_some_milliseconds() -> None:
    on = snapshot([(uid, uid & 31, uid, NOON + uid) for uid in range(1, 100_001)])
    for text in ("UNSEEN", "OR SEEN NOT (DRAFT SINCE 1-Feb-2024)", " ".join(f"SMALLER {n}" for n in range(1, 3000))):
        made = plan(text, on)
        slowest = 0.0
        for stretch in made.stretches():
            started = time.process_time()
            made.root.look(stretch)
            slowest = max(slowest, time.process_time() - started)
            if made.keys > 1000 and stretch.first > 1000:
                break
        assert slowest < 0.1


def test_days_are_utc() -> None:
    on = snapshot([(1, 0, 1, int(datetime(2024, 2, 1, tzinfo=UTC).timestamp()) - 1)])
    assert seqs("ON 31-Jan-2024", on) == [1]
    assert date(2024, 1, 31).toordinal()
