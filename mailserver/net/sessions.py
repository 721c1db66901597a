"""The sessions of each account in this worker, so that they can be ended, and counted for the node (tally.py).

Who disables an account, changes its password or removes it has its sessions ended here, in each worker by way of the
change feed. A login that was being checked at that moment is not registered yet: it takes a `mark` before the check,
and is refused where the account's sessions were ended since.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Protocol

from mailserver.net import tally
from mailserver.net.tally import Share

log = logging.getLogger(__name__)

_REMEMBERED = 1000


class Session(Protocol):
    def end(self, reason: str) -> None:
        """Says goodbye in the protocol's own words and closes; must not block."""


class Sessions:
    def __init__(self, share: Share | None = None) -> None:
        self._share = share or tally.alone()
        self._by_account: dict[int, set[Session]] = {}
        self._endings = 0
        self._ended: deque[int] = deque(maxlen=_REMEMBERED)  # accounts, the latest last

    def mark(self) -> int:
        """A moment, for `add`."""
        return self._endings

    def add(self, account_id: int, session: Session, since: int | None = None) -> bool:
        """Registers a session; False, and not registered, where the account's sessions were ended since that mark."""
        if since is not None and self._ended_since(account_id, since):
            return False
        sessions = self._by_account.setdefault(account_id, set())
        if session not in sessions:
            sessions.add(session)
            self._share.add(f"account {account_id}")
        return True

    def remove(self, account_id: int, session: Session) -> None:
        sessions = self._by_account.get(account_id)
        if sessions is not None and session in sessions:
            sessions.remove(session)
            self._share.remove(f"account {account_id}")
            if not sessions:
                del self._by_account[account_id]

    def count(self, account_id: int) -> int:
        """Its sessions on this node."""
        return len(self._by_account.get(account_id, ())) + self._share.elsewhere(f"account {account_id}")

    def accounts(self) -> tuple[int, ...]:
        """Those with at least one session here."""
        return tuple(self._by_account)

    def end(self, account_id: int, reason: str) -> int:
        """Ends all sessions of the account in this worker; how many there were."""
        self._endings += 1
        self._ended.append(account_id)
        sessions = tuple(self._by_account.get(account_id, ()))
        for session in sessions:
            try:
                session.end(reason)
            except Exception:
                log.exception("a session could not be ended account=%s", account_id)
        return len(sessions)

    def _ended_since(self, account_id: int, mark: int) -> bool:
        count = self._endings - mark
        if count > len(self._ended):
            return True  # too many to remember: rather once too often
        return account_id in list(self._ended)[len(self._ended) - count :]
