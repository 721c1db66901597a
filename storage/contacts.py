"""The contacts of an account.

Every change takes account_state first and stamps the contact with the account's new modseq, as changes of mail do, so
that one clock orders all that happens in an account.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from storage import account_state
from storage.batch import new_message_id
from storage.errors import LimitReached, NotFound
from storage.records import AccountId, Notice
from storage.store import Store

MAX_CONTACTS = 100_000
_SORTED_CHARACTERS = 100

_COLUMNS = "contact_id, name, email, details, sort_key, modseq, created_at, updated_at"
_GET = f"SELECT {_COLUMNS} FROM contacts WHERE account_id = $1 AND contact_id = $2"
_PAGE = f"""
SELECT {_COLUMNS} FROM contacts WHERE account_id = $1 AND (sort_key, contact_id) > ($2, $3)
ORDER BY sort_key, contact_id LIMIT $4
"""
_COUNT = "SELECT count(*) FROM contacts WHERE account_id = $1"
_ADD = f"""
INSERT INTO contacts (account_id, contact_id, name, email, details, sort_key, modseq)
VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING {_COLUMNS}
"""
_CHANGE = f"""
UPDATE contacts SET name = $3, email = $4, details = $5, sort_key = $6, modseq = $7, updated_at = now()
WHERE account_id = $1 AND contact_id = $2 RETURNING {_COLUMNS}
"""
_REMOVE = "DELETE FROM contacts WHERE account_id = $1 AND contact_id = $2 RETURNING contact_id"


class Place(NamedTuple):
    """Where a page of the list ended."""

    sort_key: str
    contact_id: int


BEGINNING = Place("", 0)


@dataclass(frozen=True, slots=True)
class Contact:
    """details: further fields by name, as JSON has them."""

    contact_id: int
    name: str
    email: str
    details: Mapping[str, Any]
    place: Place
    modseq: int
    created_at: datetime
    updated_at: datetime


async def get(store: Store, account_id: AccountId, contact_id: int) -> Contact:
    """NotFound."""
    async with store.acquire() as conn:
        return _contact(await conn.fetchrow(_GET, account_id, contact_id))


async def page(store: Store, account_id: AccountId, after: Place, limit: int) -> Sequence[Contact]:
    """Contacts in the order of their names, those behind `after`."""
    async with store.acquire() as conn:
        return [_contact(row) for row in await conn.fetch(_PAGE, account_id, *after, limit)]


async def count(store: Store, account_id: AccountId) -> int:
    async with store.acquire() as conn:
        return int(await conn.fetchval(_COUNT, account_id))


async def add(store: Store, account_id: AccountId, name: str, email: str, details: Mapping[str, Any]) -> Contact:
    """NotFound (account), LimitReached."""
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        if await conn.fetchval(_COUNT, account_id) >= MAX_CONTACTS:
            raise LimitReached(f"an account has at most {MAX_CONTACTS} contacts")
        values = (name, email, json.dumps(dict(details)), sort_key(name), state.modseq)
        made = _contact(await conn.fetchrow(_ADD, account_id, new_message_id(), *values))
    await store.changes.publish([Notice("contacts", account_id, state.modseq)])
    return made


async def change(store: Store, account_id: AccountId, contact_id: int, fields: Mapping[str, Any]) -> Contact:
    """Sets `name`, `email` and details by name; a detail that is None goes. NotFound."""
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        now = _contact(await conn.fetchrow(_GET, account_id, contact_id))
        name, email = fields.get("name", now.name), fields.get("email", now.email)
        details = {**now.details, **{key: value for key, value in fields.items() if key not in ("name", "email")}}
        kept = {key: value for key, value in details.items() if value is not None}
        values = (name, email, json.dumps(kept), sort_key(name), state.modseq)
        changed = _contact(await conn.fetchrow(_CHANGE, account_id, contact_id, *values))
    await store.changes.publish([Notice("contacts", account_id, state.modseq)])
    return changed


async def remove(store: Store, account_id: AccountId, contact_id: int) -> None:
    """NotFound."""
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        if await conn.fetchval(_REMOVE, account_id, contact_id) is None:
            raise NotFound("the contact")
    await store.changes.publish([Notice("contacts", account_id, state.modseq)])


def sort_key(name: str) -> str:
    """By what names are ordered: letters without regard to case or accents."""
    letters = unicodedata.normalize("NFKD", name[:_SORTED_CHARACTERS]).casefold()
    return "".join(letter for letter in letters if not unicodedata.combining(letter))[:_SORTED_CHARACTERS]


def _contact(row: Any) -> Contact:
    if row is None:
        raise NotFound("the contact")
    return Contact(
        row["contact_id"],
        row["name"],
        row["email"],
        json.loads(row["details"]),
        Place(row["sort_key"], row["contact_id"]),
        row["modseq"],
        row["created_at"],
        row["updated_at"],
    )
