"""Who may register which account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from config.schema import RESERVED_NAMES, AuthConfig
from mailserver.administration import Refused, aliases, domains
from mailserver.administration.registration import Closed, Taken, register
from mailserver.login import LoginFailed, Logins, Throttled
from mailserver.net.limits import Limits
from storage import Account, Store, accounts

PASSWORD = "correct horse battery"


@pytest.fixture
async def logins(store: Store) -> AsyncIterator[Logins]:
    """open.test is open for registration, example.org is not."""
    await domains.add(store, "open.test", "open")
    config = AuthConfig(argon2_memory_kib=64, argon2_time=1, max_registrations_per_address=3)
    made = Logins(store, config, Limits(["127.0.0.0/8"]))
    yield made
    made.close()


async def join(
    store: Store, logins: Logins, username: str, email: str, password: str = PASSWORD, peer: str = "127.0.0.1"
) -> Account:
    return await register(
        store, logins, username=username, email=email, password=password, peer=peer, reserved=RESERVED_NAMES
    )


async def test_a_new_account_can_log_in_under_both_names(store: Store, logins: Logins) -> None:
    made = await join(store, logins, "Carol", "Carol@Open.Test")
    assert (made.username, made.primary_address, made.role) == ("carol", "carol@open.test", "user")
    for name in ("carol", "carol@open.test"):
        assert await logins.check(name, PASSWORD, peer="127.0.0.1", service="api") == made
    with pytest.raises(LoginFailed):
        await logins.check("carol", "another one", peer="127.0.0.1", service="api")


@pytest.mark.parametrize("email", ["carol@example.org", "carol@elsewhere.test"])
async def test_other_domains_are_closed(store: Store, logins: Logins, email: str) -> None:
    with pytest.raises(Closed) as refusal:
        await join(store, logins, "carol", email)
    assert refusal.value.field == "email"


@pytest.mark.parametrize(
    ("username", "email", "field"),
    [
        ("carol", "Postmaster@open.test", "email"),
        ("carol", "ABUSE+x@open.test", "email"),
        ("carol", '"admin"@open.test', "email"),
        ("carol", "ａdmin@open.test", "email"),
        ("ssladmin", "carol@open.test", "username"),
        ("Root+x", "carol@open.test", "username"),
        ("mailer-daemon", "carol@open.test", "username"),
        ("carol", "alice+carol@open.test", "email"),
        ("carol", "carol", "email"),
        ("carol", "", "email"),
        ("a b", "carol@open.test", "username"),
        ("", "carol@open.test", "username"),
        ("dave@open.test", "carol@open.test", "username"),
    ],
)
async def test_names_that_are_refused(store: Store, logins: Logins, username: str, email: str, field: str) -> None:
    with pytest.raises(Refused) as refusal:
        await join(store, logins, username, email)
    assert refusal.value.field == field and not isinstance(refusal.value, Closed)


@pytest.mark.parametrize("name", RESERVED_NAMES)
async def test_reserved_names(store: Store, logins: Logins, name: str) -> None:
    with pytest.raises(Refused, match="reserved"):
        await join(store, logins, "carol", f"{name.upper()}@open.test")


@pytest.mark.parametrize("password", ["short", "password", "PassWord", "carol@open.test", "x" * 2000])
async def test_passwords_that_are_refused(store: Store, logins: Logins, password: str) -> None:
    with pytest.raises(Refused) as refusal:
        await join(store, logins, "carol", "carol@open.test", password)
    assert refusal.value.field == "password"
    assert await accounts.find_login(store, "carol") is None


async def test_what_is_there_is_taken(store: Store, logins: Logins) -> None:
    await join(store, logins, "carol", "carol@open.test")
    await aliases.add(store, "team@open.test", ["carol@open.test"])
    for username, email, field in (
        ("other", "CAROL@open.test", "email"),
        ("Carol", "other@open.test", "username"),
        ("other", "team@open.test", "email"),
    ):
        with pytest.raises(Taken) as refusal:
            await join(store, logins, username, email)
        assert refusal.value.field == field


async def test_one_of_two_at_the_same_time_has_it(store: Store, logins: Logins) -> None:
    both = [join(store, logins, "carol", "carol@open.test", f"{PASSWORD} {n}") for n in range(2)]
    outcomes = await asyncio.gather(*both, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Account", "Taken"]


async def test_an_address_registers_a_few_accounts_and_then_waits(store: Store, logins: Logins) -> None:
    for number in range(3):
        await join(store, logins, f"user{number}", f"user{number}@open.test", peer="203.0.113.7")
    with pytest.raises(Throttled):
        await join(store, logins, "user3", "user3@open.test", peer="203.0.113.7")
    await join(store, logins, "user3", "user3@open.test", peer="203.0.113.8")
    for number in range(4, 9):
        await join(store, logins, f"user{number}", f"user{number}@open.test", peer="127.0.0.1")
