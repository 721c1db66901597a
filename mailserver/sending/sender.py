"""The `send` role of one worker: takes recipients on, brings their mail to its destinations, says what became of it.

    the queue ── take ──▶ lane (a destination) ── connection ──▶ another server
        ▲     reserve, send (accepted here)            │
        └──────────────── recorder ◀── outcome ────────┘

What is due is known by destination, from the queue's schedule, which is read now and then, when others say that there
is something new, and kept up by what happens here. A lane takes no more on than its connections will soon send. Rows of
a destination that backs off are not read, but for those that have to be told of or given up by now.

What this worker itself accepts it is handed with its octets, under a lease that its rows are written with. A lease is
renewed while a message waits or is being sent; before the end of a message it must have a margin left, else the
connection is dropped, since somebody else may be about to send it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from mailserver import metrics
from mailserver.delivery.outbox import Offer
from mailserver.protocols.smtp import dsn
from mailserver.protocols.smtp.client import Envelope, Recipient
from mailserver.sending.lane import Lane
from mailserver.sending.moves import move
from mailserver.sending.outcome import Deferred, Failed, Outcome
from mailserver.sending.recorder import Recorder
from mailserver.sending.retry import REACHABLE
from mailserver.sending.session import Manner, Session, Unreachable
from mailserver.sending.targets import NoTargets, Resolver, Target, targets
from mailserver.sending.ways import Ways
from storage import NotFound, Notice, Outgoing, StorageError, Store, queue
from storage.queue import Again, Gone, Key, Moved, Taken, TakenRecipient
from storage.records import Lease
from storage.tasks import end

if TYPE_CHECKING:
    from config.schema import SendConfig

log = logging.getLogger(__name__)

AT_ONCE = 50
"""Recipients that are taken on for a destination in one go; as many again when half of them are done."""

MAX_DIALS = 10
"""Addresses that are tried for one connection."""

MAX_MESSAGES = 1_000
"""By one connection."""

MARGIN_SECONDS = 5.0
_MAX_HANDED = 200
"""Messages that wait in a lane, beyond which no more are handed over, but left in the queue."""

_OVERDUE_AT_ONCE = 200
_SOON = 0.2
"""Seconds in which several hints that there is something new are one."""
_LOOKS_APART = 0.02
_REST = 20
"""After the schedule was read, hints wait for so many times as long as that took: it goes through the whole queue."""
_AGAIN_SECONDS = 1.0
_CLOSE_SECONDS = 5.0

_UNREADABLE = Deferred(451, "4.3.0", "The message cannot be read now")
_FAULT = Deferred(451, "4.3.0", "A fault of this server")
_NOT_SAYABLE = Failed(553, "5.1.3", "The address cannot be said in SMTP")


class Sender:
    """One in a process. workers: how many the node has, which share its connections. told: a report is owed."""

    def __init__(
        self,
        store: Store,
        ways: Ways,
        resolver: Resolver,
        settings: SendConfig,
        *,
        workers: int = 1,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._ways = ways
        self._resolver = resolver
        self._settings = settings
        self._max_connections = max(1, settings.connections // workers)
        self._max_of_one = max(1, settings.connections_per_destination // workers)
        self._max_octets = settings.memory_mib * 1024 * 1024
        self._told = told
        self._recorder = Recorder(store, told)
        self._lanes: dict[str, Lane] = {}
        # By destination, the moments at which a recipient is due, and needs attention; of the monotonic clock.
        self._due: dict[str, float] = {}
        self._act: dict[str, float] = {}
        self._held: dict[int, Taken] = {}  # what this process has a lease of, by identity
        self._octets = 0  # of messages that are held
        self._freed = asyncio.Event()
        self._rescan_at = 0.0
        self._rested_at = 0.0
        self._wake = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._renew())]
        self._closing = False

    def reconfigure(self, ways: Ways, resolver: Resolver, settings: SendConfig) -> None:
        """Other settings for what is begun from now on."""
        self._ways, self._resolver, self._settings = ways, resolver, settings
        for lane in self._lanes.values():
            lane.backoff = REACHABLE
        self._look_soon()

    async def close(self, seconds: float) -> None:
        """What has not been begun goes back; what has been gets so long to come to an end."""
        self._closing = True
        waiting: list[Taken] = []
        for lane in self._lanes.values():
            waiting += lane.jobs
            lane.jobs.clear()
            lane.dismiss()
        await self._give_back(waiting)
        if self._connections:
            await asyncio.wait(self._connections, timeout=seconds)
        await end([*self._tasks, *self._connections])
        await self._recorder.close(_CLOSE_SECONDS)

    async def _give_back(self, jobs: Sequence[Taken]) -> None:
        try:
            await queue.give_back(self._store, [(key, job.lease.token) for job in jobs for key in job.keys])
        except StorageError as error:
            log.info("%d messages wait for the end of their lease: %s", len(jobs), error)

    def hear(self, notice: Notice) -> None:
        """The change feed: somebody waits whom nobody has taken on."""
        if notice.kind in ("queue", "resync"):
            self._look_soon()
            self._told()

    def _look_soon(self) -> None:
        self._rescan_at = min(self._rescan_at, max(time.monotonic() + _SOON, self._rested_at))
        self._wake.set()

    # What this worker accepts itself (delivery/outbox.py) -------------------------------------------------------------

    def reserve(self, outgoing: Outgoing, octets: int) -> Outgoing | None:
        now = time.monotonic()
        lanes = [self._lane(r.destination) for r in outgoing.recipients if not r.report]
        busy = any(not lane.backoff.allows(now) or len(lane.jobs) >= _MAX_HANDED for lane in lanes)
        if self._closing or busy or not lanes or self._octets + octets > self._max_octets:
            return None
        self._octets += octets
        seconds = self._settings.lease_seconds
        lease = Lease(uuid4(), now + seconds)
        return replace(outgoing, lease=lease, lease_seconds=seconds, pause_seconds=self._pause(1))

    def forget(self, offer: Offer) -> None:
        self._octets -= len(offer.octets)
        self._freed.set()

    def send(self, offer: Offer) -> None:
        self.forget(offer)
        by_lane: dict[str, list[TakenRecipient]] = {}
        for r in offer.outgoing.recipients:
            if r.report:
                self._told()
            else:
                one = TakenRecipient(r.address, r.destination, r.notify, r.orcpt, 1, False)
                by_lane.setdefault(self._lane(r.destination).name, []).append(one)
        now = time.time()
        for name, recipients in by_lane.items():
            self._start(self._lanes[name], _handed(offer, recipients, now))

    # What is due ------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            try:
                at = await self._look()
            except StorageError as error:
                log.warning("the outbound queue cannot be read: %s", error)
                at = self._rescan_at = time.monotonic() + _AGAIN_SECONDS
            except Exception:
                log.exception("fault while the outbound queue was looked at")
                at = self._rescan_at = time.monotonic() + _AGAIN_SECONDS
            await asyncio.sleep(_LOOKS_APART)
            try:
                async with asyncio.timeout(max(0.0, at - time.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look(self) -> float:
        """Takes on what is due; the moment at which to look again."""
        if time.monotonic() >= self._rescan_at:
            await self._rescan()
        now = time.monotonic()
        due: dict[str, list[str]] = {}
        for destination, at in self._due.items():
            lane = self._lane(destination)
            if at <= now and lane.backoff.allows(now) and len(lane.jobs) <= AT_ONCE // 2:
                due.setdefault(lane.name, []).append(destination)
        for name, destinations in due.items():
            await self._fill(self._lanes[name], destinations)
        for destination in [name for name, at in self._act.items() if at <= now]:
            await self._attend(destination)
        return self._next_look(now)

    async def _rescan(self) -> None:
        began = time.monotonic()
        self._rescan_at = began + self._settings.rescan_seconds
        found = await queue.schedule(self._store)
        now = time.monotonic()
        self._rested_at = now + min(_REST * (now - began), self._settings.rescan_seconds)
        self._rescan_at = max(self._rescan_at, self._rested_at)
        self._due = {destination: now + due for destination, (due, _) in found.items()}
        self._act = {destination: now + act for destination, (_, act) in found.items()}
        for name in [name for name, lane in self._lanes.items() if lane.is_over(now)]:
            del self._lanes[name]

    def _next_look(self, now: float) -> float:
        moments = [self._rescan_at, *self._act.values()]
        for destination, at in self._due.items():
            lane = self._lane(destination)
            if len(lane.jobs) <= AT_ONCE // 2:  # else its connections will say when there is room
                moments.append(max(at, lane.backoff.not_before))
        return min(moments)

    async def _fill(self, lane: Lane, destinations: Sequence[str]) -> None:
        """Takes on what is due. One message tells whether a destination can be reached again."""
        limit = 1 if lane.backoff.failures else AT_ONCE
        taken = await self._take(destinations, limit, overdue=False)
        found = [recipient.destination for job in taken for recipient in job.recipients]
        for destination in destinations:
            if found.count(destination) < limit:
                self._due.pop(destination, None)
        for job in taken:
            self._start(lane, job)

    async def _attend(self, destination: str) -> None:
        """Recipients who have to be told of, or given up, while their destination cannot be reached anyway."""
        lane = self._lane(destination)
        self._act[destination] = time.monotonic() + self._settings.rescan_seconds
        if lane.unreachable is None or lane.backoff.allows(time.monotonic()):
            return  # an attempt comes at the same time
        while taken := await self._take([destination], _OVERDUE_AT_ONCE, overdue=True):
            for job in taken:
                self._hold(job)
                self._record(job, [lane.unreachable] * len(job.recipients))
            await self._recorder.room()

    async def _take(self, destinations: Sequence[str], limit: int, *, overdue: bool) -> list[Taken]:
        seconds = self._settings.lease_seconds
        return await queue.take(
            self._store, destinations, limit, pause=self._pause, lease_seconds=seconds, overdue=overdue
        )

    def _pause(self, attempts: int) -> float:
        pauses = self._settings.retry_pauses_seconds
        return pauses[min(attempts, len(pauses)) - 1]

    def _note(self, destination: str, at: float) -> None:
        """A recipient will be due at that moment (monotonic)."""
        if at < self._due.get(destination, float("inf")):
            self._due[destination] = at
            self._wake.set()

    # Lanes ------------------------------------------------------------------------------------------------------------

    def _lane(self, destination: str) -> Lane:
        route = self._ways.route(destination)
        name = destination if route is None else f"{route[0]}:{route[1]}"
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, route)
        return lane

    def _start(self, lane: Lane, job: Taken) -> None:
        for part in lane.add(job):
            self._hold(part)
        self._connect_more(lane)

    def _connect_more(self, lane: Lane) -> None:
        while (
            lane.needs_connection
            and lane.connections < self._max_of_one
            and len(self._connections) < self._max_connections
        ):
            lane.connections += 1
            task = asyncio.create_task(self._serve(lane))
            self._connections.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        was_full = len(self._connections) >= self._max_connections
        self._connections.discard(task)
        if not self._closing:
            for lane in self._lanes.values():
                if lane.jobs and (was_full or not lane.connections):
                    self._connect_more(lane)

    async def _serve(self, lane: Lane) -> None:
        """One connection: message after message, while there are some."""
        session: Session | None = None
        try:
            while (job := await lane.next(self._settings.reuse_seconds if session else 0.0)) is not None:
                session = await self._bring(lane, job, session)
                if len(lane.jobs) == AT_ONCE // 2:
                    self._wake.set()
                await self._recorder.room()
        finally:
            lane.connections -= 1
            if session is not None:
                await session.close()

    # One message ------------------------------------------------------------------------------------------------------

    async def _bring(self, lane: Lane, job: Taken, session: Session | None) -> Session | None:
        """One attempt; its outcome goes to the recorder. The connection for the next one, if it is any good."""
        if not _has_margin(job):
            self._release(job)  # somebody else may have it by now
            return session
        outcomes: Sequence[Outcome]
        try:
            octets = await self._load(job)
            session = await self._usable(lane, job, session)
            outcomes = await self._send(session, job, octets)
            if session.is_stale:
                session = await self._usable(lane, job, session)
                outcomes = await self._send(session, job, octets)
        except NotFound:
            self._gone(job)
            return session
        except NoTargets as nowhere:
            self._record(job, [nowhere.outcome] * len(job.recipients))
            self._fail_all(lane, nowhere.outcome)
            return None
        except StorageError as error:
            log.warning("queue=%s trace=%s is not sent: %s", job.queue_id, job.trace_id, error)
            outcomes = [_UNREADABLE] * len(job.recipients)
        except ValueError as error:
            outcomes = [replace(_NOT_SAYABLE, text=f"{_NOT_SAYABLE.text}: {error}")] * len(job.recipients)
        except Exception:
            log.exception("fault while queue=%s was sent", job.queue_id)
            outcomes = [_FAULT] * len(job.recipients)
        self._record(job, outcomes, session)
        if session is not None and session.sent == 1 and not session.usable:
            self._suspect(lane, outcomes)
        return session

    async def _send(self, session: Session, job: Taken, octets: bytes) -> list[Outcome]:
        return await session.send(_envelope(job), octets, lambda: _has_margin(job))

    async def _load(self, job: Taken) -> bytes:
        """The octets, within the memory that messages may take; one goes through in any case."""
        if job.octets is None:
            while self._octets and self._octets + job.size > self._max_octets:
                self._freed.clear()
                await self._freed.wait()
            self._octets += job.size
            try:
                job.octets = await queue.load(self._store, job)
            finally:
                self._octets += len(job.octets or b"") - job.size
        return job.octets

    async def _usable(self, lane: Lane, job: Taken, session: Session | None) -> Session:
        """The connection, or another one where it is worn out; NoTargets."""
        if session is not None and session.usable and session.sent < MAX_MESSAGES:
            return session
        if session is not None:
            await session.close()
        dialled_at = time.monotonic()
        ways = self._ways
        try:
            found = await targets(
                job.recipients[0].destination,
                self._resolver,
                this_host=ways.this_host,
                routes=ways.routes,
                port=ways.port,
            )
            session = await _dial(found[:MAX_DIALS], ways.manner(lane.route))
        except NoTargets as nowhere:
            lane.unreachable = nowhere.outcome
            lane.backoff = lane.backoff.failed(ways.policy, dialled_at=dialled_at, now=time.monotonic())
            log.info("cannot reach destination=%s: %s", lane.name, nowhere)
            raise
        lane.unreachable, lane.backoff = None, REACHABLE
        return session

    def _suspect(self, lane: Lane, outcomes: Sequence[Outcome]) -> None:
        """A connection that did not outlive its first message: to dial for each of them would be no help to anybody."""
        worst = next((outcome for outcome in outcomes if isinstance(outcome, Deferred)), None)
        if worst is not None:
            now = time.monotonic()
            lane.unreachable = worst
            lane.backoff = lane.backoff.failed(self._ways.policy, dialled_at=now, now=now)
            self._fail_all(lane, worst)

    def _fail_all(self, lane: Lane, outcome: Outcome) -> None:
        """Where no connection comes about, that is what became of everything that waits for one."""
        while lane.jobs:
            job = lane.jobs.popleft()
            self._record(job, [outcome] * len(job.recipients))
        self._wake.set()

    # What became of it ------------------------------------------------------------------------------------------------

    def _record(self, job: Taken, outcomes: Sequence[Outcome], session: Session | None = None) -> None:
        now, monotonic = time.time(), time.monotonic()
        reports_itself = session is not None and session.offers_dsn
        moves = []
        for recipient, outcome in zip(job.recipients, outcomes, strict=True):
            step = move(
                self._ways.policy,
                job,
                recipient,
                outcome,
                now=now,
                jitter=random.random(),
                reports_itself=reports_itself,
            )
            if isinstance(step, Again):
                self._note(recipient.destination, monotonic + step.at - now)
            key = Key(job.account_id, job.queue_id, recipient.address)
            moves.append(Moved(key, job.lease.token, step))
            _tell(job, recipient, outcome, session)
        self._recorder.put(moves)
        self._release(job)

    def _gone(self, job: Taken) -> None:
        """The message is no longer there: its account was removed."""
        self._recorder.put([Moved(key, job.lease.token, Gone()) for key in job.keys])
        self._release(job)

    # Leases -----------------------------------------------------------------------------------------------------------

    def _hold(self, job: Taken) -> None:
        self._held[id(job)] = job
        self._octets += len(job.octets or b"")

    def _release(self, job: Taken) -> None:
        del self._held[id(job)]
        if job.octets is not None:
            self._octets -= len(job.octets)
            self._freed.set()

    async def _renew(self) -> None:
        while True:
            seconds = self._settings.lease_seconds
            await asyncio.sleep(seconds / 4)
            soon = time.monotonic() + seconds / 2
            jobs = [job for job in self._held.values() if job.lease.until < soon]
            if not jobs:
                continue
            try:
                leases = [(key, job.lease.token) for job in jobs for key in job.keys]
                kept, until = await queue.renew(self._store, leases, seconds)
            except StorageError as error:
                log.warning("leases of %d messages are not renewed: %s", len(jobs), error)
                continue
            for job in jobs:
                job.lease = Lease(job.lease.token, until if kept.issuperset(job.keys) else 0.0)


def _handed(offer: Offer, recipients: list[TakenRecipient], now: float) -> Taken:
    out = offer.outgoing
    assert out.lease is not None
    octets = out.header_prefix + offer.octets
    return Taken(
        account_id=out.owner,
        queue_id=offer.queue_id,
        trace_id=offer.trace_id,
        reverse_path=out.reverse_path,
        envid=out.envid,
        ret=out.ret,
        body=out.body,
        smtputf8=out.smtputf8,
        header_prefix=out.header_prefix,
        created=now,
        size=len(octets),
        recipients=recipients,
        lease=out.lease,
        octets=octets,
    )


def _has_margin(job: Taken) -> bool:
    return time.monotonic() < job.lease.until - MARGIN_SECONDS


def _envelope(job: Taken) -> Envelope:
    """ValueError where a value cannot be said."""
    recipients = tuple(
        Recipient(r.address, r.notify or "", dsn.ascii_orcpt(r.orcpt) if r.orcpt else "") for r in job.recipients
    )
    return Envelope(job.reverse_path, recipients, job.body, job.smtputf8, job.ret, job.envid)


async def _dial(found: Sequence[Target], manner: Manner) -> Session:
    """The first that lets us in; NoTargets with what was the matter, of the first that may do better later."""
    problems: list[Deferred | Failed] = []
    for target in found:
        try:
            return await _open(target, manner)
        except Unreachable as unreachable:
            problems.append(unreachable.outcome)
    raise NoTargets(next((problem for problem in problems if isinstance(problem, Deferred)), problems[-1]))


async def _open(target: Target, manner: Manner) -> Session:
    try:
        return await Session.open(target, manner)
    except Unreachable as unreachable:
        if not unreachable.tls_failed:
            raise
        log.info("TLS failed host=%s, going on in clear: %s", target.host, unreachable)
        return await Session.open(target, replace(manner, tls="never"))


def _tell(job: Taken, recipient: TakenRecipient, outcome: Outcome, session: Session | None) -> None:
    word = type(outcome).__name__.lower()
    metrics.sent.labels(word).inc()
    log.log(
        logging.INFO,
        "%s trace=%s queue=%s from=<%s> to=<%s> host=%s tls=%s attempts=%d: %d %s %s",
        word,
        job.trace_id,
        job.queue_id,
        job.reverse_path,
        recipient.address,
        session.target.address if session is not None else outcome.host or "-",
        (session.tls if session is not None else "") or "-",
        recipient.attempts,
        outcome.code,
        outcome.enhanced,
        outcome.text,
    )
