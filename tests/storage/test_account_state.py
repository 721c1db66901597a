from __future__ import annotations

import asyncio

import pytest

from storage import account_state
from storage.account_state import State
from storage.errors import NotFound, OverQuota
from storage.records import Quota
from storage.store import Store
from tests.storage.conftest import ALICE, BOB


@pytest.mark.parametrize(
    ("quota_octets", "quota_messages", "octets", "messages", "outcome"),
    [
        (0, 0, 10**12, 10**6, "fits"),
        (100, 0, 50, 1, "fits"),
        (100, 0, 51, 1, "full"),
        (100, 0, 101, 1, "never"),
        (0, 10, 1, 5, "fits"),
        (0, 10, 1, 6, "full"),
        (0, 10, 1, 11, "never"),
    ],
)
def test_room(quota_octets: int, quota_messages: int, octets: int, messages: int, outcome: str) -> None:
    """The account uses 50 octets in 5 messages."""
    state = State(1, 2, quota_octets, quota_messages, 50, 5, 1, 1, 0)
    if outcome == "fits":
        state.check_room(octets, messages)
        return
    with pytest.raises(OverQuota) as caught:
        state.check_room(octets, messages)
    assert caught.value.never == (outcome == "never")


async def test_the_lock_raises_modseq_in_the_order_of_commits(store: Store) -> None:
    seen: list[int] = []

    async def write() -> None:
        async with store.transaction() as conn:
            seen.append((await account_state.lock(conn, ALICE)).modseq)

    await asyncio.gather(*(write() for _ in range(8)))
    assert seen == list(range(seen[0], seen[0] + 8))


async def test_accounts_do_not_wait_for_each_other(store: Store) -> None:
    async with store.transaction() as conn:
        await account_state.lock(conn, ALICE)
        async with asyncio.timeout(2), store.transaction() as other:
            await account_state.lock(other, BOB)


async def test_quota(store: Store) -> None:
    await account_state.set_quota(store, ALICE, 7, 8)
    assert await account_state.quota(store, ALICE) == Quota(7, 8, 0, 0)
    for asked in (account_state.quota(store, 99), account_state.set_quota(store, 99, 1, 1)):  # type: ignore[arg-type]
        with pytest.raises(NotFound):
            await asked
