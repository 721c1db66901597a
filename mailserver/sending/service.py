"""The `send` role of a worker, put together: the sender, who makes reports, and their settings."""

from __future__ import annotations

from collections.abc import Sequence

from config.schema import Config
from mailserver.delivery.outbox import Outbox
from mailserver.sending import ways
from mailserver.sending.reporter import Reporter
from mailserver.sending.sender import Sender
from storage import Notice, Store


class Sending:
    """listening: addresses and ports of our SMTP listeners; workers: how many the node has."""

    def __init__(
        self,
        config: Config,
        store: Store,
        outbox: Outbox,
        listening: Sequence[tuple[str, int]] = (),
        workers: int = 1,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._listening = listening
        self._config = config
        self._resolver = ways.resolver(config)
        self.reporter = Reporter(store, config, outbox)
        self.sender = Sender(store, self._ways(), self._resolver, config.send, workers=workers, told=self.reporter.look)
        outbox.sender = self.sender

    def _ways(self) -> ways.Ways:
        return ways.of_config(self._config, self._listening, self._store.keys.instance)

    def reconfigure(self, config: Config) -> None:
        """Other settings for what is begun from now on."""
        self._config = config
        self._resolver = ways.resolver(config)
        self.sender.reconfigure(self._ways(), self._resolver, config.send)
        self.reporter.reconfigure(config)

    def hear(self, notice: Notice) -> None:
        self.sender.hear(notice)

    async def close(self, seconds: float) -> None:
        """Takes on no more, and lets what was begun come to an end, for so many seconds."""
        self._outbox.sender = None
        await self.sender.close(seconds)
        await self.reporter.close()
        await self._resolver.close()
