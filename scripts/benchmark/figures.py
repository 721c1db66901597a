"""What a figure is: a name, one function, a unit, and the ratios to reach.

The function gets a `Bench` (one server and what the run prepared) and returns a `Sample`. Registering is importing the
module that holds it. Targets compare medians: Pillarbox's divided by the better peer's or by the yardstick's.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from benchmark.messages import corpus
from benchmark.servers import Server
from benchmark.sink import Sink

Unit = Literal["ms CPU", "µs CPU", "KiB", "ms"]
Against = Literal["peer", "stock"]
Needs = Literal["", "relay", "queue"]
"""What a server must be able to do: send mail elsewhere, have its queue filled."""
_SCALE: dict[Unit, float] = {"ms CPU": 1e3, "µs CPU": 1e6}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; the quick run has less."""

    smtp_messages: int = 1500
    queued_messages: int = 100_000
    big_messages: int = 60
    mailbox_messages: int = 10_000
    appends: int = 1500
    logins: int = 100
    repeats: int = 5
    idle_connections: int = 300
    push_connections: int = 100
    seconds: float = 120.0


QUICK = Sizes(
    smtp_messages=300,
    queued_messages=20_000,
    big_messages=16,
    mailbox_messages=300,
    appends=60,
    logins=30,
    repeats=3,
    idle_connections=100,
    push_connections=30,
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: the value in the figure's unit, and what it came from."""

    value: float
    count: int
    seconds: float
    cpu_seconds: float = 0.0
    client_seconds: float = 0.0

    @property
    def rate(self) -> float:
        return self.count / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Target:
    """The greatest ratio that is allowed, and the one that is wanted."""

    against: Against
    must: float | None = None
    aim: float | None = None


@dataclass(slots=True)
class Bench:
    """One server, ready to be measured."""

    server: Server
    sink: Sink
    sizes: Sizes
    messages: list[bytes]
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    prepared: set[str] = field(default_factory=set)

    @property
    def imap_port(self) -> int:
        if self.server.imap_port is None:
            raise TypeError(f"{self.server.label} has no IMAP")
        return self.server.imap_port


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report."""

    name: str
    what: str
    unit: Unit
    imap: bool
    quick: bool
    targets: tuple[Target, ...]
    run: Callable[[Bench], Sample]
    fresh: bool = False
    """Measured once, before all others: memory that earlier work has freed would hide what is used."""
    needs: Needs = ""

    def fits(self, server: Server) -> bool:
        can = {"": True, "relay": server.relays, "queue": server.has_queue}[self.needs]
        return can and (server.imap_port is not None or not self.imap)


FIGURES: list[Figure] = []
Function = Callable[[Bench], Sample]


def figure(
    what: str,
    *targets: Target,
    unit: Unit = "µs CPU",
    imap: bool = True,
    quick: bool = False,
    fresh: bool = False,
    needs: Needs = "",
) -> Callable[[Function], Function]:
    """Put the function into the table under its own name."""

    def register(function: Function) -> Function:
        name = function.__name__
        FIGURES.append(Figure(name, what, unit, imap, quick, targets, function, fresh, needs))
        return function

    return register


def make_bench(server: Server, sink: Sink, sizes: Sizes) -> Bench:
    return Bench(server, sink, sizes, corpus(sizes.mailbox_messages))


class Stopwatch:
    """Reads clock and CPU when the work begins, and makes the sample when it is done."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.start()

    def start(self) -> None:
        """The work begins now; what came before does not count."""
        self._cpu = self._bench.server.meter.cpu_seconds()
        self._client = time.process_time()
        self._began = time.monotonic()

    def sample(self, count: int, unit: Unit, *, elsewhere: float = 0.0, settle: float = 0.3) -> Sample:
        """Charge the server's CPU, until it has settled, to each of `count` operations.

        `elsewhere` is the CPU of clients in other processes.
        """
        seconds, client = time.monotonic() - self._began, time.process_time() - self._client
        time.sleep(settle)
        cpu = self._bench.server.meter.cpu_seconds() - self._cpu
        return Sample(cpu / count * _SCALE[unit], count, seconds, cpu, client + elsewhere)


def measured(bench: Bench, count: int, unit: Unit, work: Callable[[], None]) -> Sample:
    """Time the work, which is so many operations."""
    watch = Stopwatch(bench)
    work()
    return watch.sample(count, unit)
