"""Mail in: from the connection until every message is counted by IMAP STATUS.

The yardstick stores nothing and has no IMAP: its figure ends with the last `250`.
"""

from __future__ import annotations

import time

from benchmark import messages
from benchmark.errors import BenchError
from benchmark.figures import Bench, Sample, Stopwatch, Target, figure
from benchmark.imap_client import Client
from benchmark.messages import Template
from benchmark.servers import ADDRESSES, PASSWORD, USERS
from benchmark.smtp_load import Load, expected, send

KIB, MIB = 1024, 1024 * 1024
_SETTLE_SECONDS = 1.0
_POLL_SECONDS = 0.05
_WARM_UP_MESSAGES = 40


@figure(
    "4 KiB text, a connection each, 10 sessions, 10 mailboxes",
    Target("peer", must=1 / 5, aim=1 / 7),
    Target("stock", must=1.1, aim=0.85),
    unit="ms CPU",
    imap=False,
    quick=True,
)
def smtp_4k(bench: Bench) -> Sample:
    return _deliver(bench, messages.text(4 * KIB), bench.sizes.smtp_messages, sessions=10)


@figure(
    "4 KiB as relayed (traces, text and HTML), a connection each",
    Target("peer", must=1 / 5, aim=1 / 7),
    Target("stock", must=1.1, aim=0.85),
    unit="ms CPU",
    imap=False,
    quick=True,
)
def smtp_4k_relayed(bench: Bench) -> Sample:
    return _deliver(bench, messages.realistic(4 * KIB), bench.sizes.smtp_messages, sessions=10)


@figure("4 KiB text, connections reused", Target("peer", must=1 / 9, aim=1 / 14), unit="ms CPU", imap=False)
def smtp_4k_reuse(bench: Bench) -> Sample:
    return _deliver(bench, messages.text(4 * KIB), bench.sizes.smtp_messages, sessions=10, reuse=True)


@figure("4 KiB text, a connection each, 50 sessions", Target("peer", must=1 / 9, aim=1 / 14), unit="ms CPU", imap=False)
def smtp_4k_50(bench: Bench) -> Sample:
    return _deliver(bench, messages.text(4 * KIB), bench.sizes.smtp_messages, sessions=50)


@figure("1 MiB text", Target("peer", must=0.5, aim=1 / 4), unit="ms CPU", imap=False, quick=True)
def smtp_1m_text(bench: Bench) -> Sample:
    return _deliver(bench, messages.text(MIB), bench.sizes.big_messages, sessions=10)


@figure("1 MiB, one base64 attachment", Target("peer", must=0.5, aim=1 / 3), unit="ms CPU", imap=False)
def smtp_1m_attachment(bench: Bench) -> Sample:
    return _deliver(bench, messages.attachment(MIB), bench.sizes.big_messages, sessions=10)


def _deliver(bench: Bench, template: Template, count: int, *, sessions: int, reuse: bool = False) -> Sample:
    """Deliver so many and wait until they are visible; the first time a few more, before, to warm everything up."""
    watch = _Watch(bench)
    try:
        if "smtp" not in bench.prepared:
            watch.deliver(_load(bench, template, _WARM_UP_MESSAGES, 10), Stopwatch(bench))
            bench.prepared.add("smtp")
        load = _load(bench, template, count, sessions, reuse)
        stopwatch = Stopwatch(bench)
        elsewhere = watch.deliver(load, stopwatch)
        return stopwatch.sample(count, "ms CPU", elsewhere=elsewhere, settle=_SETTLE_SECONDS)
    finally:
        watch.close()


def _load(bench: Bench, template: Template, count: int, sessions: int, reuse: bool = False) -> Load:
    number = next(bench.numbers) << 32
    return Load(
        bench.server.smtp_port, ADDRESSES, (template,), count, sessions, reuse, bench.sizes.seconds, first_number=number
    )


class _Watch:
    """A logged-in IMAP session a recipient, opened before the clock runs."""

    def __init__(self, bench: Bench) -> None:
        self._seconds = bench.sizes.seconds
        port = bench.server.imap_port
        self._clients = {
            address: Client(port, user, PASSWORD) for address, user in zip(ADDRESSES, USERS, strict=True) if port
        }

    def deliver(self, load: Load, stopwatch: Stopwatch) -> float:
        """Send, wait until all is counted; return what the clients in other processes spent."""
        due = {address: self._count(address) + more for address, more in expected(load).items() if self._clients}
        done = send(load, stopwatch.start)
        self._wait(due, done.began + self._seconds)
        return done.client_seconds

    def _wait(self, due: dict[str, int], deadline: float) -> None:
        while due := {address: count for address, count in due.items() if self._count(address) < count}:
            if time.monotonic() > deadline:
                raise BenchError(f"not all messages became visible; missing in {', '.join(due)}")
            time.sleep(_POLL_SECONDS)

    def _count(self, address: str) -> int:
        return self._clients[address].count()

    def close(self) -> None:
        for client in self._clients.values():
            client.logout()
