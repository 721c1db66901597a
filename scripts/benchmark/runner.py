"""A run: start every server that can be, visit all figures in rounds, stop what was started."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark import imap_figures, relay_figures, smtp_figures  # noqa: F401  (their figures register themselves)
from benchmark.errors import BenchError, NotAvailable
from benchmark.figures import Bench, Figure, Sample, Sizes, make_bench
from benchmark.servers import Server
from benchmark.sink import Sink

Say = Callable[[str], None]


@dataclass(slots=True)
class Results:
    """Everything measured: samples and failures by figure and server, and why a server is missing."""

    samples: dict[tuple[str, str], list[Sample]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)
    exact: bool = True
    cut_short: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run."""

    servers: Sequence[type[Server]]
    figures: Sequence[Figure]
    sizes: Sizes
    rounds: int
    seconds: float
    directory: Path | None = None
    keep: bool = False


def run(plan: Plan, say: Say) -> Results:
    """Run the plan; whatever happens, every started server is stopped."""
    home = Path(tempfile.mkdtemp(prefix="pillarbox-bench-", dir=plan.directory))
    home.chmod(0o755)  # services that give up root must reach their folders below
    results = Results()
    servers: list[Server] = []
    sink = Sink()
    try:
        serving = _start(plan, home, sink, servers, results, say)
        benches = [make_bench(server, sink, plan.sizes) for server in serving]
        _note_memory(benches, results)
        _rounds(plan, benches, results, say)
    finally:
        for server in reversed(servers):
            server.stop()
        sink.stop()
        if plan.keep:
            say(f"kept: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    return results


def _start(plan: Plan, home: Path, sink: Sink, started: list[Server], results: Results, say: Say) -> list[Server]:
    """Start them one after another; `started` holds each as soon as it may have processes."""
    serving = []
    for make in plan.servers:
        server = make(home, sink.port)
        started.append(server)
        try:
            say(f"starting {server.title}")
            server.start()
            results.versions[server.label] = server.version()
            results.exact = results.exact and server.meter.exact
            serving.append(server)
        except (NotAvailable, BenchError, OSError) as error:
            results.left_out[server.label] = reason = _one_line(error)
            say(f"  left out: {reason}")
    return serving


def _one_line(error: Exception) -> str:
    """The beginning says what failed, the end why."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 600 else f"{text[:200]} … {text[-380:]}"


def _note_memory(benches: Sequence[Bench], results: Results) -> None:
    for bench in benches:
        results.memory_mib[bench.server.label] = bench.server.meter.memory_octets() / 2**20


def _rounds(plan: Plan, benches: list[Bench], results: Results, say: Say) -> None:
    deadline = time.monotonic() + plan.seconds
    for number in range(plan.rounds):
        for place, figure in enumerate(figure for figure in plan.figures if number == 0 or not figure.fresh):
            for bench in _turned(benches, number + place):
                if time.monotonic() > deadline:
                    results.cut_short = True
                    say("out of time: the report has what was measured so far")
                    return
                if figure.fits(bench.server):
                    _measure(figure, bench, results, f"round {number + 1}/{plan.rounds}", say)


def _turned(benches: list[Bench], by: int) -> list[Bench]:
    start = by % len(benches) if benches else 0
    return benches[start:] + benches[:start]


def _measure(figure: Figure, bench: Bench, results: Results, where: str, say: Say) -> None:
    key = (figure.name, bench.server.label)
    try:
        sample = figure.run(bench)
    except (BenchError, OSError) as error:
        results.failures[key] = _one_line(error)
        say(f"  {where}  {figure.name:20} {bench.server.label:10} FAILED: {error}")
        return
    results.samples.setdefault(key, []).append(sample)
    say(
        f"  {where}  {figure.name:20} {bench.server.label:10} {sample.value:10.3f} {figure.unit:7}"
        f" {sample.rate:9.0f}/s  client {sample.client_seconds:.2f} s"
    )
