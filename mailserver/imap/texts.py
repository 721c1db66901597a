"""What FETCH answers of a message without its body, as columns of ready-made texts.

ENVELOPE and BODYSTRUCTURE stand ready-made in the message's row, BODY is made from it, BODY[HEADER…] is cut out of the
front of the stored octets. A message never changes, so such a text is right for as long as it is asked of the same id:
the columns of whole pages are kept, within a bound for the worker, the longest unused go first. A client that opens its
mailbox again is answered without a query.

`load` reads what is lacking for some pages, `Column.texts` makes the texts; what takes long is made in a thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from mailserver.imap.errors import Refusal
from mailserver.imap.sections import SELECTED_OCTETS, section_value
from mailserver.message.bodystructure import without_extensions
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import Attribute, BodySection, FetchItem
from storage import summaries
from storage.errors import Damaged, NotFound

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.imap.view import Slice
    from storage import AccountId, Store
    from storage.pages import Page

Texts = list[bytes | None]
"""A column: the text of each message of a run, None for a message that is gone."""
Ready = dict[FetchItem, list[bytes]]

_AT_ONCE = 64 * 1024
"""Octets that are worked through in the event loop at once, some milliseconds; more of one message, in a thread."""
_TURN_OCTETS = 16 * 1024
_WORTH_A_PAGE = 16
"""Messages of a page, of 64 at most, for which the texts of all of it are read, and kept."""
_OCTETS_A_TEXT = 48
_OCTETS_A_COLUMN = 1024
_OCTETS_OF_A_NAME = 3
"""The names of header fields stand in an item's label and apart; a client chooses them."""
_SHARE = 8
"""A column may take this part of all memory for columns."""


class KeptTexts:
    """Columns of whole pages, bounded in octets."""

    def __init__(self, octets: int) -> None:
        self.octets = octets
        self._columns: OrderedDict[tuple[int, bytes, FetchItem], tuple[list[bytes], int]] = OrderedDict()
        self._held = 0

    def get(self, account_id: int, page: Page, item: FetchItem) -> list[bytes] | None:
        key = (account_id, page.message_ids.tobytes(), item)
        kept = self._columns.get(key)
        if kept is None:
            return None
        self._columns.move_to_end(key)
        return kept[0]

    def put(self, account_id: int, page: Page, item: FetchItem, texts: list[bytes]) -> None:
        size = sum(map(len, texts)) + _OCTETS_A_TEXT * len(texts) + _OCTETS_A_COLUMN
        if isinstance(item, BodySection):
            size += _OCTETS_OF_A_NAME * len(item.label)
        if size > self.octets // _SHARE:
            return
        key = (account_id, page.message_ids.tobytes(), item)
        before = self._columns.pop(key, None)
        self._held += size - (before[1] if before else 0)
        self._columns[key] = (texts, size)
        while self._held > self.octets:
            self._held -= self._columns.popitem(last=False)[1][1]


class Source(NamedTuple):
    """What was read for some messages, by message id; None for what is too large to be read with others."""

    envelopes: dict[int, bytes | None]
    bodystructures: dict[int, bytes | None]
    headers: dict[int, bytes | None]

    def of(self, item: FetchItem) -> tuple[dict[int, bytes | None], Callable[[bytes], bytes] | None]:
        """What an item's texts are made from and how; as they are, where nothing is to be made."""
        if item is Attribute.ENVELOPE:
            return self.envelopes, None
        if item is Attribute.BODYSTRUCTURE:
            return self.bodystructures, None
        if item is Attribute.BODY:
            return self.bodystructures, without_extensions
        assert isinstance(item, BodySection)
        return self.headers, partial(_section, item)

    def large(self) -> set[int]:
        return {message_id for known in self for message_id, octets in known.items() if octets is None}


class Run(NamedTuple):
    """Some messages of a page, and its columns that need not be made; whole: the page's others were read, too."""

    part: Slice
    ready: Ready
    whole: bool = False

    @property
    def message_ids(self) -> Sequence[int]:
        page, _, start, stop = self.part
        return page.message_ids[start:stop]

    @property
    def sizes(self) -> Sequence[int]:
        page, _, start, stop = self.part
        return page.sizes[start:stop]


async def load(
    store: Store, kept: KeptTexts, account_id: AccountId, parts: Sequence[Slice], items: Sequence[FetchItem]
) -> tuple[list[Run], Source]:
    """Takes what is kept and reads what is lacking."""
    runs = [
        Run(part, _ready(kept, account_id, part.page, items), part.stop - part.start >= _WORTH_A_PAGE) for part in parts
    ]
    ids: list[int] = []
    lacking: set[FetchItem] = set()
    for run in runs:
        if len(run.ready) < len(items):
            ids += run.part.page.message_ids if run.whole else run.message_ids
            lacking.update(item for item in items if item not in run.ready)
    source = Source({}, {}, {})
    if not lacking:
        return runs, source
    sections = {item for item in lacking if isinstance(item, BodySection)}
    if sections < lacking:
        source = Source(*await summaries.structures(store, account_id, ids), {})
    if sections:
        source.headers.update(await summaries.headers(store, account_id, ids))
    large = source.large()
    return [apart for run in runs for apart in _apart(run, large)], source


def _apart(run: Run, large: set[int]) -> Iterator[Run]:
    """The run, cut so that each large message stands alone, and is let go of before the next is read."""
    part = run.part
    if large.isdisjoint(part.page.message_ids):
        yield run
        return
    start = part.start
    for at in range(part.start, part.stop):
        if part.page.message_ids[at] in large:
            if start < at:
                yield Run(part._replace(start=start, stop=at), run.ready)
            yield Run(part._replace(start=at, stop=at + 1), run.ready)
            start = at + 1
    if start < part.stop:
        yield Run(part._replace(start=start), run.ready)


def _ready(kept: KeptTexts, account_id: AccountId, page: Page, items: Sequence[FetchItem]) -> Ready:
    return {item: texts for item in items if (texts := kept.get(account_id, page, item)) is not None}


class Maker:
    """Makes the columns of one FETCH. damaged: some message could not be read."""

    def __init__(self, session: Session, account_id: AccountId, items: Iterable[FetchItem]) -> None:
        self.damaged = False
        self._session = session
        self._account_id = account_id
        self._store = session.service.store
        self._kept = session.service.texts
        self._selections = sum(isinstance(item, BodySection) and item.kind.startswith("HEADER.") for item in items)
        self._done = 0
        self._large: tuple[int, dict[bool, tuple[bytes, ...]]] = (0, {})

    async def column(self, item: FetchItem, run: Run, source: Source) -> Texts:
        """The texts of a run's messages. Refusal where too much is asked of one."""
        page, _, start, stop = run.part
        ready = run.ready.get(item)
        if ready is not None:
            return [*ready[start:stop]]
        texts = await self._texts(item, page.message_ids if run.whole else run.message_ids, source)
        there = [text for text in texts if text is not None]
        if len(there) == len(page.uids):
            self._kept.put(self._account_id, page, item, there)
        return texts[start:stop] if run.whole else texts

    async def _texts(self, item: FetchItem, message_ids: Iterable[int], source: Source) -> Texts:
        known, make = source.of(item)
        texts: Texts = []
        for message_id in message_ids:
            octets = known.get(message_id)
            if octets is None and message_id in known:
                octets = await self._alone(item, message_id)
            texts.append(octets if octets is None or make is None else await self._made(make, octets))
        return texts

    async def _made(self, make: Callable[[bytes], bytes], octets: bytes) -> bytes:
        if len(octets) * self._selections > SELECTED_OCTETS:
            raise Refusal("Too much is asked of one header", "LIMIT")
        if len(octets) > _AT_ONCE:
            return await self._session.in_thread(make, octets)
        self._done += len(octets) + _OCTETS_A_TEXT
        if self._done > _TURN_OCTETS:
            self._done = 0
            await self._session.breathe()
        return make(octets)

    async def _alone(self, item: FetchItem, message_id: int) -> bytes | None:
        """What an item of a large message is made from, read once for all items; None where it is gone."""
        if message_id != self._large[0]:
            self._large = (message_id, {})
        of_header = isinstance(item, BodySection)
        try:
            if of_header not in self._large[1]:
                self._large[1][of_header] = await self._read(message_id, of_header)
        except NotFound:
            return None
        except Damaged:
            self.damaged = True
            return None
        return self._large[1][of_header][not of_header and item is not Attribute.ENVELOPE]

    async def _read(self, message_id: int, of_header: bool) -> tuple[bytes, ...]:
        if of_header:
            return (await summaries.header(self._store, self._account_id, message_id),)
        return await summaries.structure(self._store, self._account_id, message_id)


def _section(item: BodySection, header: bytes) -> bytes:
    return responses.literal(section_value(header, item))
