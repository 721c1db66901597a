"""What SMTP connections of a worker share, what one of them knows of its peer, and one transaction from MAIL to 250.

The wire is in server.py; which sender and recipients are let through is a policy's question (mx_policy.py,
submission_policy.py); here is the order of things. A transaction is committed for all its recipients or refused whole,
with at most one copy for each account, however many of its addresses were named. Only then is it answered.

What we know of a message's way is put in front of its octets as a prefix of its own, one for each account: Return-
Path:, Delivered-To:, Received: (RFC 5321 §4.4). The octets themselves stay as they came.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from aiosmtpd.smtp import Session as BaseSession

from mailserver.delivery.accept import accept
from mailserver.delivery.outbox import NOBODY_SENDS, Outbox
from mailserver.delivery.outgoing import Recipient, elsewhere, outgoing
from mailserver.delivery.route import Routes
from mailserver.message import received
from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.commands import Mail, Rcpt
from mailserver.protocols.smtp.data import Bounds
from mailserver.protocols.smtp.replies import Refused
from storage import INBOX, Account, AccountId, LimitReached, Outgoing, Placement, Store

if TYPE_CHECKING:
    from config.schema import Config
    from mailserver.login import Logins
    from mailserver.net.deadlines import Deadlines
    from mailserver.net.limits import Limits
    from mailserver.net.sessions import Sessions
    from mailserver.net.tls import Certificates

log = logging.getLogger(__name__)

MAX_EXPANDED = 10_000
"""Addresses elsewhere that the recipients of a message may lead to."""


class Memory:
    """Octets of messages that are being received, in all connections of the worker."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @property
    def exhausted(self) -> bool:
        return self.used >= self.limit

    def has_room(self, octets: int) -> bool:
        return self.used + octets <= self.limit


class Receiving:
    """What all SMTP connections of a worker share."""

    def __init__(
        self,
        config: Config,
        store: Store,
        logins: Logins,
        limits: Limits,
        sessions: Sessions,
        certificates: Certificates,
        deadlines: Deadlines,
        outbox: Outbox = NOBODY_SENDS,
    ) -> None:
        self.store = store
        self.routes = Routes(store)
        self.logins = logins
        self.sessions = sessions
        self.certificates = certificates
        self.deadlines = deadlines
        self.loop = asyncio.get_running_loop()
        self.prepared: dict[str, Any] = {}  # see server.py
        # What the worker's metrics take over now and then, by the policy's name: plain numbers cost nothing.
        self.messages: Counter[str] = Counter()
        self.octets: Counter[str] = Counter()
        self.memory = Memory(config.mail.receive_memory_mib * 1024 * 1024)
        self.connections = limits.connections(
            config.smtp.max_connections, config.smtp.max_connections_per_address, kind="smtp"
        )
        self.outbox = outbox
        self._instance = store.keys.instance
        self.reconfigure(config)

    def reconfigure(self, config: Config) -> None:
        """Other settings from now on; a message that is being received keeps the bounds that it began with."""
        self.config = config
        self.smtp = config.smtp
        self.hostname = config.server.hostname
        self.greeting = f"220 {self.hostname} {self.smtp.greeting} {self._instance}\r\n".encode("ascii")
        self.prepared.clear()
        self.connections.total = config.smtp.max_connections
        self.connections.per_address = config.smtp.max_connections_per_address
        self.bounds = Bounds(
            message_octets=config.mail.max_message_octets,
            line_octets=config.smtp.max_line_octets,
            header_octets=config.smtp.max_header_octets,
            header_fields=config.smtp.max_header_fields,
            hops=config.smtp.max_hops,
        )


class Session(BaseSession):
    """A connection's peer. host_name: what it called itself; account: whose login it is; tls: version and cipher."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: str) -> None:
        super().__init__(loop)
        self.peer = address
        self.account: Account | None = None
        self.tls: str | None = None

    @property
    def login_data(self) -> Any:
        """aiosmtpd warns of this in its log at every login, and nobody here asks for it."""
        return None

    @login_data.setter
    def login_data(self, value: Any) -> None: ...

    def protocol(self, *, utf8: bool) -> str:
        """The word for how the client spoke (RFC 3848, RFC 6531 §3.7.3)."""
        if not self.extended_smtp:
            return "SMTP"
        return f"{'UTF8' if utf8 else 'E'}SMTP{'S' if self.tls else ''}{'A' if self.account else ''}"


class Policy(Protocol):
    """Who may send what to whom; each method raises Refused, or an error of storage."""

    name: str
    login: bool
    """Is AUTH offered, and needed before mail is taken?"""

    async def sender(self, transaction: Transaction, sender: str) -> None: ...

    async def recipient(self, transaction: Transaction, address: str) -> Recipient: ...

    def owner(self, transaction: Transaction) -> AccountId:
        """Whose what goes elsewhere is in the queue."""

    async def message(self, transaction: Transaction, octets: bytes) -> bytes:
        """The octets to be stored."""


class Transaction:
    """From MAIL to the reply to its data."""

    __slots__ = ("_mail", "policy", "receiving", "recipients", "refused_recipients", "session")

    def __init__(self, receiving: Receiving, policy: Policy, session: Session) -> None:
        self.receiving = receiving
        self.policy = policy
        self.session = session
        self._mail = Mail("")
        self.recipients: list[Recipient] = []
        self.refused_recipients = 0

    async def mail(self, mail: Mail) -> None:
        """Refused, or the sender is taken."""
        if mail.size > self.receiving.bounds.message_octets:
            raise Refused(replies.TOO_BIG)
        await self.policy.sender(self, mail.sender)
        self._mail = mail

    async def _check_elsewhere(self, recipient: Recipient) -> None:
        """What could never be sent to is refused now, and what would be too much."""
        try:
            for address in recipient.remote:
                elsewhere(address)
        except ValueError:
            raise Refused(replies.BAD_RECIPIENT) from None
        if sum(len(other.remote) for other in self.recipients) + len(recipient.remote) > MAX_EXPANDED:
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        most = self.receiving.config.send.max_queued_messages
        try:
            await self.receiving.routes.check_queue(self.policy.owner(self), most)
        except LimitReached:
            raise Refused(replies.QUEUE_FULL) from None

    @property
    def sender(self) -> str:
        """The reverse-path; "" is the null one."""
        return self._mail.sender

    @property
    def size(self) -> int:
        """Octets announced, or 0."""
        return self._mail.size

    @property
    def smtputf8(self) -> bool:
        return self._mail.smtputf8

    async def rcpt(self, rcpt: Rcpt) -> None:
        """Refused, or one recipient more."""
        if len(self.recipients) >= self.receiving.smtp.max_recipients:
            raise Refused(replies.TOO_MANY_RECIPIENTS)
        self.refused_recipients += 1
        recipient = await self.policy.recipient(self, rcpt.recipient)
        if recipient.remote:
            await self._check_elsewhere(recipient)
        if self.size and len(recipient.accounts) == 1:
            await self.receiving.routes.check_room(recipient.accounts[0], self.size)
        self.refused_recipients -= 1
        if rcpt.notify is not None or rcpt.orcpt:
            notify = None if rcpt.notify is None else str(rcpt.notify)
            recipient = recipient._replace(notify=notify, orcpt=rcpt.orcpt)
        self.recipients.append(recipient)

    async def commit(self, octets: bytes) -> UUID:
        """The message is durable and visible when this returns; it raises what policy and storage raise."""
        octets = await self.policy.message(self, octets)
        trace_id = UUID(bytes=os.urandom(16), version=4)
        now = int(time.time())
        trace = self._received(trace_id, now)
        placements = self._placements(trace, now)
        await accept(
            self.receiving.store,
            octets,
            placements,
            trace_id=trace_id,
            quota="share",
            arrived=now,
            outgoing=self._outgoing(trace),
            outbox=self.receiving.outbox,
        )
        self.receiving.messages[self.policy.name] += 1
        self.receiving.octets[self.policy.name] += len(octets)
        log.info(
            "accepted trace=%s by=%s peer=%s from=<%s> to=%s size=%d accounts=%s login=%s",
            trace_id,
            self.policy.name,
            self.session.peer,
            self.sender,
            ",".join([f"<{recipient.address}>" for recipient in self.recipients[:10]]),
            len(octets),
            len(placements),
            self.session.account.account_id if self.session.account else "-",
        )
        return trace_id

    def _outgoing(self, trace: bytes) -> Outgoing | None:
        """What goes elsewhere, or is to be reported. Most messages are for one of ours, and nothing is asked."""
        if not any(recipient.remote or recipient.notify for recipient in self.recipients):
            return None
        mail = self._mail
        return outgoing(
            self.policy.owner(self),
            mail.sender,
            self.recipients,
            header_prefix=trace,
            body=mail.body,
            smtputf8=mail.smtputf8,
            ret=mail.ret,
            envid=mail.envid,
        )

    def _placements(self, trace: bytes, now: int) -> list[Placement]:
        """One copy for each account, named after the first of its addresses."""
        return_path = received.return_path(self.sender)
        first: dict[AccountId, str] = {}
        for recipient in self.recipients:
            for account_id in recipient.accounts:
                first.setdefault(account_id, recipient.address)
        placements = []
        for account_id, address in first.items():
            prefix = return_path + received.delivered_to(address) + trace
            placements.append(Placement(account_id, INBOX, now, header_prefix=prefix))
        return placements

    def _received(self, trace_id: UUID, now: int) -> bytes:
        session = self.session
        only = self.recipients[0].address if len(self.recipients) == 1 else None
        return received.received(
            helo=session.host_name or "",
            peer=session.peer or "",
            by=self.receiving.hostname,
            protocol=session.protocol(utf8=self.smtputf8),
            trace_id=str(trace_id),
            when=now,
            tls=session.tls,
            recipient=only,
        )
