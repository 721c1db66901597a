"""The mailbox tree of an account: names, subscriptions, UIDVALIDITY and counters.

A name is its components; the separator exists only on the wire. INBOX is always mailbox 1. A deleted mailbox keeps
its row and pages, unnamed by `deleted_at`, until the undelete window is over; its name is free at once.

A special use (RFC 6154) belongs to at most one mailbox of an account, so that whoever looks for the one to put sent
mail into finds one. It stays with its mailbox through RENAME and is free again with DELETE.

What is done to a whole tree is a fixed number of statements, however many names are in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from storage import account_state, moving
from storage.account_state import State
from storage.errors import AlreadyExists, LimitReached, NotAllowed, NotFound, UseTaken
from storage.membership import Change
from storage.records import INBOX, AccountId, Mailbox, MailboxId, Name, Notice
from storage.store import Store

MAX_MAILBOXES = 100_000
MAX_SUBSCRIPTIONS = 100_000
MAX_DEPTH = 100
MAX_NAME_OCTETS = 1000
"""A separator after each level is counted."""
INBOX_NAME: Name = ("INBOX",)
_NOWHERE: Name = ("",)
_RECORDS_AT_ONCE = 500

COLUMNS = """mailbox_id, name, uidvalidity, uidnext, highestmodseq, modseq, recent, recent_uid, special_use, keywords,
    messages, unseen, deleted, octets, deleted_octets"""

_LIST = f"SELECT {COLUMNS} FROM mailboxes WHERE account_id = $1 AND deleted_at IS NULL ORDER BY name"
_USES = "SELECT name, special_use FROM mailboxes WHERE account_id = $1 AND deleted_at IS NULL"
_USES_TAKEN = """
SELECT special_use FROM mailboxes WHERE account_id = $1 AND special_use IS NOT NULL AND deleted_at IS NULL
"""
_WITH_USE = """
SELECT mailbox_id FROM mailboxes
WHERE account_id = $1 AND deleted_at IS NULL AND $2 = ANY(string_to_array(special_use, ' ')) LIMIT 1
"""
_FIND = f"SELECT {COLUMNS} FROM mailboxes WHERE account_id = $1 AND name = $2 AND deleted_at IS NULL"
_GET = f"SELECT {COLUMNS} FROM mailboxes WHERE account_id = $1 AND mailbox_id = $2 AND deleted_at IS NULL"
_COUNT = "SELECT count(*) FROM mailboxes WHERE account_id = $1 AND deleted_at IS NULL"
_INSERT = """
INSERT INTO mailboxes (account_id, mailbox_id, name, uidvalidity, highestmodseq, modseq, special_use)
VALUES ($1, $2, $3, $4, $5, $5, $6)
"""
_DELETE = """
UPDATE mailboxes SET deleted_at = now(), modseq = $3, highestmodseq = $3 WHERE account_id = $1 AND mailbox_id = $2
"""
_SUPERIORS = """
SELECT cardinality(m.name) FROM generate_series(1, cardinality($2::text[]) - 1) AS level
JOIN mailboxes m ON m.account_id = $1 AND m.name = ($2::text[])[:level] AND m.deleted_at IS NULL
"""
_EXTENT = """
SELECT max(cardinality(name)) - cardinality($2::text[]) AS levels,
    max(octet_length(array_to_string(name, '/'))) - octet_length(array_to_string($2::text[], '/')) AS octets
FROM mailboxes WHERE account_id = $1 AND deleted_at IS NULL AND name[:cardinality($2::text[])] = $2
"""
_MOVE_TREE = """
UPDATE mailboxes SET name = $3::text[] || coalesce(name[cardinality($2::text[]) + 1:], '{}'), modseq = $4
WHERE account_id = $1 AND deleted_at IS NULL AND name[:cardinality($2::text[])] = $2
"""
_CLAIM_RECENT = """
UPDATE mailboxes SET recent_uid = uidnext, recent = 0
WHERE account_id = $1 AND mailbox_id = $2 AND recent_uid = $3 AND recent > 0 AND deleted_at IS NULL
RETURNING recent_uid
"""
_SUBSCRIPTIONS = "SELECT name FROM subscriptions WHERE account_id = $1"
_SUBSCRIBE = "INSERT INTO subscriptions (account_id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_COUNT_SUBSCRIPTIONS = "SELECT count(*) FROM subscriptions WHERE account_id = $1"
_UNSUBSCRIBE = "DELETE FROM subscriptions WHERE account_id = $1 AND name = $2 RETURNING name"
_CREATE_STATE = """
INSERT INTO account_state (account_id, quota_octets, quota_messages, next_uidvalidity, content_key)
VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING account_id
"""


def record(account_id: int, row: Any) -> Mailbox:
    """A row of COLUMNS as a Mailbox."""
    values = list(row)
    values[1] = tuple(values[1])
    values[9] = tuple(values[9])
    return Mailbox(AccountId(account_id), *values)


async def list_all(store: Store, account_id: AccountId) -> list[Mailbox]:
    """All mailboxes; it lets other tasks run between so many of them."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_LIST, account_id)
    found: list[Mailbox] = []
    for at in range(0, len(rows), _RECORDS_AT_ONCE):
        found += [record(account_id, row) for row in rows[at : at + _RECORDS_AT_ONCE]]
        await asyncio.sleep(0)
    return found


async def uses(store: Store, account_id: AccountId) -> dict[Name, str | None]:
    """All names with their special uses: attributes with spaces between, None without."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_USES, account_id)
    return {tuple(name): use for name, use in rows}


async def with_use(store: Store, account_id: AccountId, use: str) -> MailboxId | None:
    """The mailbox that has this special use; None where none has it."""
    async with store.acquire() as conn:
        found: MailboxId | None = await conn.fetchval(_WITH_USE, account_id, use)
    return found


async def find(store: Store, account_id: AccountId, name: Name) -> Mailbox:
    """The mailbox of that name, as this node has it at least; NotFound."""
    found = store.found.get(account_id, name)
    if found is None:
        mark = store.clock.mark(account_id)
        async with store.acquire() as conn:
            found = await find_in(conn, account_id, name)
        store.found.keep(account_id, name, mark, found)
    return found


async def locate(store: Store, account_id: AccountId, name: Name) -> MailboxId:
    """Which mailbox has the name, for a write that will look whether it still is there; NotFound."""
    found = store.located.get(account_id, name)
    if found is None:
        mark = store.clock.mark(account_id)
        async with store.acquire() as conn:  # not what `find` remembers, which may be older than the mark
            found = (await find_in(conn, account_id, name)).mailbox_id
        store.located.keep(account_id, name, mark, found)
    return found


async def get(store: Store, account_id: AccountId, mailbox_id: MailboxId) -> Mailbox:
    """NotFound where it does not exist or was deleted."""
    async with store.acquire() as conn:
        return await get_in(conn, account_id, mailbox_id)


async def find_in(conn: Any, account_id: int, name: Name) -> Mailbox:
    row = await conn.fetchrow(_FIND, account_id, list(name))
    if row is None:
        raise NotFound("/".join(name))
    return record(account_id, row)


async def get_in(conn: Any, account_id: int, mailbox_id: int) -> Mailbox:
    row = await conn.fetchrow(_GET, account_id, mailbox_id)
    if row is None:
        raise NotFound(f"mailbox {mailbox_id}")
    return record(account_id, row)


async def create(
    store: Store, account_id: AccountId, name: Name, uses: Sequence[str] = (), subscribe: bool = False
) -> Mailbox:
    """Makes a mailbox for these special uses, and its missing superiors (RFC 3501 §6.3.3).

    AlreadyExists, UseTaken, LimitReached.
    """
    try:
        async with store.transaction() as conn:
            state = await account_state.lock(conn, account_id)
            if await conn.fetchrow(_FIND, account_id, list(name)) is not None:
                raise AlreadyExists("/".join(name))
            if uses:
                await _check_uses(conn, account_id, uses)
            missing = await _missing_superiors(conn, account_id, name)
            await _insert(conn, state, [*((s, None) for s in missing), (name, " ".join(uses) or None)])
            if subscribe:
                await conn.execute(_SUBSCRIBE, account_id, list(name))
            made = await find_in(conn, account_id, name)
    except asyncpg.UniqueViolationError as error:
        raise AlreadyExists("/".join(name)) from error
    await store.changes.publish([Notice("list", account_id, made.modseq)])
    return made


def _superiors(name: Name) -> list[Name]:
    return [name[:depth] for depth in range(1, len(name))]


async def _missing_superiors(conn: Any, account_id: int, name: Name) -> list[Name]:
    there = {row[0] for row in await conn.fetch(_SUPERIORS, account_id, list(name))}
    return [superior for superior in _superiors(name) if len(superior) not in there]


async def _check_uses(conn: Any, account_id: int, uses: Sequence[str]) -> None:
    taken = {use for row in await conn.fetch(_USES_TAKEN, account_id) for use in row[0].split()}
    if not taken.isdisjoint(uses):
        raise UseTaken("another mailbox has this use")


async def _insert(conn: Any, state: State, wanted: Iterable[tuple[Name, str | None]]) -> None:
    """Inserts rows under the account's lock; ids and UIDVALIDITY come from its state."""
    mailbox_id, uidvalidity = state.next_mailbox, state.next_uidvalidity
    rows = []
    for name, use in wanted:
        rows.append((state.account_id, mailbox_id, list(name), uidvalidity, state.modseq, use))
        mailbox_id, uidvalidity = mailbox_id + 1, uidvalidity + 1
    if await conn.fetchval(_COUNT, state.account_id) + len(rows) > MAX_MAILBOXES:
        raise LimitReached(f"an account holds at most {MAX_MAILBOXES} mailboxes")
    await conn.executemany(_INSERT, rows)
    await account_state.set_next(conn, state.account_id, mailbox_id, uidvalidity)


async def create_account_state(
    store: Store, account_id: AccountId, quota_octets: int = 0, quota_messages: int = 0
) -> bool:
    """Makes the account's state, INBOX and default mailboxes; false where they are there already.

    Repeatable: whoever finds a directory row without a state runs it again.
    """
    async with store.transaction() as conn:
        return await insert_account_state(store, conn, account_id, quota_octets, quota_messages)


async def insert_account_state(
    store: Store, conn: Any, account_id: AccountId, quota_octets: int = 0, quota_messages: int = 0
) -> bool:
    """The same inside the caller's transaction, which must hold no other account."""
    key = store.keys.new_content_key(account_id)
    made = await conn.fetchval(_CREATE_STATE, account_id, quota_octets, quota_messages, int(time.time()), key)
    if made is None:
        return False
    state = await account_state.lock(conn, account_id)
    defaults = {tuple(m.name.split(store.mail.separator)): m.use or None for m in store.mail.default_mailboxes}
    superiors = {superior: None for name in defaults for superior in _superiors(name)}
    await _insert(conn, state, ({INBOX_NAME: None} | superiors | defaults).items())
    await conn.executemany(_SUBSCRIBE, [(account_id, list(name)) for name in (INBOX_NAME, *defaults)])
    return True


async def delete(store: Store, account_id: AccountId, mailbox_id: MailboxId) -> None:
    """Takes a mailbox and its messages out of sight; they stay for undelete. NotFound; INBOX: NotAllowed."""
    if mailbox_id == INBOX:
        raise NotAllowed("INBOX cannot be deleted")
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        mailbox = await get_in(conn, account_id, mailbox_id)
        await conn.execute(_DELETE, account_id, mailbox_id, state.modseq)
        await account_state.set_use(conn, state, -mailbox.octets, -mailbox.messages)
    store.views.gone(account_id, mailbox_id)
    await store.changes.publish(
        [Notice("mail", account_id, state.modseq, {mailbox_id: ()}), Notice("list", account_id, state.modseq)]
    )


async def rename(store: Store, account_id: AccountId, source: Name, target: Name) -> None:
    """Renames a mailbox and all below it; INBOX: its messages move to a new mailbox (RFC 3501 §6.3.5).

    NotFound, AlreadyExists, NotAllowed (into itself), LimitReached.
    """
    if target[: len(source)] == source and source != INBOX_NAME:
        raise NotAllowed("a mailbox cannot be moved below itself" if target != source else "the names are the same")
    try:
        async with store.transaction() as conn:
            state = await account_state.lock(conn, account_id)
            if await conn.fetchrow(_FIND, account_id, list(target)) is not None:
                raise AlreadyExists("/".join(target))
            if source == INBOX_NAME:
                change = await _empty_inbox_into(conn, state, target)
            else:
                change = None
                await _rename_tree(conn, state, source, target)
    except asyncpg.UniqueViolationError as error:
        raise AlreadyExists("/".join(target)) from error
    notices = [Notice("list", account_id, state.modseq)]
    if change is not None:
        notices.append(change.publish(store))
    await store.changes.publish(notices)


async def _rename_tree(conn: Any, state: State, source: Name, target: Name) -> None:
    await _check_extent(conn, state.account_id, source, target)
    if target == source[: len(target)]:
        # It moves up into a place that it leaves itself: by way of a name that no mailbox has, so that none stands
        # twice for a moment.
        await conn.execute(_MOVE_TREE, state.account_id, list(source), list(_NOWHERE), state.modseq)
        source = _NOWHERE
    await conn.execute(_MOVE_TREE, state.account_id, list(source), list(target), state.modseq)
    missing = await _missing_superiors(conn, state.account_id, target)
    if missing:
        await _insert(conn, state, [(name, None) for name in missing])


async def _check_extent(conn: Any, account_id: int, source: Name, target: Name) -> None:
    """Whether there is anything of that name, and all its names keep within their bounds when they have moved."""
    levels, octets = await conn.fetchrow(_EXTENT, account_id, list(source))
    if levels is None:
        raise NotFound("/".join(source))
    if len(target) + levels > MAX_DEPTH:
        raise LimitReached("a mailbox name would have too many levels")
    if len("/".join(target).encode()) + octets + 1 > MAX_NAME_OCTETS:
        raise LimitReached("a mailbox name would be too long")


async def _empty_inbox_into(conn: Any, state: State, target: Name) -> Change:
    missing = await _missing_superiors(conn, state.account_id, target)
    await _insert(conn, state, [*((s, None) for s in missing), (target, None)])
    inbox = await get_in(conn, state.account_id, INBOX)
    made = await find_in(conn, state.account_id, target)
    return await moving.transfer(conn, state, inbox, made, None, keep_source=False)


async def claim_recent(store: Store, mailbox: Mailbox) -> tuple[int, int] | None:
    """Claims the mailbox's \\Recent messages for one session: their UIDs, as first and one past the last.

    None where there is nothing to claim. It commits by itself, without the account's lock, and raises no modseq.
    """
    if not mailbox.recent:
        return None
    async with store.acquire() as conn:
        for _ in range(2):
            end = await conn.fetchval(_CLAIM_RECENT, mailbox.account_id, mailbox.mailbox_id, mailbox.recent_uid)
            if end is not None:
                store.clock.touch(mailbox.account_id, names=False)
                store.views.claimed(mailbox.account_id, mailbox.mailbox_id, end)
                return mailbox.recent_uid, end
            row = await conn.fetchrow(_GET, mailbox.account_id, mailbox.mailbox_id)
            if row is None or not row["recent"]:
                return None
            mailbox = record(mailbox.account_id, row)
    return None


async def subscriptions(store: Store, account_id: AccountId) -> set[Name]:
    """Subscribed names, of mailboxes that exist or not (RFC 3501 §6.3.6)."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_SUBSCRIPTIONS, account_id)
    return {tuple(row["name"]) for row in rows}


async def subscribe(store: Store, account_id: AccountId, name: Name) -> None:
    """The mailbox need not exist. LimitReached."""
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        await conn.execute(_SUBSCRIBE, account_id, list(name))
        if await conn.fetchval(_COUNT_SUBSCRIPTIONS, account_id) > MAX_SUBSCRIPTIONS:
            raise LimitReached(f"an account has at most {MAX_SUBSCRIPTIONS} subscriptions")
    await store.changes.publish([Notice("list", account_id, state.modseq)])


async def unsubscribe(store: Store, account_id: AccountId, name: Name) -> None:
    """NotFound where there was no subscription."""
    async with store.transaction() as conn:
        state = await account_state.lock(conn, account_id)
        if await conn.fetchrow(_UNSUBSCRIBE, account_id, list(name)) is None:
            raise NotFound("/".join(name))
    await store.changes.publish([Notice("list", account_id, state.modseq)])


quota = account_state.quota
set_quota = account_state.set_quota
