"""The embedded Redis: answers on its socket, outlasts a kill, is bounded."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
import redis as client

from mailserver.embedded import account, redis
from mailserver.embedded.process import ServiceError
from mailserver.embedded.redis import EmbeddedRedis
from tests.support.services import ACCOUNT, short_folder


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with short_folder() as base:
        made = redis.prepare(base / "a redis", account.find_or_make(ACCOUNT, print), print)
        assert made is not None
        made.start()
        yield made
        made.stop()


def test_answers_and_is_bounded(server: EmbeddedRedis) -> None:
    with client.Redis.from_url(server.url) as connection:
        connection.set("a", "1")
        assert connection.get("a") == b"1"
        assert int(connection.config_get("maxmemory")["maxmemory"]) == 256 * 1024 * 1024
        assert connection.config_get("port")["port"] == "0"


def test_nobody_else_reaches_it(server: EmbeddedRedis) -> None:
    assert server.folder.stat().st_mode & 0o077 == 0


def test_starts_again_after_a_kill(server: EmbeddedRedis) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while server.is_running():
        assert time.monotonic() < deadline
    server.start()
    assert server.answers()


def test_a_leftover_is_stopped(server: EmbeddedRedis) -> None:
    other = redis.prepare(server.folder, account.find_or_make(ACCOUNT, print), print)
    assert other is not None
    other.start()
    try:
        assert not server.is_running() and other.is_running()
    finally:
        other.stop()


def test_a_start_that_fails_says_why(server: EmbeddedRedis) -> None:
    server.stop()
    broken = server.folder / "appendonlydir" / "appendonly.aof.manifest"
    if not broken.exists():
        pytest.skip("this Redis keeps its log elsewhere")
    broken.write_text("rubbish\n")
    with pytest.raises(ServiceError, match="did not start"):
        server.start(10)
