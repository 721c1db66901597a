"""STORE (RFC 3501 §6.4.6): one change for all messages of the set, then their flags, unless .SILENT.

Clients that know of mod-sequences are told the new ones in any case. With UNCHANGEDSINCE (RFC 7162 §3.1.3) messages
that have changed since are left as they are and named in the tagged answer.

With .SILENT the client works out the result by itself. It is told only where that would be wrong, because another
session changed the same message in between.
"""

from __future__ import annotations

from itertools import islice
from operator import eq
from typing import TYPE_CHECKING

from mailserver.imap import enable
from mailserver.imap.errors import Done, read_only
from mailserver.imap.page_text import lines
from mailserver.imap.view import PAGES_A_PIECE, Flagged, Range
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import Attribute, Extension, FetchItem, StoreMode
from storage import FlagChange, messages
from storage.messages import Since
from storage.records import KEYWORDS_AT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mailserver.imap.selected import Selected
    from mailserver.imap.session import Session
    from mailserver.imap.view import Changes
    from mailserver.protocols.imap import commands
    from storage import Mailbox, Uid
    from storage.pages import Page, Snapshot


async def handle(s: Session, cmd: commands.Store) -> Done:
    selected = s.selected
    assert selected is not None
    if selected.read_only:
        raise read_only()
    name = "UID STORE" if cmd.by_uid else "STORE"
    if cmd.unchangedsince is not None:
        enable.condstore(s)
    ranges = selected.messages(cmd.messages, cmd.by_uid)
    uids = selected.numbers.uids(ranges)
    if not uids:
        return Done(f"{name} completed")
    mailbox = selected.mailbox
    change = FlagChange(cmd.mode.value, cmd.flags.system, cmd.flags.keywords)
    since = None if cmd.unchangedsince is None else Since(cmd.unchangedsince, _known(selected, ranges))
    result = await messages.store_flags(s.service.store, mailbox.account_id, mailbox.mailbox_id, uids, change, since)
    await selected.since(result.modseq)
    if result.failed:
        await selected.look_again()  # RFC 7162 §3.1.3: the client is told why
    gone = await _report(s, selected, cmd, ranges, set(uids).difference(result.failed), result.changed)
    if result.failed:
        numbers = result.failed if cmd.by_uid else map(selected.numbers.snapshot.seq_of, result.failed)
        return Done("Some messages have changed meanwhile", responses.modified(numbers))
    return Done(f"{name} completed", "EXPUNGEISSUED" if gone else "")


def _known(selected: Selected, ranges: list[Range]) -> dict[int, tuple[int, int]]:
    """Flags and mod-sequence of messages, by UID, as the client was last told."""
    known: dict[int, tuple[int, int]] = {}
    for page, _, start, stop in selected.numbers.slices(ranges):
        pairs = zip(page.flags[start:stop], page.modseqs[start:stop], strict=True)
        known.update(zip(page.uids[start:stop], pairs, strict=True))
    return known


async def _report(
    s: Session, selected: Selected, cmd: commands.Store, ranges: list[Range], stored: set[int], changed: Iterable[Uid]
) -> bool:
    """Tells what has changed; true where messages of the set were expunged by others meanwhile.

    stored: the UIDs of `ranges` that were not refused; changed: those of them whose flags were others before.
    """
    before = selected.numbers.snapshot
    await s.breathe()
    changes = await selected.advance(s, expunge_ok=False)
    own = _foreseen(cmd, selected.mailbox, before) if cmd.silent else _any
    await selected.tell(s, changes.only(await _without_own(s, changes, stored, own)))
    ranges, gone = await _still_there(s, selected, ranges)
    items = _items(cmd, Extension.CONDSTORE in s.enabled)
    if len(items) > cmd.by_uid:
        if cmd.silent and cmd.unchangedsince is None:
            stored.intersection_update(changed)
        await _answer(s, selected, items, _only(selected, ranges, stored))
    return gone


async def _answer(s: Session, selected: Selected, items: tuple[FetchItem, ...], ranges: list[Range]) -> None:
    keywords, recent = selected.mailbox.keywords, selected.numbers.recent
    parts = selected.numbers.slices(ranges)
    while some := list(islice(parts, PAGES_A_PIECE)):
        s.write(b"".join([lines(part, items, keywords, recent) for part in some]))
        await s.breathe()


def _items(cmd: commands.Store, condstore: bool) -> tuple[FetchItem, ...]:
    """What is told of each message that was stored; a UID alone is nothing."""
    items: list[FetchItem] = [Attribute.UID] * cmd.by_uid
    if condstore:
        items.append(Attribute.MODSEQ)
    if not cmd.silent:
        items.append(Attribute.FLAGS)
    return tuple(items)


def _only(selected: Selected, ranges: list[Range], uids: set[int]) -> list[Range]:
    """The messages of `ranges` that are among `uids`."""
    numbers = selected.numbers
    if sum(last - first + 1 for first, last in ranges) == len(uids):
        return ranges
    found: list[Range] = []
    for page, before, start, stop in numbers.slices(ranges):
        found += [(before + i + 1, before + i + 1) for i in range(start, stop) if page.uids[i] in uids]
    return found


async def _without_own(
    s: Session, changes: Changes, stored: set[int], own: Callable[[Page], list[bool]]
) -> list[Flagged]:
    """The flag changes but those of `stored` messages that `own` says need no mention here, by place in the page."""
    kept = []
    for part in changes.flagged:
        await s.breathe()
        uids, mine = part.page.uids, own(part.page)
        if all(mine) and stored.issuperset(uids):
            continue
        positions = [i for i in part.positions if not (mine[i] and uids[i] in stored)]
        if positions:
            kept.append(part._replace(positions=positions))
    return kept


def _any(page: Page) -> list[bool]:
    """Without .SILENT all messages of the set are answered for, one by one."""
    return [True] * len(page.uids)


def _foreseen(cmd: commands.Store, mailbox: Mailbox, before: Snapshot) -> Callable[[Page], list[bool]]:
    """Which messages of a page have the flags that the client expects: those it knew, changed as it asked.

    What it knew of messages with mod-sequence 0 is lost.
    """
    bits = _bits(cmd, mailbox)

    def foreseen(page: Page) -> list[bool]:
        index = before.page_index(page.number)
        if index < 0:
            return [False] * len(page)
        old = before.pages[index]
        changed = {flags: _changed(cmd.mode, flags, bits) for flags in set(old.flags)}
        expected = map(changed.__getitem__, old.flags)
        if old.uids == page.uids and not before.vague:
            return list(map(eq, expected, page.flags))
        known = {uid: flags for uid, flags, modseq in zip(old.uids, expected, old.modseqs, strict=True) if modseq}
        return [known.get(uid) == flags for uid, flags in zip(page.uids, page.flags, strict=True)]

    return foreseen


def _bits(cmd: commands.Store, mailbox: Mailbox) -> int:
    """The command's flags as bits of the mailbox."""
    asked = {keyword.lower() for keyword in cmd.flags.keywords}
    bits = cmd.flags.system
    for i, keyword in enumerate(mailbox.keywords):
        if keyword.lower() in asked:
            bits |= 1 << KEYWORDS_AT + i
    return bits


def _changed(mode: StoreMode, flags: int, bits: int) -> int:
    if mode is StoreMode.ADD:
        return flags | bits
    return flags & ~bits if mode is StoreMode.REMOVE else bits


async def _still_there(s: Session, selected: Selected, ranges: list[Range]) -> tuple[list[Range], bool]:
    """The runs without ghosts, and whether there were any."""
    numbers, view = selected.numbers, selected.view.snapshot
    if numbers.snapshot is view:
        return ranges, False
    there: list[Range] = []
    gone = False
    for page, before, start, stop in numbers.slices(ranges):
        index = view.page_index(page.number)
        if index >= 0 and (view.pages[index] is page or view.pages[index].uids == page.uids):
            there.append((before + start + 1, before + stop))
        else:
            held = set(view.pages[index].uids) if index >= 0 else set()
            there += [(before + i + 1, before + i + 1) for i in range(start, stop) if page.uids[i] in held]
            gone |= not held.issuperset(page.uids[start:stop])
        await s.breathe()
    return there, gone
