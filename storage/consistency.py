"""Does an account's mail agree with itself? The check that `pillarbox admin fsck` runs, and its repair.

`check` reads all rows of an account in one snapshot (REPEATABLE READ, read-only), in slices, so that an account under
load gives no false alarm and a large one takes little memory. Blobs, and octets where they are asked for, are read
after it without a transaction; what is missing there is looked up once more, since it may have been purged meanwhile.

`repair` takes the account's lock, runs the same check inside that one transaction, and writes anew what follows from
the rest: counters, sums, uidnext, ceilings of modseqs, \\Recent, bits of keywords without a name, references to blobs.
The account's other writers wait meanwhile. What cannot be derived (lost rows, pages, octets) is left as it is.

Nothing here deletes mail. Garbage, that is messages, contents and blobs that nothing holds, is counted and left to
housekeeping.
"""

from __future__ import annotations

import time
from typing import Any

from storage import blobs, consistency_contents, consistency_membership
from storage.findings import Findings
from storage.housekeeping import GRACE_SECONDS
from storage.packed import integers
from storage.records import AccountId, MailboxId, Notice
from storage.store import Store

_ACCOUNTS = "SELECT account_id FROM account_state WHERE account_id > $1 ORDER BY account_id LIMIT 200"
_COUNT = "SELECT count(*) FROM account_state"
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_LOCK = "SELECT modseq FROM account_state WHERE account_id = $1 FOR UPDATE"
_REFERRED = "SELECT DISTINCT blob FROM blob_refs WHERE blob = ANY($1)"
_GARBAGE = f"""
SELECT count(*) FROM (
    SELECT message_id FROM messages WHERE account_id = $1 AND created < $2
    EXCEPT {integers("message_ids", "mailbox_pages", "account_id = $1")}
    EXCEPT {integers("message_ids", "vanished", "account_id = $1 AND message_ids IS NOT NULL")}
    EXCEPT SELECT queue_id FROM queue_messages WHERE account_id = $1
) AS unheld
"""
_BARE_CONTENTS = """
SELECT count(*) FROM message_contents c WHERE c.account_id = $1
    AND NOT EXISTS (SELECT FROM messages m WHERE m.account_id = $1 AND m.message_id = c.message_id)
"""


async def count(store: Store) -> int:
    """How many accounts have mail state."""
    async with store.acquire() as conn:
        return int(await conn.fetchval(_COUNT))


async def accounts(store: Store, after: int = -1) -> list[AccountId]:
    """The next 200 accounts that have mail state, in order of their ids."""
    async with store.acquire() as conn:
        return [AccountId(row[0]) for row in await conn.fetch(_ACCOUNTS, after)]


async def check(store: Store, account_id: AccountId, *, octets: bool = False) -> Findings:
    """Everything that is wrong with an account; octets: its messages are read and rebuilt, too."""
    findings = Findings(account_id)
    async with store.acquire() as conn:
        await conn.execute(_BEGIN)
        try:
            await _examine(conn, findings)
            await _count_garbage(conn, findings)
        finally:
            if not conn.is_closed():
                await conn.execute("ROLLBACK")
    await consistency_contents.find_blobs(store, findings)
    if octets:
        await consistency_contents.read_octets(store, findings)
    return findings


async def repair(store: Store, account_id: AccountId) -> None:
    """Mends what can be derived, in one transaction under the account's lock."""
    findings = Findings(account_id)
    modseq = 0
    async with store.transaction() as conn:
        if await conn.fetchval(_LOCK, account_id) is None:
            return
        modseq = await _examine(conn, findings) + 1
        for mend in findings.mends:
            await mend(conn, modseq)
    pages: dict[MailboxId, tuple[int, ...]] = {MailboxId(number): () for number in findings.mended_mailboxes}
    await store.changes.publish([Notice("mail", account_id, modseq, pages), Notice("list", account_id, modseq)])


async def _examine(conn: Any, findings: Findings) -> int:
    """All that can be said from the rows; the highest modseq that was met, 0 where the account has gone."""
    highest = await consistency_membership.examine(conn, findings)
    if highest:
        await consistency_contents.examine(conn, findings)
    return highest


async def _count_garbage(conn: Any, findings: Findings) -> None:
    before = int(time.time()) - GRACE_SECONDS
    findings.garbage["messages"] += await conn.fetchval(_GARBAGE, findings.account_id, before)
    findings.garbage["contents"] += await conn.fetchval(_BARE_CONTENTS, findings.account_id)


async def unreferenced_blobs(store: Store) -> int:
    """How many blobs no account refers to, of those that are old enough to be swept."""
    found = 0
    async for refs in store.blobs.listed(blobs.generation(time.time()) - 2):
        async with store.acquire() as conn:
            held = {row[0] for row in await conn.fetch(_REFERRED, refs)}
        found += len(set(refs) - held)
    return found
