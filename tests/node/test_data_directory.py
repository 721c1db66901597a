"""The data directory: made once, held by one process, never one that holds other things."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.embedded import account
from mailserver.embedded.account import ServiceAccount
from mailserver.node import data_directory as subject
from mailserver.node.data_directory import DataDirectory, DataDirectoryError, Held
from tests.support.services import ACCOUNT, short_folder

ROOT = Path(__file__).parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def base() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def make(root: Path) -> tuple[DataDirectory, ServiceAccount | None]:
    return subject.make(root, ACCOUNT, print)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_layout_and_modes(base: Path) -> None:
    directory, who = make(base / "a" / "da ta")
    assert mode(directory.root) == 0o711
    for folder in (directory.run, directory.secrets, directory.postgres, directory.redis, directory.blobs):
        assert mode(folder) == 0o700
        assert who is None or who.owns(folder)
    assert mode(directory.tls) == 0o755


def test_made_again_it_stays_as_it_is(base: Path) -> None:
    directory, _ = make(base / "data")
    (directory.root / "note.txt").write_text("mine")
    (directory.blobs / "blob").write_text("x")
    assert make(base / "data")[0] == directory
    assert (directory.blobs / "blob").read_text() == "x"


def test_an_empty_closed_folder_is_taken(base: Path) -> None:
    """Such as mktemp -d makes."""
    root = base / "tmp.X"
    root.mkdir(mode=0o700)
    directory, who = make(root)
    assert who is None or who.owns(directory.root)


@pytest.mark.parametrize("name", ["precious.txt", "etc"])
def test_a_folder_with_other_things_is_refused_and_left_alone(base: Path, name: str) -> None:
    (base / "other").mkdir(mode=0o750)
    (base / "other" / name).touch()
    with pytest.raises(DataDirectoryError, match=name):
        make(base / "other")
    assert mode(base / "other") == 0o750
    assert [path.name for path in (base / "other").iterdir()] == [name]


def test_a_certificate_may_be_there_first(base: Path) -> None:
    (base / "data" / "tls").mkdir(parents=True)
    (base / "data" / "tls" / "server.key").touch(mode=0o600)
    directory, who = make(base / "data")
    assert mode(directory.tls / "server.key") == 0o600
    assert who is None or who.owns(directory.tls / "server.key")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_folder_that_may_not_be_written(base: Path) -> None:
    (base / "closed").mkdir(mode=0o500)
    with pytest.raises(DataDirectoryError, match="cannot be used: Permission denied"):
        make(base / "closed" / "data")


@needs_root
def test_root_goes_on_as_the_user_who_began_it(base: Path) -> None:
    nobody = account.find("nobody")
    assert nobody is not None
    for name in ("", "run", "postgres"):
        (base / "data" / name).mkdir(exist_ok=True)
        os.chown(base / "data" / name, nobody.uid, nobody.gid)
    directory, who = make(base / "data")
    assert who is not None and who.uid == nobody.uid
    assert who.owns(directory.secrets)


# Seen from inside -------------------------------------------------------------------------------------------------


def test_its_own_path_where_that_will_do(base: Path) -> None:
    directory, who = make(base / "data")
    assert directory.as_seen_from_inside(who) == directory


@needs_root
def test_the_working_directory_below_a_closed_folder(base: Path) -> None:
    (base / "closed").mkdir(mode=0o700)
    directory, who = make(base / "closed" / "data")
    assert directory.as_seen_from_inside(who).root == subject.INSIDE


def test_the_working_directory_where_the_path_is_long(base: Path) -> None:
    directory, who = make(base / ("x" * 90))
    assert directory.as_seen_from_inside(who).root == subject.INSIDE


# The lock -----------------------------------------------------------------------------------------------------------


def test_one_holder_at_a_time(base: Path) -> None:
    directory, _ = make(base / "data")
    assert not subject.is_held(directory)
    held = subject.take_lock(directory, "pillarbox serve")
    assert subject.is_held(directory)
    with pytest.raises(Held) as caught:
        subject.take_lock(directory, "another")
    assert (caught.value.pid, caught.value.what) == (os.getpid(), "pillarbox serve")
    os.close(held)
    assert not subject.is_held(directory)
    os.close(subject.take_lock(directory, "another"))


def test_a_killed_holder_lets_go(base: Path) -> None:
    directory, _ = make(base / "data")
    code = (
        "import sys,time; from pathlib import Path; from mailserver.node import data_directory as d\n"
        "d.take_lock(d.DataDirectory(Path(sys.argv[1])), 'x'); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, directory.root], stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        assert subject.is_held(directory)
        process.kill()
    os.close(subject.take_lock(directory, "next", 5))


def test_waiting_has_an_end(base: Path) -> None:
    directory, _ = make(base / "data")
    held = subject.take_lock(directory, "one")
    began = time.monotonic()
    with pytest.raises(Held):
        subject.take_lock(directory, "two", 0.3)
    assert 0.25 < time.monotonic() - began < 30
    os.close(held)


def test_a_server_is_not_waited_for(base: Path) -> None:
    """It will hold the directory for as long as it runs; a command will soon be done."""
    directory, _ = make(base / "data")
    held = subject.take_lock(directory, subject.SERVER)
    assert subject.server_pid(directory) == os.getpid()
    with pytest.raises(Held):
        subject.take_lock(directory, "another", 3600)
    os.close(held)
    assert subject.server_pid(directory) is None


def test_what_a_dead_server_wrote_in_the_lock_is_not_believed(base: Path) -> None:
    """Another holder has not said yet who it is."""
    directory, _ = make(base / "data")
    held = subject.take_lock(directory, "a command")
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    directory.lock.write_text(json.dumps({"pid": dead.pid, "what": subject.SERVER}))
    threading.Timer(0.2, os.close, (held,)).start()
    os.close(subject.take_lock(directory, "next", 30))


# server.json --------------------------------------------------------------------------------------------------------


def test_what_a_dead_server_wrote_counts_for_nothing(base: Path) -> None:
    directory, _ = make(base / "data")
    subject.write_private(directory.server_json, json.dumps({"pid": 1}))
    assert mode(directory.server_json) == 0o600
    assert subject.read_server(directory) is None
    held = subject.take_lock(directory, "pillarbox serve")
    assert subject.read_server(directory) == {"pid": 1}
    directory.server_json.write_text("{ half")
    assert subject.read_server(directory) is None
    os.close(held)


def test_nothing_is_there_at_all(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path / "absent")
    assert not subject.is_held(directory)
    assert subject.read_server(directory) is None
    assert subject.holder(directory) is None
