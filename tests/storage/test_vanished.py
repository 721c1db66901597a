from __future__ import annotations

from storage import mailboxes, messages, vanished
from storage.packed import UINT4, unpack
from storage.records import INBOX, Flag, FlagChange
from storage.store import Store
from tests.storage.conftest import ALICE
from tests.storage.test_messages import fill


async def test_what_left_is_remembered_by_modseq(store: Store) -> None:
    await fill(store, 6)
    start = (await mailboxes.get(store, ALICE, INBOX)).highestmodseq
    await messages.store_flags(store, ALICE, INBOX, [2, 3], FlagChange("+", Flag.DELETED))
    await messages.expunge(store, ALICE, INBOX, None)
    middle = (await mailboxes.get(store, ALICE, INBOX)).highestmodseq
    drafts = await mailboxes.find(store, ALICE, ("Drafts",))
    await messages.move(store, ALICE, INBOX, [5], drafts.mailbox_id)
    async with store.acquire() as conn:
        for since, expected in ((start, [[2, 3], [5]]), (middle, [[5]])):
            rows = await conn.fetch(vanished.SINCE + " ORDER BY modseq", ALICE, INBOX, since)
            assert [unpack(UINT4, row["uids"]).tolist() for row in rows] == expected
        held = await conn.fetch("SELECT reason, message_ids IS NOT NULL FROM vanished ORDER BY modseq")
        assert [tuple(row) for row in held] == [("expunged", True), ("moved", False)]
        assert await conn.fetchval("SELECT undelete_octets FROM account_state WHERE account_id = 1") > 0
