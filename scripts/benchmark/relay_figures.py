"""Mail out: submitted over ten connections, until the server elsewhere has all of it.

Pillarbox's users log in, once a connection; Postfix trusts loopback and need not check anybody. Both have written a
message to disk before they say 250, and know of it until the other server has taken it.
"""

from __future__ import annotations

from benchmark import messages
from benchmark.figures import Bench, Sample, Stopwatch, Target, figure
from benchmark.servers import ADDRESSES, REMOTE
from benchmark.smtp_load import Load, send

KIB = 1024
_SESSIONS = 10
_SETTLE_SECONDS = 1.0
_WARM_UP_MESSAGES = 100
_RECIPIENTS = tuple(f"reader{number}@{REMOTE}" for number in range(_SESSIONS))


@figure(
    "4 KiB submitted by 10 connections, until it is elsewhere",
    Target("peer", must=1 / 3, aim=1 / 5),
    unit="ms CPU",
    imap=False,
    quick=True,
    needs="relay",
)
def relay_4k(bench: Bench) -> Sample:
    return _relay(bench)


@figure("the same, a message's share of the time", Target("peer", must=1 / 2), unit="ms", imap=False, needs="relay")
def relay_4k_pace(bench: Bench) -> Sample:
    sample = _relay(bench)
    return Sample(1e3 / sample.rate, sample.count, sample.seconds, sample.cpu_seconds, sample.client_seconds)


@figure(
    "the same while very many wait for a destination that is dead", unit="ms CPU", imap=False, quick=True, needs="queue"
)
def relay_4k_backlog(bench: Bench) -> Sample:
    bench.server.fill_queue(bench.sizes.queued_messages)
    try:
        return _relay(bench)
    finally:
        bench.server.empty_queue()


def _relay(bench: Bench) -> Sample:
    if "relay" not in bench.prepared:
        _send(bench, _WARM_UP_MESSAGES, Stopwatch(bench))
        bench.prepared.add("relay")
    stopwatch = Stopwatch(bench)
    count = bench.sizes.smtp_messages
    elsewhere = _send(bench, count, stopwatch)
    return stopwatch.sample(count, "ms CPU", elsewhere=elsewhere, settle=_SETTLE_SECONDS)


def _send(bench: Bench, count: int, stopwatch: Stopwatch) -> float:
    """Returns what the clients in other processes spent, when all has arrived."""
    server, seconds = bench.server, bench.sizes.seconds
    due = bench.sink.count + count
    load = Load(
        port=server.submission_port,
        recipients=_RECIPIENTS,
        templates=tuple(messages.text(4 * KIB, sender) for sender in ADDRESSES),
        messages=count,
        sessions=_SESSIONS,
        reuse=True,
        seconds=seconds,
        first_number=next(bench.numbers) << 32,
        senders=ADDRESSES,
        password=server.submission_password,
    )
    done = send(load, stopwatch.start)
    bench.sink.wait(due, seconds)
    return done.client_seconds
