"""Where a recipient leads and whether there is room: what must be known when a recipient is named.

A recipient is refused then and never bounced later. Room is looked up ahead of the message where its size was
announced; the count that binds is made under the lock when the message is written. So what is known of an account's
room may be some seconds old while there is plenty of it, and is read anew where it gets tight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

from storage import AccountId, LimitReached, OverQuota, Quota, Store, account_state, directory, queue
from storage.directory import Resolved

QUOTA_SECONDS = 10.0
QUEUED_SECONDS = 5.0
MAX_REMEMBERED = 20_000


class Routes:
    """The directory and the quotas of one worker."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = monotonic) -> None:
        self._store = store
        self._clock = clock
        self._queued: dict[AccountId, tuple[float, int]] = {}
        self._quotas: dict[AccountId, tuple[float, Quota]] = {}

    async def find(self, address: str) -> Resolved:
        """The accounts of an address of ours. `postmaster` alone is the administrator's. LimitReached, Unavailable."""
        return await directory.resolve(self._store, address)

    async def check_room(self, account_id: AccountId, octets: int) -> None:
        """OverQuota where a message of this size would not fit."""
        kept = self._quotas.get(account_id)
        if kept is None or kept[0] <= self._clock() or not _plenty(kept[1], octets):
            # A task of its own: asyncpg's time limits need one, and the caller may be run without.
            quota = await asyncio.ensure_future(account_state.quota(self._store, account_id))
            self._remember(account_id, quota)
        else:
            quota = kept[1]
        if quota.quota_octets and octets > quota.quota_octets:
            raise OverQuota(never=True)
        if not _fits(quota, octets):
            raise OverQuota

    async def check_queue(self, account_id: AccountId, most: int) -> None:
        """LimitReached where so many messages of the account, or more, wait to be sent; 0 is no limit."""
        kept = self._queued.get(account_id)
        if most and (kept is None or kept[0] <= self._clock()):
            count = await asyncio.ensure_future(queue.waiting(self._store, account_id, most))
            if len(self._queued) >= MAX_REMEMBERED:
                self._queued.clear()
            kept = self._queued[account_id] = (self._clock() + QUEUED_SECONDS, count)
        if most and kept is not None and kept[1] >= most:
            raise LimitReached(f"{most} messages wait to be sent")

    def _remember(self, account_id: AccountId, quota: Quota) -> None:
        if len(self._quotas) >= MAX_REMEMBERED:
            self._quotas.clear()
        self._quotas[account_id] = (self._clock() + QUOTA_SECONDS, quota)


def _fits(quota: Quota, octets: int) -> bool:
    if quota.quota_octets and quota.used_octets + octets > quota.quota_octets:
        return False
    return not (quota.quota_messages and quota.used_messages >= quota.quota_messages)


def _plenty(quota: Quota, octets: int) -> bool:
    """Is an old count good enough? Where a tenth of the quota, or ten such messages, would still fit."""
    octets = max(10 * octets, quota.quota_octets // 10)
    messages = max(100, quota.quota_messages // 10)
    if quota.quota_octets and quota.used_octets + octets > quota.quota_octets:
        return False
    return not (quota.quota_messages and quota.used_messages + messages > quota.quota_messages)
