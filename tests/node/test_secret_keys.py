"""The keys of an installation: made once, checked against the database, never silently replaced."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.schema import Config, StorageConfig
from config.secret import Secret
from mailserver.node import data_directory, secret_keys
from mailserver.node.data_directory import DataDirectory
from mailserver.node.secret_keys import KeyFileError
from tests.support.services import ACCOUNT, short_folder

STORAGE = Config().storage


@pytest.fixture
def directories() -> Iterator[list[DataDirectory]]:
    with short_folder() as base:
        yield [data_directory.make(base / name, ACCOUNT, print)[0] for name in ("one", "two")]


def test_made_once_and_private(directories: list[DataDirectory]) -> None:
    first = secret_keys.load_or_make(STORAGE, directories[0], None)
    assert len(first.install) == len(first.master) == 32 and first.install != first.master
    assert [path.name for path in first.made] == ["install.key", "master.key"]
    for path in first.made:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = secret_keys.load_or_make(STORAGE, directories[0], None)
    assert (again.install, again.master, again.made) == (first.install, first.master, ())
    assert first.install.hex() not in repr(first)


def test_the_settings_go_first(directories: list[DataDirectory]) -> None:
    config = StorageConfig(install_key=Secret("ab" * 32), master_key=Secret("cd" * 32))
    keys = secret_keys.load_or_make(config, directories[0], None)
    assert (keys.install, keys.master, keys.made) == (b"\xab" * 32, b"\xcd" * 32, ())
    assert list(directories[0].secrets.iterdir()) == []


@pytest.mark.parametrize("content", ["", "abc", "zz" * 32, "ab" * 31, "é"])
def test_a_damaged_file_is_not_replaced(directories: list[DataDirectory], content: str) -> None:
    path = directories[0].secrets / "install.key"
    path.write_text(content)
    with pytest.raises(KeyFileError, match=r"install\.key"):
        secret_keys.load_or_make(STORAGE, directories[0], None)
    assert path.read_text() == content


async def test_the_database_knows_its_keys(directories: list[DataDirectory], database: str) -> None:
    mine = secret_keys.load_or_make(STORAGE, directories[0], None)
    await secret_keys.check(database, mine)
    await secret_keys.check(database, mine)
    other = secret_keys.load_or_make(STORAGE, directories[1], None)
    with pytest.raises(KeyFileError, match="install_key and master_key"):
        await secret_keys.check(database, other)
    # The keys that were made in vain are gone: putting the right files there is all there is to do.
    assert list(directories[1].secrets.iterdir()) == []


async def test_a_key_that_was_there_before_is_kept(directories: list[DataDirectory], database: str) -> None:
    await secret_keys.check(database, secret_keys.load_or_make(STORAGE, directories[0], None))
    secret_keys.load_or_make(STORAGE, directories[1], None)
    other = secret_keys.load_or_make(STORAGE, directories[1], None)
    with pytest.raises(KeyFileError):
        await secret_keys.check(database, other)
    assert len(list(directories[1].secrets.iterdir())) == 2


def test_files_are_hexadecimal_text(directories: list[DataDirectory], tmp_path: Path) -> None:
    keys = secret_keys.load_or_make(STORAGE, directories[0], None)
    assert (directories[0].secrets / "master.key").read_text().strip() == keys.master.hex()
