"""One attempt at one message: its octets, a connection to its destination, what the other server says, the record.

Whatever happens, an attempt ends in an outcome for each recipient, or leaves the message to the end of its lease.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from mailserver import metrics
from mailserver.message import structure
from mailserver.protocols.smtp import dsn
from mailserver.protocols.smtp.client import Envelope, Recipient
from mailserver.sending.held import Held, has_margin
from mailserver.sending.lane import Lane
from mailserver.sending.moves import move
from mailserver.sending.outcome import Deferred, Delivered, Failed, Outcome
from mailserver.sending.recorder import Recorder
from mailserver.sending.retry import REACHABLE
from mailserver.sending.session import Manner, Session, Unreachable
from mailserver.sending.targets import NoTargets, Resolver, Target, targets
from mailserver.sending.ways import Ways
from storage import NotFound, StorageError
from storage.queue import Again, Gone, Key, Moved, Taken, TakenRecipient

log = logging.getLogger(__name__)

MAX_DIALS = 10
"""Addresses that are tried for one connection."""

DIAL_SECONDS = 300.0
"""For a connection, however many addresses there are to try."""

MESSAGE_SECONDS = 1200.0
DRIP_OCTETS = 8 * 1024
"""For a message, and a second more for each so many octets: the time limits of single steps would allow for hours."""

MAX_MESSAGES = 1_000
"""By one connection."""

_LOOP = "5.4.6"
_UNREADABLE = Deferred(451, "4.3.0", "The message cannot be read now")
_FAULT = Deferred(451, "4.3.0", "A fault of this server")
_TOO_LONG = Deferred(0, "4.4.1", "No connection came about in the time that there is for one")
_MOVED = Deferred(451, "4.3.5", "The settings of the way to this destination have just changed")
_NOT_SAYABLE = Failed(553, "5.1.3", "The address cannot be said in SMTP")


class Attempts:
    """note: told of a destination and the moment (monotonic) at which a recipient of it is due again."""

    def __init__(self, held: Held, recorder: Recorder, note: Callable[[str, float], None]) -> None:
        self._held = held
        self._recorder = recorder
        self._note = note
        self.ways: Ways
        self.resolver: Resolver

    async def bring(self, lane: Lane, job: Taken, session: Session | None) -> Session | None:
        """The connection for the next message, if it is any good. session: the one that is there."""
        try:
            if not has_margin(job):
                return session  # somebody else may have it by now
            outcomes, session = await self._outcomes(lane, job, session)
            if session is not None and session.sent == 1 and not session.usable and has_margin(job):
                self._suspect(lane, outcomes)
            self._record(job, outcomes, session)
        except Exception:
            log.exception("fault in an attempt at queue=%s, which is left to the end of its lease", job.queue_id)
        finally:
            self._held.drop(job)
        return session

    def fail_all(self, lane: Lane, outcome: Outcome) -> None:
        """What waits for a connection that does not come about."""
        while lane.jobs:
            self.fail(lane.jobs.popleft(), outcome)

    def fail(self, job: Taken, outcome: Outcome) -> None:
        """It is what became of the job, without an attempt."""
        try:
            self._record(job, [outcome] * len(job.recipients))
        finally:
            self._held.drop(job)

    async def _outcomes(
        self, lane: Lane, job: Taken, session: Session | None
    ) -> tuple[Sequence[Outcome], Session | None]:
        everyone = len(job.recipients)
        try:
            octets = await self._held.load(job)
            envelope = _envelope(job, octets)
            session = await self._usable(lane, job, session)
            outcomes = await _send(session, job, envelope, octets)
            if session.is_stale:
                session = await self._usable(lane, job, session)
                outcomes = await _send(session, job, envelope, octets)
            lane.proven = lane.proven or any(isinstance(outcome, Delivered) for outcome in outcomes)
            return outcomes, session
        except NotFound:
            return [], session  # its account was removed
        except NoTargets as nowhere:
            self.fail_all(lane, nowhere.outcome)
            return [nowhere.outcome] * everyone, None
        except StorageError as error:
            log.warning("queue=%s trace=%s cannot be read: %s", job.queue_id, job.trace_id, error)
            return [_UNREADABLE] * everyone, session
        except ValueError as error:
            return [replace(_NOT_SAYABLE, text=f"{_NOT_SAYABLE.text}: {error}")] * everyone, session
        except Exception:
            log.exception("fault while queue=%s was sent", job.queue_id)
            return [_FAULT] * everyone, session

    # Connections ------------------------------------------------------------------------------------------------------

    async def _usable(self, lane: Lane, job: Taken, session: Session | None) -> Session:
        """The connection, or another one where it is worn out; NoTargets."""
        if session is not None and session.usable and session.sent < MAX_MESSAGES:
            return session
        if session is not None:
            await session.close()
        if lane.retired:
            raise NoTargets(_MOVED)  # its recipients may have different ways by now
        dialled_at = time.monotonic()
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                session = await self._connect(job.recipients[0].destination)
        except TimeoutError:
            raise self._cannot_reach(lane, NoTargets(_TOO_LONG), dialled_at) from None
        except NoTargets as nowhere:
            raise self._cannot_reach(lane, nowhere, dialled_at) from None
        lane.unreachable, lane.backoff = None, REACHABLE
        return session

    def _cannot_reach(self, lane: Lane, nowhere: NoTargets, dialled_at: float) -> NoTargets:
        log.info("cannot reach destination=%s: %s", lane.name, nowhere)
        if isinstance(nowhere.outcome, Deferred):  # else nothing is left to wait for
            lane.unreachable = nowhere.outcome
            lane.backoff = lane.backoff.failed(self.ways.policy, dialled_at=dialled_at, now=time.monotonic())
        return nowhere

    async def _connect(self, destination: str) -> Session:
        """NoTargets."""
        ways, resolver = self.ways, self.resolver
        route = ways.route(destination)
        found = await targets(destination, resolver, this_host=ways.this_host, routes=ways.routes, port=ways.port)
        try:
            return await _dial(found[:MAX_DIALS], ways.manner(route))
        except NoTargets as nowhere:
            if route is not None and nowhere.outcome.enhanced == _LOOP:
                # A route of ours that leads back to us is for the administrator to mend: mail waits for it.
                raise NoTargets(Deferred(451, "4.4.6", nowhere.outcome.text)) from None
            raise

    def _suspect(self, lane: Lane, outcomes: Sequence[Outcome]) -> None:
        """A connection that did not outlive its first message: to dial for each of them would be no help to anybody."""
        worst = next((outcome for outcome in outcomes if isinstance(outcome, Deferred)), None)
        if worst is not None:
            now = time.monotonic()
            lane.unreachable = worst
            lane.backoff = lane.backoff.failed(self.ways.policy, dialled_at=now, now=now)
            self.fail_all(lane, worst)

    # What became of it ------------------------------------------------------------------------------------------------

    def _record(self, job: Taken, outcomes: Sequence[Outcome], session: Session | None = None) -> None:
        """No outcomes: the message is not there any more."""
        if not outcomes:
            self._recorder.put([Moved(key, job.lease.token, Gone()) for key in job.keys])
            return
        now, policy = time.monotonic(), self.ways.policy
        reports_itself = session is not None and session.offers_dsn
        moves = []
        for recipient, outcome in zip(job.recipients, outcomes, strict=True):
            chance = random.random()
            step = move(policy, job, recipient, outcome, now=now, jitter=chance, reports_itself=reports_itself)
            key = Key(job.account_id, job.queue_id, recipient.address)
            moves.append(Moved(key, job.lease.token, step))
            _tell(job, recipient, outcome, session)
            if isinstance(step, Again):
                self._note(recipient.destination, step.at)
        self._recorder.put(moves)


def _envelope(job: Taken, octets: bytes) -> Envelope:
    """ValueError where a value cannot be said.

    SMTPUTF8 was said of the message by whoever brought it; it is asked for where its header is not ASCII (RFC 6531
    §3.4), or an address, which the envelope sees by itself.
    """
    recipients = tuple(
        Recipient(r.address, r.notify or "", dsn.ascii_orcpt(r.orcpt) if r.orcpt else "") for r in job.recipients
    )
    smtputf8 = job.smtputf8 and not octets[: structure.end_of_header(octets, 0, len(octets))].isascii()
    return Envelope(job.reverse_path, recipients, job.body, smtputf8, job.ret, job.envid)


async def _send(session: Session, job: Taken, envelope: Envelope, octets: bytes) -> list[Outcome]:
    try:
        async with asyncio.timeout(MESSAGE_SECONDS + len(octets) / DRIP_OCTETS):
            return await session.send(envelope, octets, lambda: has_margin(job))
    except TimeoutError:
        text = "The message took longer than there is time for one; it may have been delivered"
        return [Deferred(0, "4.4.2", text, session.target.host)] * len(envelope.recipients)


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
    log.info(
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
