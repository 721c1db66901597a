"""Group commit: every message that this worker accepts is written here, many in one transaction.

No window is kept open: the committer commits when it is idle and gathers while it is busy, at most `batch_messages`.

One batch:
  1. lock     account_state of each account, ascending, one statement each, SKIP LOCKED. A message is written only
              if all its accounts were locked; the others go into the next batch. A transaction that skipped waits
              for nobody.
  2. read     mailbox rows and thread_refs: under the lock they stand.
  3. plan     UIDs, counters, flags and quotas are worked out here.
  4. write    plain single-row statements, each naming one account.
  5. COMMIT   then views, notices, answers, in this order.
Steps 1 to 5 are one call of a database function where the database is one PostgreSQL (storage/batch_function.py), and
single statements where it is distributed (storage/batch.py); messages tried alone always go by statements.
A batch with a message that was skipped once waits for its accounts, ascending and before anything else, for a moment:
whoever holds them is another batch, as a rule, and soon done. Messages skipped three times get a transaction of their
own on another connection, which takes all their accounts ascending and blocking, under their deadline; meanwhile other
messages wait in no batch with them.

Failures. Before COMMIT: the batch is tried message by message, so that one bad message harms no other. After COMMIT was
sent: unknown, and settled message by message: take the accounts, blocking (the lost transaction holds them until it is
over), and look for the trace id. There: it was committed. Not there: written again. No lock by the deadline:
OutcomeUnknown, and the peer gets no answer. A crash may duplicate what got no answer, never lose what was answered.
What goes wrong after COMMIT was answered changes no answer. However a task ends, no message is left without an answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from storage import content
from storage.batch import WAIT_MILLISECONDS, Pending, StatementBatch, new_message_id
from storage.batch_function import CALL, FunctionBatch, can_write
from storage.blobs import generation
from storage.connect import connect
from storage.content import Message
from storage.errors import OutcomeUnknown, StorageError, Unavailable
from storage.records import MessageId, Placed, Placement
from storage.store import SERVER_SETTINGS, commit, is_unavailable
from storage.tasks import end

if TYPE_CHECKING:
    from storage.store import Store

log = logging.getLogger(__name__)

_DISTRIBUTED = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')"
_SKIPS = 3
_MAX_WAITING = 10_000
_ALONE_AT_ONCE = 8
"""Connections of messages that are tried alone: they must not use up the server's."""


class Committer:
    """The one committing connection of a worker and what waits for it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[Pending] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._conn: Any = None
        self._statements: dict[str, Any] = {}
        self._alone: set[asyncio.Task[None]] = set()
        self._alone_slots = asyncio.Semaphore(_ALONE_AT_ONCE)
        self._task = asyncio.create_task(self._run())
        self._closing = False
        self._by_function = False
        self.batches = 0
        self.messages = 0

    async def close(self) -> None:
        """Writes what waits, bounded by the lock timeout, then closes the connection."""
        self._closing = True
        try:
            async with asyncio.timeout(self._store.config.lock_timeout_seconds):
                while self._waiting or self._alone or not self._idle.is_set():
                    await self._idle.wait()
                    await asyncio.gather(*self._alone, return_exceptions=True)
                    await asyncio.sleep(0)
        except TimeoutError:
            log.warning("%d messages could not be written before the end", len(self._waiting) + len(self._alone))
        await end([self._task, *self._alone])
        while self._waiting:
            self._waiting.popleft().refuse(Unavailable("the server is going down"))
        if self._conn is not None:
            self._conn.terminate()

    async def deliver(
        self,
        message: Message,
        placements: Sequence[Placement],
        *,
        trace_id: UUID,
        quota: str,
        message_id: MessageId | None = None,
    ) -> list[Placed]:
        """Writes one message to all placements or to none, and returns once it is durable.

        message_id: the id that it gets, for those who have to know it beforehand.

        quota "refuse": OverQuota where an account has no room. "share": OverQuota only where none has.
        NotFound: a mailbox or account is gone. LimitReached. Unavailable: surely absent. OutcomeUnknown: say nothing.
        """
        accounts = tuple(sorted({p.account_id for p in placements}))
        ciphers = {account: await self._store.keys.account(account) for account in accounts}
        if self._closing:
            raise Unavailable("the server is going down")
        if len(self._waiting) >= _MAX_WAITING:
            raise Unavailable("too many messages wait to be written")
        deadline = time.monotonic() + self._store.config.lock_timeout_seconds
        answer: asyncio.Future[list[Placed]] = asyncio.get_running_loop().create_future()
        pending = Pending(
            message,
            placements,
            trace_id,
            quota == "share",
            message_id or new_message_id(),
            deadline,
            accounts,
            ciphers,
            answer,
        )
        self._waiting.append(pending)
        self._wake.set()
        return await answer

    async def _run(self) -> None:
        while True:
            self._idle.set()
            await self._wake.wait()
            self._idle.clear()
            self._wake.clear()
            while self._waiting:
                batch = self._next_batch()
                if batch:
                    await self._commit_batch(batch)

    def _next_batch(self) -> list[Pending]:
        batch: list[Pending] = []
        now = time.monotonic()
        while self._waiting and len(batch) < self._store.config.batch_messages:
            pending = self._waiting.popleft()
            if pending.answer.done():
                continue
            if now > pending.deadline:
                pending.refuse(Unavailable("the account stayed locked"))
            else:
                batch.append(pending)
        return batch

    async def _commit_batch(self, batch: list[Pending]) -> None:
        """Writes a batch; every message in it is answered, goes back to wait, or is tried alone."""
        wait = any(pending.skipped == 1 for pending in batch)
        try:
            await self._refresh_blobs(batch)
            done = await self._transaction(batch, wait=wait)
        except asyncpg.LockNotAvailableError:
            done = set()
        except OutcomeUnknown as error:
            log.warning("the answer to COMMIT was lost: %s", error)
            self._drop_connection()
            self._start_alone(batch, self._settle)
            return
        except asyncio.CancelledError:
            self._drop_connection()
            for pending in batch:
                pending.refuse(OutcomeUnknown("the server is going down"))
            raise
        except Exception as error:
            self._failed(batch, error)
            return
        left = [pending for pending in batch if pending not in done]
        for pending in left:
            if pending.skipped or not wait:
                pending.skipped += 1
        alone = [p for p in left if p.skipped >= _SKIPS]
        self._waiting.extendleft(reversed([p for p in left if p not in alone]))
        if alone:
            self._keep(asyncio.create_task(self._write_together(alone)), alone)

    def _failed(self, batch: list[Pending], error: Exception) -> None:
        """The batch surely left nothing behind."""
        if not isinstance(error, StorageError):
            # The connection may be what is wrong: out of step after a time-out, or its plans outdated.
            self._drop_connection()
        if len(batch) == 1 and isinstance(error, StorageError):
            batch[0].refuse(error)
        else:
            self._start_alone(batch, self._write_alone)

    def _start_alone(self, batch: Sequence[Pending], way: Any) -> None:
        """Gives each message a transaction of its own, on another connection, out of every batch."""
        for pending in batch:
            self._keep(asyncio.create_task(way(pending)), [pending])

    def _keep(self, task: asyncio.Task[None], messages: Sequence[Pending]) -> None:
        self._alone.add(task)
        task.add_done_callback(partial(self._ended, messages))

    def _ended(self, messages: Sequence[Pending], task: asyncio.Task[None]) -> None:
        """However a task ends, its messages have an answer, or another task that cares for them."""
        self._alone.discard(task)
        if task.cancelled() or task.exception() is not None:
            for pending in messages:
                pending.refuse(OutcomeUnknown("the attempt was broken off"))

    async def _write_together(self, batch: Sequence[Pending]) -> None:
        """Messages whose accounts others held: one transaction that waits for all of them."""
        left = min(pending.deadline for pending in batch) - time.monotonic()
        try:
            await self._refresh_blobs(batch)
            await self._on_own_connection(batch, max(0.1, left))
        except OutcomeUnknown:
            self._start_alone(batch, self._settle)
        except Exception:
            self._start_alone(batch, self._write_alone)

    async def _write_alone(self, pending: Pending) -> None:
        """Until it is written, refused, or its deadline is over."""
        error: Exception = Unavailable("the account stayed locked")
        while not pending.answer.done():
            left = pending.deadline - time.monotonic()
            if left <= 0:
                pending.refuse(error)
                return
            try:
                await self._refresh_blobs([pending])
                await self._on_own_connection([pending], left)
            except OutcomeUnknown:
                await self._settle(pending)
            except asyncpg.UniqueViolationError as problem:
                error, pending.message_id = problem, new_message_id()
            except (StorageError, ValueError, TypeError) as problem:
                if not isinstance(problem, Unavailable):
                    pending.refuse(problem)
                    return
                error = problem
                await asyncio.sleep(min(0.2, left))
            except Exception as problem:
                if not is_unavailable(problem):
                    pending.refuse(problem)
                    return
                error = Unavailable(f"{type(problem).__name__}: {problem}")
                await asyncio.sleep(min(0.2, left))

    async def _settle(self, pending: Pending) -> None:
        """Finds out what became of a COMMIT whose answer was lost."""
        while not pending.answer.done():
            left = pending.deadline - time.monotonic()
            if left <= 0:
                pending.refuse(OutcomeUnknown("the answer to COMMIT was lost and the account stayed locked"))
                return
            try:
                await self._on_own_connection([pending], left, settle=True)
            except OutcomeUnknown:
                continue
            except Exception as problem:
                if not isinstance(problem, Unavailable) and not is_unavailable(problem):
                    pending.refuse(OutcomeUnknown(str(problem)))
                    return
                await asyncio.sleep(min(0.2, left))

    async def _on_own_connection(self, batch: Sequence[Pending], left: float, *, settle: bool = False) -> None:
        end = time.monotonic() + left
        async with asyncio.timeout(left):
            await self._alone_slots.acquire()
        try:
            await self._alone_transaction(batch, max(0.1, end - time.monotonic()), settle=settle)
        finally:
            self._alone_slots.release()

    async def _alone_transaction(self, batch: Sequence[Pending], left: float, *, settle: bool) -> None:
        """Takes all accounts, waiting for them, before anything else; settle: looks first whether it was written."""
        accounts = sorted({account for pending in batch for account in pending.accounts})
        conn = await connect(self._store.dsn, timeout=left, command_timeout=left, server_settings=SERVER_SETTINGS)
        try:
            session = StatementBatch(self._store, conn, {})
            await conn.execute("BEGIN")
            states = await asyncio.wait_for(session.lock(accounts, wait=True), left)
            if settle and await session.find(batch[0]):
                await conn.execute("ROLLBACK")
                await session.publish()
                return
            await session.write(batch, states)
            await commit(conn, max(1.0, left))
            await session.publish()
        finally:
            conn.terminate()

    async def _transaction(self, batch: list[Pending], *, wait: bool) -> set[Pending]:
        conn = await self._connection()
        if self._by_function and all(map(can_write, batch)):
            return await self._call(conn, batch, wait=wait)
        session = StatementBatch(self._store, conn, self._statements)
        accounts = sorted({account for pending in batch for account in pending.accounts})
        await conn.execute(f"BEGIN; SET LOCAL lock_timeout = {WAIT_MILLISECONDS}" if wait else "BEGIN")
        try:
            states = await session.lock(accounts, wait=wait)
            mine = [pending for pending in batch if all(account in states for account in pending.accounts)]
            if mine:
                await session.write(mine, states)
        except BaseException:
            await self._roll_back(conn)
            raise
        if not mine:
            await self._roll_back(conn)
            return set()
        await commit(conn, self._store.config.lock_timeout_seconds)
        self._count(len(mine))
        await session.publish()
        return set(mine)

    async def _call(self, conn: Any, batch: Sequence[Pending], *, wait: bool) -> set[Pending]:
        """The same by the database's function."""
        call = FunctionBatch(self._store, batch, wait=wait)
        statement = self._statements.get(CALL)
        if statement is None:
            statement = self._statements[CALL] = await conn.prepare(CALL)
        await call.write(conn, statement, self._store.config.lock_timeout_seconds)
        if call.done:
            self._count(len(call.done))
        await call.publish()
        return call.done

    def _count(self, messages: int) -> None:
        self.batches += 1
        self.messages += messages

    async def _refresh_blobs(self, batch: Sequence[Pending]) -> None:
        """Puts blobs again that grew older than the previous generation while their message waited."""
        oldest = generation(time.time()) - 1
        for pending in batch:
            held = pending.message.oldest_generation
            if held is not None and held < oldest:
                await content.put_blobs(self._store, pending.message)

    async def _connection(self) -> Any:
        if self._conn is None or self._conn.is_closed():
            self._drop_connection()
            timeout = self._store.config.lock_timeout_seconds
            self._conn = await connect(
                self._store.dsn, timeout=timeout, command_timeout=timeout, server_settings=SERVER_SETTINGS
            )
            way = self._store.config.group_commit
            distributed = way == "auto" and await self._conn.fetchval(_DISTRIBUTED)
            self._by_function = way != "statements" and not distributed
        return self._conn

    def _drop_connection(self) -> None:
        if self._conn is not None:
            self._conn.terminate()
            self._conn = None
        self._statements = {}

    async def _roll_back(self, conn: Any) -> None:
        try:
            await asyncio.wait_for(conn.execute("ROLLBACK"), 5)
        except Exception:
            self._drop_connection()
