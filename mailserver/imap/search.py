"""SEARCH (RFC 3501 §6.4.4): the mailbox is gone through in stretches, each in the steps that search_plan describes.

    pages      flags, sets, sizes, internal dates: the view in memory, a stretch of messages at once
    summaries  SENT… where the day is clear: one query a batch
    headers    SENT… near the day, and header fields: the front of the stored octets, or what is kept of it
    contents   BODY and TEXT: whole messages, streamed

A search that takes long says so every few seconds. That keeps clients patient, and shows whether one that has sent all
it will send is still there.

A message goes through a step only if the ones before have left it undecided, so a rare flag or date saves nearly all
the reading. Held is one batch and the one ahead, and of messages found their numbers. Between messages the session
breathes; there it ends with its connection, or if that is to end. A large message is gone through piece by piece, in a
thread, and the session breathes between pieces.

Messages that were expunged meanwhile are searched as the session still numbers them; where their octets are gone they
do not match.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from mailserver.imap import enable
from mailserver.imap.errors import Done, Goodbye
from mailserver.imap.search_plan import Facts, Plan, Stretch, positions
from mailserver.imap.search_text import FieldsLook, Look, Steps, field_texts
from mailserver.message import structure
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import And, Or, SearchReturn
from mailserver.protocols.imap.sequence_set import compact
from storage import MessageId, reader, summaries

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.imap.view import SessionView
    from mailserver.protocols.imap import commands
    from mailserver.protocols.imap.commands import SearchKey

_SUMMARIES_A_BATCH = 400
_HEADERS_A_BATCH = 200
_OCTETS_A_BATCH = 1 << 20
_NUMBERS_A_PIECE = 5000
_NOTICE_SECONDS = 5.0
_PROBE_SECONDS = 0.2
"""Between notices to a client that sends no more: whether it is gone shows only when it is written to."""
_TURN_SECONDS = 0.005
_THREAD_SECONDS = 0.02
"""How long one message is looked at in the event loop, and how long in a thread at once."""
_WORK_AT_ONCE = 64 * 1024
"""Octets that are decoded in the event loop at once, a few milliseconds of work; more of them, in a thread."""
_JOINED_AT_ONCE = 1 << 20
_DECODED_AT_ONCE = 8 * 1024
"""Octets of a header whose fields are decoded at once, and kept."""
_FEW_KEYS = 50
"""A plan of so many keys looks for all of them in such fields at once."""
_KEYS_AT_ONCE = 500
"""A plan of so many keys is made, and asked what it says of a stretch, in the event loop; a larger one in a thread."""
_ENDS = frozenset({SearchReturn.MIN, SearchReturn.MAX})
_TERMS_AS_DECODING = 20
"""Looking for so many terms costs about as much as decoding the text."""


class Found(NamedTuple):
    """The messages that match, as UIDs or sequence numbers, ascending; their mod-sequences where the search asks."""

    numbers: list[int]
    modseqs: list[int]


async def handle(s: Session, cmd: commands.Search) -> Done:
    assert s.selected is not None
    await s.selected.look(s)
    found = await find(s, cmd.key, by_uid=cmd.by_uid)
    if cmd.returns is None:
        await _answer(s, found)
    else:
        await _extended_answer(s, cmd, found, cmd.returns)
    return Done("UID SEARCH completed" if cmd.by_uid else "SEARCH completed")


async def find(s: Session, key: SearchKey, *, by_uid: bool) -> Found:
    """Searches the selected mailbox."""
    assert s.selected is not None
    numbers = s.selected.numbers
    plan = await _plan(s, key, numbers)
    if plan.modseq:
        enable.condstore(s)
    search = _Search(s, plan)
    found = Found([], [])
    for stretch in plan.stretches():
        matching = positions(await search.matching(stretch))
        if plan.modseq:
            matching = [at for at in matching if stretch.modseqs[at]]  # a mod-sequence that is lost matches nothing
            found.modseqs.extend([stretch.modseqs[at] for at in matching])
        found.numbers.extend([stretch.uids[at] if by_uid else stretch.first + at for at in matching])
        await search.breathe()
    return found


async def _plan(s: Session, key: SearchKey, numbers: SessionView) -> Plan:
    keys = [key]
    for known in keys:  # it grows meanwhile
        if isinstance(known, (And, Or)):
            keys += known.keys
        if len(keys) > _KEYS_AT_ONCE:
            return await s.in_thread(Plan, key, numbers.snapshot, numbers.recent)
    return Plan(key, numbers.snapshot, numbers.recent)


async def _answer(s: Session, found: Found) -> None:
    """The SEARCH response, with the highest mod-sequence of what was found (RFC 7162 §3.1.6)."""
    s.write(b"* SEARCH")
    for at in range(0, len(found.numbers), _NUMBERS_A_PIECE):
        s.write("".join([f" {number}" for number in found.numbers[at : at + _NUMBERS_A_PIECE]]).encode())
        await s.breathe()
    s.write(b" (MODSEQ %d)\r\n" % max(found.modseqs) if found.modseqs else b"\r\n")


async def _extended_answer(s: Session, cmd: commands.Search, found: Found, returns: frozenset[SearchReturn]) -> None:
    """The ESEARCH response (RFC 4731 §3.1)."""
    numbers = found.numbers
    s.write(b"* ESEARCH (TAG %b)%b" % (responses.quoted(cmd.tag.encode()), b" UID" if cmd.by_uid else b""))
    if SearchReturn.COUNT in returns:
        s.write(b" COUNT %d" % len(numbers))
    if numbers and SearchReturn.MIN in returns:
        s.write(b" MIN %d" % numbers[0])
    if numbers and SearchReturn.MAX in returns:
        s.write(b" MAX %d" % numbers[-1])
    if numbers and SearchReturn.ALL in returns:
        s.write(b" ALL ")
        for at in range(0, len(numbers), _NUMBERS_A_PIECE):
            s.write(b"," * bool(at) + compact(numbers[at : at + _NUMBERS_A_PIECE]))
            await s.breathe()
    s.write(b" MODSEQ %d\r\n" % _modseq(found.modseqs, returns) if found.modseqs else b"\r\n")


def _modseq(modseqs: list[int], returns: frozenset[SearchReturn]) -> int:
    """The highest mod-sequence of the messages that are named; of all, where not only ends are (RFC 4731 §3.2)."""
    if returns - _ENDS:
        return max(modseqs)
    return max([modseqs[0]] * (SearchReturn.MIN in returns) + [modseqs[-1]] * (SearchReturn.MAX in returns))


class _Search:
    """One search under way."""

    def __init__(self, session: Session, plan: Plan) -> None:
        assert session.selected is not None
        self.plan = plan
        self._session = session
        self._store = session.service.store
        self._account_id = session.selected.mailbox.account_id
        self._next_notice = monotonic() + _NOTICE_SECONDS
        self._probing = False

    async def breathe(self) -> None:
        """Lets others run; Goodbye where the session is to end."""
        session = self._session
        if session.ending is not None:
            raise Goodbye(session.ending)
        if session.finished and not self._probing:
            self._probing = True
            self._next_notice = 0.0
        if monotonic() > self._next_notice:
            self._next_notice = monotonic() + (_PROBE_SECONDS if self._probing else _NOTICE_SECONDS)
            session.write(responses.ok("*", "Still searching"))
        await session.breathe()

    async def matching(self, stretch: Stretch) -> int:
        """The messages that match, a bit for each."""
        if self.plan.keys > _KEYS_AT_ONCE:
            surely, possibly = await self._session.in_thread(self.plan.root.look, stretch)
        else:
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
        if plan.sent or plan.fields:
            for batch in _batches(stretch, undecided):
                matching, left = await self._headers(stretch, batch)
                found |= matching | await self._contents(left)
        else:
            found |= await self._contents(undecided)
        return found

    async def _summaries(self, stretch: Stretch, undecided: list[Facts]) -> tuple[int, list[Facts]]:
        rows = await summaries.briefs(self._store, self._account_id, _ids(stretch, undecided))
        for facts in undecided:
            facts.row = rows.get(stretch.message_ids[facts.position])
        return await self._decided([facts for facts in undecided if facts.row is not None])

    async def _headers(self, stretch: Stretch, undecided: list[Facts]) -> tuple[int, list[Facts]]:
        plan, kept, account_id = self.plan, self._session.service.fields, self._account_id
        few = bool(plan.fields) and plan.keys <= _FEW_KEYS
        lacking = []
        for facts in undecided:
            texts = kept.get(account_id, stretch.message_ids[facts.position], plan.names)
            if texts is None or plan.sent or not few:
                lacking.append(facts)
            else:
                plan.look_at_fields(facts, texts)
        fronts = await reader.headers(self._store, account_id, _ids(stretch, lacking)) if lacking else {}
        for facts in lacking:
            message_id = MessageId(stretch.message_ids[facts.position])
            front = fronts.get(message_id)
            if isinstance(front, bytes):
                facts.header = front
                if few and len(front) <= _DECODED_AT_ONCE:
                    texts = field_texts(front, plan.names)
                    kept.put(account_id, message_id, plan.names, texts)
                    plan.look_at_fields(facts, texts)
                    await self.breathe()
        return await self._decided([facts for facts in undecided if facts.header_read or facts.header is not None])

    async def _decided(self, undecided: list[Facts]) -> tuple[int, list[Facts]]:
        """By what is known by now: those that match, and those that are still undecided."""
        found = 0
        left = []
        for facts in undecided:
            answer = await self._decide(facts)
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
        wanted = [(facts.row.message_id, facts.row.size) for facts in undecided if facts.row is not None]
        async with aclosing(reader.stream(self._store, self._account_id, wanted)) as stream:
            waiting = iter(undecided)
            async for batch in stream:
                for _, pieces in batch:
                    facts = next(waiting)
                    if isinstance(pieces, list) and await self._matches(facts, pieces):
                        found |= 1 << facts.position
        return found

    async def _decide(self, facts: Facts) -> bool | None:
        if self.plan.fields and facts.header is not None and not facts.header_read:
            await self._through(FieldsLook(self.plan, facts), len(facts.header) * self._terms(self.plan.keys))
        if self.plan.keys > _KEYS_AT_ONCE:
            return await self._session.in_thread(self.plan.root.decide, facts)
        return self.plan.root.decide(facts)

    @staticmethod
    def _terms(keys: int) -> int:
        """How much more work it is to look for so many terms than to decode the text."""
        return 1 + keys // _TERMS_AS_DECODING

    async def _through(self, steps: Steps, work: int) -> None:
        """Takes all steps: little work at once, much in a thread with breaths between."""
        over = work <= _WORK_AT_ONCE and steps.go_on(_TURN_SECONDS)
        while not over:
            over = await self._session.in_thread(steps.go_on, _THREAD_SECONDS)
            await self.breathe()

    async def _matches(self, facts: Facts, pieces: list[bytes]) -> bool:
        """Decides by all of a message, and lets go of it."""
        size = sum(map(len, pieces))
        octets = b"".join(pieces) if size <= _JOINED_AT_ONCE else await self._session.in_thread(b"".join, pieces)
        pieces.clear()
        work = size * self._terms(len(self.plan.texts))
        if work <= _WORK_AT_ONCE and structure.is_costly(octets):
            work = _WORK_AT_ONCE + 1
        await self._through(Look(self.plan, facts, octets), work)
        answer = await self._decide(facts)
        facts.header = None
        await self.breathe()
        return answer is True


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
