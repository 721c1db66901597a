"""How a command finds its installation: by --data alone, running or stopped.

A running server says in DIR/run/server.json where its database is. With no server running, the command starts the
embedded database by itself, under the same lock that a server would hold, and stops it at the end. Two commands at the
same time wait for each other.

Commands print results to stdout and everything else to stderr; what went wrong is one sentence that says what to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import typer

    from config.schema import Config
    from mailserver.embedded.account import ServiceAccount
    from mailserver.node.data_directory import DataDirectory
    from storage import Store

DEFAULT_DATA = Path("data")
LOCK_SECONDS = 60.0

FAILED = 1
NOT_RUNNING = 3


@dataclass(slots=True)
class Given:
    """What stood on the command line, before the command or after it; main.py fills it in."""

    data: Path | None = None
    config: Path | None = None


def given(ctx: typer.Context) -> Given:
    """The options that every command has."""
    return ctx.ensure_object(Given)


class CommandFailed(Exception):
    """Ends the command: one sentence for stderr and the exit code."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Node:
    """An installation that a command may work on. server: None where none runs; migrated: what was applied just now."""

    config: Config
    directory: DataDirectory
    dsn: str
    blobs: str
    server: dict[str, Any] | None
    migrated: list[str]


def fail(text: str, code: int = FAILED) -> NoReturn:
    """Ends the command with an error."""
    raise CommandFailed(text, code)


def tell(text: str) -> None:
    """Says something beside the result."""
    print(text, file=sys.stderr)


def data_directory(options: Given) -> DataDirectory:
    """The data directory that was named, whether it exists or not."""
    from mailserver.node.data_directory import DataDirectory

    named = options.data or Path(os.environ.get("PILLARBOX_DATA") or DEFAULT_DATA)
    return DataDirectory(named.expanduser().absolute())


def load_config(options: Given, running: dict[str, Any] | None = None) -> Config:
    """The settings: of the file that was named, else of the file that the running server was started with."""
    from config.load import load

    path = options.config
    if path is None and running is not None and running.get("config"):
        path = Path(running["config"])
    return load(path)


@asynccontextmanager
async def open_store(ctx: typer.Context) -> AsyncIterator[tuple[Store, Config]]:
    """The installation's store, its database running, and the settings."""
    from mailserver.node import secret_keys
    from storage import Store

    async with node(given(ctx)) as found:
        account = _account(found.directory)
        keys = secret_keys.load_or_make(found.config.storage, found.directory, account)
        await secret_keys.check(found.dsn, keys)
        store = await Store.open(
            found.config.storage,
            mail=found.config.mail,
            dsn=found.dsn,
            redis_url=None,
            blobs=found.blobs,
            install_key=keys.install,
            master_key=keys.master,
            worker=f"command {os.getpid()}",
        )
        try:
            yield store, found.config
        finally:
            await store.close()


@asynccontextmanager
async def node(options: Given) -> AsyncIterator[Node]:
    """The installation, its database running and up to date."""
    from mailserver.node.settings import with_s3

    directory = data_directory(options)
    server = await _server(directory)
    config = load_config(options, server)
    if server is not None:
        config = with_s3(config, server.get("s3") or {})
        yield Node(config, directory, dsn_of(server, directory), _blobs(config, directory, server), server, [])
        return
    async with _stopped_node(config, directory) as stopped:
        yield stopped


async def _server(directory: DataDirectory) -> dict[str, Any] | None:
    """The running server; None once nobody holds the directory. A server that is just starting is waited for."""
    from mailserver.node.data_directory import is_held, read_server

    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        server = read_server(directory)
        if server is not None or not is_held(directory):
            return server
        if time.monotonic() > deadline:
            fail(f"{directory.root} is held by another process and no server is ready there; try again later")
        await asyncio.sleep(0.1)


def dsn_of(server: dict[str, Any], directory: DataDirectory) -> str:
    """The database of a running server."""
    if server.get("postgres") == "embedded":
        from mailserver.embedded import postgres

        return postgres.dsn(directory.postgres)
    return str(server["dsn"])


def _blobs(config: Config, directory: DataDirectory, server: dict[str, Any] | None) -> str:
    if server is not None and server.get("blobs"):
        return str(server["blobs"])
    return config.storage.blobs or str(directory.blobs)


def _account(directory: DataDirectory) -> ServiceAccount | None:
    from mailserver.embedded import account

    return account.owner_of(directory.run) if account.running_as_root() else None


@asynccontextmanager
async def _stopped_node(config: Config, directory: DataDirectory) -> AsyncIterator[Node]:
    from mailserver.node import data_directory as directories
    from storage.migrate import migrate

    directory, account = directories.make(directory.root, config.server.system_account, tell)
    with contextlib.ExitStack() as stack:
        if config.storage.postgres is not None:
            dsn = config.storage.postgres.reveal()
        else:
            stack.callback(os.close, directories.take_lock(directory, "a command", LOCK_SECONDS))
            dsn = stack.enter_context(_embedded_database(directory, account))
        migrated = await migrate(dsn)
        yield Node(config, directory, dsn, _blobs(config, directory, None), None, migrated)


@contextlib.contextmanager
def _embedded_database(directory: DataDirectory, account: ServiceAccount | None) -> Iterator[str]:
    from mailserver.embedded import postgres

    server = postgres.prepare(directory.postgres, account, tell)
    try:
        server.start()
        yield server.dsn
    finally:
        server.stop()
