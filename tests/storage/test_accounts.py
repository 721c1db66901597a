"""Accounts on a real database: names, logins, and that nothing is left of a removed one."""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import pytest

from storage import accounts, aliases, directory, domains, mailboxes, removal
from storage.accounts import NewAccount
from storage.errors import AlreadyExists, NotAllowed, NotFound
from storage.records import Account, AccountId, Notice
from storage.store import Store
from tests.storage.conftest import OpenStore, deliver, place


@pytest.fixture
async def store(open_store: OpenStore) -> Store:
    """A store with the domain example.org and no account."""
    store: Store = await open_store()
    await domains.add(store, "example.org")
    return store


async def test_an_account_is_found_by_all_its_names(store: Store) -> None:
    made = await accounts.add(store, "al", "Alice@example.org", "hash", further=["A.Lice@example.org"])
    assert (made.username, made.primary_address, made.role, made.status) == (
        "al",
        "alice@example.org",
        "user",
        "active",
    )
    for name in ("al", "AL", "alice@example.org", "ALICE@example.org", "a.lice@example.org"):
        assert await accounts.find(store, name) == made
        login = await accounts.find_login(store, name)
        assert login is not None
        assert (login.account, login.password_hash) == (made, "hash")
    for name in ("alice", "al@example.org", "alice+tag@example.org", "", "a b", "x" * 10_000):
        assert await accounts.find_login(store, name) is None
        with pytest.raises(NotFound):
            await accounts.find(store, name)
    assert await accounts.get(store, made.account_id) == made
    assert await accounts.addresses_of(store, made.account_id) == ["a.lice@example.org", "alice@example.org"]


async def test_it_has_its_mailboxes_and_quota_at_once(store: Store) -> None:
    made = await accounts.add(store, None, "alice@example.org", None, quota_octets=5000, quota_messages=7)
    names = [box.name for box in await mailboxes.list_all(store, made.account_id)]
    assert ("INBOX",) in names
    assert ("Sent",) in names
    quota = await mailboxes.quota(store, made.account_id)
    assert (quota.quota_octets, quota.quota_messages) == (5000, 7)


async def test_a_username_not_given_is_the_local_part_or_the_address(store: Store) -> None:
    await domains.add(store, "example.net")
    names = [
        (await accounts.add(store, None, address, None)).username
        for address in ("alice@example.org", "alice@example.net", "bob+x@example.org", '"c d"@example.org')
    ]
    assert names == ["alice", "alice@example.net", "bob+x", '"c d"@example.org']


async def test_a_username_with_an_at_is_an_own_address(store: Store) -> None:
    made = await accounts.add(store, "B@example.org", "alice@example.org", None, further=["b@example.org"])
    assert made.username == "b@example.org"
    with pytest.raises(ValueError):
        await accounts.add(store, "alice@example.org", "carol@example.org", None)
    with pytest.raises(NotAllowed):
        await accounts.remove_address(store, made.account_id, "b@example.org")


@pytest.mark.parametrize(
    ("username", "address", "error"),
    [
        ("alice", "new@example.org", AlreadyExists),
        (None, "alice@example.org", AlreadyExists),
        (None, "alice2@example.org", AlreadyExists),
        (None, "sales@example.org", AlreadyExists),
        (None, "new@elsewhere.org", NotFound),
        (None, "new", ValueError),
        ("a b", "new@example.org", ValueError),
    ],
)
async def test_what_is_taken_or_wrong_is_refused(
    store: Store, username: str | None, address: str, error: type[Exception]
) -> None:
    await accounts.add(store, None, "alice@example.org", None, further=["alice2@example.org"])
    await aliases.add(store, "sales@example.org", ["alice@example.org"])
    with pytest.raises(error):
        await accounts.add(store, username, address, None)
    assert len(await accounts.list_all(store)) == 1


async def test_many_at_once_each_with_its_own_outcome(store: Store) -> None:
    await accounts.add(store, None, "there@example.org", None)
    outcomes = await accounts.add_many(
        store,
        [
            NewAccount("a@example.org", "1"),
            NewAccount("there@example.org", "2"),
            NewAccount("b@nowhere.org", "3"),
            NewAccount("no address", "4"),
            NewAccount("A@example.org", "5"),
            NewAccount("c@example.org", "6", username="a"),
            NewAccount("a@example.org", "7", username="z"),
            NewAccount("d@example.org", "8", addresses=("d2@example.org",)),
        ],
    )
    kinds = [type(outcome) for outcome in outcomes]
    refused = [AlreadyExists, NotFound, ValueError, AlreadyExists, AlreadyExists, AlreadyExists]
    assert kinds == [Account, *refused, Account]
    assert [account.username for account in await accounts.list_all(store)] == ["there", "a", "d"]
    assert await accounts.taken(store, ["a@example.org", "c@example.org", "d2@example.org"]) == {
        "a@example.org",
        "d2@example.org",
    }


async def test_the_same_account_from_many_sides_is_made_once(open_store: OpenStore, store: Store) -> None:
    other = await open_store()

    async def attempt(where: Store) -> bool:
        try:
            await accounts.add(where, None, "alice@example.org", None, further=["al@example.org"])
        except AlreadyExists:
            return False
        return True

    made = await asyncio.gather(*(attempt(where) for where in [store, other] * 8))
    assert made.count(True) == 1
    [account] = await accounts.list_all(store)
    assert len(await accounts.addresses_of(store, account.account_id)) == 2


async def test_lists_come_in_pages_and_by_domain(store: Store) -> None:
    await domains.add(store, "example.net")
    for address in ("a@example.org", "b@example.net", "c@example.org"):
        await accounts.add(store, None, address, None)
    first = await accounts.list_page(store, limit=2)
    assert [a.username for a in first] == ["a", "b"]
    assert [a.username for a in await accounts.list_page(store, after=first[-1].account_id)] == ["c"]
    assert [a.username for a in await accounts.list_all(store, domain="Example.org")] == ["a", "c"]


async def test_addresses_come_and_go(store: Store) -> None:
    alice = await accounts.add(store, None, "alice@example.org", None)
    bob = await accounts.add(store, None, "bob@example.org", None)
    await accounts.add_address(store, alice.account_id, "A@example.org")
    assert (await directory.resolve(store, "a@example.org")).accounts == (alice.account_id,)
    with pytest.raises(AlreadyExists):
        await accounts.add_address(store, bob.account_id, "a@example.org")
    with pytest.raises(NotFound):
        await accounts.add_address(store, bob.account_id, "b@elsewhere.org")
    with pytest.raises(NotFound):
        await accounts.add_address(store, AccountId(99), "b@example.org")
    with pytest.raises(NotFound):
        await accounts.remove_address(store, bob.account_id, "a@example.org")
    with pytest.raises(NotAllowed):
        await accounts.remove_address(store, alice.account_id, "alice@example.org")
    await accounts.remove_address(store, alice.account_id, "a@example.org")
    assert (await directory.resolve(store, "a@example.org")).status == "unknown"


async def test_changes_raise_the_version_and_are_heard_by_other_workers(open_store: OpenStore, store: Store) -> None:
    account = await accounts.add(store, None, "alice@example.org", "old")
    other: Store = await open_store()
    heard: list[Notice] = []
    while not other.changes.database_up:
        await asyncio.sleep(0.01)
    other.changes.listen(heard.append)
    await accounts.set_password_hash(store, account.account_id, "new")
    await accounts.set_status(store, account.account_id, "disabled")
    await accounts.set_role(store, account.account_id, "service")
    async with asyncio.timeout(2):
        while len(heard) < 3:
            await asyncio.sleep(0.01)
    assert [(notice.kind, notice.account_id) for notice in heard] == [("account", account.account_id)] * 3
    now = await accounts.get(store, account.account_id)
    assert (now.version, now.status, now.role) == (account.version + 3, "disabled", "service")


async def test_a_rehash_ends_nothing_and_never_overwrites_a_new_password(store: Store) -> None:
    account = await accounts.add(store, None, "alice@example.org", "old")
    await accounts.replace_hash(store, account.account_id, "old", "rehashed")
    login = await accounts.find_login(store, "alice")
    assert login is not None
    assert (login.password_hash, login.account.version) == ("rehashed", account.version)
    await accounts.replace_hash(store, account.account_id, "old", "late")
    login = await accounts.find_login(store, "alice")
    assert login is not None
    assert login.password_hash == "rehashed"


async def test_ownership(store: Store) -> None:
    alice = (await accounts.add(store, None, "alice@example.org", None)).account_id
    bob = (await accounts.add(store, None, "bob@example.org", None)).account_id
    await aliases.add(store, "solo@example.org", ["alice@example.org"])
    await aliases.add(store, "nested@example.org", ["solo@example.org"])
    await aliases.add(store, "team@example.org", ["alice@example.org", "bob@example.org"])
    await aliases.add(store, "half@example.org", ["alice@example.org", "x@elsewhere.org"])
    await aliases.add(store, "twice@example.org", ["alice@example.org", "solo@example.org"])
    await aliases.add(store, "@example.org", ["alice@example.org"])
    own = {"alice@example.org", "ALICE+x@example.org", "solo@example.org", "solo+t@example.org", "nested@example.org"}
    other = {"bob@example.org", "team@example.org", "half@example.org", "twice@example.org", "any@example.org"}
    foreign = {"x@elsewhere.org", "", "alice", "@example.org"}
    for address in own | other | foreign:
        assert await accounts.owns_address(store, alice, address) is (address in own), address
    assert await accounts.owns_address(store, bob, "bob@example.org")
    assert not await accounts.owns_address(store, bob, "alice@example.org")


async def test_nobody_owns_what_is_nested_too_deep(store: Store) -> None:
    alice = (await accounts.add(store, None, "alice@example.org", None)).account_id
    target = "alice@example.org"
    for depth in range(directory.MAX_DEPTH + 1):
        await aliases.add(store, f"deep{depth}@example.org", [target])
        target = f"deep{depth}@example.org"
    assert not await accounts.owns_address(store, alice, target)
    assert await accounts.owns_address(store, alice, "deep0@example.org")


async def test_a_disabled_account_still_gets_mail(store: Store) -> None:
    account = await accounts.add(store, None, "alice@example.org", None)
    await accounts.set_status(store, account.account_id, "disabled")
    assert (await directory.resolve(store, "alice@example.org")).accounts == (account.account_id,)


async def rows_left(dsn: str, account_id: int) -> dict[str, int]:
    """How many rows each table has that name the account."""
    conn = await asyncpg.connect(dsn)
    tables = await conn.fetch(
        "SELECT table_name FROM information_schema.columns WHERE column_name = 'account_id' AND table_schema = 'public'"
    )
    counts = {
        table: await conn.fetchval(f"SELECT count(*) FROM {table} WHERE account_id = $1", account_id)
        for (table,) in tables
    }
    await conn.close()
    return {table: count for table, count in counts.items() if count}


async def test_nothing_is_left_of_a_removed_account(
    database: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "SLICE", 3)
    alice = (await accounts.add(store, None, "alice@example.org", None, further=["al@example.org"])).account_id
    bob = (await accounts.add(store, None, "bob@example.org", None)).account_id
    await aliases.add(store, "only@example.org", ["al@example.org"])
    await aliases.add(store, "both@example.org", ["alice@example.org", "bob@example.org"])
    for number in range(10):
        await deliver(
            store, [place(alice), place(bob)], msgids=(b"<%d@x>" % number,), blobs=(b"blob",), trace_id=uuid.uuid4()
        )
    before = await rows_left(database, bob)
    assert len(await rows_left(database, alice)) >= 9
    assert await accounts.remove(store, alice) == ["only@example.org"]
    assert await rows_left(database, alice) == {}
    assert await rows_left(database, bob) == before
    assert (await directory.resolve(store, "alice@example.org")).status == "unknown"
    assert (await directory.resolve(store, "both@example.org")).accounts == (bob,)
    with pytest.raises(NotFound):
        await accounts.remove(store, alice)
    with pytest.raises(NotFound):
        await deliver(store, [place(alice)])


async def test_a_removal_that_stopped_half_way_is_finished_by_the_next(
    database: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = (await accounts.add(store, None, "alice@example.org", "hash")).account_id
    await deliver(store, [place(alice)])

    async def crash(*_: object) -> None:
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(removal, "remove_mail", crash)
        with pytest.raises(RuntimeError):
            await accounts.remove(store, alice)
    assert (await accounts.find(store, "alice")).status == "removing"
    assert await accounts.find_login(store, "alice") is None
    assert (await directory.resolve(store, "alice@example.org")).status == "unknown"
    with pytest.raises(AlreadyExists):
        await accounts.add(store, None, "alice@example.org", None)
    for change in (accounts.set_status(store, alice, "active"), accounts.set_password_hash(store, alice, "x")):
        with pytest.raises(NotFound):
            await change
    assert not await accounts.ensure_state(store, alice)
    await accounts.remove(store, alice)
    assert await rows_left(database, alice) == {}


async def test_ids_are_not_given_out_again(store: Store) -> None:
    first = await accounts.add(store, None, "alice@example.org", None)
    await accounts.remove(store, first.account_id)
    assert (await accounts.add(store, None, "alice@example.org", None)).account_id > first.account_id


async def test_the_state_can_be_made_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(*_: object) -> None:
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(accounts, "_make_states", crash)
        with pytest.raises(RuntimeError):
            await accounts.add(store, None, "alice@example.org", None)
    account = await accounts.find(store, "alice")
    assert await mailboxes.list_all(store, account.account_id) == []
    assert await accounts.ensure_state(store, account.account_id, 5000)
    assert not await accounts.ensure_state(store, account.account_id)
    assert (await mailboxes.quota(store, account.account_id)).quota_octets == 5000


async def test_superadmins_are_counted(store: Store) -> None:
    first = await accounts.add(store, None, "root@example.org", None, role="superadmin")
    assert await accounts.other_superadmins(store, first.account_id) == 0
    second = await accounts.add(store, None, "root2@example.org", None, role="superadmin")
    assert await accounts.other_superadmins(store, first.account_id) == 1
    await accounts.set_status(store, second.account_id, "disabled")
    assert await accounts.other_superadmins(store, first.account_id) == 0
