"""How a committed change reaches the other workers.

After COMMIT the writer hands its notices to `publish`: this process hears them at once, the others through Redis, or by
one NOTIFY while Redis is away. Notices are hints: a lost one heals, because a view compares its modseq whenever a
command may show changes, at once when the feed breaks, and once a second while it is broken. Whoever reconnects tells
its listeners "resync". A database that takes no writes is not the one that the others tell of their changes, so the
feed leaves it.
Changes of accounts and addresses are told by NOTIFY in the transaction that makes them, whatever Redis does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from storage.connect import connect
from storage.errors import StorageError
from storage.records import LOOK, RESYNC, AccountId, MailboxId, Notice
from storage.store import is_unavailable
from storage.tasks import end

if TYPE_CHECKING:
    from storage.store import Store

log = logging.getLogger(__name__)

CHANNEL = "pillarbox"
_NOTIFY = "SELECT pg_notify($1, $2)"
_MAX_PAYLOAD = 7900
_MAX_WAITING = 10_000
_RETRY_SECONDS = 0.5
_GATHER_SECONDS = 0.02
"""The first change goes out at once; those that follow within so long go together."""
_REDIS_SECONDS = 1.0
_ASK_SECONDS = 0.5
_MAX_SILENCES = 3
"""A subscription is asked for a sign of life that often, and given up when so many in a row are missing."""

_JSON = json.JSONEncoder(separators=(",", ":"))

Listener = Callable[[Notice], None]
Pages = dict[MailboxId, tuple[int, ...]]


def encode(notices: Sequence[Notice], sender: str, *, short: bool = False) -> str:
    """The wire form; `short` leaves page numbers out, the reader then looks by modseq."""
    items: list[dict[str, Any]] = []
    for notice in notices:
        item: dict[str, Any] = {"kind": notice.kind, "account_id": notice.account_id, "modseq": notice.modseq}
        if notice.pages:
            item["pages"] = {str(k): [] if short else list(v) for k, v in notice.pages.items()}
        items.append(item)
    return _JSON.encode({"from": sender, "notices": items})


def decode(payload: str | bytes) -> tuple[str, list[Notice]]:
    """Sender and notices; one notice as a bare object is understood too. ValueError on rubbish."""
    try:
        data = json.loads(payload)
        items = data.get("notices", [data])
        return data.get("from", ""), [_notice(item) for item in items]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a notice: {payload!r:.200}") from error


def _notice(item: dict[str, Any]) -> Notice:
    pages = {MailboxId(int(k)): tuple(v) for k, v in item.get("pages", {}).items()}
    return Notice(item["kind"], AccountId(item.get("account_id", 0)), item.get("modseq", 0), pages)


def payloads(notices: Sequence[Notice], sender: str) -> Iterator[str]:
    """The wire form in pieces that NOTIFY takes, page numbers left out where that helps."""
    payload = encode(notices, sender)
    if len(payload) > _MAX_PAYLOAD:
        payload = encode(notices, sender, short=True)
    if len(payload) <= _MAX_PAYLOAD:
        yield payload
        return
    for part in _halves(notices):
        yield from payloads(part, sender)


def _halves(notices: Sequence[Notice]) -> list[Sequence[Notice]]:
    middle = len(notices) // 2
    if middle:
        return [notices[:middle], notices[middle:]]
    (notice,), boxes = notices, list(notices[0].pages.items())
    middle = len(boxes) // 2
    return [[replace(notice, pages=dict(part))] for part in (boxes[:middle], boxes[middle:])]


def merged(notices: Sequence[Notice]) -> list[Notice]:
    """The same said in fewer words: one notice of mail an account, with its highest modseq."""
    found: dict[tuple[str, int], Notice] = {}
    for notice in notices:
        key = (notice.kind, notice.account_id)
        before = found.get(key)
        if before is None:
            found[key] = notice
        elif before != notice:
            found[key] = Notice(
                notice.kind, notice.account_id, max(before.modseq, notice.modseq), _both(before.pages, notice.pages)
            )
    return list(found.values())


def _both(some: Pages, more: Pages) -> Pages:
    """What two notices touched. A mailbox without page numbers is read by modseq, whatever the other says of it."""
    pages = some | more
    for mailbox in some.keys() & more.keys():
        named = some[mailbox] and more[mailbox]
        pages[mailbox] = tuple(sorted({*some[mailbox], *more[mailbox]})) if named else ()
    return pages


async def notify(conn: Any, notice: Notice) -> None:
    """Tells all workers when the caller's transaction commits, through the database alone."""
    await conn.execute(_NOTIFY, CHANNEL, encode([notice], ""))


class Changes:
    """The change feed of one process."""

    def __init__(self, store: Store, redis_url: str | None) -> None:
        self._store = store
        self._redis_url = redis_url
        self._redis: redis.asyncio.Redis | None = None
        self._listeners: dict[object, Listener] = {}
        self._waiting: list[Notice] = []
        self._sending = False
        # Two machines may have one name, and workers of the same number.
        self._sender = f"{store.clock.node} {store.worker} {secrets.token_hex(8)}"
        self._own = encode([], self._sender).removesuffix("[]}")
        self._of_this_node = self._own.partition(" ")[0] + " "
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.database_up = False
        self.redis_up = False

    async def start(self) -> None:
        tasks = [self._send(), self._listen_database()]
        if self._redis_url is not None:
            # No retries, which would hide that notices were missed and keep the sender from the database.
            self._redis = redis.asyncio.from_url(
                self._redis_url,
                socket_timeout=_REDIS_SECONDS,
                socket_connect_timeout=_REDIS_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
            tasks.append(self._listen_redis())
        self._tasks = [asyncio.create_task(task) for task in tasks]

    async def close(self) -> None:
        for _ in range(50):
            if not self._waiting and not self._sending:
                break
            await asyncio.sleep(0.01)
        await end(self._tasks)
        if self._redis is not None:
            await self._redis.aclose()

    def problems(self) -> dict[str, str]:
        problems = {}
        if self._redis_url is not None and not self.redis_up:
            problems["redis"] = "not connected; changes spread through the database"
        if not self.database_up:
            problems["notify"] = "not connected; changes of other workers are seen by polling"
        return problems

    @property
    def healthy(self) -> bool:
        """Do notices of the other workers arrive?"""
        return self.database_up and (self._redis_url is None or self.redis_up)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Calls `listener` in the loop for every notice; returns how to stop. It must be quick and not raise."""
        key = object()
        self._listeners[key] = listener
        return lambda: self._listeners.pop(key, None) and None

    async def publish(self, notices: Sequence[Notice]) -> None:
        """Tells this process at once and the others soon; never fails, never waits for anybody."""
        for notice in notices:
            self._dispatch(notice)
        self._waiting.extend(notices)
        if len(self._waiting) > _MAX_WAITING:
            self._waiting = [RESYNC]
        self._wake.set()

    def _dispatch(self, notice: Notice, *, stamped: bool = False) -> None:
        """stamped: this node's writer has done that."""
        if not stamped:
            self._store.clock.touch(notice.account_id, names=notice.kind != "mail")
        for listener in list(self._listeners.values()):
            try:
                listener(notice)
            except Exception:
                log.exception("a listener of the change feed failed")

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            notices, self._waiting = merged(self._waiting), []
            if not notices:
                continue
            self._sending = True
            try:
                if not await self._send_redis(notices):
                    await self._send_database(notices)
            except Exception:
                log.exception("changes could not be told; other workers will find them by polling")
            finally:
                self._sending = False
            await asyncio.sleep(_GATHER_SECONDS)

    async def _send_redis(self, notices: list[Notice]) -> bool:
        if self._redis is None or not self.redis_up:
            return False
        try:
            await self._redis.publish(CHANNEL, encode(notices, self._sender))
        except (RedisError, OSError, TimeoutError):
            self._redis_broke()
            return False
        return True

    def _redis_broke(self) -> None:
        """What was told meanwhile may not have arrived."""
        if self.redis_up:
            self.redis_up = False
            self._dispatch(LOOK)

    async def _send_database(self, notices: list[Notice]) -> None:
        try:
            async with self._store.acquire() as conn:
                for start in range(0, len(notices), 50):
                    for payload in payloads(notices[start : start + 50], self._sender):
                        await conn.execute(_NOTIFY, CHANNEL, payload)
        except StorageError:
            log.warning("changes could not be told; other workers will find them by polling")

    def _receive(self, payload: str | bytes) -> None:
        if isinstance(payload, bytes):
            payload = payload.decode(errors="replace")
        if payload.startswith(self._own):
            return
        try:
            _, notices = decode(payload)
        except ValueError:
            log.warning("not understood on the change feed: %r", payload[:200])
            return
        stamped = payload.startswith(self._of_this_node)
        for notice in notices:
            self._dispatch(notice, stamped=stamped)

    async def _listen_redis(self) -> None:
        assert self._redis is not None
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await self._hear_redis(pubsub)
            except (RedisError, OSError, TimeoutError):
                self._redis_broke()
            except Exception:
                self._redis_broke()
                log.exception("the change feed of Redis failed")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _hear_redis(self, pubsub: Any) -> None:
        """Until the subscription breaks, or nothing is heard of it any more."""
        await pubsub.subscribe(CHANNEL)
        await pubsub.ping()
        asked = time.monotonic()
        subscribed = False
        silences = 0
        while silences < _MAX_SILENCES:
            message = await pubsub.get_message(timeout=_ASK_SECONDS)
            silences = silences + 1 if message is None else 0
            if message is not None and message["type"] == "message":
                self._receive(message["data"])
            elif message is not None:
                self.redis_up = True
                if not subscribed:
                    self._dispatch(RESYNC)
                subscribed = True
            if time.monotonic() - asked >= _ASK_SECONDS:
                asked = time.monotonic()
                await pubsub.ping()
        raise TimeoutError("Redis is silent")

    async def _listen_database(self) -> None:
        while True:
            try:
                await self._listen_once()
            except Exception as error:
                if not (isinstance(error, asyncpg.PostgresError) or is_unavailable(error)):
                    log.exception("the change feed of the database failed")
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen_once(self) -> None:
        conn = await connect(self._store.dsn, timeout=5, server_settings={"application_name": "pillarbox feed"})
        try:
            while await self._takes_writes(conn):
                if not self.database_up:
                    await conn.add_listener(CHANNEL, lambda _c, _p, _ch, payload: self._receive(str(payload)))
                    self.database_up = True
                    self._dispatch(RESYNC)
                await asyncio.sleep(1.0)
        finally:
            if self.database_up:
                self.database_up = False
                self._dispatch(LOOK)
            conn.terminate()

    async def _takes_writes(self, conn: Any) -> bool:
        if await conn.fetchval("SHOW transaction_read_only", timeout=5) == "off":
            return True
        await self._store.leave_server()
        return False
