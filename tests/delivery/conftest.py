from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage import AccountId, Store, mailboxes
from tests.receiving.tools import open_store


@pytest.fixture
async def store(database: str, tmp_path: Path) -> AsyncIterator[Store]:
    """A store with accounts 1 and 2."""
    store = await open_store(database, tmp_path)
    for account in (1, 2):
        await mailboxes.create_account_state(store, AccountId(account))
    yield store
    await store.close()
