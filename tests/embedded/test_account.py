"""Who services run as, and what that account may do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.embedded import account
from mailserver.embedded.account import AccountError, ServiceAccount
from tests.support.services import ACCOUNT, short_folder

STRANGER = ServiceAccount("stranger", 54_321, 54_321, Path("/nonexistent"))
ME = ServiceAccount("me", os.getuid(), os.getgid(), Path("/"))


@pytest.mark.parametrize(
    ("mode", "who", "may"),
    [
        (0o700, ME, True),
        (0o700, STRANGER, False),
        (0o710, STRANGER, False),
        (0o711, STRANGER, True),
        (0o755, STRANGER, True),
        (0o077, ME, False),
    ],
)
def test_reaches(mode: int, who: ServiceAccount, may: bool) -> None:
    with short_folder() as folder:
        inner = folder / "inner"
        inner.mkdir()
        inner.chmod(mode)
        assert who.reaches(inner / "file") is may


def test_executes() -> None:
    with short_folder() as folder:
        program = folder / "program"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        assert STRANGER.executes(program)
        program.chmod(0o750)
        assert not STRANGER.executes(program)
        program.chmod(0o755)
        folder.chmod(0o700)
        assert not STRANGER.executes(program)
        assert not STRANGER.executes(folder / "absent")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_gets_an_account_and_never_root() -> None:
    said: list[str] = []
    found = account.find_or_make(ACCOUNT, said.append)
    assert found is not None and found.uid != 0
    assert account.find_or_make(ACCOUNT, said.append) == found
    with pytest.raises(AccountError, match="is root"):
        account.find_or_make("root", said.append)


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a plain user")
def test_a_plain_user_needs_none() -> None:
    assert account.find_or_make(ACCOUNT, print) is None


def test_owner_of() -> None:
    with short_folder() as folder:
        assert account.owner_of(folder / "absent") is None
        owner = account.owner_of(folder)
        assert owner is None if os.getuid() == 0 else owner is not None and owner.uid == os.getuid()
