"""The contacts of an account."""

from __future__ import annotations

from typing import Any

import pytest

from tests.admin_api.conftest import Client

ZOE = {"name": "Zoë", "email": "zoe@example.org", "phone": "+1 555", "birthday": "1990-02-28", "note": "a\nb"}


async def add(client: Client, **fields: Any) -> dict[str, Any]:
    reply = await client.post("/contacts", {**ZOE, **fields})
    assert reply.status == 201
    made: dict[str, Any] = reply.json
    return made


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_a_contact_comes_changes_and_goes(alice: Client, prefix: str) -> None:
    alice.prefix = prefix
    reply = await alice.post("/contacts", ZOE)
    made = reply.json
    assert reply.headers["Location"] == f"/api/v1/contacts/{made['id']}"
    assert {name: made[name] for name in ZOE} == ZOE and made["title"] is None
    path = f"/contacts/{made['id']}"
    assert (await alice.get(path)).json == made
    changed = (await alice.ask("PATCH", path, json={"name": "Zoe", "phone": None, "title": "Dr"})).json
    assert (changed["name"], changed["phone"], changed["title"], changed["note"]) == ("Zoe", None, "Dr", "a\nb")
    assert (await alice.get(path)).json == changed
    assert (await alice.ask("PATCH", path, json={})).json["name"] == "Zoe"
    assert (await alice.ask("DELETE", path)).status == 204
    for method in ("GET", "DELETE"):
        assert (await alice.ask(method, path)).status == 404
    assert (await alice.ask("PATCH", path, json={"name": "x"})).status == 404


async def test_those_of_others_are_not_there(alice: Client, bob: Client) -> None:
    path = f"/contacts/{(await add(alice))['id']}"
    assert (await bob.get(path)).status == 404
    assert (await bob.ask("PATCH", path, json={"name": "x"})).status == 404
    assert (await bob.ask("DELETE", path)).status == 404
    assert (await bob.get("/contacts")).json["items"] == []
    assert (await alice.get(path)).json["name"] == "Zoë"
    for name in ("Caaaaaaaaaaaaa", "C1", "Maaaaaaaaaaaaa", "x"):
        assert (await alice.get(f"/contacts/{name}")).status == 404


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_pages_are_in_the_order_of_names(alice: Client, limit: int) -> None:
    for name in ("Émile", "bob", "Alice", "Zed", "emil", "A" * 200, "語" * 200):
        await add(alice, name=name)
    found: list[str] = []
    cursor = ""
    while True:
        page = (await alice.get(f"/contacts?limit={limit}{cursor}")).json
        found += [contact["name"] for contact in page["items"]]
        assert page["total"] == 7
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == ["A" * 200, "Alice", "bob", "emil", "Émile", "Zed", "語" * 200]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": "x\n"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"email": "zoe"}, "email"),
        ({"email": "@"}, "email"),
        ({"email": "a b@example.org"}, "email"),
        ({"birthday": "1990-02-30"}, "birthday"),
        ({"birthday": "yesterday"}, "birthday"),
        ({"note": "\0"}, "note"),
        ({"phone": 5}, "phone"),
        ({"colour": "red"}, "colour"),
        ({"id": "x"}, "id"),
    ],
)
async def test_what_is_refused(alice: Client, changed: dict[str, Any], field: str) -> None:
    assert (await alice.post("/contacts", {**ZOE, **changed})).problem == (422, field)
    path = f"/contacts/{(await add(alice))['id']}"
    assert (await alice.ask("PATCH", path, json=changed)).problem == (422, field)


@pytest.mark.parametrize("query", ["cursor=%21", "cursor=YWJj", "cursor=Q2FhYWFhYWFhYWFhYWEA", "limit=0", "q=x"])
async def test_parameters_that_are_refused(alice: Client, query: str) -> None:
    assert (await alice.get(f"/contacts?{query}")).status == 422
