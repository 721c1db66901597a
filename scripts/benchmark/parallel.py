"""Clients in processes of their own that start together."""

from __future__ import annotations

import multiprocessing
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier

from benchmark.errors import BenchError

_FORK = multiprocessing.get_context("fork")
_START_SECONDS = 30.0

Work = Callable[[], None]
Client = Callable[[int], Work]
"""Given the client's number, prepares and returns what is to be timed."""


@dataclass(frozen=True, slots=True)
class Done:
    """When the work began, how long until the last client was done, what the clients spent in CPU."""

    began: float
    seconds: float
    client_seconds: float


def run_together(clients: int, client: Client, seconds: float, on_start: Work) -> Done:
    """Run so many clients; raise BenchError when one fails or is not done in time.

    `on_start` is called when all have prepared, right before they are let go.
    """
    barrier = _FORK.Barrier(clients + 1)
    before = _children_cpu()
    started = [_start(client, number, barrier) for number in range(clients)]
    try:
        _await_prepared([report for _, report in started])
        on_start()
        began = time.monotonic()
        barrier.wait(timeout=_START_SECONDS)
        failures = [text for _, report in started if (text := _outcome(report, began + seconds))]
        ended = time.monotonic()
    except threading.BrokenBarrierError as error:
        raise BenchError("the clients did not start together") from error
    finally:
        for process, _ in started:
            _finish(process)
    if failures:
        raise BenchError(f"{len(failures)} of {clients} clients failed: {failures[0]}")
    return Done(began, ended - began, _children_cpu() - before)


def _start(client: Client, number: int, barrier: Barrier) -> tuple[BaseProcess, Connection]:
    ours, theirs = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_work, args=(client, number, barrier, theirs), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _work(client: Client, number: int, barrier: Barrier, report: Connection) -> None:
    try:
        work = client(number)
        report.send("")
        barrier.wait(timeout=_START_SECONDS)
        work()
        report.send("")
    except Exception as error:
        report.send(f"{type(error).__name__}: {error}")


def _await_prepared(reports: list[Connection]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    failures = [text for report in reports if (text := _outcome(report, deadline))]
    if failures:
        raise BenchError(f"{len(failures)} of {len(reports)} clients could not prepare: {failures[0]}")


def _outcome(report: Connection, deadline: float) -> str:
    """Empty for success, else what went wrong."""
    if not report.poll(max(0.0, deadline - time.monotonic())):
        return "not done in time"
    try:
        return str(report.recv())
    except EOFError:
        return "the client died"


def _finish(process: BaseProcess) -> None:
    process.join(timeout=5)
    if process.is_alive():
        process.kill()
        process.join(timeout=5)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
