"""Fixtures for all tests: `database` (DSN of a fresh migrated database) and `redis_url` (an emptied real Redis)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.support.services import Databases, running_databases, running_redis

# Tests that use one of these, directly or through other fixtures, need a running service: `-m "not real"` leaves them
# out.
REAL = {"databases", "redis_server", "program"}
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
def group_commit() -> str:
    """How the stores of a test commit messages, see the setting of that name; a test file may say otherwise."""
    return "auto"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    with running_redis() as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """The URL of a real Redis that holds nothing."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushall()
    return redis_server
