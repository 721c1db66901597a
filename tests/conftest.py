"""Fixtures for all tests: `database` (DSN of a fresh migrated database), `redis_url` (an emptied real Redis), and S3
servers, where each test takes a prefix of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import redis

from tests.support.proxy import PostgresProxy, running
from tests.support.services import Databases, running_databases, running_redis

if TYPE_CHECKING:
    from tests.support.s3 import S3Server

# Tests that use one of these, directly or through other fixtures, need a running service: `-m "not real"` leaves them
# out.
REAL = {"databases", "redis_server", "program", "seaweedfs", "ministack"}
REAL_FOLDERS = {"acceptance", "embedded"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REAL.intersection(getattr(item, "fixturenames", ())) or item.path.parent.name in REAL_FOLDERS:
            item.add_marker("real")


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """One real PostgreSQL for the session."""
    with running_databases() as running:
        yield running


@pytest.fixture
def database(databases: Databases) -> Iterator[str]:
    """The DSN of a fresh database with the whole schema."""
    name = databases.make()
    yield databases.dsn(name)
    databases.drop(name)


@pytest.fixture
def empty_database(databases: Databases) -> Iterator[str]:
    """The DSN of a database without any table."""
    name = databases.make(empty=True)
    yield databases.dsn(name)
    databases.drop(name)


@pytest.fixture
def proxy(databases: Databases) -> Iterator[PostgresProxy]:
    """Before the PostgreSQL of the session; it breaks connections as it is told."""
    with running(PostgresProxy(databases.server.folder / ".s.PGSQL.5432")) as proxy:
        yield proxy


@pytest.fixture
def group_commit() -> str:
    """How the stores of a test commit messages, see the setting of that name; a test file may say otherwise."""
    return "auto"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with running_redis() as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of a real Redis that holds nothing."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[S3Server]:
    """A real S3 server."""
    from tests.support.s3 import running_seaweedfs  # the client library takes a second to import

    with running_seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def ministack() -> Iterator[S3Server]:
    """Another dialect of S3."""
    from tests.support.s3 import running_ministack

    with running_ministack() as server:
        yield server
