"""How a message that is being accepted gets to who sends: by its rows, and in the same process by hand.

Its rows in the queue are what counts. Where this process sends, too, and has room for one more, the rows are written
with a lease of its own, and once they are durable it is handed the octets, which it then need not read back. Otherwise
the rows lie free, and the change feed says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from storage import MessageId, Outgoing
from storage.batch import new_message_id


@dataclass(frozen=True, slots=True)
class Offer:
    """A message that is being written. outgoing: as it goes into the queue."""

    outgoing: Outgoing
    queue_id: MessageId
    trace_id: UUID
    octets: bytes


class LocalSender(Protocol):
    """The part of this process that sends."""

    def reserve(self, outgoing: Outgoing, octets: int) -> Outgoing | None:
        """With a lease, where it would be sent at once; room for it is kept until one of the other two is called."""

    def send(self, offer: Offer) -> None:
        """It is durable."""

    def forget(self, offer: Offer) -> None:
        """It was not accepted, or nobody knows."""


class Outbox:
    """act_seconds: age at which one who waits needs attention. sender: None where this process does not send."""

    def __init__(self, act_seconds: float) -> None:
        self.act_seconds = act_seconds
        self.sender: LocalSender | None = None

    @contextmanager
    def offer(
        self,
        outgoing: Outgoing,
        octets: bytes,
        trace_id: UUID,
        message_id: MessageId | None,
        *,
        repeated: bool = False,
    ) -> Iterator[Offer]:
        """Around the writing of its rows: handed over where that ends well.

        repeated: it may have been written before, with a lease of somebody else, so nothing is handed over.
        """
        outgoing = replace(outgoing, act_seconds=self.act_seconds)
        sender = None if repeated else self.sender
        reserved = sender.reserve(outgoing, len(octets)) if sender is not None else None
        queue_id = MessageId(new_message_id()) if message_id is None else message_id
        offer = Offer(reserved or outgoing, queue_id, trace_id, octets)
        if sender is None or reserved is None:
            yield offer
            return
        try:
            yield offer
        except BaseException:
            sender.forget(offer)
            raise
        sender.send(offer)


NOBODY_SENDS = Outbox(act_seconds=4 * 3600)
"""For processes that do not send, and have no settings: commands."""
