"""Finding the programs of services, and bringing them where the account can run them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mailserver.embedded import account, programs
from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.process import ServiceError
from mailserver.embedded.programs import PostgresPrograms
from tests.support.services import ACCOUNT, short_folder


def test_the_newest_fit_for_a_new_cluster_and_the_same_for_an_old_one() -> None:
    fresh = programs.find_postgres(None)
    assert fresh.major >= programs.OLDEST_POSTGRES
    assert programs.find_postgres(fresh.major) == fresh


def test_no_postgres_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "_package", lambda name: None)
    monkeypatch.setattr(programs, "SYSTEM_POSTGRES", tmp_path)
    monkeypatch.setattr(programs, "SYSTEM_PATH", str(tmp_path))
    with pytest.raises(ServiceError, match=r"pillarbox\[embedded\]"):
        programs.find_postgres(None)
    assert programs.find_redis() is None


def _fake(folder: Path) -> PostgresPrograms:
    (folder / "bin").mkdir(parents=True)
    (folder / "share").mkdir()
    (folder / "share" / "data").write_text("x")
    program = folder / "bin" / "postgres"
    program.write_text("#!/bin/sh\necho ran\n")
    program.chmod(0o755)
    return PostgresPrograms(folder / "bin", "17.10")


@pytest.fixture
def service_account() -> ServiceAccount:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    found = account.find_or_make(ACCOUNT, print)
    assert found is not None
    return found


def test_programs_that_can_be_run_stay_where_they_are(service_account: ServiceAccount) -> None:
    with short_folder() as base:
        found = _fake(base / "programs")
        assert programs.runnable_postgres(found, base / "state", service_account, print) == found
        assert programs.runnable_postgres(found, base / "state", None, print) == found


def test_programs_in_a_closed_home_are_copied_beside_the_data(service_account: ServiceAccount) -> None:
    with short_folder() as base:
        (base / "closed").mkdir(mode=0o700)
        (base / "state").mkdir(mode=0o711)
        found = _fake(base / "closed" / "programs")
        for _ in range(2):  # the second time it is there
            moved = programs.runnable_postgres(found, base / "state", service_account, print)
        assert moved.bin == base / "state" / "programs" / "pg-17.10" / "bin"
        done = subprocess.run(
            [moved.bin / "postgres"], user=service_account.uid, capture_output=True, text=True, check=True
        )
        assert done.stdout == "ran\n"
        assert (moved.bin.parent / "share" / "data").read_text() == "x"


def test_where_the_state_is_closed_too_they_go_to_the_account_s_home(service_account: ServiceAccount) -> None:
    with short_folder() as base:
        home = base / "home"
        (base / "closed").mkdir(mode=0o700)
        (base / "closed" / "state").mkdir()
        found = _fake(base / "closed" / "programs")
        moved = programs.runnable_postgres(
            found,
            base / "closed" / "state",
            ServiceAccount(service_account.name, service_account.uid, service_account.gid, home),
            print,
        )
        assert moved.bin == home / "pg-17.10" / "bin"
        assert service_account.executes(moved.bin / "postgres")
