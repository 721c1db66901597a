"""What an administrator learns of a check: all accounts or one, what is repaired, and how much of it is named."""

from __future__ import annotations

import pytest

from mailserver.administration import Refused, accounts, consistency
from mailserver.administration.accounts import Wish
from mailserver.passwords import Hasher
from storage.findings import Fault
from storage.store import Store

WRONG = "UPDATE mailboxes SET messages = 3 WHERE mailbox_id = 1 AND account_id = $1"
LOST = "DELETE FROM mailboxes WHERE mailbox_id = 1 AND account_id = $1"


@pytest.fixture
async def ids(store: Store, hasher: Hasher) -> list[int]:
    """root, alice and bob."""
    for name in ("alice", "bob"):
        await accounts.add(store, hasher, Wish(f"{name}@example.org"))
    return [(await accounts.find(store, name)).account_id for name in ("root", "alice", "bob")]


@pytest.fixture
async def old_garbage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob that nobody refers to, as seen much later."""
    await store.blobs.put(b"garbage")
    monkeypatch.setattr("storage.consistency.blobs.generation", lambda now: 10**6)


async def damage(store: Store, statement: str, account_id: int) -> None:
    async with store.acquire() as conn:
        await conn.execute(statement, account_id)


def named(faults: list[Fault]) -> list[tuple[int, str]]:
    return [(fault.account_id, fault.kind) for fault in faults]


@pytest.mark.usefixtures("old_garbage")
async def test_all_accounts_and_the_blobs(store: Store, ids: list[int]) -> None:
    told: list[tuple[int, int]] = []
    report = await consistency.check(store, progress=lambda done, total: told.append((done, total)))
    assert report.clean and report.accounts == 3
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert report.looked_at["mailboxes"] == 3 * 6 and +report.garbage == {"blobs": 1}


@pytest.mark.usefixtures("old_garbage")
@pytest.mark.parametrize("name", ["alice", "alice@example.org"])
async def test_one_account(store: Store, ids: list[int], name: str) -> None:
    await damage(store, WRONG, ids[1])
    await damage(store, WRONG, ids[2])
    told: list[tuple[int, int]] = []
    report = await consistency.check(store, name, progress=lambda done, total: told.append((done, total)))
    assert not report.clean and named(report.faults) == [(ids[1], "counters")]
    assert (report.accounts, told, +report.garbage) == (1, [(1, 1)], {})


async def test_nobody(store: Store) -> None:
    with pytest.raises(Refused, match="nobody does not exist"):
        await consistency.check(store, "nobody")


async def test_nothing_is_mended_unasked(store: Store, ids: list[int]) -> None:
    await damage(store, WRONG, ids[1])
    for _ in range(2):
        assert named((await consistency.check(store)).faults) == [(ids[1], "counters")]


async def test_what_is_mended_and_what_is_left(store: Store, ids: list[int]) -> None:
    await damage(store, WRONG, ids[1])
    await damage(store, LOST, ids[2])
    report = await consistency.check(store, repair=True)
    assert named(report.repaired) == [(ids[1], "counters")]
    assert not report.clean and named(report.faults) == [(ids[2], "mailbox")]
    again = await consistency.check(store, repair=True)
    assert again.repaired == [] and named(again.faults) == [(ids[2], "mailbox")]


async def test_a_sound_account_is_not_repaired(store: Store, ids: list[int]) -> None:
    async with store.acquire() as conn:
        before = await conn.fetch("SELECT account_id, modseq FROM account_state ORDER BY account_id")
        assert (await consistency.check(store, repair=True)).clean
        assert await conn.fetch("SELECT account_id, modseq FROM account_state ORDER BY account_id") == before


async def test_faults_that_are_not_named_are_counted(
    store: Store, ids: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consistency, "MAX_FAULTS", 2)
    for account_id in ids:
        await damage(store, WRONG, account_id)
    report = await consistency.check(store)
    assert (named(report.faults), report.more_faults) == ([(ids[0], "counters"), (ids[1], "counters")], 1)
    monkeypatch.setattr(consistency, "MAX_FAULTS", 0)
    report = await consistency.check(store)
    assert (report.faults, report.more_faults, report.clean) == ([], 3, False)
