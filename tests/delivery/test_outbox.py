"""Handing a message over to who sends: only once it is durable, and only where there was room for it."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import pytest

from mailserver.delivery.outbox import Offer, Outbox
from storage import AccountId, MessageId, Outgoing, OutgoingRecipient
from storage.records import Lease

OUT = Outgoing(AccountId(1), "me@example.org", (OutgoingRecipient("x@remote.test", "remote.test"),))


class Someone:
    def __init__(self, *, has_room: bool = True) -> None:
        self.has_room = has_room
        self.sent: list[Offer] = []
        self.forgotten: list[Offer] = []

    def reserve(self, outgoing: Outgoing, octets: int) -> Outgoing | None:
        return replace(outgoing, lease=Lease(uuid4(), 1.0)) if self.has_room else None

    def send(self, offer: Offer) -> None:
        self.sent.append(offer)

    def forget(self, offer: Offer) -> None:
        self.forgotten.append(offer)


def test_it_is_sent_once_it_is_durable() -> None:
    outbox = Outbox(50.0)
    outbox.sender = someone = Someone()
    trace_id = uuid4()
    with outbox.offer(OUT, b"octets", trace_id, MessageId(7)) as offer:
        assert offer.outgoing.lease is not None and offer.outgoing.act_seconds == 50.0
        assert someone.sent == []
    assert someone.sent == [offer] == [Offer(offer.outgoing, MessageId(7), trace_id, b"octets")]
    assert someone.forgotten == []


def test_it_is_forgotten_where_it_was_not_accepted() -> None:
    outbox = Outbox(50.0)
    outbox.sender = someone = Someone()
    with pytest.raises(OSError), outbox.offer(OUT, b"", uuid4(), None) as offer:
        raise OSError
    assert someone.sent == [] and someone.forgotten == [offer]


@pytest.mark.parametrize("someone", [None, Someone(has_room=False)])
def test_else_it_lies_in_the_queue_for_anybody(someone: Someone | None) -> None:
    outbox = Outbox(50.0)
    outbox.sender = someone
    with outbox.offer(OUT, b"", uuid4(), None) as offer:
        assert offer.outgoing == replace(OUT, act_seconds=50.0)
    assert someone is None or someone.sent == someone.forgotten == []
