"""Messages whose octets are damaged: the others are answered, and nothing is said to be expunged (RFC 5530)."""

from __future__ import annotations

import random

import pytest

from storage.directory_blobs import DirectoryBlobs
from tests.imap.conftest import Server
from tests.imap.mail import put, put_octets

LARGE = b"Subject: large\r\n\r\n" + random.Random(1).randbytes(200_000).hex().encode() + b" needle\r\n"


async def damage_row(server: Server) -> None:
    """The octets of the first message, in the database."""
    async with server.store.acquire() as conn:
        await conn.execute(
            "UPDATE message_contents SET octets = set_byte(octets, 20, get_byte(octets, 20) # 1) "
            "WHERE message_id = (SELECT min(message_id) FROM message_contents)"
        )


async def damage_blob(server: Server) -> None:
    assert isinstance(server.store.blobs, DirectoryBlobs)
    (path,) = server.store.blobs._root.glob("*/??/*")
    path.write_bytes(path.read_bytes()[:-1])


async def lose_blob(server: Server) -> None:
    assert isinstance(server.store.blobs, DirectoryBlobs)
    (path,) = server.store.blobs._root.glob("*/??/*")
    path.unlink()


@pytest.mark.parametrize(
    ("items", "whole"),
    [("BODY[]", True), ("BODY[HEADER]", False), ("BODY[TEXT]<190000.5>", True), ("(ENVELOPE BODY[HEADER])", False)],
)
@pytest.mark.parametrize("damage", [damage_row, damage_blob, lose_blob])
async def test_the_others_are_answered(server: Server, damage: object, items: str, whole: bool) -> None:
    await put_octets(server, LARGE)
    await put(server, b"two")
    await damage(server)  # type: ignore[operator]
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    await client.send(f"x FETCH 1:2 {items}\r\n".encode())
    lines = [await client.line()]
    while not lines[-1].startswith("x "):
        lines.append(await client.line())
    answered = [line.split()[1] for line in lines if line.startswith("* ") and " FETCH (" in line]
    if whole or damage is damage_row:
        assert lines[-1].startswith("x NO [CORRUPTION] ") and answered == ["2"]
    else:
        assert lines[-1].startswith("x OK") and answered[:2] == ["1", "2"]
    assert (await client.ask("NOOP"))[0].startswith("x OK"), "nothing was expunged, nor set"


@pytest.mark.parametrize("damage", [damage_row, damage_blob, lose_blob])
async def test_a_search_goes_on(server: Server, damage: object) -> None:
    await put_octets(server, LARGE)
    await put_octets(server, b"Subject: small\r\n\r\na needle\r\n")
    await damage(server)  # type: ignore[operator]
    client = await server.logged_in()
    await client.ask("SELECT INBOX")
    for search in ("TEXT needle", "BODY needle", 'HEADER "Subject" "" BODY needle'):
        assert (await client.ask(f"SEARCH {search}"))[0] == "* SEARCH 2"
