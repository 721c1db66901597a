"""Tokens: JWTs (RFC 7519) of a short life, signed by rotating keys, and taken back by their `jti`.

A token names its account and the account's version: with a new password, a changed role or a disabled account all
tokens from before end, as sessions of other protocols do. Accounts are remembered for seconds, and forgotten as soon as
a change of them is heard of.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import jwt
from aiohttp import web

from admin_api.problems import unauthorized
from storage import Account, AccountId, NotFound, Notice, Store, accounts, tokens
from storage.tokens import SigningKey

if TYPE_CHECKING:
    from config.schema import AuthConfig

ALGORITHM = "HS256"
AUDIENCE = "pillarbox"
MAX_TOKEN = 4096
DAY = 86_400
_KNOWN_SECONDS = 5.0
_KNOWN_ACCOUNTS = 10_000
_RELOAD_SECONDS = 1.0
_CLAIMS = ["exp", "jti", "sub", "ver"]


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who a request comes from. expires: the token's end, epoch seconds."""

    account: Account
    jti: UUID
    expires: float


class Tokens:
    """Issues and checks tokens in one worker."""

    def __init__(self, store: Store, config: AuthConfig) -> None:
        self._store = store
        self._config = config
        self._keys: dict[str, SigningKey] = {}
        self._loaded = float("-inf")
        self._lock = asyncio.Lock()
        self._known: OrderedDict[int, tuple[float, Account]] = OrderedDict()
        self._changes = 0
        self.close = store.changes.listen(self._hear)

    def reconfigure(self, config: AuthConfig) -> None:
        self._config = config

    async def issue(self, account: Account) -> tuple[str, int]:
        """A new token, and for how many seconds it is good."""
        key, seconds, now = await self._signing_key(), self._config.token_seconds, int(time.time())
        claims = {
            "sub": str(account.account_id),
            "ver": account.version,
            "jti": str(uuid4()),
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + seconds,
        }
        return jwt.encode(claims, key.secret, ALGORITHM, headers={"kid": key.kid}), seconds

    async def bearer(self, request: web.Request) -> Bearer:
        """Whose token the request shows (RFC 6750 §2.1). Problem: 401."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("a token is needed: POST /login gives one")
        return await self.check(token.strip())

    async def check(self, token: str) -> Bearer:
        """Problem: 401."""
        claims = await self._claims(token)
        try:
            account_id, jti = AccountId(int(claims["sub"])), UUID(claims["jti"])
            account = await self._account(account_id)
        except (ValueError, AttributeError, TypeError, NotFound):
            raise unauthorized("the token is not good") from None
        if account.status != "active" or account.version != claims["ver"]:
            raise unauthorized("the account was changed since; log in again")
        if await tokens.is_revoked(self._store, account_id, jti):
            raise unauthorized("the token was taken back")
        return Bearer(account, jti, claims["exp"])

    async def revoke(self, bearer: Bearer) -> None:
        await tokens.revoke(self._store, bearer.account.account_id, bearer.jti, bearer.expires)

    async def _claims(self, token: str) -> dict[str, Any]:
        try:
            if len(token) > MAX_TOKEN:
                raise ValueError("too long")
            key = await self._key(str(jwt.get_unverified_header(token).get("kid")))
            claims: dict[str, Any] = jwt.decode(
                token, key.secret, [ALGORITHM], audience=AUDIENCE, options={"require": _CLAIMS, "verify_iat": False}
            )
        except jwt.ExpiredSignatureError:
            raise unauthorized("the token has expired; log in again") from None
        except (jwt.PyJWTError, ValueError, KeyError):
            raise unauthorized("the token is not good") from None
        return claims

    # Keys -------------------------------------------------------------------------------------------------------------

    async def _key(self, kid: str) -> SigningKey:
        """KeyError. Another worker may have made a new one; unknown ones are looked for once a second at most."""
        if kid not in self._keys and time.monotonic() - self._loaded >= _RELOAD_SECONDS:
            async with self._lock:
                await self._load()
        key = self._keys[kid]
        if key.expires <= time.time():
            raise KeyError(kid)
        return key

    async def _signing_key(self) -> SigningKey:
        async with self._lock:
            if not self._signs(self._newest()):
                await self._load()
            key = self._newest()
            if key is None or not self._signs(key):
                # What it signs on its last day is good for a day at most.
                key = await tokens.add_signing_key(self._store, (self._config.token_key_days + 2) * DAY)
                self._keys[key.kid] = key
            return key

    def _newest(self) -> SigningKey | None:
        return max(self._keys.values(), key=lambda key: key.created, default=None)

    def _signs(self, key: SigningKey | None) -> bool:
        """Is it young enough, and will it be known for as long as a token lives?"""
        now = time.time()
        if key is None or now - key.created >= self._config.token_key_days * DAY:
            return False
        return key.expires - now > self._config.token_seconds

    async def _load(self) -> None:
        self._keys = {key.kid: key for key in await tokens.signing_keys(self._store)}
        self._loaded = time.monotonic()

    # Accounts ---------------------------------------------------------------------------------------------------------

    async def _account(self, account_id: AccountId) -> Account:
        """NotFound."""
        known = self._known.get(account_id)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        until, changes = time.monotonic() + _KNOWN_SECONDS, self._changes
        account = await accounts.get(self._store, account_id)
        if changes != self._changes:  # it may have been changed while it was read
            return account
        self._known[account_id] = (until, account)
        self._known.move_to_end(account_id)
        if len(self._known) > _KNOWN_ACCOUNTS:
            self._known.popitem(last=False)
        return account

    def _hear(self, notice: Notice) -> None:
        self._changes += notice.kind in ("resync", "account")
        if notice.kind == "resync" or (notice.kind == "account" and not notice.account_id):
            self._known.clear()
        elif notice.kind == "account":
            self._known.pop(notice.account_id, None)
