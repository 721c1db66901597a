"""APPEND (RFC 3501 §6.3.11). The message came as one literal, counted against the worker's memory while it arrived.

It passes the same door as delivered mail and is answered once it is durable; its octets are kept as they are.
"""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from mailserver import metrics
from mailserver.delivery.accept import accept
from mailserver.imap.copy_move import find_target
from mailserver.imap.errors import Done, Refusal
from mailserver.protocols.imap import responses
from storage import Placement
from storage.errors import NotFound

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands

_RECEIVED = metrics.messages_received.labels("append")
_OCTETS = metrics.octets_received.labels("append")


async def handle(s: Session, cmd: commands.Append) -> Done:
    target = await find_target(s, cmd.mailbox)
    if not cmd.message:
        raise Refusal("There is no message in it", "CANNOT")
    now = int(time.time())
    placement = Placement(
        s.account_id,
        target,
        received=now if cmd.received is None else cmd.received,
        flags=cmd.flags.system,
        keywords=cmd.flags.keywords,
    )
    try:
        placed = await accept(
            s.service.store, cmd.message, [placement], trace_id=uuid.uuid4(), quota="refuse", arrived=now
        )
    except NotFound:
        raise Refusal("No such mailbox", "TRYCREATE") from None
    _RECEIVED.inc()
    _OCTETS.inc(len(cmd.message))
    if s.selected is not None and s.selected.view.mailbox_id == target:
        await s.selected.including([placed[0].uid])
    # RFC 4315 §3. UID 0: it went elsewhere before a lost commit was found again, so there is no UID to tell.
    code = responses.append_uid(placed[0].uidvalidity, [placed[0].uid]) if placed[0].uid else ""
    return Done("APPEND completed", code)
