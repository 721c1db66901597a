"""The mailbox tree: CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, LIST, LSUB, NAMESPACE.

Creating a mailbox creates the ones above it. Deleting one that has others below it leaves its name as a place in the
tree that holds no messages (RFC 3501 §6.3.4): such a name is not stored, it is seen from the names below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mailserver.imap.errors import Done
from mailserver.protocols.imap import responses
from storage import mailboxes
from storage.mailboxes import INBOX_NAME

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands
    from mailserver.protocols.imap.mailbox_name import Pattern
    from storage import AccountId, Mailbox, Name

_NAMES_A_PIECE = 200

NO_SELECT = "\\Noselect"
HAS_CHILDREN = "\\HasChildren"
HAS_NO_CHILDREN = "\\HasNoChildren"


def _account(s: Session) -> AccountId:
    assert s.account is not None
    return s.account.account_id


async def create(s: Session, cmd: commands.Create) -> Done:
    await mailboxes.create(s.service.store, _account(s), cmd.mailbox)
    return Done("CREATE completed")


async def delete(s: Session, cmd: commands.Delete) -> Done:
    mailbox = await mailboxes.find(s.service.store, _account(s), cmd.mailbox)
    await mailboxes.delete(s.service.store, mailbox.account_id, mailbox.mailbox_id)
    if s.selected is not None and s.selected.view.mailbox_id == mailbox.mailbox_id:
        s.deselect()
    return Done("DELETE completed")


async def rename(s: Session, cmd: commands.Rename) -> Done:
    await mailboxes.rename(s.service.store, _account(s), cmd.source, cmd.target)
    return Done("RENAME completed")


async def subscribe(s: Session, cmd: commands.Subscribe) -> Done:
    """The mailbox need not exist (RFC 3501 §6.3.6)."""
    await mailboxes.subscribe(s.service.store, _account(s), cmd.mailbox)
    return Done("SUBSCRIBE completed")


async def unsubscribe(s: Session, cmd: commands.Unsubscribe) -> Done:
    await mailboxes.unsubscribe(s.service.store, _account(s), cmd.mailbox)
    return Done("UNSUBSCRIBE completed")


async def namespace(s: Session, cmd: commands.Namespace) -> Done:
    s.write(responses.namespace(s.service.separator))
    return Done("NAMESPACE completed")


async def list_(s: Session, cmd: commands.List) -> Done:
    if not cmd.patterns:
        s.write(responses.list_separator(s.service.separator))
    else:
        known = await mailboxes.list_all(s.service.store, _account(s))
        await _say(s, _matching(tree(known), cmd.patterns), b"LIST")
    return Done("LIST completed")


async def lsub(s: Session, cmd: commands.Lsub) -> Done:
    if not cmd.patterns:
        s.write(responses.list_separator(s.service.separator))
    else:
        names = await mailboxes.subscriptions(s.service.store, _account(s))
        known = {mailbox.name for mailbox in await mailboxes.list_all(s.service.store, _account(s))}
        await _say(s, subscribed(names, known, cmd.patterns), b"LSUB")
    return Done("LSUB completed")


def tree(known: Iterable[Mailbox]) -> list[tuple[Name, tuple[str, ...]]]:
    """All names with their attributes, those that are only places above others included; INBOX first."""
    uses = {mailbox.name: mailbox.special_use for mailbox in known}
    parents = set(_above(uses))
    entries = []
    for name in sorted(uses.keys() | parents, key=_order):
        attributes = [HAS_CHILDREN if name in parents else HAS_NO_CHILDREN]
        use = uses.get(name)
        if name not in uses:
            attributes.insert(0, NO_SELECT)
        elif use:
            attributes.append(use)
        entries.append((name, tuple(attributes)))
    return entries


def subscribed(
    names: set[Name], known: set[Name], patterns: tuple[Pattern, ...]
) -> Iterator[tuple[Name, tuple[str, ...]]]:
    """LSUB's answer. A name that is not matched while one above it is shows as that one (RFC 3501 §6.3.9)."""
    matched = {name for name in names if _matches(patterns, name)}
    places = {name for name in _above(names - matched) if _matches(patterns, name)} - matched
    for name in sorted(matched | places, key=_order):
        yield name, () if name in matched and name in known else (NO_SELECT,)


def _above(names: Iterable[Name]) -> Iterator[Name]:
    for name in names:
        for depth in range(1, len(name)):
            yield name[:depth]


def _order(name: Name) -> tuple[bool, Name]:
    return name[0] != INBOX_NAME[0], name


def _matches(patterns: tuple[Pattern, ...], name: Name) -> bool:
    return any(pattern.matches(name) for pattern in patterns)


def _matching(
    entries: Iterable[tuple[Name, tuple[str, ...]]], patterns: tuple[Pattern, ...]
) -> Iterator[tuple[Name, tuple[str, ...]]]:
    return (entry for entry in entries if _matches(patterns, entry[0]))


async def _say(s: Session, entries: Iterable[tuple[Name, tuple[str, ...]]], word: bytes) -> None:
    lines: list[bytes] = []
    for name, attributes in entries:
        lines.append(responses.list_entry(attributes, s.service.separator, name, word=word))
        if len(lines) == _NAMES_A_PIECE:
            s.write(b"".join(lines))
            lines.clear()
            await s.breathe()
    s.write(b"".join(lines))
