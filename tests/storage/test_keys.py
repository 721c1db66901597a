from __future__ import annotations

import pytest

from storage.errors import Damaged, NotFound
from storage.keys import Keys
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, OpenStore


async def test_each_account_has_a_key_of_its_own(store: Store) -> None:
    alice, bob = await store.keys.account(ALICE), await store.keys.account(BOB)
    sealed = alice.encrypt(b"n" * 12, b"x", None)
    assert bob.encrypt(b"n" * 12, b"x", None) != sealed
    assert await store.keys.account(ALICE) is alice


async def test_another_worker_reads_the_same_key(store: Store, open_store: OpenStore) -> None:
    other = await open_store()
    sealed = (await store.keys.account(ALICE)).encrypt(b"n" * 12, b"x", None)
    assert (await other.keys.account(ALICE)).decrypt(b"n" * 12, sealed, None) == b"x"


async def test_absent_account_and_wrong_master_key(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.keys.account(99)
    with pytest.raises(Damaged):
        await Keys(store, b"i" * 32, b"other" * 8).account(ALICE)


def test_hashes_depend_on_the_install_key() -> None:
    one, two = (Keys(None, key * 32, b"m" * 32) for key in (b"1", b"2"))  # type: ignore[arg-type]
    assert one.blob_hash(b"x") == one.blob_hash(b"x") != two.blob_hash(b"x")
    assert one.msgid_hash(1, b"a@b") == one.msgid_hash(1, b"a@b") != one.msgid_hash(2, b"a@b")
    assert 0 <= one.msgid_hash(1, b"a@b") < 2**63
