"""The way to the database: connections, transactions, and what a failure means.

A transaction is over in one of three ways. Its COMMIT was answered by the tag COMMIT: done. It failed before COMMIT was
sent, or was answered by ROLLBACK or an ERROR: surely absent, `Unavailable` or the refusal that made it fail. Anything
else (the connection broke, the server went down, no answer in time): `OutcomeUnknown`. COMMIT is never cancelled; a
caller that goes away leaves its connection dropped.

Connections that write tell the server to end them when they stall inside a transaction, so that a stopped worker
holds no account's lock for long. Plans are generic and avoid sequential scans: plans made while tables are still
empty would otherwise stay with a new installation until its first ANALYZE.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import asyncpg

from storage.connect import connect
from storage.errors import OutcomeUnknown, StorageError, Unavailable
from storage.records import LOOK

if TYPE_CHECKING:
    from config.schema import MailConfig, StorageConfig
    from storage.blobs import BlobStore
    from storage.cache import Cache
    from storage.changes import Changes
    from storage.clock import Clock, Recent, Stamps
    from storage.committer import Committer
    from storage.directory import DirectoryCache
    from storage.keys import Keys
    from storage.records import Mailbox, MailboxId, Name
    from storage.views import Views

log = logging.getLogger(__name__)

T = TypeVar("T")

Connection = asyncpg.Connection
"""A database connection inside `Store.acquire` or `Store.transaction`."""

SERVER_SETTINGS = {
    "application_name": "pillarbox",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "jit": "off",
    "idle_in_transaction_session_timeout": "5s",
    "client_connection_check_interval": "2s",
}

# SQLSTATE classes and codes that mean "the database cannot serve now": connection exceptions, insufficient resources,
# operator intervention, system errors, read-only transaction, a database that a standby does not have yet, deadlock and
# serialization failures.
_UNAVAILABLE_CLASSES = ("08", "53", "57", "58", "XX")
_UNAVAILABLE_STATES = ("25006", "25P03", "3D000", "40001", "40P01", "55P03")

NEVER = 86_400.0
"""The driver would cancel a COMMIT that takes longer than its own timeout; we wait and drop the connection instead."""

_BROKEN = (
    OSError,
    asyncpg.InterfaceError,
    TimeoutError,
    EOFError,
    asyncpg.InternalClientError,  # out of step with a server that is going; or all servers of the DSN are standbys
)
_READ_ONLY = "25006"
_DISTRUST_SECONDS = 1.0
_MAILBOXES_FOUND = 10_000


def is_unavailable(error: BaseException) -> bool:
    """Does this failure say that the database cannot serve now, rather than that the request is wrong?"""
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state[:2] in _UNAVAILABLE_CLASSES or state in _UNAVAILABLE_STATES
    return isinstance(error, _BROKEN)


@contextmanager
def serving() -> Iterator[None]:
    """Around work on the database: failures that say that it cannot serve now are raised as Unavailable."""
    try:
        yield
    except Exception as error:
        if is_unavailable(error):
            raise Unavailable(f"the database does not answer: {error}") from error
        raise


def _severity(error: asyncpg.PostgresError) -> str:
    return str(getattr(error, "severity_en", None) or getattr(error, "severity", ""))


class QuietConnection(asyncpg.Connection):
    """A pooled connection that is not reset by a query each time: nothing here sets session state."""

    def get_reset_query(self) -> str:
        return ""


def drop(conn: Any) -> None:
    """Lets go of a connection; one that was lost may have gone back to the pool by itself."""
    try:
        conn.terminate()
    except asyncpg.InterfaceError:
        pass


async def commit(conn: Any, timeout: float) -> None:
    """Sends COMMIT and waits for its answer. Unavailable: surely rolled back. OutcomeUnknown: nothing settles it."""
    try:
        tag = await finish(conn, conn.execute("COMMIT", timeout=NEVER), timeout)
    except asyncpg.PostgresError as error:
        raise Unavailable(str(error)) from error
    if tag != "COMMIT":
        raise Unavailable("the transaction was rolled back")


async def finish(conn: Any, work: Awaitable[T], timeout: float) -> T:
    """Waits for a statement that commits, whatever happens to the calling task; its result.

    The server's ERROR is raised as it is: surely nothing was written. Any other failure is OutcomeUnknown.
    """
    task = asyncio.ensure_future(work)
    # A dropped socket ends the wait; the driver's own time-out would cancel the statement.
    watchdog = asyncio.get_running_loop().call_later(timeout, drop, conn)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        drop(conn)
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
        raise
    except Exception as error:
        if _surely_absent(error):
            raise
        drop(conn)
        raise OutcomeUnknown(str(error) or type(error).__name__) from error
    finally:
        watchdog.cancel()


def _surely_absent(error: Exception) -> bool:
    # DataError is also what the driver says of arguments that it cannot encode, before it sends anything.
    if isinstance(error, asyncpg.DataError):
        return True
    return isinstance(error, asyncpg.PostgresError) and _severity(error) == "ERROR"


class Store:
    """What a worker holds of the mail store: one pool, one committer, one change feed, the open mailbox views."""

    pool: asyncpg.Pool
    cache: Cache
    changes: Changes
    committer: Committer
    views: Views
    blobs: BlobStore
    keys: Keys
    clock: Clock
    found: Recent[Name, Mailbox]
    located: Recent[Name, MailboxId]
    directory_cache: DirectoryCache

    def __init__(self, config: StorageConfig, mail: MailConfig, dsn: str, worker: str) -> None:
        self.config = config
        self.mail = mail
        self.dsn = dsn
        self.worker = worker
        self._distrusted = 0.0

    @classmethod
    async def open(
        cls,
        config: StorageConfig,
        *,
        mail: MailConfig,
        dsn: str,
        redis_url: str | None,
        blobs: str,
        install_key: bytes,
        master_key: bytes,
        worker: str,
        blob_cache: Path | None = None,
        stamps: Stamps | None = None,
    ) -> Store:
        """Opens the store of one process.

        redis_url None: changes spread by the database alone. blobs: a directory or s3://bucket/prefix; blob_cache: a
        folder to cache those of S3 in. stamps: shared with all other workers of the node, so that not every look has
        to be a query. The keys are 32 octets each. Raises Unavailable where the database does not answer.
        """
        from storage.blobs import open_blobs
        from storage.cache import Cache
        from storage.changes import Changes
        from storage.clock import Clock, Recent
        from storage.committer import Committer
        from storage.directory import DirectoryCache
        from storage.keys import Keys
        from storage.views import Views

        store = cls(config, mail, dsn, worker)
        store.clock = Clock(stamps, lambda: store.changes.healthy)
        store.found = Recent(store.clock.stands, _MAILBOXES_FOUND)
        store.located = Recent(store.clock.names_stand, _MAILBOXES_FOUND)
        store.pool = await _open_pool(config, dsn)
        store.keys = Keys(store, install_key, master_key)
        store.blobs = open_blobs(blobs, store.keys, config, blob_cache)
        store.cache = Cache(redis_url)
        store.changes = Changes(store, redis_url)
        store.views = Views(store)
        store.committer = Committer(store)
        store.directory_cache = DirectoryCache(store)
        await store.changes.start()
        return store

    def reconfigure(self, config: StorageConfig, mail: MailConfig) -> None:
        """Other settings from now on; those of the pool and of the views stay as they were."""
        self.config = config
        self.mail = mail

    @property
    def blob_threshold(self) -> int:
        """Parts of this size or more become blobs."""
        return self.config.blob_threshold_octets or self.blobs.threshold_octets

    async def close(self) -> None:
        """Finishes what was accepted, then lets go of every connection."""
        for part in (self.committer, self.views, self.changes, self.cache, self.blobs):
            try:
                await part.close()
            except Exception:
                log.exception("%s was not closed in order", type(part).__name__)
        try:
            await asyncio.wait_for(self.pool.close(), 5)
        except TimeoutError:
            self.pool.terminate()

    async def healthy(self) -> dict[str, str]:
        """What is wrong, by part; empty where all is well."""
        problems: dict[str, str] = {}
        try:
            async with asyncio.timeout(5), self.acquire() as conn:
                if await conn.fetchval("SHOW transaction_read_only") == "on":
                    problems["postgres"] = "the database is read-only"
                    await self.leave_server()
        except (StorageError, TimeoutError) as error:
            problems["postgres"] = f"does not answer: {error or 'time out'}"
        problems.update(self.changes.problems())
        try:
            blob_problem = await asyncio.wait_for(self.blobs.problem(), 5)
        except TimeoutError:
            blob_problem = "does not answer"
        if blob_problem:
            problems["blobs"] = blob_problem
        return problems

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        """A connection for reading, or for one statement that commits by itself."""
        conn = None
        try:
            conn = await self.pool.acquire(timeout=self.config.lock_timeout_seconds)
            yield conn
        except StorageError:
            raise
        except Exception as error:
            if getattr(error, "sqlstate", None) == _READ_ONLY:
                await self.leave_server()
            if is_unavailable(error):
                raise Unavailable(f"{type(error).__name__}: {error}") from error
            raise
        finally:
            if conn is not None:
                await self._give_back(conn)

    async def _give_back(self, conn: Any) -> None:
        """What was done on the connection stays done, though the connection may break just now."""
        try:
            await self.pool.release(conn)
        except Exception as error:
            log.info("a connection was lost when it was given back: %s", error)

    async def leave_server(self) -> None:
        """What takes no writes may have been the primary until a failover: no connection to it is used again.

        Each is made anew by the DSN when it is needed, once a second at most while there is no other server.
        """
        if time.monotonic() - self._distrusted > _DISTRUST_SECONDS:
            self._distrusted = time.monotonic()
            await self.pool.expire_connections()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A connection inside BEGIN … COMMIT (READ COMMITTED); an exception from the body rolls back.

        Where the caller goes away behind COMMIT, or its answer is lost, nobody can say what has changed, if anything
        has: all are told to look.
        """
        sent = False
        try:
            async with self.acquire() as conn:
                await conn.execute("BEGIN")
                try:
                    yield conn
                except BaseException:
                    await _roll_back(conn)
                    raise
                sent = True
                await commit(conn, self.config.lock_timeout_seconds)
        except (OutcomeUnknown, asyncio.CancelledError):
            if sent:
                await self.changes.publish([LOOK])
            raise


async def _open_pool(config: StorageConfig, dsn: str) -> asyncpg.Pool:
    """A pool from which one connection could be had; Unavailable. It keeps none open that nobody uses."""
    with serving():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=config.pool_size,
            connect=cast(Any, connect),
            connection_class=QuietConnection,
            command_timeout=config.statement_timeout_seconds,
            server_settings=SERVER_SETTINGS | {"lock_timeout": f"{config.lock_timeout_seconds * 1000:.0f}ms"},
            max_inactive_connection_lifetime=300,
            timeout=10,
        )
        async with pool.acquire():
            return pool


async def _roll_back(conn: Any) -> None:
    try:
        await asyncio.wait_for(conn.execute("ROLLBACK"), 5)
    except Exception:
        drop(conn)
    except BaseException:
        drop(conn)
        raise
