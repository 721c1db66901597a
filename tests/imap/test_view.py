"""A session's view against a naive model, and the rules of RFC 3501 §7.3–§7.4 one by one."""

from __future__ import annotations

import re
from dataclasses import replace
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap import view
from mailserver.imap.view import NOTHING, Memo, NoSuchMessage, SessionView, compare
from mailserver.protocols.imap import sequence_set
from storage.pages import PAGE_BITS, Page, Snapshot
from storage.records import AccountId, Mailbox, MailboxId

MAILBOX = Mailbox(AccountId(1), MailboxId(2), ("x",), 7, 1, 1, 1, 0, 1, None, (), 0, 0, 0, 0, 0)


class Server:
    """A mailbox as its truth: UIDs and flags, and the snapshots that storage would make of it."""

    def __init__(self, *uids: int) -> None:
        self.flags = dict.fromkeys(uids, 0)
        self.modseqs = dict.fromkeys(uids, 1)
        self.next = max(uids, default=0) + 1
        self.modseq = 1
        self.snapshot = Snapshot(MAILBOX, [self.page(n) for n in sorted({uid >> PAGE_BITS for uid in uids})])

    def page(self, number: int) -> Page:
        uids = [uid for uid in self.flags if uid >> PAGE_BITS == number]
        zeros = [0] * len(uids)
        flags, modseqs = [self.flags[uid] for uid in uids], [self.modseqs[uid] for uid in uids]
        return Page(number, self.modseq, uids, uids, flags, modseqs, zeros, zeros, zeros)

    def publish(self, touched: set[int]) -> None:
        self.modseq += 1
        pages = [self.page(number) for number in sorted(touched)]
        gone = [page.number for page in pages if not len(page)]
        self.snapshot = self.snapshot.replaced(MAILBOX, [page for page in pages if len(page)], gone)

    def deliver(self, gaps: list[int]) -> None:
        touched = set()
        for gap in gaps:
            self.next += gap
            self.flags[self.next] = 0
            self.modseqs[self.next] = self.modseq + 1
            touched.add(self.next >> PAGE_BITS)
            self.next += 1
        self.publish(touched)

    def store(self, uids: set[int], bits: int) -> None:
        changed = {uid for uid in uids if self.flags[uid] != bits}
        self.flags.update(dict.fromkeys(changed, bits))
        self.modseqs.update(dict.fromkeys(changed, self.modseq + 1))
        self.publish({uid >> PAGE_BITS for uid in changed})

    def expunge(self, uids: set[int]) -> None:
        for uid in uids:
            del self.flags[uid]
        self.publish({uid >> PAGE_BITS for uid in uids})


def _groups(pattern: bytes, text: bytes) -> tuple[bytes, ...]:
    match = re.fullmatch(pattern, text)
    assert match is not None, text
    return match.groups()


class Client:
    """What a client makes of the lines: [UID, flags, MODSEQ] a sequence number, UIDs as the view numbers them."""

    FLAGS = {b"": 0, b"\\Answered": 2, b"\\Seen": 1, b"\\Answered \\Seen": 3}

    def __init__(self, server: Server, memo: Memo) -> None:
        self.view = SessionView(server.snapshot, memo)
        self.known = [[uid, bits, server.modseqs[uid]] for uid, bits in server.flags.items()]

    def look(self, server: Server, *, expunge_ok: bool) -> list[bytes]:
        changes = self.view.advance(server.snapshot, expunge_ok=expunge_ok)
        lines = b"".join([*changes.head(), *changes.flag_lines((), self.view.recent, modseq=True)]).splitlines()
        for line in lines:
            self.hear(line, expunge_ok)
        return lines

    def hear(self, line: bytes, expunge_ok: bool) -> None:
        number, word, rest = _groups(rb"\* (\d+) (\S+) ?(.*)", line)
        seq = int(number)
        if word == b"EXPUNGE":
            assert expunge_ok
            del self.known[seq - 1]
        elif word == b"EXISTS":
            assert seq > len(self.known)
            for new in range(len(self.known) + 1, seq + 1):
                entry = self.view.snapshot.at(new)
                self.known.append([entry.uid, entry.flags, entry.modseq])
        else:
            uid, modseq, text = _groups(rb"\(UID (\d+) MODSEQ \((\d+)\) FLAGS \((.*)\)\)", rest)
            assert self.known[seq - 1][0] == int(uid)
            assert self.known[seq - 1][2] < int(modseq), "told of flags that it knew"
            self.known[seq - 1][1:] = [self.FLAGS[text], int(modseq)]


@st.composite
def histories(draw):
    uids = draw(st.sets(st.integers(1, 400), max_size=60))
    steps = draw(
        st.lists(
            st.one_of(
                st.tuples(st.just("deliver"), st.lists(st.integers(0, 90), min_size=1, max_size=5)),
                st.tuples(st.just("store"), st.lists(st.integers(0, 200), max_size=12), st.integers(0, 3)),
                st.tuples(st.just("expunge"), st.lists(st.integers(0, 200), max_size=12)),
                st.tuples(st.just("expunge run"), st.integers(0, 200), st.integers(1, 120)),
                st.tuples(st.just("look"), st.integers(0, 2), st.booleans()),
            ),
            max_size=30,
        )
    )
    return sorted(uids), steps


@settings(max_examples=300, deadline=None)
@given(histories())
def test_clients_know_what_the_mailbox_holds(history):
    uids, steps = history
    server, memo = Server(*uids), Memo()
    clients = [Client(server, memo) for _ in range(3)]
    for name, *arguments in steps:
        here = sorted(server.flags)
        if name == "deliver":
            server.deliver(arguments[0])
        elif name == "store" and here:
            server.store({here[i % len(here)] for i in arguments[0]}, arguments[1])
        elif name == "expunge" and here:
            server.expunge({here[i % len(here)] for i in arguments[0]})
        elif name == "expunge run":
            server.expunge(set(here[arguments[0] : arguments[0] + arguments[1]]))
        elif name == "look":
            check_look(clients[arguments[0]], server, expunge_ok=arguments[1])
    for client in clients:
        check_look(client, server, expunge_ok=True)


def check_look(client: Client, server: Server, *, expunge_ok: bool) -> None:
    before = [list(row) for row in client.known]
    client.look(server, expunge_ok=expunge_ok)
    if expunge_ok:
        expected = [[uid, bits, server.modseqs[uid]] for uid, bits in server.flags.items()]
    else:
        last = before[-1][0] if before else 0
        expected = [
            [uid, server.flags[uid], server.modseqs[uid]] if uid in server.flags else [uid, *known]
            for uid, *known in before
        ]
        expected += [[uid, bits, server.modseqs[uid]] for uid, bits in server.flags.items() if uid > last]
    assert client.known == expected
    assert client.view.snapshot.uids() == [row[0] for row in expected]
    assert client.look(server, expunge_ok=expunge_ok) == []


def test_expunges_come_highest_first_then_exists_then_flags():
    server = Server(1, 2, 3, 4, 5)
    client = Client(server, Memo())
    server.expunge({2, 4})
    server.store({5}, 1)
    server.deliver([0])
    assert client.look(server, expunge_ok=True) == [
        b"* 4 EXPUNGE",
        b"* 2 EXPUNGE",
        b"* 4 EXISTS",
        b"* 3 FETCH (UID 5 MODSEQ (3) FLAGS (\\Seen))",
    ]


def test_ghosts_keep_their_numbers_until_expunge_is_legal():
    server = Server(1, 2, 3)
    client = Client(server, Memo())
    server.expunge({1})
    assert client.look(server, expunge_ok=False) == []
    server.store({2}, 1)
    server.deliver([0])
    assert client.look(server, expunge_ok=False) == [b"* 4 EXISTS", b"* 2 FETCH (UID 2 MODSEQ (3) FLAGS (\\Seen))"]
    assert client.view.snapshot.uids() == [1, 2, 3, 4]
    assert client.look(server, expunge_ok=True) == [b"* 1 EXPUNGE"]


def test_what_came_and_went_is_not_mentioned():
    server = Server(1)
    client = Client(server, Memo())
    server.deliver([0, 70])
    server.expunge({2, 73})
    assert client.look(server, expunge_ok=True) == []


def test_sessions_with_the_same_past_share_the_comparison_and_the_octets():
    server, memo = Server(*range(1, 200)), Memo()
    clients = [Client(server, memo) for _ in range(3)]
    server.expunge({150})
    server.store({10}, 1)
    found = [client.view.advance(server.snapshot, expunge_ok=True) for client in clients]
    assert found[0] is found[1] is found[2]
    assert next(found[0].head()) is next(found[1].head())
    lines = [next(c.flag_lines((), client.view.recent, modseq=False)) for c, client in zip(found, clients, strict=True)]
    assert lines[0] is lines[1]


def test_ghosts_are_shared_too():
    server, memo = Server(1, 2, 3), Memo()
    clients = [Client(server, memo) for _ in range(2)]
    server.expunge({2})
    for client in clients:
        client.look(server, expunge_ok=False)
    assert clients[0].view.snapshot is clients[1].view.snapshot


def test_the_same_snapshot_is_nothing_new():
    server = Server(1)
    session = SessionView(server.snapshot, Memo())
    assert session.advance(server.snapshot, expunge_ok=True) is NOTHING
    assert not NOTHING


def test_new_keywords_are_told():
    server = Server(1)
    later = server.snapshot.replaced(replace(MAILBOX, keywords=("$Junk",)), [])
    changes = compare(server.snapshot, later)
    assert changes.keywords == ("$Junk",)
    assert changes
    assert compare(server.snapshot, server.snapshot).keywords is None


def test_recent_is_the_session_s_own():
    server, memo = Server(1, 2), Memo()
    mine, other = Client(server, memo), Client(server, memo)
    mine.view.recent.add(2, 3)
    assert mine.view.recent.count(server.snapshot) == 1
    server.store({1, 2}, 1)
    changes = mine.view.advance(server.snapshot, expunge_ok=True)
    assert b"".join(changes.flag_lines((), mine.view.recent, modseq=False)) == (
        b"* 1 FETCH (UID 1 FLAGS (\\Seen))\r\n* 2 FETCH (UID 2 FLAGS (\\Seen \\Recent))\r\n"
    )
    assert other.look(server, expunge_ok=True)[1] == b"* 2 FETCH (UID 2 MODSEQ (2) FLAGS (\\Seen))"
    server.expunge({2})
    assert mine.view.recent.count(server.snapshot) == 0
    assert mine.view.recent.touches(2, 5)
    assert not mine.view.recent.touches(3, 5)
    assert mine.view.recent.covers(2, 2) and not mine.view.recent.covers(1, 2)


@pytest.mark.parametrize(
    ("text", "by_uid", "expected"),
    [
        (b"1:*", False, [(1, 4)]),
        (b"*", False, [(4, 4)]),
        (b"2,4", False, [(2, 2), (4, 4)]),
        (b"1:*", True, [(1, 4)]),
        (b"10:20", True, [(1, 2)]),
        (b"11:19", True, []),
        (b"15,200", True, [(4, 4)]),
        (b"999:*", True, [(4, 4)]),
        (b"70,20", True, [(2, 3)]),
        (b"5", False, NoSuchMessage),
        (b"2:5", False, NoSuchMessage),
        (b"9:*", False, NoSuchMessage),
    ],
)
def test_sets_become_runs_of_sequence_numbers(text, by_uid, expected):
    session = SessionView(Server(10, 20, 70, 200).snapshot, Memo())
    if expected is NoSuchMessage:
        with pytest.raises(NoSuchMessage):
            session.ranges(sequence_set.parse(text), by_uid)
        return
    found = session.ranges(sequence_set.parse(text), by_uid)
    flat = [seq for first, last in found for seq in range(first, last + 1)]
    assert flat == [seq for first, last in expected for seq in range(first, last + 1)]
    assert session.uids(found) == [[10, 20, 70, 200][seq - 1] for seq in flat]


def test_an_empty_mailbox_has_no_last_message():
    session = SessionView(Server().snapshot, Memo())
    with pytest.raises(NoSuchMessage):
        session.ranges(sequence_set.parse(b"*"), False)
    assert session.ranges(sequence_set.parse(b"1:*"), True) == []


def test_unchanged_pages_are_not_looked_at(monkeypatch):
    server = Server(*range(1, 64 * 300 - 1))
    before = server.snapshot
    server.store({64 * 100 + 3}, 1)
    server.deliver([0])
    looked: list[int] = []
    real = view._compare_page

    def compare_page(before: Page, start: int, after: Page, expunged: list[int]) -> list[int]:
        looked.append(before.number)
        return real(before, start, after, expunged)

    monkeypatch.setattr(view, "_compare_page", compare_page)
    compare(before, server.snapshot)
    assert looked == [100, 299]


def test_what_has_changed_since_is_told_in_runs() -> None:
    server = Server(*range(1, 200))
    session = SessionView(server.snapshot, Memo())
    server.store(set(range(60, 70)) | {3, 199}, 1)
    session.advance(server.snapshot, expunge_ok=True)
    assert session.changed([(1, 199)], 1) == [(3, 3), (60, 69), (199, 199)]
    assert session.changed([(62, 64), (65, 66), (68, 199)], 1) == [(62, 66), (68, 69), (199, 199)]
    assert session.changed([(1, 199)], 2) == []


def test_comparisons_are_kept_no_longer_than_what_they_compare() -> None:
    server, memo = Server(1, 2, 3), Memo()
    clients = [Client(server, memo) for _ in range(2)]
    old = ref(server.snapshot)
    server.expunge({2})
    clients[0].look(server, expunge_ok=True)
    assert old() is clients[1].view.snapshot
    assert clients[0].view.snapshot is server.snapshot
    clients[1].look(server, expunge_ok=True)
    assert old() is None
    passed = ref(server.snapshot)
    server.store({1}, 1)
    lagging = clients[1].view.snapshot
    clients[0].look(server, expunge_ok=True)
    assert passed() is lagging
    del lagging
    clients[1].look(server, expunge_ok=True)
    assert passed() is None


def test_ghosts_of_which_nothing_is_known_are_left_out() -> None:
    page = Page(0, 4, [1, 2, 3], [1, 0, 3], [0, 0, 0], [2, 0, 4], *[[0, 0, 0]] * 3)
    old = Snapshot(MAILBOX, [])
    old.unfold([page], vague=True)
    session = SessionView(old, Memo())
    now = Snapshot(MAILBOX, [Page(0, 5, [1, 3], [1, 3], [0, 0], [2, 4], *[[0, 0]] * 3)])
    assert not session.advance(now, expunge_ok=False)
    assert session.snapshot.vague and session.snapshot.uids() == [1, 2, 3]
    assert session.known([(1, 3)]) == [(1, 1), (3, 3)]
    assert session.advance(now, expunge_ok=True).expunged == [2]
    assert session.known([(1, 2)]) == [(1, 2)]
