"""One password check for every protocol.

A check costs an Argon2id computation, so it is done in few threads, behind a bounded queue, once for all callers that
ask for the same at the same time; a right password is remembered for a while under a keyed hash. What is hashed
includes the account's version and stored hash, read afresh for each check: a password that was changed, or an account
that was disabled, is never let in from memory, whether or not a notice has arrived.

Nobody learns from a refusal, or from the time it takes, whether the user exists: an unknown or locked name costs the
same computation, and only the right password is told that its account is disabled. (A hash that was imported takes
its own time until its first login replaces it.)

Guessing is throttled per address and per account. The address counts first. An account that is under attack stays
open to addresses from which its owner has logged in lately, so that an attacker cannot lock the owner out. At most as
many guesses run at a time as may fail. Counting is per worker. Trusted networks are exempt from throttles, not from
passwords. Registrations are counted per address in the same way.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from config.schema import AuthConfig
from mailserver import passwords
from mailserver.net.limits import FailureWindow, Limits, address_key
from storage import Account, AccountId, StorageError, Store, accounts
from storage.records import Login

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)

MAX_WAITING = 200
"""Checks that may wait for a thread; the next is told to come back."""

BUSY_SECONDS = 5.0
MAX_REMEMBERED = 20_000
OWNER_SECONDS = 86_400.0
"""How long an address counts as one that the owner uses."""


class LoginFailed(Exception):
    """No such user, or not this password."""


class LoginDisabled(LoginFailed):
    """The right password of a disabled account."""


class Throttled(LoginFailed):
    """Too many failures, or too many checks at once: try again after `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"try again in {retry_after:.0f} s")
        self.retry_after = retry_after


class Logins:
    """Checks passwords in one worker."""

    def __init__(
        self, store: Store, config: AuthConfig, limits: Limits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._limits = limits
        self._hasher = hasher(config)
        self._decoy = self._hasher.decoy()
        self._pool = _Pool(config.argon2_threads)
        self._peers = _Throttle(config.max_failures_per_address, config.throttle_seconds, clock)
        self._accounts = _Throttle(config.max_failures_per_account, config.throttle_seconds, clock)
        self._newcomers = FailureWindow(config.max_registrations_per_address, config.throttle_seconds, clock=clock)
        self._right = _Memory(config.cache_seconds, clock)
        self._owners = _Memory(OWNER_SECONDS, clock)
        self._running: dict[bytes, asyncio.Task[bool]] = {}
        self._secret = secrets.token_bytes(32)

    async def check(self, name: str, password: str, *, peer: str, service: str) -> Account:
        """The account of a username or address, if this is its password.

        LoginFailed, LoginDisabled, Throttled; storage.Unavailable where the database does not answer.
        """
        try:
            account = await self._check(name, password, peer)
        except LoginFailed as refusal:
            log.info("login refused service=%s peer=%s name=%r: %s", service, peer, name[:256], _reason(refusal))
            raise
        log.info("login service=%s peer=%s account=%s", service, peer, account.account_id)
        return account

    async def hash_new(self, password: str, *, peer: str) -> str:
        """The hash for an account that somebody registers. Throttled: too many from this address; ValueError."""
        if not self._limits.is_trusted(peer):
            key = address_key(peer)
            blocked = self._newcomers.blocked_for(key)
            if blocked > 0:
                raise Throttled(blocked)
            self._newcomers.failed(key)
        return await self._pool.run(self._hasher.hash, password)

    def weakness(self, password: str, own: Iterable[str]) -> str | None:
        """Why users may not choose this password; own: names that belong to the account."""
        return self._hasher.weakness(password, own)

    def forget(self, account_id: AccountId) -> None:
        """Drops what is remembered of an account; 0: of all."""
        self._right.drop(account_id)
        self._owners.drop(account_id)

    def reconfigure(self, config: AuthConfig) -> None:
        """Other settings from now on, but for argon2_threads; what was counted and remembered stays so."""
        self._hasher = hasher(config)
        self._decoy = self._hasher.decoy()
        self._peers.set_bounds(config.max_failures_per_address, config.throttle_seconds)
        self._accounts.set_bounds(config.max_failures_per_account, config.throttle_seconds)
        self._newcomers.limit, self._newcomers.seconds = config.max_registrations_per_address, config.throttle_seconds
        self._right.set_seconds(config.cache_seconds)

    def close(self) -> None:
        self._pool.close()

    async def _check(self, name: str, password: str, peer: str) -> Account:
        attempt = _Attempt(address_key(peer), not self._limits.is_trusted(peer))
        if attempt.guarded:
            self._peers.refuse_blocked(attempt.peer)
        attempt.login = await accounts.find_login(self._store, name)
        key = self._key(attempt.login, name, password)
        owner = self._key_of_owner(attempt)
        attempt.by_owner = owner is not None and self._owners.holds(owner)
        attempt.account = str(attempt.login.account.account_id) if attempt.login else "name " + name.lower()[:256]
        if attempt.guarded and not attempt.by_owner:
            self._accounts.refuse_blocked(attempt.account)
        if not self._right.holds(key) and not await self._verify_once(key, attempt, password):
            raise LoginFailed("wrong name or password")
        assert attempt.login is not None
        account = attempt.login.account
        if owner is not None:
            self._owners.add(owner, account.account_id)
        if account.status != "active":
            raise LoginDisabled("the account is disabled")
        return account

    def _key(self, login: Login | None, name: str, password: str) -> bytes:
        """What a check is known by; the secret keeps it useless to whoever reads our memory from a dump."""
        if login is None:
            parts = ["", name]
        else:
            parts = [str(login.account.account_id), str(login.account.version), login.password_hash or ""]
        return self._digest([*parts, password])

    def _key_of_owner(self, attempt: _Attempt) -> bytes | None:
        if attempt.login is None:
            return None
        return self._digest([str(attempt.login.account.account_id), attempt.peer])

    def _digest(self, parts: list[str]) -> bytes:
        text = "\0".join(f"{len(part)}:{part}" for part in parts)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=16).digest()

    async def _verify_once(self, key: bytes, attempt: _Attempt, password: str) -> bool:
        """Checks asking the same thing at the same time share one computation; it is one guess."""
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.ensure_future(self._verify(key, attempt, password))
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(task)

    async def _verify(self, key: bytes, attempt: _Attempt, password: str) -> bool:
        async with AsyncExitStack() as gates:
            if attempt.guarded:
                await gates.enter_async_context(self._peers.attempt(attempt.peer))
                if not attempt.by_owner:
                    await gates.enter_async_context(self._accounts.attempt(attempt.account))
            right = await self._compute(attempt.login, password)
            if attempt.guarded and not right:
                self._peers.failed(attempt.peer)
                self._accounts.failed(attempt.account)
        if right and attempt.login is not None:
            self._accounts.succeeded(attempt.account)
            await self._first_login(attempt.login, password)
            self._right.add(key, attempt.login.account.account_id)
        return right

    async def _compute(self, login: Login | None, password: str) -> bool:
        stored = login.password_hash if login else None
        if stored is None or passwords.too_long(password):
            await self._pool.run(passwords.verify, self._decoy, "")
            return False
        return await self._pool.run(passwords.verify, stored, password)

    async def _first_login(self, login: Login, password: str) -> None:
        """What a fresh login makes good: a foreign or old hash, mailboxes that a crash left unmade."""
        account_id, stored = login.account.account_id, login.password_hash
        try:
            if stored is not None and self._hasher.needs_rehash(stored):
                new = await self._pool.run(self._hasher.hash, password)
                await accounts.replace_hash(self._store, account_id, stored, new)
            await accounts.ensure_state(self._store, account_id)
        except (StorageError, Throttled) as error:
            log.warning("after login account=%s: %s", account_id, error)


def hasher(config: AuthConfig) -> passwords.Hasher:
    """Hashes as the settings ask."""
    return passwords.Hasher(config.argon2_memory_kib, config.argon2_time, config.min_password_length)


def _reason(refusal: LoginFailed) -> str:
    return "throttled" if isinstance(refusal, Throttled) else str(refusal)


@dataclass(slots=True)
class _Attempt:
    """One check on its way: from where, to which account, and whether throttles count."""

    peer: str
    guarded: bool
    login: Login | None = None
    account: str = ""
    by_owner: bool = False


class _Pool:
    """Few threads behind a bounded queue."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="password")
        self._bound = threads + MAX_WAITING
        self._inside = 0

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self._inside >= self._bound:
            raise Throttled(BUSY_SECONDS)
        self._inside += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))
        future.add_done_callback(self._leave)
        return await future

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _leave(self, _: object) -> None:
        self._inside -= 1


class _Throttle:
    """Failures per key, and no more guesses at a time than may fail."""

    @dataclass(slots=True)
    class _Gate:
        places: asyncio.Semaphore
        users: int = field(default=0)

    def __init__(self, limit: int, seconds: float, clock: Callable[[], float]) -> None:
        self._window = FailureWindow(limit, seconds, clock=clock)
        self._gates: dict[str, _Throttle._Gate] = {}

    def set_bounds(self, limit: int, seconds: float) -> None:
        self._window.limit, self._window.seconds = limit, seconds

    def refuse_blocked(self, key: str) -> None:
        blocked = self._window.blocked_for(key)
        if blocked > 0:
            raise Throttled(blocked)

    @asynccontextmanager
    async def attempt(self, key: str) -> AsyncIterator[None]:
        """Waits for a place; Throttled where those before have used up what may fail."""
        gate = self._gates.setdefault(key, self._Gate(asyncio.Semaphore(self._window.limit)))
        gate.users += 1
        try:
            async with gate.places:
                self.refuse_blocked(key)
                yield
        finally:
            gate.users -= 1
            if not gate.users:
                del self._gates[key]

    def failed(self, key: str) -> None:
        self._window.failed(key)

    def succeeded(self, key: str) -> None:
        self._window.forget(key)


class _Memory:
    """Keys remembered for some seconds, each for an account; bounded, the oldest go first."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until: dict[bytes, tuple[float, int]] = {}

    def set_seconds(self, seconds: float) -> None:
        """Nothing is remembered longer than by both the old and the new one."""
        soonest = self._clock() + seconds
        self._seconds = seconds
        self._until = {key: (min(until, soonest), account_id) for key, (until, account_id) in self._until.items()}

    def holds(self, key: bytes) -> bool:
        kept = self._until.get(key)
        return kept is not None and kept[0] > self._clock()

    def add(self, key: bytes, account_id: int) -> None:
        if self._seconds <= 0:
            return
        self._until.pop(key, None)
        if len(self._until) >= MAX_REMEMBERED:
            del self._until[next(iter(self._until))]
        self._until[key] = (self._clock() + self._seconds, account_id)

    def drop(self, account_id: int) -> None:
        """0: everything."""
        self._until = {key: kept for key, kept in self._until.items() if account_id and kept[1] != account_id}
