"""The embedded PostgreSQL: made once, found again, healed after a kill, and gone with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from mailserver.embedded import account, postgres
from mailserver.embedded.postgres import EmbeddedPostgres
from mailserver.embedded.process import ServiceError
from tests.support.services import ACCOUNT, OPTIONS, short_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def base() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


def prepare(folder: Path) -> EmbeddedPostgres:
    return postgres.prepare(folder, account.find_or_make(ACCOUNT, print), print, OPTIONS)


@pytest.fixture
def server(base: Path) -> Iterator[EmbeddedPostgres]:
    made = prepare(base / "pg")
    made.start()
    yield made
    made.stop()


async def ask(server: EmbeddedPostgres, query: str) -> object:
    conn = await asyncpg.connect(server.dsn, timeout=10)
    try:
        return await conn.fetchval(query)
    finally:
        await conn.close()


async def test_settings_that_matter(server: EmbeddedPostgres) -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert await ask(server, f"SHOW {name}") == "on", name
    assert await ask(server, "SHOW server_encoding") == "UTF8"
    assert await ask(server, "SHOW listen_addresses") == ""
    assert await ask(server, "SELECT lower('ÄÉ')") == "äé"
    assert await ask(server, "SELECT current_database()") == "pillarbox"
    # Order by code point, whatever the locale of the host.
    assert await ask(server, "SELECT string_agg(x, '' ORDER BY x) FROM unnest(ARRAY['b','A','a','B']) x") == "ABab"


def test_nobody_else_reaches_it(server: EmbeddedPostgres) -> None:
    assert server.folder.stat().st_mode & 0o077 == 0
    assert (server.folder / "data").stat().st_mode & 0o077 == 0
    if os.geteuid() == 0:
        assert server.folder.stat().st_uid != 0


async def test_data_outlasts_a_stop_and_a_kill(base: Path, server: EmbeddedPostgres) -> None:
    await ask(server, "CREATE TABLE t AS SELECT 1 AS a")
    server.stop()
    assert not server.answers()
    server.start()
    assert await ask(server, "SELECT a FROM t") == 1
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while server.is_running():
        assert time.monotonic() < deadline
    server.start()
    assert await ask(server, "SELECT a FROM t") == 1


async def test_a_leftover_is_stopped(base: Path, server: EmbeddedPostgres) -> None:
    """Another object on the same folder, as after the loss of its parent without the kernel's help."""
    left = server.pid
    other = prepare(server.folder)
    other.start()
    try:
        assert other.pid != left and not server.is_running()
        assert await ask(other, "SELECT 1") == 1
    finally:
        other.stop()


def test_the_pid_of_a_stranger_is_left_alone(base: Path, server: EmbeddedPostgres) -> None:
    server.stop()
    with subprocess.Popen(["/bin/sleep", "60"], cwd="/") as stranger:
        try:
            pid_file = server.folder / "data" / "postmaster.pid"
            pid_file.write_text(f"{stranger.pid}\n/proc/self/cwd\n1\n5432\n..\n\n")
            server.start()
            assert stranger.poll() is None
        finally:
            stranger.kill()


PARENT = """
import sys, time
from pathlib import Path
from mailserver.embedded import account, postgres
server = postgres.prepare(Path(sys.argv[1]), account.find_or_make(sys.argv[2], print), print, {"max_connections": "20"})
server.start()
print(server.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_parent(base: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(base / "pg"), ACCOUNT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 15
    while Path(f"/proc/{pid}/cwd").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_a_path_too_long_for_a_socket(base: Path) -> None:
    folder = base / ("long " * 20) / ("deep" * 10)
    folder.mkdir(parents=True)
    made = prepare(folder / "pg")
    made.start()
    try:
        assert len(str(made.folder)) > 108
        assert await ask(made, "SELECT 1") == 1
    finally:
        made.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can close a folder to its own services")
async def test_below_a_folder_that_the_account_may_not_enter(base: Path) -> None:
    closed = base / "closed"
    closed.mkdir(mode=0o700)
    (closed / "state").mkdir(mode=0o711)
    made = prepare(closed / "state" / "pg")
    made.start()
    try:
        assert await ask(made, "SELECT 1") == 1
    finally:
        made.stop()
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_half_made_cluster_is_made_anew(base: Path) -> None:
    made = prepare(base / "pg")
    (made.folder / "data.new").mkdir()
    (made.folder / "data.new" / "rubbish").touch()
    made.start()
    made.stop()
    assert not (made.folder / "data.new").exists()


def test_another_major_version_is_refused_with_a_way_out(base: Path) -> None:
    data = base / "pg" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServiceError, match=r"PostgreSQL 9, and .*pg_dump.*pg_restore"):
        prepare(base / "pg")


def test_what_is_no_cluster_is_not_overwritten(base: Path) -> None:
    made = prepare(base / "pg")
    (made.folder / "data").mkdir()
    (made.folder / "data" / "precious").write_text("x")
    with pytest.raises(ServiceError, match="neither empty nor"):
        made.start()
    assert (made.folder / "data" / "precious").exists()


def test_a_start_that_fails_says_what_the_server_said(base: Path, server: EmbeddedPostgres) -> None:
    server.stop()
    (server.folder / "data" / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(ServiceError, match="no_such_setting"):
        server.start()


@pytest.mark.parametrize(("gib", "buffers"), [(0.25, "128MB"), (2, "256MB"), (64, "1024MB")])
def test_memory_is_shared_out(gib: float, buffers: str) -> None:
    assert postgres.tuning(int(gib * 1024**3), Path("/x"))["shared_buffers"] == buffers
