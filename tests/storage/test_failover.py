"""A primary dies and its synchronous standby takes over: what was acknowledged is there, once; the store follows."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from mailserver.embedded import account, postgres, process
from mailserver.embedded.postgres import EmbeddedPostgres
from storage import mailboxes
from storage.errors import OutcomeUnknown, Unavailable
from storage.records import INBOX
from tests.storage.conftest import ALICE, OpenStore, deliver, until_problems
from tests.support.proxy import PostgresProxy, running
from tests.support.services import ACCOUNT, OPTIONS, Databases, running_databases, short_folder

pytestmark = pytest.mark.slow

_STREAMING = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"


@pytest.fixture
def primary() -> Iterator[Databases]:
    with running_databases() as databases:
        yield databases


@pytest.fixture
def standby(primary: Databases) -> Iterator[EmbeddedPostgres]:
    """Follows the primary; what is committed there is here too."""
    with short_folder() as folder:
        server = postgres.prepare(folder / "pg", account.find_or_make(ACCOUNT, print), print, OPTIONS)
        copy(primary.server, server)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def copy(primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    command = [str(standby.programs.bin / "pg_basebackup"), "-D", str(standby.folder / "data"), "-R", "-c", "fast"]
    command += ["-h", str(primary.folder), "-U", postgres.USER]
    subprocess.run(command, check=True, timeout=60, **process.as_account(account.find_or_make(ACCOUNT, print)))


async def execute(server: EmbeddedPostgres, statement: str, until: object = None) -> None:
    """Runs a statement by itself, again and again where it shall answer something."""
    conn = await asyncpg.connect(server.dsn, timeout=20)
    try:
        async with asyncio.timeout(30):
            while (found := await conn.fetchval(statement)) != until and until is not None:
                await asyncio.sleep(0.05)
        assert until is None or found == until
    finally:
        await conn.close()


async def test_failover(primary: Databases, standby: EmbeddedPostgres, open_store: OpenStore) -> None:
    name = primary.make()
    await execute(primary.server, "ALTER SYSTEM SET synchronous_standby_names = '*'")
    await execute(primary.server, "SELECT pg_reload_conf()")
    await execute(primary.server, _STREAMING, until=1)
    with running(proxy_of(primary.server.folder)) as first, running(proxy_of(standby.folder)) as second:
        dsn = f"postgresql://{postgres.USER}@127.0.0.1:{first.port},127.0.0.1:{second.port}/{name}"
        store = await open_store(dsn=f"{dsn}?target_session_attrs=read-write&sslmode=disable", lock_timeout_seconds=2)
        await mailboxes.create_account_state(store, ALICE)
        outcomes: list[str] = []
        stop = asyncio.Event()

        async def send() -> None:
            while not stop.is_set():
                try:
                    await deliver(store, trace_id=uuid.uuid4())
                    outcomes.append("sure")
                except OutcomeUnknown:
                    outcomes.append("unknown")
                except Unavailable:
                    await asyncio.sleep(0.05)

        work = [asyncio.create_task(send()) for _ in range(4)]
        await sure(outcomes, 50)
        assert primary.server.pid is not None
        os.kill(primary.server.pid, signal.SIGQUIT)
        await execute(standby, "SELECT pg_promote()")
        await sure(outcomes, 50)
        stop.set()
        await asyncio.gather(*work)
        await until_problems(store)
        box = await mailboxes.get(store, ALICE, INBOX)
        assert outcomes.count("sure") <= box.messages <= len(outcomes)
        assert box.messages == box.uidnext - 1
        await store.close()


def proxy_of(folder: Path) -> PostgresProxy:
    return PostgresProxy(folder / postgres.SOCKET)


async def sure(outcomes: list[str], more: int) -> None:
    goal = outcomes.count("sure") + more
    async with asyncio.timeout(60):
        while outcomes.count("sure") < goal:
            await asyncio.sleep(0.02)
