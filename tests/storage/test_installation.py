"""What the database remembers of the installation: its keys, told apart by fingerprints."""

from __future__ import annotations

import pytest

from storage.errors import Unavailable
from storage.installation import WrongKeys, claim, remember, warnings
from tests.storage.conftest import read_only

KEYS = {"install_key": b"i" * 32, "master_key": b"m" * 32}


async def test_the_first_keys_stand(database: str) -> None:
    await claim(database, KEYS)
    await claim(database, KEYS)
    with pytest.raises(WrongKeys) as caught:
        await claim(database, {"install_key": b"i" * 32, "master_key": b"x" * 32})
    assert caught.value.names == ["master_key"]
    await claim(database, KEYS)


async def test_a_value_is_noted_once(database: str) -> None:
    assert await remember(database, "name", "first") == "first"
    assert await remember(database, "name", "second") == "first"


async def test_keys_are_compared_where_nothing_can_be_written(database: str) -> None:
    await claim(database, {"install_key": KEYS["install_key"]})
    async with read_only(database):
        await claim(database, {"install_key": KEYS["install_key"]})
        with pytest.raises(Unavailable):
            await claim(database, KEYS)


async def test_the_database_is_away() -> None:
    for work in (claim("postgresql:///x?host=/nowhere", KEYS), warnings("postgresql:///x?host=/nowhere")):
        with pytest.raises(Unavailable):
            await work


async def test_without_a_standby_there_is_nothing_to_warn_of(database: str) -> None:
    assert await warnings(database) == []
