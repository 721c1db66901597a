"""The `send` role of one worker: takes recipients on, and has their mail brought to its destinations.

    the queue ── take ──▶ lane (a destination) ── connection ──▶ another server
        ▲     reserve, send (accepted here)            │
        └──────────────── recorder ◀── outcome ────────┘

What is due is known by destination (schedule.py): from the queue, which is read now and then and when others say that
there is something new, and from what happens here. A lane takes no more on than its connections will soon send. Rows of
a destination that backs off are not read, but for those that have to be told of or given up by now.

Connections are few. A lane that has none while all are in use waits for its turn, and one that has had a turn while
others wait goes to their end.

What this worker itself accepts it is handed with its octets, under a lease that its rows are written with. A lease is
renewed while a message waits or is being sent (held.py); before the end of a message it must have a margin left, else
the connection is dropped, since somebody else may be about to send it (attempt.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from mailserver.delivery.outbox import Offer
from mailserver.sending.attempt import Attempts
from mailserver.sending.held import Held
from mailserver.sending.lane import Lane
from mailserver.sending.recorder import Recorder
from mailserver.sending.schedule import Schedule
from mailserver.sending.session import Session
from mailserver.sending.targets import Resolver
from mailserver.sending.ways import Ways
from storage import Notice, Outgoing, StorageError, Store, queue
from storage.queue import Taken, TakenRecipient
from storage.records import Lease
from storage.tasks import end

if TYPE_CHECKING:
    from config.schema import SendConfig

log = logging.getLogger(__name__)

AT_ONCE = 50
"""Recipients that are taken on for a lane in one go; as many again when half of them are done."""

TURN = 50
"""Messages that a connection sends while other lanes wait for one."""

UNPROVEN = 5
"""Connections for a lane of which nothing good is known yet."""

_MAX_HANDED = 200
"""Messages that wait in a lane, beyond which no more are handed over, but left in the queue."""

_DESTINATIONS_AT_ONCE = 10
"""Of one lane."""
_OVERDUE_AT_ONCE = 200
_SOON = 0.2
"""Seconds in which several hints that there is something new are one."""
_SCAN_SHARE = 0.05
"""The part of the time that may go into reading the queue's schedule because of hints."""
_LOOKS_APART = 0.02
_AGAIN_SECONDS = 1.0
_CLOSE_SECONDS = 5.0


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
        self._settings = settings
        self._max_connections = max(1, settings.connections // workers)
        self._max_of_one = max(1, settings.connections_per_destination // workers)
        self._told = told
        self.held = Held(store, settings.memory_mib * 1024 * 1024)
        self._recorder = Recorder(store, told)
        self._attempts = Attempts(self.held, self._recorder, self._note)
        self._attempts.ways, self._attempts.resolver = ways, resolver
        self.lanes: dict[str, Lane] = {}
        self._turns: dict[Lane, None] = {}  # lanes that wait for a connection, in their order
        self._due, self._act = Schedule(), Schedule()
        self._rescan_at = 0.0
        self._rested_at = 0.0  # hints wait for that moment
        self._hasten = False  # destinations that back off are to be tried at the next look
        self._wake = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()
        self._returning: set[asyncio.Task[None]] = set()
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._renew())]
        self._closing = False

    def reconfigure(self, ways: Ways, resolver: Resolver, settings: SendConfig) -> None:
        """Other settings for what is begun from now on. What waits goes back, for its destination may have moved."""
        self._attempts.ways, self._attempts.resolver, self._settings = ways, resolver, settings
        returning = asyncio.create_task(self._give_back(self._retire_all()))
        self._returning.add(returning)
        returning.add_done_callback(self._returned)

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._returning.discard(task)
        self._look_soon()

    async def close(self, seconds: float) -> None:
        """What has not been begun goes back; what has been gets so long to come to an end."""
        self._closing = True
        await end(self._tasks)
        renewing = asyncio.create_task(self._renew())
        await asyncio.gather(self._give_back(self._retire_all()), *self._returning)
        if self._connections:
            await asyncio.wait(self._connections, timeout=seconds)
        await end([renewing, *self._connections])
        await self._recorder.close(_CLOSE_SECONDS)

    def _retire_all(self) -> list[Taken]:
        waiting = [job for lane in self.lanes.values() for job in lane.retire()]
        self.lanes.clear()
        self._turns.clear()
        return waiting

    async def _give_back(self, jobs: Sequence[Taken]) -> None:
        try:
            await queue.give_back(self._store, [(key, job.lease.token) for job in jobs for key in job.keys])
        except StorageError as error:
            log.info("%d messages wait for the end of their lease: %s", len(jobs), error)
        for job in jobs:
            self.held.drop(job)

    async def _renew(self) -> None:
        while True:
            seconds = self._settings.lease_seconds
            await asyncio.sleep(seconds / 4)
            await self.held.renew(seconds)

    def hear(self, notice: Notice) -> None:
        """The change feed: somebody waits whom nobody has taken on, perhaps for a destination that backs off."""
        self._hasten |= notice.kind == "retry"
        if notice.kind in ("queue", "retry", "resync"):
            self._look_soon()
            self._told()

    def _look_soon(self) -> None:
        self._rescan_at = min(self._rescan_at, max(time.monotonic() + _SOON, self._rested_at))
        self._wake.set()

    # What this worker accepts itself (delivery/outbox.py) -------------------------------------------------------------

    def reserve(self, outgoing: Outgoing, octets: int) -> Outgoing | None:
        lanes = {self._lane(r.destination) for r in outgoing.recipients if not r.report}
        if self._closing or not lanes or not all(map(self._takes_more, lanes)) or not self.held.reserve(octets):
            return None
        seconds = self._settings.lease_seconds
        lease = Lease(uuid4(), time.monotonic() + seconds)
        return replace(outgoing, lease=lease, lease_seconds=seconds, pause_seconds=self._pause(1))

    def _takes_more(self, lane: Lane) -> bool:
        return len(lane.jobs) < _MAX_HANDED and not lane.more and lane.backoff.allows(time.monotonic())

    def forget(self, offer: Offer) -> None:
        self.held.give(len(offer.octets))

    def send(self, offer: Offer) -> None:
        self.forget(offer)
        by_lane: dict[Lane, list[TakenRecipient]] = {}
        for r in offer.outgoing.recipients:
            if r.report:
                self._told()
            else:
                one = TakenRecipient(r.address, r.destination, r.notify, r.orcpt, 1, False)
                by_lane.setdefault(self._lane(r.destination), []).append(one)
        for lane, recipients in by_lane.items():
            self._start(lane, _handed(offer, recipients))

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
        due: dict[Lane, list[str]] = {}
        for destination in self._due.take_due(now):
            lane = self._lane(destination)
            if not lane.backoff.allows(now):
                self._due.note(destination, lane.backoff.not_before)
            elif not self._may_fill(lane):
                lane.more.add(destination)
            else:
                due.setdefault(lane, []).append(destination)
        for lane, destinations in due.items():
            if self._may_fill(lane):  # still
                await self._fill(lane, destinations)
            else:
                lane.more.update(destinations)
        for destination in self._act.take_due(now):
            await self._attend(destination)
        self._give_turns()  # a lane may have made no use of its own
        return min(self._rescan_at, self._due.next(), self._act.next())

    async def _rescan(self) -> None:
        began = time.monotonic()
        self._rescan_at = began + self._settings.rescan_seconds
        found = await queue.schedule(self._store)
        now = time.monotonic()
        self._rested_at = now + min((now - began) / _SCAN_SHARE, self._settings.rescan_seconds)
        self._rescan_at = max(self._rescan_at, self._rested_at)
        self._due.replace({destination: now + due for destination, (due, _) in found.items()})
        self._act.replace({destination: now + act for destination, (_, act) in found.items()})
        if self._hasten:
            self._hasten = False
            for lane in self.lanes.values():
                lane.backoff = lane.backoff.hastened()
        for name in [name for name, lane in self.lanes.items() if lane.is_over(now)]:
            del self.lanes[name]

    def _may_fill(self, lane: Lane) -> bool:
        """Will its connections soon have sent what it has? A lane that waits for its turn takes nothing on before."""
        if lane.connections == 0 and self._is_full:
            self._turns[lane] = None
            return False
        return len(lane.jobs) <= AT_ONCE // 2

    async def _fill(self, lane: Lane, destinations: Sequence[str]) -> None:
        """Takes on what is due, of a few destinations. One message tells whether it can be reached again."""
        chosen = destinations[: 1 if lane.backoff.failures else _DESTINATIONS_AT_ONCE]
        limit = 1 if lane.backoff.failures else max(1, AT_ONCE // len(chosen))
        lane.more.update(destinations[len(chosen) :])
        taken = await self._take(chosen, limit, overdue=False)
        found = [recipient.destination for job in taken for recipient in job.recipients]
        lane.more.update(name for name in chosen if found.count(name) >= limit)
        for job in taken:
            self._start(lane, job)
        if not lane.jobs:
            self._ask_for_more(lane)

    def _ask_for_more(self, lane: Lane) -> None:
        """The lane has room for what is due."""
        if lane.more and not lane.retired:
            now = time.monotonic()
            for destination in lane.more:
                self._due.note(destination, now)
            lane.more.clear()
            self._wake.set()

    async def _attend(self, destination: str) -> None:
        """Recipients who have to be told of, or given up, while their destination cannot be reached anyway."""
        lane, now = self._lane(destination), time.monotonic()
        self._act.note(destination, now + self._settings.rescan_seconds)
        if lane.unreachable is None or lane.backoff.allows(now):
            return  # an attempt comes at the same time
        taken = await self._take([destination], _OVERDUE_AT_ONCE, overdue=True)
        for job in taken:
            self.held.add(job)
            self._attempts.fail(job, lane.unreachable)
        if taken:
            self._act.note(destination, now)
        await self._recorder.room()

    async def _take(self, destinations: Sequence[str], limit: int, *, overdue: bool) -> list[Taken]:
        seconds = self._settings.lease_seconds
        return await queue.take(
            self._store, destinations, limit, pause=self._pause, lease_seconds=seconds, overdue=overdue
        )

    def _pause(self, attempts: int) -> float:
        pauses = self._settings.retry_pauses_seconds
        return pauses[min(attempts, len(pauses)) - 1]

    def _note(self, destination: str, moment: float) -> None:
        if self._due.note(destination, moment):
            self._wake.set()

    # Lanes and connections --------------------------------------------------------------------------------------------

    def _lane(self, destination: str) -> Lane:
        route = self._attempts.ways.route(destination)
        name = destination if route is None else f"{route[0]}:{route[1]}"
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name)
        return lane

    def _most_of(self, lane: Lane) -> int:
        """Connections that it may have: few, until it has taken a message, for it may do nothing but hold them."""
        return self._max_of_one if lane.proven else min(self._max_of_one, UNPROVEN)

    @property
    def _is_full(self) -> bool:
        return len(self._connections) >= self._max_connections

    def _start(self, lane: Lane, job: Taken) -> None:
        for part in lane.add(job):
            self.held.add(part)
        self._connect_more(lane)

    def _connect_more(self, lane: Lane) -> None:
        while lane.needs_connection and lane.connections < self._most_of(lane) and not self._closing:
            if self._is_full:
                if lane.connections == 0:
                    self._turns[lane] = None
                return
            lane.connections += 1
            task = asyncio.create_task(self._serve(lane))
            self._connections.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._connections.discard(task)
        self._give_turns()

    def _give_turns(self) -> None:
        """Connections are free: for as many of the lanes that have waited longest."""
        free = self._max_connections - len(self._connections)
        while self._turns and free > 0 and not self._closing:
            lane = next(iter(self._turns))
            del self._turns[lane]
            free -= 1
            self._connect_more(lane)
            self._ask_for_more(lane)

    async def _serve(self, lane: Lane) -> None:
        """One connection: message after message, while there are some."""
        session: Session | None = None
        sent = 0
        try:
            while (job := await lane.next(self._patience(lane) if session else 0.0)) is not None:
                session = await self._attempts.bring(lane, job, session)
                sent += 1
                if len(lane.jobs) <= AT_ONCE // 2:
                    self._ask_for_more(lane)
                await self._recorder.room()
                if sent >= TURN and self._turns:
                    break
        finally:
            lane.connections -= 1
            if session is not None:
                await session.close()
            if not lane.connections and lane.jobs:
                self._turns[lane] = None

    def _patience(self, lane: Lane) -> float:
        """How long a connection waits for another message."""
        return 0.0 if self._turns or self._closing or lane.retired else self._settings.reuse_seconds


def _handed(offer: Offer, recipients: list[TakenRecipient]) -> Taken:
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
        born=time.monotonic(),
        size=len(octets),
        recipients=recipients,
        lease=out.lease,
        octets=octets,
    )
