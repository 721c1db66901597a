"""The worker processes, seen from the supervisor: one slot each, forked, watched, replaced when they die.

A slot keeps its sockets over the death of its worker. Each worker says through a pipe when its listeners are open.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mailserver import logs
from mailserver.node import counters, listeners
from mailserver.node.backoff import Backoff
from mailserver.node.listeners import Slot

log = logging.getLogger(__name__)

HOPELESS = 5
"""So often may a worker die before all were ready once; then there is no sense in going on."""

Run = Callable[["Worker", int], int]
"""What a forked process does: with its slot and the pipe to tell that it is ready; its exit status."""


class WorkersFailed(Exception):
    """The workers cannot be started."""


@dataclass(slots=True)
class Worker:
    """One slot: its sockets, and the process that serves them now."""

    number: int
    sockets: Slot
    pid: int | None = None
    ready_pipe: int | None = None
    was_ready: bool = False
    backoff: Backoff = field(default_factory=Backoff)


class Workers:
    """All slots. lock: a descriptor that the processes must not keep open."""

    def __init__(self, slots: Sequence[Slot], run: Run, lock: int) -> None:
        self._workers = [Worker(number, slot) for number, slot in enumerate(slots)]
        self._run = run
        self._lock = lock
        self.all_ready = False

    def __len__(self) -> int:
        return len(self._workers)

    def start(self) -> None:
        """Lets clients in, and forks."""
        listeners.listen([worker.sockets for worker in self._workers])
        gc.collect()
        gc.freeze()  # what is there by now stays; a worker's collector must not touch, and so copy, its pages
        for worker in self._workers:
            self._fork(worker)

    def look_after(self) -> None:
        """Replaces those that have died. WorkersFailed where they never came up."""
        self._hear_of_readiness()
        for worker in self._workers:
            if worker.pid is not None and (status := _ended(worker.pid)) is not None:
                self._bury(worker, status)
            if worker.pid is None and worker.backoff.pause <= 0:
                self._fork(worker)

    def pauses(self) -> list[float]:
        """Seconds until look_after has something to do."""
        waits = [worker.backoff.pause for worker in self._workers if worker.pid is None]
        return waits + [0.02 for worker in self._workers if worker.ready_pipe is not None][:1]

    def send(self, number: int) -> None:
        """A signal to all of them."""
        for worker in self._workers:
            if worker.pid is not None:
                os.kill(worker.pid, number)

    def stop(self, seconds: float, cut_short: Callable[[float], bool]) -> None:
        """Closes the listeners and ends the workers; those that are not done in time are killed.

        cut_short waits for a moment and says whether there is no more time.
        """
        listeners.close(worker.sockets for worker in self._workers)
        self.send(signal.SIGTERM)
        self._await_end(time.monotonic() + seconds, cut_short)
        self.send(signal.SIGKILL)
        self._await_end(time.monotonic() + 5, _sleep)

    def _await_end(self, deadline: float, cut_short: Callable[[float], bool]) -> None:
        while True:
            for worker in self._workers:
                if worker.pid is not None and _ended(worker.pid) is not None:
                    worker.pid = None
            left = deadline - time.monotonic()
            if left <= 0 or all(worker.pid is None for worker in self._workers) or cut_short(min(left, 0.1)):
                return

    def _fork(self, worker: Worker) -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        logs.flush()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os._exit(self._in_process(worker, write_end))
        os.close(write_end)
        _close_pipe(worker)
        worker.pid, worker.ready_pipe = pid, read_end
        worker.backoff.note_start()
        _count_start()

    def _in_process(self, worker: Worker, write_end: int) -> int:
        """The forked process: lets go of what is the supervisor's or the other workers', and works."""
        try:
            os.close(self._lock)
            for other in self._workers:
                _close_pipe(other)
                if other is not worker:
                    listeners.close([other.sockets])
            return self._run(worker, write_end)
        except BaseException:
            log.exception("worker failed")
            return 1
        finally:
            logs.flush()

    def _bury(self, worker: Worker, status: int) -> None:
        assert worker.pid is not None
        cause = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
        log.error("worker %d (process %d) ended: %s; it is started again", worker.number, worker.pid, cause)
        counters.forget_process(worker.pid)
        worker.pid = None
        worker.backoff.note_death()
        if not self.all_ready and worker.backoff.failures >= HOPELESS:
            raise WorkersFailed("the workers cannot be started; the log above says why")

    def _hear_of_readiness(self) -> None:
        for worker in self._workers:
            if worker.ready_pipe is not None:
                try:
                    told = os.read(worker.ready_pipe, 1)
                except BlockingIOError:
                    continue
                _close_pipe(worker)
                worker.was_ready = worker.was_ready or told == b"1"
        self.all_ready = self.all_ready or all(worker.was_ready for worker in self._workers)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _close_pipe(worker: Worker) -> None:
    if worker.ready_pipe is not None:
        os.close(worker.ready_pipe)
        worker.ready_pipe = None


def _ended(pid: int) -> int | None:
    """The exit status of a child that has ended; minus the signal that ended it."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0
    return os.waitstatus_to_exitcode(status) if found else None


def _count_start() -> None:
    from mailserver import metrics

    metrics.worker_starts.inc()
