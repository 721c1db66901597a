"""Registration, login and logout."""

from __future__ import annotations

import pytest

from storage import Store, accounts
from tests.admin_api.conftest import PASSWORD, Client, Site, serving

CAROL = {"username": "carol", "email": "Carol@Open.test", "password": PASSWORD}


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_who_registers_can_log_in_and_read(client: Client, prefix: str) -> None:
    client.prefix = prefix
    made = await client.post("/register", CAROL)
    assert (made.status, made.json) == (201, {"username": "carol", "email": "carol@open.test"})
    reply = await client.post("/login", {"username": "carol@open.test", "password": PASSWORD})
    assert reply.status == 200
    assert (reply.json["token_type"], reply.json["expires_in"]) == ("Bearer", 3600)
    carol = await client.log_in("CAROL")
    assert (await carol.get("/emails/inbox")).json["items"] == []


@pytest.mark.parametrize(
    ("changed", "status", "field"),
    [
        ({"email": "carol@example.org"}, 403, "email"),
        ({"email": "carol@elsewhere.test"}, 403, "email"),
        ({"email": "Postmaster@open.test"}, 422, "email"),
        ({"email": "root+x@open.test"}, 422, "email"),
        ({"username": "Admin"}, 422, "username"),
        ({"email": "carol"}, 422, "email"),
        ({"password": "short"}, 422, "password"),
        ({"password": "password"}, 422, "password"),
        ({"username": "alice"}, 409, "username"),
        ({"username": None}, 422, "username"),
        ({"role": "superadmin"}, 422, "role"),
        ({"username": ["carol"]}, 422, "username"),
        ({"username": "carol\n"}, 422, "username"),
        ({"password": "\ud800" * 10}, 422, "password"),
    ],
)
async def test_registrations_that_are_refused(
    client: Client, store: Store, changed: dict[str, object], status: int, field: str
) -> None:
    reply = await client.post("/register", {**CAROL, **changed})
    assert reply.problem == (status, field)
    assert await accounts.find_login(store, "carol") is None


async def test_a_missing_field_is_named(client: Client) -> None:
    reply = await client.post("/register", {"username": "carol"})
    assert reply.status == 422
    assert {error["field"] for error in reply.json["errors"]} == {"email", "password"}


async def test_an_address_is_registered_once(client: Client) -> None:
    await client.post("/register", CAROL)
    assert (await client.post("/register", {**CAROL, "username": "other"})).problem == (409, "email")


@pytest.mark.parametrize(
    ("name", "password"),
    [("alice", "wrong"), ("alice", ""), ("nobody", PASSWORD), ("alice@elsewhere.test", PASSWORD), ("a\0b", PASSWORD)],
)
async def test_wrong_names_and_passwords_are_told_the_same(client: Client, name: str, password: str) -> None:
    reply = await client.post("/login", {"username": name, "password": password})
    assert reply.status == 401
    assert (reply.json["detail"], reply.headers["WWW-Authenticate"]) == ("wrong name or password", "Bearer")


async def test_a_disabled_account_is_told_so_by_the_right_password_alone(client: Client, site: Site) -> None:
    await accounts.set_status(site.store, site.bob.account_id, "disabled")
    assert (await client.post("/login", {"username": "bob", "password": PASSWORD})).status == 403
    assert (await client.post("/login", {"username": "bob", "password": "wrong"})).status == 401


async def test_logging_out_ends_one_token(site: Site) -> None:
    one, other = await site.client.log_in("alice"), await site.client.log_in("alice")
    assert (await one.post("/logout")).status == 204
    assert (await one.get("/emails/inbox")).status == 401
    assert (await one.post("/logout")).status == 401
    assert (await other.get("/emails/inbox")).status == 200


async def test_guessing_is_slowed_down_for_all_protocols(store: Store) -> None:
    async with serving(store, trusted=(), auth={"max_failures_per_address": 3}) as site:
        for _ in range(3):
            assert (await site.client.post("/login", {"username": "alice", "password": "wrong"})).status == 401
        reply = await site.client.post("/login", {"username": "bob", "password": PASSWORD})
        assert reply.status == 429 and int(reply.headers["Retry-After"]) > 0
        with pytest.raises(Exception, match="try again"):
            await site.logins.check("bob", PASSWORD, peer="127.0.0.1", service="imap")


async def test_registering_is_slowed_down(store: Store) -> None:
    async with serving(store, trusted=(), auth={"max_registrations_per_address": 2}) as site:
        for number, status in enumerate((201, 201, 429)):
            wanted = {**CAROL, "username": f"c{number}", "email": f"c{number}@open.test"}
            assert (await site.client.post("/register", wanted)).status == status


async def test_passwords_are_not_repeated(client: Client) -> None:
    secret = "hunter2hunter2\n"
    for body in ({"username": "x", "password": 5, "extra": secret}, {**CAROL, "password": [secret]}):
        reply = await client.post("/register", body)
        assert reply.status == 422 and b"hunter2" not in reply.octets
