"""The password check: who gets in, at what cost, and how guessing is slowed down."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from config.schema import AuthConfig
from mailserver import login as login_module
from mailserver import passwords
from mailserver.login import LoginDisabled, LoginFailed, Logins, Throttled
from mailserver.net.limits import Limits
from storage import Account, AccountId, Store, accounts, domains, mailboxes
from tests.storage.conftest import OpenStore, open_store

__all__ = ["open_store"]

OUTSIDE = "203.0.113.7"
INSIDE = "127.0.0.1"
CHEAP: dict[str, Any] = {"argon2_memory_kib": 64, "argon2_time": 1}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    """alice with the password "right one", further address al@example.org."""
    store: Store = await open_store()
    await domains.add(store, "example.org")
    stored = passwords.Hasher(64, 1).hash("right one")
    await accounts.add(store, None, "alice@example.org", stored, further=["al@example.org"])
    return store


MakeLogins = Callable[..., Logins]


@pytest.fixture
async def make(store: Store, clock: Clock) -> AsyncIterator[MakeLogins]:
    made: list[Logins] = []

    def make(**settings: Any) -> Logins:
        config = AuthConfig(**{**CHEAP, **settings})
        made.append(Logins(store, config, Limits(["127.0.0.0/8"]), clock=clock))
        return made[-1]

    yield make
    for logins in made:
        logins.close()


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hashes that were computed."""
    computed: list[str] = []
    verify = passwords.verify

    def counting(stored: str, password: str) -> bool:
        computed.append(stored)
        return verify(stored, password)

    monkeypatch.setattr(passwords, "verify", counting)
    return computed


async def check(logins: Logins, name: str = "alice", password: str = "right one", peer: str = OUTSIDE) -> Account:
    return await logins.check(name, password, peer=peer, service="imap")


async def outcome(logins: Logins, name: str = "alice", password: str = "right one", peer: str = OUTSIDE) -> object:
    try:
        return (await check(logins, name, password, peer)).username
    except LoginFailed as refusal:
        return type(refusal)


async def change(store: Store, name: str = "alice") -> Account:
    return await accounts.find(store, name)


@pytest.mark.parametrize(
    ("name", "password", "expected"),
    [
        ("alice", "right one", "alice"),
        ("ALICE", "right one", "alice"),
        ("Alice@Example.org", "right one", "alice"),
        ("al@example.org", "right one", "alice"),
        ("al", "right one", LoginFailed),
        ("alice", "Right one", LoginFailed),
        ("alice", "", LoginFailed),
        ("alice", "right one ", LoginFailed),
        ("alice", "x" * 100_000, LoginFailed),
        ("alice+tag@example.org", "right one", LoginFailed),
        ("nobody", "right one", LoginFailed),
        ("", "", LoginFailed),
        ("a\0b", "x\ud800", LoginFailed),
        ("y" * 100_000, "x", LoginFailed),
    ],
)
async def test_who_gets_in(make: MakeLogins, name: str, password: str, expected: object) -> None:
    assert await outcome(make(), name, password) == expected


async def test_an_account_without_password_lets_nobody_in(store: Store, make: MakeLogins) -> None:
    await accounts.add(store, None, "robot@example.org", None)
    for password in ("", "None", "x"):
        assert await outcome(make(), "robot", password) is LoginFailed


async def test_only_the_right_password_learns_that_the_account_is_disabled(store: Store, make: MakeLogins) -> None:
    logins = make()
    await check(logins)
    await accounts.set_status(store, (await change(store)).account_id, "disabled")
    assert await outcome(logins) is LoginDisabled
    assert await outcome(logins, password="wrong one") is LoginFailed
    await accounts.set_status(store, (await change(store)).account_id, "active")
    assert await outcome(logins) == "alice"


async def test_a_right_password_is_remembered_for_a_while(make: MakeLogins, clock: Clock, checks: list[str]) -> None:
    logins = make(cache_seconds=60)
    for _ in range(3):
        await check(logins)
    await check(logins, "al@example.org")
    assert len(checks) == 1
    clock.now += 61
    await check(logins)
    assert len(checks) == 2
    await outcome(logins, password="wrong one")
    await outcome(logins, password="wrong one")
    assert len(checks) == 4


async def test_remembering_can_be_switched_off(make: MakeLogins, checks: list[str]) -> None:
    logins = make(cache_seconds=0)
    await check(logins)
    await check(logins)
    assert len(checks) == 2


async def test_a_changed_password_is_never_let_in_from_memory(store: Store, make: MakeLogins) -> None:
    """Without a notice, too: what is remembered is bound to the account's version."""
    logins = make()
    await check(logins)
    new = passwords.Hasher(64, 1).hash("new password")
    await accounts.set_password_hash(store, (await change(store)).account_id, new)
    assert await outcome(logins) is LoginFailed
    assert await outcome(logins, password="new password") == "alice"
    await accounts.remove(store, (await change(store)).account_id)
    assert await outcome(logins, password="new password") is LoginFailed


@pytest.mark.parametrize("account_id", [0, 1])
async def test_notices_drop_what_is_remembered(make: MakeLogins, checks: list[str], account_id: int) -> None:
    logins = make()
    account = await check(logins)
    logins.forget(account.account_id if account_id else AccountId(0))
    await check(logins)
    assert len(checks) == 2
    logins.forget(AccountId(account.account_id + 1))
    await check(logins)
    assert len(checks) == 2


async def test_many_at_once_cost_one_computation(make: MakeLogins, checks: list[str]) -> None:
    logins = make()
    await asyncio.gather(*(check(logins) for _ in range(50)))
    assert len(checks) == 1


async def test_unknown_and_known_names_cost_the_same_computation(
    store: Store, make: MakeLogins, checks: list[str]
) -> None:
    await accounts.add(store, None, "robot@example.org", None)
    await accounts.add(store, None, "off@example.org", passwords.Hasher(64, 1).hash("x"))
    await accounts.set_status(store, (await change(store, "off")).account_id, "disabled")
    logins = make()
    for name in ("alice", "nobody", "robot", "off", "no address@"):
        checks.clear()
        assert await outcome(logins, name, "wrong one", INSIDE) is LoginFailed
        assert [stored.startswith("$argon2id$v=19$m=64,t=1,p=1$") for stored in checks] == [True]


async def test_unknown_names_take_as_long(make: MakeLogins) -> None:
    logins = make(argon2_memory_kib=19456, argon2_time=2)
    took: dict[str, float] = {}
    for name in ("alice", "nobody"):
        await outcome(logins, "alice", "right one", INSIDE)  # rehashed to the settings of this test
        best = 10.0
        for turn in range(5):
            began = time.process_time()
            assert await outcome(logins, name, f"wrong {turn}", INSIDE) is LoginFailed
            best = min(best, time.process_time() - began)
        took[name] = best
    assert 0.5 < took["alice"] / took["nobody"] < 2


FOREIGN = [
    "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
    passwords.sha512_crypt(b"U*U", b"salt", 1000),
    passwords.Hasher(128, 2).hash("U*U"),
]


@pytest.mark.parametrize("stored", FOREIGN, ids=["bcrypt", "sha512-crypt", "argon2id"])
async def test_a_foreign_hash_is_replaced_at_the_first_login(store: Store, make: MakeLogins, stored: str) -> None:
    made = await accounts.add(store, None, "moved@example.org", stored)
    logins = make()
    assert await outcome(logins, "moved", "wrong") is LoginFailed
    assert await outcome(logins, "moved", "U*U") == "moved"
    now = await accounts.find_login(store, "moved")
    assert now is not None
    assert now.password_hash is not None
    assert now.password_hash.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert now.account.version == made.version
    assert await outcome(logins, "moved", "U*U") == "moved"


async def test_a_login_makes_mailboxes_that_a_crash_left_unmade(
    store: Store, make: MakeLogins, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(accounts, "_make_states", crash)
        with pytest.raises(RuntimeError):
            await accounts.add(store, None, "late@example.org", passwords.Hasher(64, 1).hash("x"))
    account = await check(make(), "late", "x")
    assert [box.name for box in await mailboxes.list_all(store, account.account_id)]


async def test_guessing_at_an_account_is_slowed_down(make: MakeLogins, clock: Clock, checks: list[str]) -> None:
    logins = make(max_failures_per_account=3, max_failures_per_address=1000, throttle_seconds=300)
    for turn in range(3):
        assert await outcome(logins, "alice", f"wrong {turn}", f"203.0.113.{turn}") is LoginFailed
    checks.clear()
    for name in ("alice", "al@example.org"):
        with pytest.raises(Throttled) as refusal:
            await check(logins, name, "right one", "203.0.113.9")
        assert 0 < refusal.value.retry_after <= 300
    assert checks == []
    assert await outcome(logins, peer=INSIDE) == "alice"
    clock.now += 301
    assert await outcome(logins, peer="203.0.113.9") == "alice"


async def test_names_that_do_not_exist_are_slowed_down_as_well(make: MakeLogins) -> None:
    logins = make(max_failures_per_account=3, max_failures_per_address=1000)
    outcomes = [await outcome(logins, "nobody", f"wrong {turn}", f"203.0.113.{turn}") for turn in range(4)]
    assert outcomes == [LoginFailed, LoginFailed, LoginFailed, Throttled]


async def test_guessing_from_an_address_is_slowed_down(make: MakeLogins, clock: Clock) -> None:
    logins = make(max_failures_per_account=1000, max_failures_per_address=3, throttle_seconds=300)
    peers = ["2001:db8::1", "2001:db8::2", "2001:db8::3:4"]
    outcomes = [await outcome(logins, f"name{turn}", "x", peer) for turn, peer in enumerate(peers)]
    assert outcomes == [LoginFailed] * 3
    assert await outcome(logins, peer="2001:db8::5") is Throttled
    assert await outcome(logins, peer="2001:db8:0:1::5") == "alice"
    clock.now += 301
    assert await outcome(logins, peer="2001:db8::5") == "alice"


async def test_a_right_password_does_not_wash_an_address_clean(make: MakeLogins) -> None:
    logins = make(max_failures_per_account=1000, max_failures_per_address=3)
    for turn in range(3):
        await outcome(logins, f"name{turn}", "x")
        if turn < 2:
            assert await outcome(logins) == "alice"
    assert await outcome(logins) is Throttled


async def test_trusted_networks_are_never_throttled(make: MakeLogins) -> None:
    logins = make(max_failures_per_account=2, max_failures_per_address=2)
    for turn in range(6):
        assert await outcome(logins, "alice", f"wrong {turn}", INSIDE) is LoginFailed
    assert await outcome(logins) == "alice"


async def test_an_attacker_does_not_lock_the_owner_out(make: MakeLogins, clock: Clock) -> None:
    logins = make(max_failures_per_account=3, max_failures_per_address=1000)
    await check(logins, peer="198.51.100.1")
    clock.now += 3600
    for turn in range(5):
        await outcome(logins, "alice", f"wrong {turn}", f"203.0.113.{turn}")
    assert await outcome(logins, peer="203.0.113.9") is Throttled
    assert await outcome(logins, peer="198.51.100.1") == "alice"


async def test_the_same_wrong_password_at_once_is_one_guess(make: MakeLogins) -> None:
    """A client that opens many connections with an old password is not an attack."""
    await outcome(make(argon2_memory_kib=65536, argon2_time=4), peer=INSIDE)  # slow enough for all to meet
    logins = make(max_failures_per_address=3, argon2_memory_kib=65536, argon2_time=4)
    outcomes = await asyncio.gather(*(outcome(logins, "alice", "old one") for _ in range(20)))
    assert set(outcomes) == {LoginFailed}
    assert await outcome(logins) == "alice"


async def test_many_different_guesses_at_once_do_not_slip_through(make: MakeLogins, checks: list[str]) -> None:
    logins = make(max_failures_per_address=3, max_failures_per_account=1000)
    outcomes = await asyncio.gather(*(outcome(logins, "alice", f"wrong {turn}") for turn in range(50)))
    assert len(checks) < 6
    assert outcomes.count(Throttled) == 50 - len(checks)


async def test_the_queue_is_bounded(make: MakeLogins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_module, "MAX_WAITING", 5)
    hold = threading.Event()
    verify = passwords.verify

    def held(stored: str, password: str) -> bool:
        hold.wait(10)
        return verify(stored, password)

    monkeypatch.setattr(passwords, "verify", held)
    logins = make(argon2_threads=1)
    running = [asyncio.ensure_future(outcome(logins, f"name{turn}", "x", INSIDE)) for turn in range(6)]
    while logins._pool._inside < 6:
        await asyncio.sleep(0.01)
    with pytest.raises(Throttled) as refusal:
        await check(logins, "one more", "x", INSIDE)
    assert refusal.value.retry_after > 0
    hold.set()
    assert await asyncio.gather(*running) == [LoginFailed] * 6
    assert await outcome(logins, peer=INSIDE) == "alice"


async def test_a_caller_that_leaves_harms_no_other(make: MakeLogins) -> None:
    logins = make()
    leaving, staying = (asyncio.ensure_future(check(logins)) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).username == "alice"


async def test_memory_is_bounded(make: MakeLogins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_module, "MAX_REMEMBERED", 3)
    logins = make()
    for host in range(10):
        await check(logins, peer=f"203.0.113.{host}")
    assert len(logins._owners._until) == 3
    assert logins._accounts._gates == {}
    assert logins._running == {}


async def test_other_settings_count_at_once_and_forget_nothing(make: MakeLogins, clock: Clock) -> None:
    logins = make(max_failures_per_address=2, throttle_seconds=100)

    async def fail() -> type[Exception]:
        try:
            await logins.check("alice", "wrong one", peer=OUTSIDE, service="imap")
        except LoginFailed as refusal:
            return type(refusal)
        raise AssertionError

    assert [await fail() for _ in range(3)] == [LoginFailed, LoginFailed, Throttled]
    logins.reconfigure(AuthConfig(**CHEAP, max_failures_per_address=3, throttle_seconds=100))
    assert [await fail() for _ in range(2)] == [LoginFailed, Throttled]
    logins.reconfigure(AuthConfig(**CHEAP, max_failures_per_address=3, throttle_seconds=10))
    clock.now += 20
    assert await fail() is LoginFailed


async def test_a_shorter_memory_counts_for_what_is_remembered(
    make: MakeLogins, clock: Clock, checks: list[str]
) -> None:
    logins = make(cache_seconds=1000)
    for _ in range(2):
        await logins.check("alice", "right one", peer=INSIDE, service="imap")
    assert len(checks) == 1
    logins.reconfigure(AuthConfig(**CHEAP, cache_seconds=10))
    await logins.check("alice", "right one", peer=INSIDE, service="imap")
    clock.now += 20
    await logins.check("alice", "right one", peer=INSIDE, service="imap")
    assert len(checks) == 2


async def test_hashes_are_made_anew_as_other_settings_ask(make: MakeLogins, store: Store) -> None:
    logins = make()
    logins.reconfigure(AuthConfig(argon2_memory_kib=128, argon2_time=1))
    await logins.check("alice", "right one", peer=INSIDE, service="imap")
    found = await accounts.find_login(store, "alice")
    assert found is not None and found.password_hash is not None
    assert "m=128,t=1" in found.password_hash
