"""The OpenAPI document says what there is, and the page that shows it needs nothing from outside."""

from __future__ import annotations

import re
from typing import Any

import pytest

from admin_api import openapi
from admin_api.app import ROUTES
from tests.admin_api.conftest import Client

DOCUMENT = openapi.document(ROUTES)


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        found = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return found.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_every_route_is_in_it() -> None:
    found = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert found == {(route.method, route.path) for route in ROUTES} and len(found) == len(ROUTES)
    names = [about["operationId"] for methods in DOCUMENT["paths"].values() for about in methods.values()]
    assert len(set(names)) == len(names)
    assert DOCUMENT["openapi"] == "3.1.0"


def test_every_reference_leads_somewhere() -> None:
    wanted = {name.removeprefix("#/components/schemas/") for name in references(DOCUMENT)}
    assert wanted <= DOCUMENT["components"]["schemas"].keys() and "ProblemDocument" in wanted


@pytest.mark.parametrize("route", ROUTES, ids=[route.name for route in ROUTES])
def test_a_route(route: Any) -> None:
    about = DOCUMENT["paths"][route.path][route.method.lower()]
    assert set(re.findall(r"\{(\w+)\}", route.path)) == set(route.parameters)
    assert bool(about["security"]) == route.login == ("401" in about["responses"] and route.name != "login")
    assert about["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    for status, answer in about["responses"].items():
        assert answer["description"]
        if status >= "400":
            assert list(answer["content"]) == ["application/problem+json"]
    assert ("requestBody" in about) == (route.body is not None)


async def test_it_is_served(client: Client) -> None:
    client.prefix = ""
    reply = await client.get("/api/v1/openapi.json", check=False)
    assert (reply.status, reply.json) == (200, DOCUMENT)


async def test_the_page_needs_nothing_from_outside(client: Client) -> None:
    client.prefix = ""
    page = await client.get("/docs", check=False)
    assert page.status == 200 and page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    links = re.findall(r'(?:href|src)="([^"]+)"', page.octets.decode())
    kinds = {"docs/page.js": "text/javascript", "docs/page.css": "text/css", "api/v1/openapi.json": "application/json"}
    assert set(links) == kinds.keys()
    for link, kind in kinds.items():
        reply = await client.get(f"/{link}", check=False)
        assert reply.status == 200 and reply.headers["Content-Type"].startswith(kind)
        text = reply.octets if kind != "application/json" else page.octets
        assert b"//" not in text.replace(b"// ", b"") and b"innerHTML" not in text and b"@import" not in text
