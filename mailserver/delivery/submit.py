"""A message that a user sends by a program of ours, rather than by SMTP: from recipients to rows.

Recipients are looked up first and refused by name, so that nothing is bounced later. Local ones become copies in their
INBOX, at most one for each account; the sender's own copy in Sent is written with them in one transaction, as read.
Bcc stands in that copy alone, in front of the octets, which all recipients share without it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from mailserver import metrics
from mailserver.delivery.accept import accept
from mailserver.delivery.outbox import NOBODY_SENDS, Outbox
from mailserver.delivery.outgoing import Recipient, outgoing
from mailserver.delivery.route import Routes
from mailserver.message import received
from storage import (
    INBOX,
    Account,
    AccountId,
    AlreadyExists,
    Flag,
    LimitReached,
    MailboxId,
    MessageId,
    Placement,
    Store,
    addresses,
    mailboxes,
)
from storage.records import Outgoing

_RECEIVED = metrics.messages_received.labels("api")
_OCTETS = metrics.octets_received.labels("api")

SENT_USE = "\\Sent"
SENT_NAME = ("Sent",)


class RecipientsRefused(Exception):
    """Some recipients cannot be sent to: a reason by address."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message on its way in. octets are final; bcc: the field for the sender's copy, without its line end, or b"".

    peer: the client's address; protocol: how it came (HTTP, HTTPS); save: does the sender keep a copy?
    """

    account: Account
    sender: str
    recipients: Sequence[str]
    octets: bytes
    peer: str
    hostname: str
    protocol: str
    smtputf8: bool = False
    bcc: bytes = b""
    save: bool = True


@dataclass(slots=True)
class Plan:
    """Where a message goes. local: the first address of each account; outside: as other hosts read them."""

    local: dict[AccountId, str] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    sent: MailboxId | None = None

    def holder(self, sender: AccountId) -> AccountId:
        """An account that has the message once it is stored."""
        return sender if self.sent is not None or not self.local else min(self.local)


async def plan(store: Store, routes: Routes, envelope: Envelope) -> Plan:
    """RecipientsRefused; OverQuota where the only recipient has no room."""
    made = Plan()
    refused: dict[str, str] = {}
    for address in dict.fromkeys(envelope.recipients):
        reason = await _route(routes, address, made)
        if reason:
            refused[address] = reason
    if refused:
        raise RecipientsRefused(refused)
    if len(made.local) == 1 and not made.outside:
        await routes.check_room(next(iter(made.local)), len(envelope.octets))
    if envelope.save:
        made.sent = await _sent_mailbox(store, envelope.account.account_id)
    return made


async def _route(routes: Routes, address: str, made: Plan) -> str:
    """Adds a recipient to the plan, or says why not."""
    try:
        found = await routes.find(address)
    except LimitReached:
        return "the alias behind it is misconfigured"
    if found.status == "unknown":
        return "there is no such address"
    for account_id in found.accounts:
        made.local.setdefault(account_id, address)
    for outside in (address,) if found.status == "not_ours" else found.remote:
        spelled = addresses.spelled(outside)
        if spelled not in made.outside:
            made.outside.append(spelled)
    return ""


async def commit(
    store: Store,
    envelope: Envelope,
    made: Plan,
    *,
    message_id: MessageId,
    trace_id: UUID,
    outbox: Outbox = NOBODY_SENDS,
    repeated: bool = False,
) -> MessageId:
    """The message is durable, visible and in the queue when this returns; its id. Raises what storage raises.

    repeated: an earlier call with these ids may have stored it.
    """
    now = int(time.time())
    trace = received.received(
        helo="",
        peer=envelope.peer,
        by=envelope.hostname,
        protocol=envelope.protocol,
        trace_id=str(trace_id),
        when=now,
        recipient=envelope.recipients[0] if len(envelope.recipients) == 1 else None,
    )
    placed = await accept(
        store,
        envelope.octets,
        _placements(envelope, made, trace, now),
        trace_id=trace_id,
        quota="share",
        arrived=now,
        outgoing=_outgoing(envelope, made, trace),
        outbox=outbox,
        message_id=message_id,
        repeated=repeated,
    )
    _RECEIVED.inc()
    _OCTETS.inc(len(envelope.octets))
    return placed[0].message_id if placed else message_id


def _placements(envelope: Envelope, made: Plan, trace: bytes, now: int) -> list[Placement]:
    """The sender's copy comes first, so that where it is a recipient too, both show what it alone may see."""
    owner = envelope.account.account_id
    bcc = envelope.bcc + b"\r\n" if envelope.bcc else b""
    copies = []
    if made.sent is not None:
        copies.append(Placement(owner, made.sent, now, flags=Flag.SEEN, header_prefix=bcc))
    return_path = received.return_path(envelope.sender)
    for account_id, address in made.local.items():
        prefix = return_path + received.delivered_to(address) + trace
        if account_id == owner and made.sent is not None:
            prefix += bcc
            copies[0] = Placement(owner, made.sent, now, flags=Flag.SEEN, header_prefix=prefix)
        copies.append(Placement(account_id, INBOX, now, header_prefix=prefix))
    return copies


def _outgoing(envelope: Envelope, made: Plan, trace: bytes) -> Outgoing | None:
    """What goes to other servers; None where nothing does."""
    return outgoing(
        envelope.account.account_id,
        envelope.sender,
        [Recipient(address, (), (address,)) for address in made.outside],
        header_prefix=trace,
        body="7BIT" if envelope.octets.isascii() else "8BITMIME",
        smtputf8=envelope.smtputf8,
    )


async def _sent_mailbox(store: Store, account_id: AccountId) -> MailboxId:
    """The mailbox for sent mail; made where there is none."""
    found = await mailboxes.with_use(store, account_id, SENT_USE)
    if found is not None:
        return found
    try:
        return (await mailboxes.create(store, account_id, SENT_NAME, [SENT_USE], subscribe=True)).mailbox_id
    except AlreadyExists:
        return await mailboxes.locate(store, account_id, SENT_NAME)
