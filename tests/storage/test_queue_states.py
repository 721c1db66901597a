"""All states and moves of docs/storage-states.md, on a real database.

A state is written as its letter in that document (W, L, X, H, F, D, "-" for no row; HL and HX: held, and a worker has
it, or had), and behind it n: a delay is to be told of, m: it is being told of, t: it was told of. In F and D an m says
that the report is being made.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from storage import queue, queue_admin, queue_reports
from storage.queue import Again, Ended, Gone, Key, Move, Moved, Said
from storage.queue_admin import Filter
from storage.queue_reports import OwedReport
from storage.records import MessageId, OutgoingRecipient
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, OpenStore
from tests.storage.test_queue import LATER, NEVER, OK, enqueue, outgoing, pass_time

LEASE = 30.0
DROPPED = Said(0, "5.3.0", "taken out", "")
NOBODY = uuid4()

OPEN = ("W", "L", "X", "H", "HL", "HX")
STATES = (*(base + told for base in OPEN for told in ("", "n", "m", "t")), "F", "Fm", "D", "Dm", "-")


@dataclass
class One:
    """A message with one recipient. token: of the last lease; report: the last one that was taken on."""

    store: Store
    queue_id: MessageId
    key: Key
    destination: str
    token: UUID = NOBODY
    report: OwedReport | None = None

    @property
    def filter(self) -> Filter:
        return Filter(queue_id=self.queue_id)

    async def row(self) -> Any:
        async with self.store.acquire() as conn:
            return await conn.fetchrow(
                "SELECT *, lease_until < now() AS past, next_attempt_at <= now() AS due FROM queue_recipients "
                "WHERE queue_id = $1",
                self.queue_id,
            )

    async def message(self) -> Any:
        async with self.store.acquire() as conn:
            return await conn.fetchrow("SELECT * FROM queue_messages WHERE queue_id = $1", self.queue_id)

    async def record(self, move: Move) -> None:
        await queue.record(self.store, [Moved(self.key, self.token, move)])


async def one(store: Store, notify: str | None = None) -> One:
    name = f"d{uuid4().hex}.test"
    out = replace(outgoing(), recipients=(OutgoingRecipient(f"x@{name}", name, notify),))
    queue_id = await enqueue(store, out)
    return One(store, queue_id, Key(ALICE, queue_id, f"x@{name}"), name)


def named(row: Any) -> str:
    """The state of a recipient's row."""
    if row is None:
        return "-"
    if row["state"] in ("failed", "delivered"):
        return row["state"][0].upper() + ("m" if row["report_id"] else "")
    lease = "" if row["lease_until"] is None else "X" if row["past"] else "L"
    base = f"H{lease}" if row["state"] == "held" else lease or "W"
    return base + ("t" if row["told"] else "m" if row["report_id"] else "n" if row["report"] else "")


# Moves ----------------------------------------------------------------------------------------------------------------


async def take(it: One) -> None:
    for taken in await queue.take(it.store, [it.destination], 9, pause=lambda attempts: 1.0, lease_seconds=LEASE):
        it.token = taken.lease.token


async def time_passes(it: One) -> None:
    """So that what is due is due, and leases are over; reports that are being made stay with who makes them."""
    await pass_time(it.store, 2 * LEASE)


async def renew(it: One) -> None:
    await queue.renew(it.store, [(it.key, it.token)], LEASE)


async def give_back(it: One) -> None:
    await queue.give_back(it.store, [(it.key, it.token)])


async def delivered(it: One) -> None:
    await it.record(Gone())


async def relayed(it: One) -> None:
    await it.record(Ended("relayed", OK))


async def failed(it: One) -> None:
    await it.record(Ended("failed", NEVER))


async def deferred(it: One) -> None:
    await it.record(Again(LATER, time.monotonic() + 10, time.monotonic() + 900))


async def delayed(it: One) -> None:
    await it.record(Again(LATER, time.monotonic() - 1, time.monotonic() + 900, notice=True))


async def take_report(it: One) -> None:
    it.report = await queue_reports.take(it.store, ALICE, it.queue_id, 1000) or it.report


async def finish_report(it: One) -> None:
    nothing = OwedReport(ALICE, it.queue_id, MessageId(1), NOBODY, "", "", "", 0.0, ())
    await queue_reports.finish(it.store, it.report or nothing)


async def retry(it: One) -> None:
    await queue_admin.retry(it.store, it.filter)


async def hold(it: One) -> None:
    await queue_admin.hold(it.store, it.filter)


async def release(it: One) -> None:
    await queue_admin.release(it.store, it.filter)


async def drop(it: One) -> None:
    await queue_admin.drop(it.store, it.filter)


async def drop_telling(it: One) -> None:
    await queue_admin.drop(it.store, it.filter, DROPPED)


Step = Callable[[One], Awaitable[None]]

DELAYED = (take, delayed)
WAYS: dict[str, tuple[Step, ...]] = {
    "W": (),
    "L": (take,),
    "X": (take, time_passes),
    "H": (hold,),
    "HL": (take, hold),
    "HX": (take, hold, time_passes),
    "F": (take, failed),
    "Fm": (take, failed, take_report),
    "D": (take, relayed),
    "Dm": (take, relayed, take_report),
    "-": (take, delivered),
}
"""From accepting on."""

BEFORE: dict[str, tuple[Step, ...]] = {
    "": (),
    "n": DELAYED,
    "m": (*DELAYED, take_report),
    "t": (*DELAYED, take_report, finish_report),
}


async def make(store: Store, state: str, notify: str | None = None) -> One:
    """A message whose recipient is in this state, brought there by legal moves."""
    made = await one(store, notify)
    base, told = (state, "") if state in WAYS else (state[:-1], state[-1])
    for step in (*BEFORE[told], *WAYS[base]):
        await step(made)
    assert named(await made.row()) == state
    return made


def changing(bases: dict[str, str]) -> dict[str, str]:
    """The same for recipients of whose delay somebody is told, who stay so."""
    return {base + told: to + told for base, to in bases.items() for told in ("", "n", "m", "t")}


def ending(to: str, *bases: str) -> dict[str, str]:
    """Whatever was to be told of a delay is forgotten."""
    return {base + told: to for base in bases for told in ("", "n", "m", "t")}


HAD = ("L", "X", "HL", "HX")
BACK = {"L": "W", "X": "W", "HL": "H", "HX": "H"}
REPORTED = {f"{base}m": f"{base}t" for base in OPEN} | {"Fm": "-", "Dm": "-"}

MOVES: dict[str, tuple[Step, dict[str, str]]] = {
    "take": (take, changing({"W": "L", "X": "L"})),
    "time passes": (time_passes, changing({"L": "X", "HL": "HX"})),
    "renew": (renew, changing({"L": "L", "X": "L", "HL": "HL", "HX": "HL"})),
    "give back": (give_back, changing(BACK)),
    "delivered": (delivered, ending("-", *HAD)),
    "delivered, to be told": (relayed, ending("D", *HAD)),
    "failed": (failed, ending("F", *HAD)),
    "deferred": (deferred, changing(BACK)),
    "deferred, to be told": (
        delayed,
        {base + told: to + (told or "n") for base, to in BACK.items() for told in ("", "n", "m")},
    ),
    "take a report": (
        take_report,
        {f"{base}n": f"{base}m" for base in OPEN} | {"F": "Fm", "D": "Dm"},
    ),
    "finish a report": (finish_report, REPORTED),
    "retry": (retry, changing({"W": "W", "X": "X", "H": "W", "HL": "L", "HX": "X"})),
    "hold": (hold, changing({"W": "H", "L": "HL", "X": "HX"})),
    "release": (release, changing({"H": "W", "HL": "L", "HX": "X"})),
    "drop": (drop, {state: "-" for state in STATES if state != "-"}),
    "drop, telling": (drop_telling, ending("F", *OPEN)),
}
NEVER_ASKED = {"deferred, to be told": {f"{base}t" for base in BACK}}
"""Pairs that nobody asks for: who was told of a delay is not told again."""

DUE = {"retry", "release", "give back"}


@pytest.mark.parametrize("move", MOVES)
async def test_from_every_state(store: Store, move: str) -> None:
    step, legal = MOVES[move]
    assert legal.keys() <= set(STATES)
    wrong = []
    for state in STATES:
        if state in NEVER_ASKED.get(move, ()):
            continue
        it = await make(store, state)
        before = await it.row()
        await step(it)
        after, message = await it.row(), await it.message()
        if named(after) != legal.get(state, state):
            wrong.append(f"{state} became {named(after)}, not {legal.get(state, state)}")
        elif state not in legal and step is not time_passes and before != after:
            wrong.append(f"{state} was changed")
        elif state in legal and move in DUE and not (after["due"] or "L" in named(after)):
            wrong.append(f"{state} is not due")
        wrong += [f"{state}: {problem}" for problem in faults(message, [] if after is None else [after])]
    assert wrong == []


@pytest.mark.parametrize(("notify", "state"), [(None, "F"), ("FAILURE,DELAY", "F"), ("NEVER", "-"), ("success", "-")])
async def test_a_dropped_recipient_fails_only_where_its_sender_wants_to_hear(
    store: Store, notify: str | None, state: str
) -> None:
    for base in OPEN:
        it = await make(store, base, notify)
        await drop_telling(it)
        assert named(await it.row()) == state
        assert faults(await it.message(), [await it.row()] if state == "F" else []) == []


def faults(message: Any, recipients: list[Any]) -> list[str]:
    """What is wrong with a message and its recipients' rows."""
    found = []
    if message["open"] != len(recipients):
        found.append(f"open is {message['open']}, there are {len(recipients)} recipients")
    if (message["done_at"] is not None) is not (message["open"] == 0):
        found.append(f"open is {message['open']}, done_at {message['done_at']}")
    for row in recipients:
        if (row["lease_token"] is None) is not (row["lease_until"] is None):
            found.append("a lease without an end, or an end without a lease")
        if row["state"] in ("failed", "delivered") and (row["lease_token"] or not row["report"]):
            found.append(f"{row['state']} with a lease, or with nothing to tell")
        if row["state"] in ("waiting", "held") and row["report"] not in (None, "delayed"):
            found.append(f"{row['state']}, to be told as {row['report']}")
        if row["report_id"] is not None and (row["report"] is None or row["report_id"] != message["report_id"]):
            found.append("marked for a report that is not made")
        if row["state"] == "waiting" and row["lease_until"] and row["next_attempt_at"] < row["lease_until"]:
            found.append("due before the lease's end")
    return found


# A walk ---------------------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """leases: what it believes to have, until when of the walk's clock."""

    store: Store
    leases: dict[Key, tuple[UUID, float]] = field(default_factory=dict)
    reports: list[OwedReport] = field(default_factory=list)


@dataclass
class Walk:
    """Two workers and an administrator do this and that by chance. may_go: recipients that a step may make vanish."""

    chance: random.Random
    workers: list[Worker]
    clock: float = 0.0
    number: int = 0
    may_go: set[Key] = field(default_factory=set)

    @property
    def store(self) -> Store:
        return self.workers[0].store

    async def rows(self) -> dict[Key, Any]:
        async with self.store.acquire() as conn:
            found = await conn.fetch("SELECT * FROM queue_recipients")
        return {Key(row["account_id"], row["queue_id"], row["recipient"]): row for row in found}

    async def check(self, before: dict[Key, Any]) -> None:
        now = await self.rows()
        async with self.store.acquire() as conn:
            messages = await conn.fetch("SELECT * FROM queue_messages")
        for message in messages:
            name = (message["account_id"], message["queue_id"])
            assert faults(message, [row for key, row in now.items() if key[:2] == name]) == []
        assert before.keys() - now.keys() <= self.may_go
        valid = [key for worker in self.workers for key, (_, until) in worker.leases.items() if until > self.clock]
        assert len(valid) == len(set(valid)), "two workers believe to have one recipient"

    async def accept(self) -> None:
        self.number += 1
        amount = self.chance.randint(1, 3)
        notify = self.chance.choice([None, None, "NEVER", "SUCCESS,FAILURE"])
        recipients = tuple(
            OutgoingRecipient(f"r{self.number}.{index}@d{index}.test", f"d{index}.test", notify)
            for index in range(amount)
        )
        out = replace(outgoing(), owner=self.chance.choice([ALICE, BOB]), recipients=recipients)
        await enqueue(self.store, replace(out, reverse_path=self.chance.choice(["alice@example.org", "b@x.test", ""])))

    async def take(self) -> None:
        worker = self.chance.choice(self.workers)
        names = [f"d{self.chance.randrange(3)}.test" for _ in range(2)]
        found = await queue.take(
            worker.store, sorted(set(names)), self.chance.randint(1, 20), pause=lambda n: 20.0 * n, lease_seconds=LEASE
        )
        for taken in found:
            worker.leases |= dict.fromkeys(taken.keys, (taken.lease.token, self.clock + LEASE))

    async def renew(self) -> None:
        worker = self.chance.choice(self.workers)
        wanted = [(key, token) for key, (token, _) in worker.leases.items()]
        kept, _ = await queue.renew(worker.store, wanted, LEASE)
        worker.leases = {key: (token, self.clock + LEASE) for key, token in wanted if key in kept}

    async def give_back(self) -> None:
        worker = self.chance.choice(self.workers)
        some = self._some(worker)
        await queue.give_back(worker.store, some)

    async def record(self) -> None:
        worker = self.chance.choice(self.workers)
        rows = await self.rows()
        moves = []
        for key, token in self._some(worker):
            told = key in rows and rows[key]["told"]
            now = time.monotonic()
            move = self.chance.choice(
                [
                    Gone(),
                    Ended("failed", NEVER),
                    Ended("relayed", OK),
                    Again(LATER, now + 40, now + 300),
                    Again(LATER, now + 40, now + 300, notice=not told),
                ]
            )
            if isinstance(move, Gone) and key in rows and rows[key]["lease_token"] == token:
                self.may_go.add(key)
            moves.append(Moved(key, token, move))
        await queue.record(worker.store, moves)

    def _some(self, worker: Worker) -> list[tuple[Key, UUID]]:
        """Of what the worker believes to have, and it has no more then."""
        keys = self.chance.sample(sorted(worker.leases), min(len(worker.leases), self.chance.randint(1, 3)))
        return [(key, worker.leases.pop(key)[0]) for key in keys]

    async def take_report(self) -> None:
        worker = self.chance.choice(self.workers)
        for account_id, queue_id in await queue_reports.owed(worker.store, 2):
            report = await queue_reports.take(worker.store, account_id, queue_id, 60)
            worker.reports += [report] if report else []

    async def finish_report(self) -> None:
        worker = self.chance.choice(self.workers)
        if worker.reports:
            report = worker.reports.pop(self.chance.randrange(len(worker.reports)))
            self.may_go |= {key for key in await self.rows() if key[:2] == (report.account_id, report.queue_id)} & {
                Key(report.account_id, report.queue_id, one.address)
                for one in report.recipients
                if one.report != "delayed"
            }
            await queue_reports.finish(worker.store, report)

    async def pass_time(self) -> None:
        seconds = self.chance.choice([5.0, 10.0, 20.0, 90.0])
        self.clock += seconds
        await pass_time(self.store, seconds)

    async def administer(self) -> None:
        chance = self.chance
        some = [
            Filter(destination=f"d{chance.randrange(3)}.test"),
            Filter(state=chance.choice(queue_admin.STATES)),
            Filter(recipient=f"r{chance.randint(1, self.number or 1)}.0@d0.test"),
            Filter(account_id=BOB, due=True),
        ]
        move = chance.choice([queue_admin.retry, queue_admin.hold, queue_admin.release, queue_admin.release, None])
        if move is not None:
            await move(self.store, chance.choice([Filter(), *some]))
            return
        wanted = chance.choice(some)
        listed = await queue_admin.listed(self.store, wanted, None, 1000)
        self.may_go |= {Key(one.account_id, one.queue_id, one.recipient) for one in listed}
        await queue_admin.drop(self.store, wanted, chance.choice([None, DROPPED]))

    async def die(self) -> None:
        """A worker is killed, and another comes in its place."""
        worker = self.chance.choice(self.workers)
        worker.leases.clear()
        worker.reports.clear()

    async def come_to_an_end(self) -> None:
        for _ in range(20):
            await queue_admin.release(self.store, Filter())
            await pass_time(self.store, 1000)
            found = await queue.take(
                self.store, [f"d{n}.test" for n in range(3)], 500, pause=lambda n: 1.0, lease_seconds=LEASE
            )
            await queue.record(
                self.store, [Moved(key, taken.lease.token, Gone()) for taken in found for key in taken.keys]
            )
            for account_id, queue_id in await queue_reports.owed(self.store, 500):
                if report := await queue_reports.take(self.store, account_id, queue_id, 60):
                    await queue_reports.finish(self.store, report)
            if not await self.rows():
                return


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_in_whatever_order(store: Store, open_store: OpenStore, seed: int) -> None:
    walk = Walk(random.Random(seed), [Worker(store), Worker(await open_store())])
    steps: list[Callable[[], Awaitable[None]]] = [
        *([walk.accept] * 2 + [walk.take] * 6 + [walk.record] * 4 + [walk.take_report] * 2 + [walk.finish_report] * 2),
        *([walk.pass_time] * 2 + [walk.administer] * 6 + [walk.renew, walk.give_back, walk.die]),
    ]
    for _ in range(1000):
        before = await walk.rows()
        walk.may_go.clear()
        await walk.chance.choice(steps)()
        await walk.check(before)
    await walk.come_to_an_end()
    assert await walk.rows() == {}
    async with store.acquire() as conn:
        assert await conn.fetchval("SELECT count(*) FROM queue_messages WHERE done_at IS NULL OR open <> 0") == 0
