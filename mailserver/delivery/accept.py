"""The one door by which messages enter the store: MX, submission, APPEND, imports, reports.

    parse, summarise, take apart → compress, put blobs → rows in one commit → (the caller answers) → notice

A message whose rows are committed is durable, visible in every mailbox named, and in the queue for every recipient
elsewhere; one that was refused is nowhere. A crash leaves unreferenced blobs at worst, which the sweeper takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Literal
from uuid import UUID

from mailserver.delivery.outbox import NOBODY_SENDS, Outbox
from mailserver.delivery.take_apart import Split, split
from mailserver.message import structure, summary
from mailserver.message.summary import Summary
from storage import MessageId, Outgoing, Placed, Placement, Store, content


async def accept(
    store: Store,
    octets: bytes,
    placements: Sequence[Placement],
    *,
    trace_id: UUID,
    quota: Literal["refuse", "share"],
    arrived: int,
    outgoing: Outgoing | None = None,
    outbox: Outbox = NOBODY_SENDS,
    message_id: MessageId | None = None,
    repeated: bool = False,
) -> list[Placed]:
    """Stores one message in all the placements and the queue, or in none; returns once it is durable.

    trace_id names this attempt, in the log and in the rows. arrived: epoch seconds. quota "refuse": OverQuota where an
    account has no room; "share": only where none of them has. outgoing: for recipients elsewhere; outbox: who sends in
    this process. message_id: see Committer.deliver; repeated: an earlier call may have stored it. Raises what storage
    raises: NotFound, OverQuota, LimitReached, Unavailable (surely not stored), OutcomeUnknown (say neither yes nor no).
    """
    threshold = store.blob_threshold
    if structure.is_costly(octets):  # in a thread, so that others are served meanwhile
        parts, digest = await asyncio.to_thread(_take_apart, octets, threshold, arrived)
    else:
        parts, digest = _take_apart(octets, threshold, arrived)
    message = await content.prepare(store, parts, digest, len(octets))
    deliver = partial(store.committer.deliver, message, placements, trace_id=trace_id, quota=quota)
    if outgoing is None:
        return await deliver(message_id=message_id)
    with outbox.offer(outgoing, octets, trace_id, message_id, repeated=repeated) as offer:
        return await deliver(outgoing=offer.outgoing, message_id=offer.queue_id)


def _take_apart(octets: bytes, threshold: int, arrived: int) -> tuple[Split, Summary]:
    tree = structure.parse(octets)
    return split(octets, tree, threshold), summary.summarize(octets, tree, arrived=arrived)
