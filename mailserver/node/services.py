"""PostgreSQL and Redis of this node: the servers that the settings name, else embedded ones that are kept running."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailserver.embedded import postgres, redis
from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.postgres import EmbeddedPostgres
from mailserver.embedded.process import ServiceError
from mailserver.embedded.redis import EmbeddedRedis
from mailserver.node.backoff import Backoff
from mailserver.node.data_directory import DataDirectory, Say

if TYPE_CHECKING:
    from config.schema import StorageConfig

log = logging.getLogger(__name__)

_BESIDES = 6
"""Connections of a worker beside its pool: the committer's, the feed's, those of messages written alone."""
_OTHERS = 50
"""Commands, and what the administrator opens."""


@dataclass(slots=True)
class _Kept:
    """An embedded service that is started again when it ends."""

    name: str
    service: EmbeddedPostgres | EmbeddedRedis
    backoff: Backoff = field(default_factory=Backoff)
    is_down: bool = False


class Services:
    """prepare → move_inside → start → look_after … → stop. prepare wants root where there is an account."""

    def __init__(self, config: StorageConfig) -> None:
        self._config = config
        self._postgres: EmbeddedPostgres | None = None
        self._redis: EmbeddedRedis | None = None
        self._kept: list[_Kept] = []

    def prepare(self, directory: DataDirectory, account: ServiceAccount | None, workers: int, say: Say) -> None:
        """Finds the programs and makes the folders. ServiceError."""
        if self._config.postgres is None:
            connections = max(postgres.MAX_CONNECTIONS, workers * (self._config.pool_size + _BESIDES) + _OTHERS)
            options = {"max_connections": str(connections)}
            self._postgres = postgres.prepare(directory.postgres, account, say, options)
        if self._config.redis is None:
            self._redis = redis.prepare(directory.redis, account, say)
            if self._redis is None:
                say("there is no redis-server here; changes spread through the database")

    def move_inside(self, directory: DataDirectory) -> None:
        """From here on the folders are reached by these paths."""
        if self._postgres is not None:
            self._postgres.folder = directory.postgres
        if self._redis is not None:
            self._redis.folder = directory.redis

    def start(self) -> None:
        """Starts what is embedded and waits until it answers. ServiceError."""
        if self._redis is not None:
            self._keep("redis", self._redis)
            self._redis.launch()
        if self._postgres is not None:
            self._keep("postgres", self._postgres)
            self._postgres.start()
        if self._redis is not None:
            self._redis.wait()

    def _keep(self, name: str, service: EmbeddedPostgres | EmbeddedRedis) -> None:
        kept = _Kept(name, service)
        kept.backoff.note_start()
        _count_start(name)
        self._kept.append(kept)

    def look_after(self) -> None:
        """Starts again what has ended; does not wait for it."""
        for kept in self._kept:
            if kept.service.is_running():
                continue
            if not kept.is_down:
                kept.is_down = True
                kept.backoff.note_death()
                log.error("embedded %s has ended; it is started again", kept.name)
            if kept.backoff.pause <= 0:
                self._restart(kept)

    @staticmethod
    def _restart(kept: _Kept) -> None:
        kept.backoff.note_start()
        try:
            kept.service.launch()
        except (ServiceError, OSError) as error:
            log.error("embedded %s: %s", kept.name, error)
            kept.backoff.note_death()
        else:
            kept.is_down = False
            _count_start(kept.name)

    def pauses(self) -> list[float]:
        """Seconds until look_after has something to do."""
        return [kept.backoff.pause for kept in self._kept if kept.is_down]

    def stop(self) -> None:
        for kept in self._kept:
            kept.service.stop()
        self._kept.clear()

    @property
    def embeds_postgres(self) -> bool:
        return self._postgres is not None

    @property
    def embeds_redis(self) -> bool:
        return self._redis is not None

    @property
    def dsn(self) -> str:
        if self._postgres is not None:
            return self._postgres.dsn
        assert self._config.postgres is not None
        return self._config.postgres.reveal()

    @property
    def redis_url(self) -> str | None:
        if self._redis is not None:
            return self._redis.url
        given = self._config.redis
        return None if given is None or given.reveal() == "off" else given.reveal()

    def __str__(self) -> str:
        database = f"PostgreSQL {self._postgres.programs.version} (embedded)" if self._postgres else "PostgreSQL"
        cache = "Redis (embedded)" if self._redis else "Redis" if self.redis_url else "no Redis"
        return f"{database}, {cache}"


def _count_start(name: str) -> None:
    from mailserver import metrics

    metrics.service_starts.labels(name).inc()
