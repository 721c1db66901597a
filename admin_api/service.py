"""What all routes of one worker share."""

from __future__ import annotations

from typing import Protocol

from admin_api.auth import Tokens
from config.schema import Config
from mailserver.delivery.outbox import NOBODY_SENDS, Outbox
from mailserver.delivery.route import Routes
from mailserver.login import Logins
from storage import Store


class Memory(Protocol):
    """The worker's memory for messages that come and go."""

    def take(self, octets: int) -> bool:
        """Counts so many octets; False, and nothing counted, where there is no room."""

    def give(self, octets: int) -> None: ...


class Api:
    def __init__(
        self, config: Config, store: Store, logins: Logins, memory: Memory, outbox: Outbox = NOBODY_SENDS
    ) -> None:
        self.config = config
        self.store = store
        self.logins = logins
        self.memory = memory
        self.outbox = outbox
        self.routes = Routes(store)
        self.tokens = Tokens(store, config.auth)

    def reconfigure(self, config: Config) -> None:
        """Other settings from now on."""
        self.config = config
        self.tokens.reconfigure(config.auth)

    def close(self) -> None:
        self.tokens.close()
