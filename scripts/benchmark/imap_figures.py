"""Mail out and about: what clients do all day, over one mailbox of a realistic mix, warm."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable

from benchmark.errors import BenchError
from benchmark.figures import Bench, Sample, Stopwatch, Target, figure, measured
from benchmark.imap_client import Answer, Client
from benchmark.messages import SEARCHED_WORD
from benchmark.parallel import Work, run_together
from benchmark.servers import PASSWORD, USERS

_MAILBOX = "Bench"
_LIST_VIEW = (
    "From To Cc Bcc Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To Content-Type Reply-To"
)
_ROUND_TRIPS = 500
_WARM_UP_CONNECTIONS = 20  # so that every worker has met the account and hashed its password
_PUSH_SECONDS = 30.0


@figure("connect, LOGIN, LOGOUT", Target("peer", must=1 / 8, aim=1 / 12), quick=True)
def imap_login(bench: Bench) -> Sample:
    def work() -> None:
        for _ in range(bench.sizes.logins):
            _client(bench).logout()

    _client(bench).logout()
    return measured(bench, bench.sizes.logins, "µs CPU", work)


@figure("SELECT", Target("peer", must=3.0, aim=1.5))
def imap_select(bench: Bench) -> Sample:
    return _round_trips(bench, f'SELECT "{_MAILBOX}"', 200)


@figure("NOOP in a selected mailbox")
def imap_noop(bench: Bench) -> Sample:
    return _round_trips(bench, "NOOP", _ROUND_TRIPS * 2)


@figure("STATUS of another mailbox")
def imap_status(bench: Bench) -> Sample:
    return _round_trips(bench, 'STATUS "INBOX" (MESSAGES UNSEEN UIDNEXT)', _ROUND_TRIPS)


@figure("FETCH 1:* (UID FLAGS), a message", Target("peer", must=1.0, aim=1 / 3), quick=True)
def imap_fetch_flags(bench: Bench) -> Sample:
    return _fetch(bench, "FETCH 1:* (UID FLAGS)")


@figure("FETCH 1:* ENVELOPE BODYSTRUCTURE …, a message", Target("peer", must=0.7, aim=0.5), quick=True)
def imap_fetch_envelope(bench: Bench) -> Sample:
    return _fetch(bench, "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)")


@figure("FETCH 1:* of Thunderbird's header fields, a message", Target("peer", must=1.2, aim=0.8), quick=True)
def imap_fetch_headers(bench: Bench) -> Sample:
    return _fetch(bench, f"UID FETCH 1:* (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS ({_LIST_VIEW})])")


@figure("FETCH 1:* of whole messages, a message", Target("peer", must=1.5, aim=1.1), quick=True)
def imap_fetch_bodies(bench: Bench) -> Sample:
    return _fetch(bench, "UID FETCH 1:* (UID BODY.PEEK[])")


@figure("FETCH of one whole message at a time")
def imap_fetch_one(bench: Bench) -> Sample:
    size = bench.sizes.mailbox_messages

    def work() -> None:
        for number in range(_ROUND_TRIPS):
            client.must(f"FETCH {number * 37 % size + 1} (UID BODY.PEEK[])")

    client = _selected(bench)
    return _closing(client, lambda: measured(bench, _ROUND_TRIPS, "µs CPU", work))


@figure("SEARCH SUBJECT, a message")
def imap_search_subject(bench: Bench) -> Sample:
    return _over_all(bench, "SEARCH SUBJECT invoice")


@figure("SEARCH TEXT, a message")
def imap_search_text(bench: Bench) -> Sample:
    return _over_all(bench, f"SEARCH TEXT {SEARCHED_WORD}")


@figure("STORE 1:* +FLAGS, then -FLAGS.SILENT, a message and change", Target("peer", must=1.5, aim=1.0), quick=True)
def imap_store(bench: Bench) -> Sample:
    def work() -> None:
        client.must("UID STORE 1:* +FLAGS (\\Flagged)")
        client.must("UID STORE 1:* -FLAGS.SILENT (\\Flagged)")

    client = _selected(bench)
    return _closing(client, lambda: measured(bench, 2 * bench.sizes.mailbox_messages, "µs CPU", work))


@figure("UID COPY 1:*, a message", Target("peer", must=1 / 10, aim=1 / 20), quick=True)
def imap_copy(bench: Bench) -> Sample:
    client = _selected(bench)
    client.fresh("Copy")
    return _closing(client, lambda: _command(bench, client, 'UID COPY 1:* "Copy"'))


@figure("UID MOVE 1:*, a message", Target("peer", must=1 / 10, aim=1 / 20))
def imap_move(bench: Bench) -> Sample:
    client = _with_copy(bench)
    client.fresh("Moved")
    return _closing(client, lambda: _command(bench, client, 'UID MOVE 1:* "Moved"'))


@figure("EXPUNGE of all, a message", Target("peer", must=1.5, aim=1.0), quick=True)
def imap_expunge(bench: Bench) -> Sample:
    client = _with_copy(bench)
    client.must("UID STORE 1:* +FLAGS.SILENT (\\Deleted)")
    return _closing(client, lambda: _command(bench, client, "EXPUNGE"))


@figure("APPEND, one client", quick=True)
def imap_append_1(bench: Bench) -> Sample:
    def work() -> None:
        for message in bench.messages[: bench.sizes.appends]:
            client.append("Append", message)

    client = _client(bench)
    client.fresh("Append")
    count = len(bench.messages[: bench.sizes.appends])
    return _closing(client, lambda: measured(bench, count, "µs CPU", work))


@figure("APPEND, 10 clients into 10 accounts")
def imap_append_10(bench: Bench) -> Sample:
    each = max(1, bench.sizes.appends // 5)

    def prepare(number: int) -> Work:
        client = _client(bench, USERS[number % len(USERS)])
        client.fresh("Append")
        return lambda: _append_some(client, bench.messages[number * each :][:each] or bench.messages[:each])

    watch = Stopwatch(bench)
    done = run_together(10, prepare, bench.sizes.seconds, watch.start)
    return watch.sample(10 * each, "µs CPU", elsewhere=done.client_seconds)


@figure("an idle authenticated connection with a mailbox selected, PSS", unit="KiB", quick=True, fresh=True)
def imap_idle_memory(bench: Bench) -> Sample:
    count = bench.sizes.idle_connections
    for client in [_idle(bench, "INBOX") for _ in range(_WARM_UP_CONNECTIONS)]:
        client.close()
    time.sleep(1)
    before, began = bench.server.meter.memory_octets(), time.monotonic()
    clients = [_idle(bench, "INBOX") for _ in range(count)]
    try:
        time.sleep(2)
        added = bench.server.meter.memory_octets() - before
    finally:
        for client in clients:
            client.close()
    return Sample(added / 1024 / count, count, time.monotonic() - began)


@figure("an APPEND seen by all idle connections, the last", unit="ms", quick=True)
def imap_push(bench: Bench) -> Sample:
    writer = _client(bench)
    writer.fresh("Push")
    clients = [_idle(bench, "Push") for _ in range(bench.sizes.push_connections)]
    try:
        time.sleep(1)
        began = time.monotonic()
        writer.append("Push", bench.messages[0])
        _await_exists(clients, began + _PUSH_SECONDS)
        seconds = time.monotonic() - began
    finally:
        for client in clients:
            client.close()
    writer.logout()
    return Sample(seconds * 1e3, len(clients), seconds)


def _await_exists(clients: list[Client], deadline: float) -> None:
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.fileno(), selectors.EVENT_READ, client)
        waiting = len(clients)
        while waiting:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise BenchError(f"{waiting} of {len(clients)} idle connections were not told")
            for key, _ in ready:
                if b"EXISTS" in key.data.receive_now():
                    selector.unregister(key.fd)
                    waiting -= 1


def _client(bench: Bench, user: str = USERS[0]) -> Client:
    return Client(bench.imap_port, user, PASSWORD, bench.sizes.seconds)


def _selected(bench: Bench) -> Client:
    """A session in the big mailbox, which is filled the first time."""
    client = _client(bench)
    if _MAILBOX not in bench.prepared:
        client.fresh(_MAILBOX)
        client.load(_MAILBOX, bench.messages)
        bench.prepared.add(_MAILBOX)
    client.must(f'SELECT "{_MAILBOX}"')
    return client


def _with_copy(bench: Bench) -> Client:
    """A session in a fresh copy of the big mailbox."""
    client = _selected(bench)
    client.fresh("Work")
    client.must('UID COPY 1:* "Work"')
    client.must('SELECT "Work"')
    return client


def _idle(bench: Bench, mailbox: str) -> Client:
    client = _client(bench)
    client.must(f'SELECT "{mailbox}"')
    client.idle()
    return client


def _append_some(client: Client, some: list[bytes]) -> None:
    for message in some:
        client.append("Append", message)


def _round_trips(bench: Bench, command: str, count: int) -> Sample:
    def work() -> None:
        for _ in range(count):
            client.must(command)

    client = _selected(bench)
    return _closing(client, lambda: measured(bench, count, "µs CPU", work))


def _fetch(bench: Bench, command: str) -> Sample:
    """The command several times after a first that is not counted; every answer must hold every message."""
    size = bench.sizes.mailbox_messages

    def once() -> Answer:
        answer = client.must(command)
        if answer.fetches != size:
            raise BenchError(f"{command[:40]}: {answer.fetches} answers for {size} messages")
        return answer

    def work() -> None:
        for _ in range(bench.sizes.repeats):
            once()

    client = _selected(bench)
    once()
    return _closing(client, lambda: measured(bench, size * bench.sizes.repeats, "µs CPU", work))


def _over_all(bench: Bench, command: str) -> Sample:
    client = _selected(bench)
    client.must(command)
    return _closing(client, lambda: _command(bench, client, command))


def _command(bench: Bench, client: Client, command: str) -> Sample:
    """One command over the whole mailbox."""

    def work() -> None:
        client.must(command)

    return measured(bench, bench.sizes.mailbox_messages, "µs CPU", work)


def _closing(client: Client, run: Callable[[], Sample]) -> Sample:
    try:
        return run()
    finally:
        client.close()
