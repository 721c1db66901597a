"""The worker processes, seen from the supervisor: one slot each, forked, watched, replaced when they die or on demand.

A slot keeps its sockets over the death of its worker. Each process has a channel (channel.py), on which it says when
its listeners are open, and hears of other settings.

Replacing on demand: a successor is forked beside the worker and listens on the same sockets; once it is ready, the old
one is told to stop. It accepts no more, and what waits in the backlog is the successor's, so nobody is refused. Slots
take turns, so that there is never more than one process too many.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from mailserver import logs
from mailserver.net.tally import Share, Tally
from mailserver.node import channel, counters, listeners
from mailserver.node.backoff import Backoff
from mailserver.node.channel import Settings
from mailserver.node.listeners import Slot

log = logging.getLogger(__name__)

HOPELESS = 5
"""So often may a worker die before all were ready once; then there is no sense in going on."""

START_SECONDS = 60.0
"""How long a successor may take to become ready."""


class WorkersFailed(Exception):
    """Workers, or one of them, cannot be started; the text says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a forked process gets."""

    number: int
    sockets: Slot
    share: Share
    channel: socket.socket


Run = Callable[[Place], int]
"""What a forked process does; its exit status."""


@dataclass(slots=True)
class Process:
    """A process of ours. row: of the tally; owes: answers to settings; status: once it has ended."""

    pid: int
    channel: socket.socket
    row: int
    is_ready: bool = False
    owes: int = 0
    failed: bool = False
    status: int | None = None

    def listen(self) -> None:
        for word in channel.words(self.channel):
            self.is_ready = self.is_ready or word == channel.READY
            self.failed = self.failed or word == channel.FAILED
            self.owes -= word in (channel.TAKEN, channel.FAILED)

    def send(self, number: int) -> None:
        if self.status is None:
            os.kill(self.pid, number)


@dataclass(slots=True)
class Worker:
    """One slot: its sockets, the process that serves them now, the one that will, and the one that did."""

    number: int
    sockets: Slot
    process: Process | None = None
    successor: Process | None = None
    retired: Process | None = None
    was_ready: bool = False
    backoff: Backoff = field(default_factory=Backoff)

    @property
    def processes(self) -> list[Process]:
        return [process for process in (self.process, self.successor, self.retired) if process is not None]


class Workers:
    """All slots. lock: a descriptor that the processes must not keep open."""

    def __init__(self, slots: Sequence[Slot], run: Run, lock: int) -> None:
        self._workers = [Worker(number, slot) for number, slot in enumerate(slots)]
        self._run = run
        self._lock = lock
        self._tally = Tally(2 * len(slots) + 1)
        self.all_ready = False

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def processes(self) -> list[Process]:
        return [process for worker in self._workers for process in worker.processes]

    def start(self) -> None:
        """Lets clients in, and forks."""
        listeners.listen([worker.sockets for worker in self._workers])
        gc.collect()
        gc.freeze()  # what is there by now stays; a worker's collector must not touch, and so copy, its pages
        for worker in self._workers:
            self._begin(worker)

    def look_after(self) -> None:
        """Replaces those that have died. WorkersFailed where they never came up."""
        for worker in self._workers:
            for process in worker.processes:
                process.listen()
                self._bury(process)
            self._move_up(worker)
            if worker.process is None and worker.backoff.pause <= 0:
                self._begin(worker)
        self.all_ready = self.all_ready or all(worker.was_ready for worker in self._workers)

    def pauses(self) -> list[float]:
        """Seconds until look_after has something to do."""
        waits = [worker.backoff.pause for worker in self._workers if worker.process is None]
        busy = any(not process.is_ready or process.owes > 0 for process in self.processes)
        return [*waits, 0.02] if busy else waits

    def stop(self, seconds: float, cut_short: Callable[[float], bool]) -> None:
        """Closes the listeners and ends the workers; those that are not done in time are killed.

        cut_short waits for a moment and says whether there is no more time.
        """
        listeners.close(worker.sockets for worker in self._workers)
        for number, patience, wait in ((signal.SIGTERM, seconds, cut_short), (signal.SIGKILL, 5.0, _sleep)):
            for process in self.processes:
                process.send(number)
            self._await_end(time.monotonic() + patience, wait)

    def _await_end(self, deadline: float, cut_short: Callable[[float], bool]) -> None:
        while True:
            for process in self.processes:
                self._bury(process)
            left = deadline - time.monotonic()
            ended = all(process.status is not None for process in self.processes)
            if left <= 0 or ended or cut_short(min(left, 0.1)):
                return

    # Other settings, other processes ----------------------------------------------------------------------------------

    def tell(self, settings: Settings) -> None:
        """Sends settings to all that serve or will."""
        told = [process for worker in self._workers for process in (worker.process, worker.successor) if process]
        channel.send([process.channel for process in told], settings)
        for process in told:
            process.owes += 1
            process.failed = False

    def unanswered(self) -> list[int]:
        """Processes that have not said yet whether they have taken up what they were told."""
        return [process.pid for process in self.processes if process.owes > 0]

    def failed(self) -> list[int]:
        """Processes that could not take it up."""
        return [process.pid for process in self.processes if process.failed]

    def replace(self, seconds: float) -> Iterator[None]:
        """Replaces the workers one by one, in steps between which look_after is called.

        seconds: for an old one to end, before it is killed. WorkersFailed where a new one cannot be forked or does not
        come up; the old one of that slot serves on.
        """
        for worker in self._workers:
            new = worker.successor = self._fork(worker)
            yield from self._await_ready(worker, new)
            old = worker.process
            if old is new:
                continue  # the old one died meanwhile
            worker.process, worker.successor, worker.retired = new, None, old
            worker.backoff.note_start()
            if old is not None:
                yield from self._await_end_of(old, seconds)
            worker.retired = None

    @staticmethod
    def _await_ready(worker: Worker, new: Process) -> Iterator[None]:
        deadline = time.monotonic() + START_SECONDS
        while not new.is_ready:
            if new.status is not None or time.monotonic() > deadline:
                new.send(signal.SIGKILL)
                raise WorkersFailed(f"the new worker {worker.number} does not become ready; the log says why")
            yield

    @staticmethod
    def _await_end_of(old: Process, seconds: float) -> Iterator[None]:
        old.send(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while old.status is None:
            if time.monotonic() > deadline:
                old.send(signal.SIGKILL)
            yield

    # Processes --------------------------------------------------------------------------------------------------------

    def _begin(self, worker: Worker) -> None:
        worker.backoff.note_start()
        try:
            worker.process = self._fork(worker)
        except WorkersFailed as failed:
            log.error("%s; it is tried again", failed)
            self._note_death(worker)

    def _fork(self, worker: Worker) -> Process:
        """A process that serves the slot. WorkersFailed where the system has no room for it."""
        row = min(set(range(self._tally.rows)) - {process.row for process in self.processes})
        logs.flush()
        try:
            with ExitStack() as undo:
                ours, theirs = map(undo.enter_context, channel.pair())
                pid = os.fork()
                undo.pop_all()
        except OSError as error:
            raise WorkersFailed(f"worker {worker.number} cannot be started: {error.strerror}") from error
        if pid == 0:
            ours.close()
            os._exit(self._in_process(worker, Place(worker.number, worker.sockets, Share(self._tally, row), theirs)))
        theirs.close()
        _count_start()
        return Process(pid, ours, row)

    def _in_process(self, worker: Worker, place: Place) -> int:
        """The forked process: lets go of what is the supervisor's or the other workers', and works."""
        try:
            os.close(self._lock)
            for process in self.processes:
                process.channel.close()
            listeners.close(other.sockets for other in self._workers if other is not worker)
            return self._run(place)
        except BaseException:
            log.exception("worker failed")
            return 1
        finally:
            logs.flush()

    def _bury(self, process: Process) -> None:
        """Notes the end of a process, and takes back what it had."""
        if process.status is None and (status := _ended(process.pid)) is not None:
            process.status = status
            process.owes = 0
            process.channel.close()
            self._tally.wipe(process.row)
            counters.forget_process(process.pid)

    def _move_up(self, worker: Worker) -> None:
        """Empties the places of those that have ended."""
        process, successor = worker.process, worker.successor
        worker.was_ready = worker.was_ready or (process is not None and process.is_ready)
        if successor is not None and successor.status is not None:
            worker.successor = None
        if process is not None and process.status is not None:
            status = process.status
            cause = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
            log.error("worker %d (process %d) ended: %s; it is started again", worker.number, process.pid, cause)
            worker.process, worker.successor = worker.successor, None
            self._note_death(worker)

    def _note_death(self, worker: Worker) -> None:
        worker.backoff.note_death()
        if not self.all_ready and worker.backoff.failures >= HOPELESS:
            raise WorkersFailed("the workers cannot be started; the log above says why")


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


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
