"""LIST, plain (RFC 3501 §6.3.8) and extended (RFC 5258), with STATUS of each mailbox (RFC 5819), and LSUB.

A name is listed where it is a mailbox, or a place that only has mailboxes below it; with the option SUBSCRIBED, where
it is subscribed. What is no mailbox is \\Noselect to a plain LIST and \\NonExistent to an extended one. Attributes for
children and special uses are told always, \\Subscribed where it is asked for.

One query reads the mailboxes, a second the subscriptions where they matter. Matching and writing let other sessions
run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from mailserver.imap import enable, status
from mailserver.imap.errors import Done
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import ListOption, StatusItem
from storage import mailboxes
from storage.mailboxes import INBOX_NAME

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands
    from mailserver.protocols.imap.mailbox_name import Pattern
    from storage import Mailbox, Name

C = TypeVar("C", bound=Collection[Any])
P = ParamSpec("P")
T = TypeVar("T")

_LINES_A_PIECE = 200
_NAMES_AT_ONCE = 2_000
"""So many are put in order in the event loop."""

NO_SELECT = "\\Noselect"
NON_EXISTENT = "\\NonExistent"
HAS_CHILDREN = "\\HasChildren"
HAS_NO_CHILDREN = "\\HasNoChildren"
SUBSCRIBED = "\\Subscribed"

_CRITERIA = {ListOption.SUBSCRIBED: "SUBSCRIBED", ListOption.SPECIAL_USE: "SPECIAL-USE"}


async def list_(s: Session, cmd: commands.List) -> Done:
    if not cmd.patterns and not cmd.extended:
        s.write(responses.list_separator(s.wire))
        return Done("LIST completed")
    if StatusItem.HIGHESTMODSEQ in cmd.status:
        enable.condstore(s)
    uses, rows = await _mailboxes(s, with_rows=bool(cmd.status))
    subscribed = await _subscriptions(s) if (cmd.only | cmd.show) & ListOption.SUBSCRIBED else frozenset()
    tree = await _many(s, Tree, uses, subscribed)
    lines = _Lines(s)
    for entry in await tree.answer(s, cmd):
        await lines.add(
            responses.list_entry(tree.attributes(entry.name, cmd), s.wire, entry.name, childinfo=entry.childinfo)
        )
        if entry.name in rows and entry.selected:
            await lines.add(status.line(s, rows[entry.name], cmd.status))
    lines.flush()
    return Done("LIST completed")


async def lsub(s: Session, cmd: commands.Lsub) -> Done:
    """What is subscribed but no mailbox is \\Noselect, and so is a name that only stands for some below it."""
    if not cmd.patterns:
        s.write(responses.list_separator(s.wire, word=b"LSUB"))
        return Done("LSUB completed")
    uses, _ = await _mailboxes(s)
    subscribed = await _subscriptions(s)
    matched = await _matched(s, subscribed, cmd.patterns)
    # RFC 3501 §6.3.9: a name that is not matched while one above it is shows as that one.
    places = await _matched(s, await _many(s, _hidden, subscribed, matched), cmd.patterns)
    lines = _Lines(s)
    for name in await _many(s, _in_order, matched | places):
        attributes = () if name in matched and name in uses else (NO_SELECT,)
        await lines.add(responses.list_entry(attributes, s.wire, name, word=b"LSUB"))
    lines.flush()
    return Done("LSUB completed")


class Entry(NamedTuple):
    """One name of an answer. selected: it meets the criteria itself; childinfo: those that some name below it meets."""

    name: Name
    selected: bool = True
    childinfo: tuple[str, ...] = ()


class Tree:
    """All names of an account: uses is of the mailboxes, subscribed what is subscribed, mailbox or not."""

    def __init__(self, uses: Mapping[Name, str | None], subscribed: Set[Name]) -> None:
        self.uses = uses
        self.subscribed = subscribed
        self.parents = above(uses)

    async def answer(self, s: Session, cmd: commands.List) -> list[Entry]:
        """The names that are to be listed, in order (RFC 5258 §3.3)."""
        selected = self._selected(cmd.only)
        matched = await _matched(s, selected, cmd.patterns)
        if ListOption.RECURSIVEMATCH not in cmd.only:
            return [Entry(name) for name in await _many(s, _in_order, matched)]
        # RFC 5258 §3.5: of names that do not meet the criteria only those are listed below which one is not shown.
        hiding = await _matched(s, await _many(s, _hidden, selected, matched), cmd.patterns)
        criteria = tuple([word for option, word in _CRITERIA.items() if option in cmd.only])
        parents = await _many(s, above, selected)
        names = await _many(s, _in_order, matched | hiding)
        return [Entry(name, name in matched, criteria if name in parents else ()) for name in names]

    def _selected(self, only: ListOption) -> Set[Name]:
        """The names that meet the criteria, whatever their spelling."""
        names = self.subscribed if ListOption.SUBSCRIBED in only else self.uses.keys() | self.parents
        if ListOption.SPECIAL_USE in only:
            return {name for name in names if self.uses.get(name)}
        return names

    def attributes(self, name: Name, cmd: commands.List) -> list[str]:
        attributes = [HAS_CHILDREN if name in self.parents else HAS_NO_CHILDREN]
        if name not in self.uses:
            attributes.insert(0, NON_EXISTENT if cmd.extended else NO_SELECT)
        use = self.uses.get(name)
        if use:
            attributes.append(use)
        if ListOption.SUBSCRIBED in cmd.show and name in self.subscribed:
            attributes.append(SUBSCRIBED)
        return attributes


def above(names: Iterable[Name]) -> set[Name]:
    """All names above these."""
    found: set[Name] = set()
    for name in names:
        parent = name[:-1]
        while parent and parent not in found:
            found.add(parent)
            parent = parent[:-1]
    return found


class _Lines:
    """Lines on their way to the client, some at a time."""

    def __init__(self, s: Session) -> None:
        self._session = s
        self._lines: list[bytes] = []

    async def add(self, line: bytes) -> None:
        self._lines.append(line)
        if len(self._lines) == _LINES_A_PIECE:
            self.flush()
            await self._session.breathe()

    def flush(self) -> None:
        self._session.write(b"".join(self._lines))
        self._lines.clear()


async def _mailboxes(
    s: Session, *, with_rows: bool = False
) -> tuple[Mapping[Name, str | None], Mapping[Name, Mailbox]]:
    """Special uses by name; with_rows the mailboxes by name too, else none."""
    if not with_rows:
        return await mailboxes.uses(s.service.store, s.account_id), {}
    rows = {mailbox.name: mailbox for mailbox in await mailboxes.list_all(s.service.store, s.account_id)}
    return {name: mailbox.special_use for name, mailbox in rows.items()}, rows


async def _subscriptions(s: Session) -> Set[Name]:
    return await mailboxes.subscriptions(s.service.store, s.account_id)


async def _matched(s: Session, names: Iterable[Name], patterns: tuple[Pattern, ...]) -> set[Name]:
    """The names that a pattern matches. A long pattern and a long name take a while, so each name is a turn."""
    matched = set()
    for name in names:
        if any(pattern.matches(name) for pattern in patterns):
            matched.add(name)
        await s.breathe()
    return matched


async def _many(s: Session, work: Callable[Concatenate[C, P], T], names: C, *args: P.args, **kwargs: P.kwargs) -> T:
    """Does work on names that takes long where they are many, then in a thread."""
    if len(names) <= _NAMES_AT_ONCE:
        return work(names, *args, **kwargs)
    return await s.in_thread(work, names, *args, **kwargs)


def _hidden(names: Set[Name], matched: Set[Name]) -> Set[Name]:
    """The names above those that no pattern matches, as far as they are not matched themselves."""
    return above(names - matched) - matched


def _in_order(names: Iterable[Name]) -> list[Name]:
    """INBOX first."""
    return sorted(names, key=lambda name: (name[0] != INBOX_NAME[0], name))
