"""Connecting to the database that a DSN names, which may be any of several servers.

The driver leaves a host only where it refuses; one that vanished would use up all the time there is, and one that
breaks off would end the search. So the hosts are tried one after another, each in its share of the time.
"""

from __future__ import annotations

import re
from typing import Any

import asyncpg


async def connect(dsn: str, *, timeout: float, **options: Any) -> Any:
    """A connection to the first server that serves; raises what the last one failed by. timeout: seconds in all."""
    servers = split(dsn)
    for server in servers[:-1]:
        try:
            return await asyncpg.connect(server, timeout=timeout / len(servers), **options)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            continue
    return await asyncpg.connect(servers[-1], timeout=timeout / len(servers), **options)


def split(dsn: str) -> list[str]:
    """One DSN for each host of postgresql://user:password@host:port,host:port/database?…"""
    scheme, slashes, rest = dsn.partition("://")
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    login, at, hosts = netloc.rpartition("@")
    return [f"{scheme}{slashes}{login}{at}{host}{rest[len(netloc) :]}" for host in hosts.split(",")]
