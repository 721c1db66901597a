"""Changes of messages: their flags, in one mailbox or in all that they are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from admin_api import reading
from admin_api.problems import Problem
from admin_api.schemas import EmailChange
from storage import AccountId, Flag, FlagChange, Store, inbox, messages, object_ids
from storage.inbox import Membership

_SYSTEM = {
    "\\seen": Flag.SEEN,
    "\\answered": Flag.ANSWERED,
    "\\flagged": Flag.FLAGGED,
    "\\deleted": Flag.DELETED,
    "\\draft": Flag.DRAFT,
}


async def change(store: Store, account_id: AccountId, message_id: int, wanted: EmailChange) -> dict[str, Any]:
    """Where the message is, with its flags as they are then. NotFound, LimitReached; Problem: 422.

    Each mailbox is changed by a transaction of its own.
    """
    changes = list(_changes(wanted))
    memberships = await inbox.memberships(store, account_id, message_id)
    for place in _chosen(account_id, memberships, wanted.mailbox):
        for one in changes:
            await messages.store_flags(store, account_id, place.mailbox_id, [place.uid], one)
    after = await inbox.memberships(store, account_id, message_id)
    return {"id": object_ids.email_id(message_id), "mailboxes": reading.places(account_id, after)}


def _chosen(account_id: AccountId, memberships: Sequence[Membership], mailbox: str | None) -> Sequence[Membership]:
    if mailbox is None:
        return memberships
    number = object_ids.mailbox_of(mailbox, account_id)
    chosen = [place for place in memberships if place.mailbox_id == number]
    if not chosen:
        raise Problem(422, "the message is not in this mailbox", "mailbox")
    return chosen


def _changes(wanted: EmailChange) -> Iterator[FlagChange]:
    for op, field, names in (("+", "add", wanted.flags.add), ("-", "remove", wanted.flags.remove)):
        flags, keywords = 0, []
        for name in names:
            if not name.startswith("\\"):
                keywords.append(name)
            elif name.lower() in _SYSTEM:
                flags |= _SYSTEM[name.lower()]
            else:
                raise Problem(422, "this is no flag that can be changed", f"flags.{field}")
        if names:
            yield FlagChange(op, flags, tuple(keywords))
