"""What is taken where the first choice is missing works too: the system's PostgreSQL, the wheel's Redis."""

from __future__ import annotations

import asyncpg
import pytest

from mailserver.embedded import account, postgres, programs, redis
from storage.migrate import migrate, migrations
from tests.support.services import ACCOUNT, short_folder


async def test_postgres_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has the whole schema, and its data folder stays with it when the wheel is there again."""
    who = account.find_or_make(ACCOUNT, print)
    with short_folder() as base:
        with monkeypatch.context() as hidden:
            hidden.setattr(programs, "_package", lambda name: None)
            try:
                server = postgres.prepare(base / "pg", who, print)
            except programs.ServiceError:
                pytest.skip("postgresql is not installed")
        server.start()
        try:
            assert await migrate(server.dsn) == [migration.name for migration in migrations()]
            conn = await asyncpg.connect(server.dsn)
            assert await conn.fetchval("SHOW data_checksums") == "on"
            await conn.close()
        finally:
            server.stop()
        again = postgres.prepare(base / "pg", who, print)
        assert again.programs.major == server.programs.major


def test_redis_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "SYSTEM_PATH", "/nonexistent")
    with short_folder() as base:
        server = redis.prepare(base / "redis", account.find_or_make(ACCOUNT, print), print)
        if server is None:
            pytest.skip("the extra `embedded` is not installed")
        server.start()
        try:
            assert server.answers()
        finally:
            server.stop()
