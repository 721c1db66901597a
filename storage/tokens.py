"""What stands behind the tokens of the API: the keys that sign them, and the tokens that were taken back.

A signing key is random, sealed by the master key, and the same for all nodes. The newest one signs; after a while
another one is made, and the older ones are kept until no token of theirs can be of use any more.

A token is good until it expires unless its `jti` stands in `revoked_tokens`. That answer is cached in Redis: "revoked"
for as long as the token would live, "good" for some seconds and never over "revoked". Without Redis the database is
asked each time. Where Redis breaks in the very moment of a revocation, a "good" from before may count for those
seconds.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from storage.records import AccountId
    from storage.store import Store

SECRET_OCTETS = 32
GOOD_SECONDS = 10

_GOOD, _REVOKED = b"0", b"1"

_KEYS = "SELECT kid, secret, created_at, expires_at FROM signing_keys WHERE expires_at > $1 ORDER BY created_at, kid"
_ADD_KEY = "INSERT INTO signing_keys (kid, secret, created_at, expires_at) VALUES ($1, $2, $3, $4)"
_DROP_KEYS = "DELETE FROM signing_keys WHERE expires_at < $1"
_REVOKE = """
INSERT INTO revoked_tokens (account_id, jti, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING
"""
_IS_REVOKED = "SELECT EXISTS (SELECT FROM revoked_tokens WHERE account_id = $1 AND jti = $2)"
_WITH_EXPIRED = "SELECT DISTINCT account_id FROM revoked_tokens WHERE expires_at < $1 LIMIT 1000"
_DROP_EXPIRED = "DELETE FROM revoked_tokens WHERE account_id = $1 AND expires_at < $2"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """created, expires: epoch seconds; from `expires` on nothing that it has signed is of use."""

    kid: str
    secret: bytes
    created: float
    expires: float


async def signing_keys(store: Store) -> Sequence[SigningKey]:
    """All that still count, the newest last. Damaged: one does not open under the master key."""
    async with store.acquire() as conn:
        rows = await conn.fetch(_KEYS, datetime.now(UTC))
    return [
        SigningKey(
            row["kid"],
            store.keys.unsealed(row["secret"], _label(row["kid"])),
            row["created_at"].timestamp(),
            row["expires_at"].timestamp(),
        )
        for row in rows
    ]


async def add_signing_key(store: Store, seconds: float) -> SigningKey:
    """A new key that counts for so long. Two workers may make one at the same time: then there are two."""
    now = time.time()
    made = SigningKey(secrets.token_hex(8), os.urandom(SECRET_OCTETS), now, now + seconds)
    sealed = store.keys.sealed(made.secret, _label(made.kid))
    async with store.acquire() as conn:
        await conn.execute(_ADD_KEY, made.kid, sealed, _moment(made.created), _moment(made.expires))
    return made


async def revoke(store: Store, account_id: AccountId, jti: UUID, expires: float) -> None:
    """The token is refused from now on, on all nodes. expires: its own end, epoch seconds."""
    async with store.acquire() as conn:
        await conn.execute(_REVOKE, account_id, jti, _moment(expires))
    await store.cache.put(_key(account_id, jti), _REVOKED, max(GOOD_SECONDS, int(expires - time.time()) + 1))


async def is_revoked(store: Store, account_id: AccountId, jti: UUID) -> bool:
    known = await store.cache.get(_key(account_id, jti))
    if known is not None:
        return known == _REVOKED
    async with store.acquire() as conn:
        revoked = bool(await conn.fetchval(_IS_REVOKED, account_id, jti))
    # Never over the other: whoever revoked it meanwhile has said so.
    await store.cache.put_new(_key(account_id, jti), _REVOKED if revoked else _GOOD, GOOD_SECONDS)
    return revoked


async def drop_expired(store: Store) -> None:
    """For housekeeping: what has no use any more goes."""
    now = datetime.now(UTC)
    async with store.acquire() as conn:
        await conn.execute(_DROP_KEYS, now)
        while rows := await conn.fetch(_WITH_EXPIRED, now):
            for (account_id,) in rows:
                await conn.execute(_DROP_EXPIRED, account_id, now)


def _key(account_id: int, jti: UUID) -> str:
    return f"token:{account_id}:{jti}"


def _label(kid: str) -> bytes:
    return f"signing key {kid}".encode()


def _moment(epoch: float) -> datetime:
    return datetime.fromtimestamp(epoch, UTC)
