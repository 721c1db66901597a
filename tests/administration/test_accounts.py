"""What administrators do with accounts."""

from __future__ import annotations

import pytest

from mailserver import passwords
from mailserver.administration import Refused, accounts, aliases
from mailserver.administration.accounts import Wish
from mailserver.passwords import Hasher
from storage import accounts as stored
from storage import mailboxes, removal
from storage.store import Store

MIB = 1024 * 1024


async def password_of(store: Store, name: str) -> str:
    login = await stored.find_login(store, name)
    assert login is not None
    assert login.password_hash is not None
    return login.password_hash


async def test_adding(store: Store, hasher: Hasher) -> None:
    wish = Wish("Alice@example.org", password="good enough one", quota_octets=5 * MIB, further=("al@example.org",))
    made = await accounts.add(store, hasher, wish)
    assert (made.created, made.password, made.weakness) == (True, None, None)
    assert passwords.verify(await password_of(store, "alice"), "good enough one")
    shown = await accounts.show(store, "al@example.org")
    assert shown.addresses == ["al@example.org", "alice@example.org"]
    assert shown.quota is not None
    assert shown.quota.quota_octets == 5 * MIB


async def test_a_password_not_given_is_made_up(store: Store, hasher: Hasher) -> None:
    made = await accounts.add(store, hasher, Wish("alice@example.org"))
    assert made.password is not None
    assert passwords.verify(await password_of(store, "alice"), made.password)


async def test_a_weak_password_is_set_and_reported(store: Store, hasher: Hasher) -> None:
    for address, password in [
        ("a@example.org", "x"),
        ("b@example.org", "password"),
        ("carolina@example.org", "Carolina"),
    ]:
        made = await accounts.add(store, hasher, Wish(address, password=password))
        assert made.weakness is not None
        assert passwords.verify(await password_of(store, address), password)


async def test_a_hash_is_taken_as_it_is(store: Store, hasher: Hasher) -> None:
    hashed = passwords.sha512_crypt(b"theirs", b"salt")
    await accounts.add(store, hasher, Wish("alice@example.org", password_hash="{SHA512-CRYPT}" + hashed))
    assert await password_of(store, "alice") == hashed
    for bad in ("plain", "{MD5}x", "{BCRYPT}x"):
        with pytest.raises(Refused) as refusal:
            await accounts.add(store, hasher, Wish("bob@example.org", password_hash=bad))
        assert refusal.value.field == "password"


async def test_what_exists_is_left_as_it_is(store: Store, hasher: Hasher) -> None:
    first = await accounts.add(store, hasher, Wish("alice@example.org", password="good enough one"))
    for wish in (Wish("ALICE@example.org", password="another one"), Wish("alice@example.org", username="Alice")):
        again = await accounts.add(store, hasher, wish)
        assert (again.created, again.account, again.password) == (False, first.account, None)
    assert passwords.verify(await password_of(store, "alice"), "good enough one")


async def test_adding_again_makes_good_what_a_crash_left(
    store: Store, hasher: Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise RuntimeError("crash")

    wish = Wish("alice@example.org", quota_octets=MIB)
    with monkeypatch.context() as patch:
        patch.setattr(stored, "_make_states", crash)
        with pytest.raises(RuntimeError):
            await accounts.add(store, hasher, wish)
    assert not (await accounts.add(store, hasher, wish)).created
    account = await accounts.find(store, "alice")
    assert (await mailboxes.quota(store, account.account_id)).quota_octets == MIB


@pytest.mark.parametrize(
    ("wish", "field", "reason"),
    [
        (Wish("alice"), "address", "not an address"),
        (Wish("a@elsewhere.org"), "address", "the domain elsewhere.org does not exist"),
        (Wish("root@example.org", username="other"), "username", "belongs to the account root"),
        (Wish("new@example.org", username="root"), "address", "the user name root exists already"),
        (Wish("new@example.org", username="a b"), "address", "user name"),
        (Wish("new@example.org", username="x@example.org"), "address", "none of the account's addresses"),
        (Wish("sales@example.org"), "address", "exists already"),
        (Wish("new@example.org", role="king"), "role", "a role is one of"),
        (Wish("new@example.org", quota_octets=-1), "quota", "quota"),
        (Wish("new@example.org", password=""), "password", "empty"),
        (Wish("new@example.org", password="x" * 2000), "password", "at most"),
    ],
)
async def test_refusals_name_the_field(store: Store, hasher: Hasher, wish: Wish, field: str, reason: str) -> None:
    await aliases.add(store, "sales@example.org", ["root@example.org"])
    with pytest.raises(Refused, match=reason) as refusal:
        await accounts.add(store, hasher, wish)
    assert refusal.value.field == field
    assert len(await accounts.list_all(store)) == 1


async def test_setting_a_password(store: Store, hasher: Hasher) -> None:
    before = (await accounts.add(store, hasher, Wish("alice@example.org"))).account
    assert (await accounts.set_password(store, hasher, "alice", "short")).weakness is not None
    assert passwords.verify(await password_of(store, "alice"), "short")
    made_up = (await accounts.set_password(store, hasher, "alice@example.org")).password
    assert made_up is not None
    assert passwords.verify(await password_of(store, "alice"), made_up)
    assert (await accounts.find(store, "alice")).version == before.version + 2
    with pytest.raises(Refused, match="the account nobody does not exist"):
        await accounts.set_password(store, hasher, "nobody")


async def test_disabling_and_enabling(store: Store, hasher: Hasher) -> None:
    await accounts.add(store, hasher, Wish("alice@example.org"))
    steps = [
        ((await accounts.set_enabled(store, "alice", enabled))[0].status, changed)
        for enabled, changed in ((False, True), (False, False), (True, True), (True, False))
    ]
    assert steps == [("disabled", True), ("disabled", False), ("active", True), ("active", False)]
    assert (await accounts.set_enabled(store, "alice", False))[1]
    assert not (await accounts.set_enabled(store, "alice", False))[1]


async def test_the_last_superadmin_stays(store: Store, hasher: Hasher) -> None:
    for attempt in (
        accounts.set_enabled(store, "root", False),
        accounts.remove(store, "root"),
        accounts.set_role(store, "root", "user"),
    ):
        with pytest.raises(Refused, match="last active superadmin"):
            await attempt
    await accounts.add(store, hasher, Wish("second@example.org", role="superadmin"))
    await accounts.remove(store, "root")
    assert [account.username for account in await accounts.list_all(store)] == ["second"]


async def test_roles_and_quotas(store: Store, hasher: Hasher) -> None:
    await accounts.add(store, hasher, Wish("alice@example.org", quota_octets=MIB, quota_messages=9))
    assert (await accounts.set_role(store, "alice", "service"))[0].role == "service"
    assert not (await accounts.set_role(store, "alice", "service"))[1]
    quota = await accounts.set_quota(store, "alice", 2 * MIB, None)
    assert (quota.quota_octets, quota.quota_messages) == (2 * MIB, 9)
    quota = await accounts.set_quota(store, "alice", None, 0)
    assert (quota.quota_octets, quota.quota_messages) == (2 * MIB, 0)
    with pytest.raises(Refused):
        await accounts.set_quota(store, "alice", -1, None)


async def test_further_addresses(store: Store, hasher: Hasher) -> None:
    await accounts.add(store, hasher, Wish("alice@example.org"))
    assert await accounts.add_address(store, "alice", "Al@example.org")
    assert not await accounts.add_address(store, "alice", "al@example.org")
    with pytest.raises(Refused, match="exists already"):
        await accounts.add_address(store, "alice", "root@example.org")
    await accounts.remove_address(store, "alice", "al@example.org")
    with pytest.raises(Refused, match="does not exist"):
        await accounts.remove_address(store, "alice", "al@example.org")
    with pytest.raises(Refused, match="primary address"):
        await accounts.remove_address(store, "alice", "alice@example.org")


async def test_removing(store: Store, hasher: Hasher) -> None:
    await accounts.add(store, hasher, Wish("alice@example.org"))
    await aliases.add(store, "a@example.org", ["alice@example.org"])
    removed = await accounts.remove(store, "alice")
    assert (removed.account.username, removed.aliases) == ("alice", ["a@example.org"])
    with pytest.raises(Refused, match="does not exist"):
        await accounts.remove(store, "alice")


async def test_a_removal_that_stopped_can_only_be_finished(
    store: Store, hasher: Hasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(*_: object) -> None:
        raise RuntimeError("crash")

    await accounts.add(store, hasher, Wish("alice@example.org"))
    with monkeypatch.context() as patch:
        patch.setattr(removal, "remove_mail", crash)
        with pytest.raises(RuntimeError):
            await accounts.remove(store, "alice")
    for attempt in (
        accounts.add(store, hasher, Wish("alice@example.org")),
        accounts.set_enabled(store, "alice", True),
        accounts.set_password(store, hasher, "alice", "x"),
    ):
        with pytest.raises(Refused, match="is being removed"):
            await attempt
    await accounts.remove(store, "alice")
    assert (await accounts.add(store, hasher, Wish("alice@example.org"))).created
