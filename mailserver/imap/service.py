"""What all IMAP sessions of a worker share: settings, store, logins, limits, and what they remember together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from mailserver.imap.kept_fields import KeptFields
from mailserver.imap.sections import Kept
from mailserver.imap.texts import KeptTexts
from mailserver.imap.view import Memo
from mailserver.protocols.imap.framing import Limits as FramingLimits

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from config.schema import Config
    from mailserver.login import Logins
    from mailserver.net.deadlines import Deadlines
    from mailserver.net.limits import Limits
    from mailserver.net.sessions import Sessions
    from storage import Store
    from storage.views import MailboxView

_COMMAND_BEFORE_LOGIN = 16_384
_SKIP_BEFORE_LOGIN = 262_144
_APPENDS_SKIPPED = 2
"""A message over the limit is read and thrown away up to so many times the limit, then the session ends."""


class Memory(Protocol):
    """The worker's memory for messages that are being received."""

    def take(self, octets: int) -> bool:
        """Takes so much; False, and nothing taken, where it is not there."""

    def give(self, octets: int) -> None:
        """Gives it back."""


class Service:
    """One worker's IMAP. tls: the context of new connections, None where there is no certificate."""

    def __init__(
        self,
        config: Config,
        store: Store,
        logins: Logins,
        *,
        limits: Limits,
        sessions: Sessions,
        deadlines: Deadlines,
        memory: Memory,
        tls: Callable[[], ssl.SSLContext] | None,
    ) -> None:
        self.store = store
        self.logins = logins
        self.limits = limits
        self.sessions = sessions
        self.deadlines = deadlines
        self.memory = memory
        self.tls = tls
        self.separator = config.mail.separator
        self.loopback_auth = config.server.insecure_loopback_auth
        self.connections = limits.connections(config.imap.max_connections, kind="imap")
        self.before_login = FramingLimits(_COMMAND_BEFORE_LOGIN, 0, _SKIP_BEFORE_LOGIN)
        self.kept = Kept()
        self.texts = KeptTexts(0)
        self.fields = KeptFields(0)
        self._divide(config.imap.text_memory_mib << 20)
        self.thread = asyncio.Semaphore(1)
        """For long work in a thread. Several at once would be no faster, and the event loop would wait for them all."""
        self._memos: WeakValueDictionary[tuple[int, int], Memo] = WeakValueDictionary()
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Other settings from now on; the size of commands is that of the settings at a session's login."""
        self.config = config.imap
        self.connections.total = config.imap.max_connections
        self._divide(config.imap.text_memory_mib << 20)
        append = config.max_append_octets
        self.after_login = FramingLimits(config.imap.max_command_octets, append, _APPENDS_SKIPPED * append)

    def _divide(self, octets: int) -> None:
        """The memory for ready-made texts."""
        self.fields.octets = octets // 4
        self.texts.octets = octets - self.fields.octets

    def memo(self, view: MailboxView) -> Memo:
        """The one memo of a mailbox; it lasts as long as a session has the mailbox selected."""
        key = (view.account_id, view.mailbox_id)
        memo = self._memos.get(key)
        if memo is None:
            memo = self._memos[key] = Memo()
        return memo
