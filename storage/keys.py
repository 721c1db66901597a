"""Keys of content at rest: one per account, wrapped by the master key, and what derives from the install key.

An account's contents are sealed by AES-256-GCM under a random key of its own, which account_state holds wrapped by the
master key: to remove the key is to remove the contents. Blobs are named by HMAC-SHA-256(install key, content), so equal
attachments meet and nobody outside can tell from a name what it holds; a blob's sealing key derives from its name in
the same way.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from storage.errors import Damaged, NotFound

if TYPE_CHECKING:
    from storage.store import Store

NONCE = 12
_MAX_ACCOUNTS = 10_000
_WRAPPED = "SELECT content_key FROM account_state WHERE account_id = $1"


class Keys:
    """The keys of one process; accounts' keys are read once and kept (the newest 10,000)."""

    def __init__(self, store: Store, install_key: bytes, master_key: bytes) -> None:
        self._store = store
        self._install = install_key
        self._master = AESGCM(hashlib.sha256(b"pillarbox content keys" + master_key).digest())
        self._accounts: dict[int, AESGCM] = {}

    def new_content_key(self, account_id: int) -> bytes:
        """A random account key, wrapped."""
        nonce = os.urandom(NONCE)
        return nonce + self._master.encrypt(nonce, AESGCM.generate_key(256), _label(account_id))

    async def account(self, account_id: int) -> AESGCM:
        """The account's cipher. NotFound; Damaged where the master key is not the one it was wrapped by."""
        cipher = self._accounts.get(account_id)
        if cipher is None:
            async with self._store.acquire() as conn:
                wrapped = await conn.fetchval(_WRAPPED, account_id)
            if wrapped is None:
                raise NotFound(f"account {account_id}")
            cipher = self._unwrap(account_id, wrapped)
            if len(self._accounts) >= _MAX_ACCOUNTS:
                del self._accounts[next(iter(self._accounts))]
            self._accounts[account_id] = cipher
        return cipher

    @property
    def instance(self) -> str:
        """By which the nodes of one installation know each other: the same for all, chance to everybody else."""
        return hmac.digest(self._install, b"instance", "sha256").hex()[:16]

    def _unwrap(self, account_id: int, wrapped: bytes) -> AESGCM:
        try:
            return AESGCM(self._master.decrypt(wrapped[:NONCE], wrapped[NONCE:], _label(account_id)))
        except InvalidTag as error:
            raise Damaged(
                f"the master key is not the one that the key of account {account_id} was wrapped by"
            ) from error

    def sealed(self, secret: bytes, label: bytes) -> bytes:
        """A secret of the installation as it is stored: it opens under the same label and master key only."""
        nonce = os.urandom(NONCE)
        return nonce + self._master.encrypt(nonce, secret, label)

    def unsealed(self, stored: bytes, label: bytes) -> bytes:
        """Damaged."""
        try:
            return self._master.decrypt(stored[:NONCE], stored[NONCE:], label)
        except (InvalidTag, ValueError) as error:
            raise Damaged(f"the {label.decode()} does not open under the master key") from error

    def blob_hash(self, content: bytes) -> bytes:
        """32 octets that name a blob's content to us alone."""
        return hmac.digest(self._install, hashlib.sha256(content).digest(), "sha256")

    def blob_cipher(self, blob_hash: bytes) -> AESGCM:
        return AESGCM(hmac.digest(self._install, b"seal" + blob_hash, "sha256"))

    def msgid_hash(self, account_id: int, msgid: bytes) -> int:
        """A keyed 63-bit hash of a Message-ID."""
        digest = hashlib.blake2b(msgid, digest_size=8, key=self._install[:32], salt=account_id.to_bytes(16, "big"))
        return int.from_bytes(digest.digest(), "big") >> 1


def _label(account_id: int) -> bytes:
    return b"account %d" % account_id
