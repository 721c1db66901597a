"""SEARCH (RFC 3501 §6.4.4): the mailbox is gone through in stretches, each in the steps that search_plan describes.

    pages      flags, sets, sizes, internal dates: the view in memory, a stretch of messages at once
    summaries  SENT… where the day is clear: one query a batch
    headers    SENT… near the day, and header fields: the front of the stored octets
    contents   BODY and TEXT: whole messages, streamed

A search that takes long says so every few seconds. That keeps clients patient, and shows whether one that has sent all
it will send is still there.

A message goes through a step only if the ones before have left it undecided, so a rare flag or date saves nearly all
the reading. Held is one batch and the one ahead, and of messages found their numbers. Between messages the session
breathes; there it ends with its connection. A message whose decoding takes longer than a moment is decoded in a thread.

Messages that were expunged meanwhile are searched as the session still numbers them; where their octets are gone they
do not match.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from mailserver.imap.errors import Done
from mailserver.imap.search_plan import Facts, Plan, Stretch, positions
from mailserver.protocols.imap import responses
from storage import MessageId, messages, reader

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands
    from mailserver.protocols.imap.commands import SearchKey

P = ParamSpec("P")
T = TypeVar("T")

_SUMMARIES_A_BATCH = 400
_HEADERS_A_BATCH = 200
_OCTETS_A_BATCH = 1 << 20
_NUMBERS_A_PIECE = 5000
_NOTICE_SECONDS = 5.0
_WORK_AT_ONCE = 64 * 1024
"""Octets that are decoded in the event loop at once, a few milliseconds of work; more of them, in a thread."""
_TERMS_AS_DECODING = 20
"""Looking for so many terms costs about as much as decoding the text."""


async def handle(s: Session, cmd: commands.Search) -> Done:
    found = await find(s, cmd.key, by_uid=cmd.by_uid)
    s.write(b"* SEARCH")
    for at in range(0, len(found), _NUMBERS_A_PIECE):
        s.write("".join([f" {number}" for number in found[at : at + _NUMBERS_A_PIECE]]).encode())
        await s.breathe()
    s.write(b"\r\n")
    return Done("UID SEARCH completed" if cmd.by_uid else "SEARCH completed")


async def find(s: Session, key: SearchKey, *, by_uid: bool) -> list[int]:
    """The messages of the selected mailbox that match, as UIDs or sequence numbers, ascending."""
    assert s.selected is not None
    numbers = s.selected.numbers
    search = _Search(s, Plan(key, numbers.snapshot, numbers.recent))
    found: list[int] = []
    for stretch in search.plan.stretches():
        matching = positions(await search.matching(stretch))
        found += [stretch.uids[at] for at in matching] if by_uid else [stretch.first + at for at in matching]
        await search.breathe()
    return found


class _Search:
    """One search under way."""

    def __init__(self, session: Session, plan: Plan) -> None:
        assert session.selected is not None
        self.plan = plan
        self._session = session
        self._store = session.service.store
        self._account_id = session.selected.mailbox.account_id
        self._next_notice = monotonic() + _NOTICE_SECONDS

    async def breathe(self) -> None:
        self._notice()
        await self._session.breathe()

    def _notice(self) -> None:
        if monotonic() > self._next_notice:
            self._next_notice = monotonic() + _NOTICE_SECONDS
            self._session.write(responses.ok("*", "Still searching"))

    async def matching(self, stretch: Stretch) -> int:
        """The messages that match, a bit for each."""
        surely, possibly = self.plan.root.look(stretch)
        undecided = [Facts(at) for at in positions(possibly & ~surely)]
        for start in range(0, len(undecided), _SUMMARIES_A_BATCH):
            surely |= await self._read(stretch, undecided[start : start + _SUMMARIES_A_BATCH])
        return surely

    async def _read(self, stretch: Stretch, undecided: list[Facts]) -> int:
        """Takes messages from step to step until each is decided; those that match."""
        plan = self.plan
        found = 0
        if plan.sent or plan.texts:
            matching, undecided = await self._summaries(stretch, undecided)
            found |= matching
        if plan.sent or plan.header:
            for batch in _batches(stretch, undecided):
                matching, left = await self._headers(stretch, batch)
                found |= matching | await self._contents(left)
        else:
            found |= await self._contents(undecided)
        return found

    async def _summaries(self, stretch: Stretch, undecided: list[Facts]) -> tuple[int, list[Facts]]:
        rows = await messages.summaries(self._store, self._account_id, _ids(stretch, undecided))
        for facts in undecided:
            facts.row = rows.get(MessageId(stretch.message_ids[facts.position]))
        return await self._decided([facts for facts in undecided if facts.row is not None])

    async def _headers(self, stretch: Stretch, undecided: list[Facts]) -> tuple[int, list[Facts]]:
        fronts = await reader.headers(self._store, self._account_id, _ids(stretch, undecided))
        there = []
        for facts in undecided:
            front = fronts.get(MessageId(stretch.message_ids[facts.position]))
            if front is not None:
                await self._work(len(front), facts.take_header, front)
                there.append(facts)
        return await self._decided(there)

    async def _decided(self, undecided: list[Facts]) -> tuple[int, list[Facts]]:
        """By what is known by now: those that match, and those that are still undecided."""
        found = 0
        left = []
        for facts in undecided:
            answer = self.plan.root.decide(facts)
            if answer is None:
                left.append(facts)
            elif answer:
                found |= 1 << facts.position
            await self.breathe()
        return found, left

    async def _contents(self, undecided: list[Facts]) -> int:
        """Reads whole messages; after that nothing is undecided."""
        if not undecided:
            return 0
        found = 0
        wanted = [(facts.row.message_id, facts.row) for facts in undecided if facts.row is not None]
        async with aclosing(reader.stream(self._store, self._account_id, wanted)) as stream:
            waiting = iter(undecided)
            async for _, pieces in stream:
                facts = next(waiting)
                if pieces is not None and await self._matches(facts, pieces):
                    found |= 1 << facts.position
        return found

    async def _matches(self, facts: Facts, pieces: Sequence[bytes]) -> bool:
        octets = b"".join(pieces)
        work = len(octets) * (1 + self.plan.texts // _TERMS_AS_DECODING)
        return await self._work(work, self._judge, facts, octets)

    def _judge(self, facts: Facts, octets: bytes) -> bool:
        """Decides by all of a message, and lets go of it."""
        facts.take_all(octets)
        answer = self.plan.root.decide(facts)
        facts.octets = facts.header = facts.body = None
        return answer is True

    async def _work(self, octets: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does what takes long in a thread, so that other sessions run meanwhile."""
        if octets > _WORK_AT_ONCE:
            self._notice()
            return await asyncio.to_thread(work, *args, **kwargs)
        result = work(*args, **kwargs)
        await self.breathe()
        return result


def _ids(stretch: Stretch, some: Iterable[Facts]) -> list[int]:
    return [stretch.message_ids[facts.position] for facts in some]


def _batches(stretch: Stretch, undecided: list[Facts]) -> Iterator[list[Facts]]:
    """Few enough, and small enough together, to be held at once."""
    batch: list[Facts] = []
    octets = 0
    for facts in undecided:
        size = stretch.sizes[facts.position]
        if batch and (octets + size > _OCTETS_A_BATCH or len(batch) >= _HEADERS_A_BATCH):
            yield batch
            batch, octets = [], 0
        batch.append(facts)
        octets += size
    if batch:
        yield batch
