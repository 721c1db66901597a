from __future__ import annotations

import pytest

from mailserver.delivery import route
from mailserver.delivery.route import Routes
from storage import AccountId, OverQuota, Store, account_state, accounts, domains

ACCOUNT = AccountId(1)
MIB = 1024 * 1024


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def routes(store: Store, clock: Clock) -> Routes:
    return Routes(store, clock=clock)


async def fill(store: Store, octets: int, messages: int) -> None:
    async with store.acquire() as conn:
        await conn.execute(
            "UPDATE account_state SET used_octets = $1, used_messages = $2 WHERE account_id = 1", octets, messages
        )


async def room(routes: Routes, octets: int) -> str:
    try:
        await routes.check_room(ACCOUNT, octets)
    except OverQuota as error:
        return "never" if error.never else "full"
    return "room"


async def test_addresses(routes: Routes, store: Store) -> None:
    await domains.add(store, "example.org")
    account = await accounts.add(store, None, "alice@example.org", None)
    found = await routes.find("ALICE+x@example.org")
    assert (found.status, found.accounts) == ("ok", (account.account_id,))
    assert (await routes.find("nobody@example.org")).status == "unknown"
    assert (await routes.find("alice@elsewhere.example")).status == "not_ours"


@pytest.mark.parametrize(
    ("quota", "used", "octets", "verdict"),
    [
        ((0, 0), (10**12, 10**9), MIB, "room"),
        ((MIB, 0), (0, 0), MIB, "room"),
        ((MIB, 0), (0, 0), MIB + 1, "never"),
        ((MIB, 0), (1, 5), MIB, "full"),
        ((MIB, 0), (MIB, 5), 1, "full"),
        ((MIB, 0), (2 * MIB, 5), 1, "full"),
        ((0, 10), (0, 9), MIB, "room"),
        ((0, 10), (0, 10), 1, "full"),
    ],
)
async def test_room(
    routes: Routes, store: Store, quota: tuple[int, int], used: tuple[int, int], octets: int, verdict: str
) -> None:
    await account_state.set_quota(store, ACCOUNT, *quota)
    await fill(store, *used)
    assert await room(routes, octets) == verdict
    assert await room(routes, octets) == verdict


async def test_an_old_count_is_good_while_there_is_plenty(
    routes: Routes, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    real = account_state.quota

    async def quota(*args: object) -> object:
        reads.append(args)
        return await real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(account_state, "quota", quota)
    await account_state.set_quota(store, ACCOUNT, 100 * MIB, 0)
    for _ in range(5):
        assert await room(routes, 1000) == "room"
    assert len(reads) == 1
    assert await room(routes, 20 * MIB) == "room"  # not small beside what is left
    assert len(reads) == 2
    await fill(store, 95 * MIB, 1)
    clock.now += route.QUOTA_SECONDS
    assert await room(routes, 1000) == "room"
    assert len(reads) == 3
    assert await room(routes, 1000) == "room"  # it has got tight
    assert len(reads) == 4
    await fill(store, 100 * MIB, 1)
    assert await room(routes, 1000) == "full"


async def test_what_is_remembered_is_bounded(routes: Routes, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "MAX_REMEMBERED", 1)
    await routes.check_room(AccountId(1), 1)
    await routes.check_room(AccountId(2), 1)
    assert len(routes._quotas) == 1
