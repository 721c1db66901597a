"""JSON within its bounds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from admin_api import bodies
from admin_api.problems import Problem
from tests.admin_api.conftest import Client, Site, serving

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\[{', max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(DOCUMENTS)
def test_documents_come_through(document: Any) -> None:
    assert bodies.parse_json(json.dumps(document).encode()) == document


def depth(document: Any) -> int:
    if isinstance(document, list | dict):
        inner = document.values() if isinstance(document, dict) else document
        return 1 + max(map(depth, inner), default=0)
    return 0


@given(DOCUMENTS)
def test_depth(document: Any) -> None:
    text = json.dumps([document, "[" * 50, {"]]}}": 1}])
    assert bodies._depth(text) == depth([document, {"": 1}])


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"{",
        b"\xff",
        b'"\xed\xa0\x80"',
        b"[NaN]",
        b"[Infinity]",
        b'{"a": 1, "a": 2}',
        b"[" * 21 + b"]" * 21,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000,
        b'"' + b'\\"' * 500_000 + b"\\" + b"[" * 21,
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_document(octets: bytes) -> None:
    with pytest.raises(Problem) as refusal:
        bodies.parse_json(octets)
    assert refusal.value.status == 400


def test_brackets_in_strings_are_no_depth() -> None:
    assert bodies.parse_json(b'["' + b"[{" * 5000 + b'\\""]')
    assert bodies.parse_json(b"[" * 20 + b"]" * 20)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b"5", 422),
        (b"null", 422),
        (b'{"username": "' + b"x" * 33_000 + b'"}', 413),
        (b"[" * 30_000, 400),
    ],
)
async def test_bodies_that_are_refused(client: Client, body: bytes, status: int) -> None:
    for path in ("/login", "/register"):
        reply = await client.ask("POST", path, data=body, headers={"Content-Type": "application/json"})
        assert reply.status == status


async def test_a_larger_document_is_taken_with_a_login(alice: Client) -> None:
    note = {"name": "x", "email": "x@example.org", "note": "x" * 10_000}
    assert (await alice.post("/contacts", note)).status == 201
    assert (await alice.post("/contacts", {**note, "note": "x" * 100_000})).status == 422
    assert (await alice.post("/contacts", {**note, "note": "x" * 1_100_000})).status == 413


async def test_a_body_of_unknown_length_is_bounded_too(site: Site) -> None:
    async def endless() -> Any:
        for _ in range(1000):
            yield b" " * 10_000

    async with serving(site.store, http={"max_json_octets": 50_000}) as small:
        reply = await small.client.ask("POST", "/login", data=endless(), headers={"Content-Type": "application/json"})
        assert reply.status == 413


async def test_too_many_errors_are_not_all_named(client: Client) -> None:
    reply = await client.post("/login", {f"field{n}": 1 for n in range(1000)})
    assert reply.status == 422 and len(reply.json["errors"]) == bodies.MAX_ERRORS
