"""Tells senders what became of their mail: bounces, notices of delay, reports of success (RFC 3461 §6, RFC 3464).

A report is owed by the queue until it is delivered like any message: into the sender's mailbox, or by the queue to a
sender elsewhere, from the null reverse-path, so that nobody reports a report. One that cannot be delivered, because its
sender's address does not exist, is dropped, which is all that can be done (RFC 5321 §6.1). One whose mailbox is full is
tried for as long as a message would be.
"""

from __future__ import annotations

import asyncio
import logging
import time

from config.schema import Config
from mailserver.delivery.accept import accept
from mailserver.delivery.outbox import Outbox
from mailserver.delivery.outgoing import Recipient, outgoing
from mailserver.delivery.route import Routes
from mailserver.message import received, report
from mailserver.message.report import Action, Report, ReportedRecipient
from mailserver.protocols.smtp import dsn
from storage import (
    INBOX,
    SYSTEM,
    AccountId,
    LimitReached,
    NotFound,
    OverQuota,
    Placement,
    StorageError,
    Store,
    queue_reports,
)
from storage import reader as stored
from storage.directory import Resolved
from storage.errors import Damaged
from storage.queue_reports import OwedReport, Reported
from storage.records import MessageId
from storage.tasks import end

log = logging.getLogger(__name__)

TAKEN_SECONDS = 300.0
"""How long the maker of a report has it for itself; and the pause before one that failed is tried again."""
_AT_ONCE = 50
_FAILED_SECONDS = 5.0

_OF_SUCCESS = ("delivered", "expanded", "relayed")
_WORDS = {
    Action.EXPANDED: ("2.1.5", "The address was expanded to its recipients"),
    Action.DELIVERED: ("2.1.5", "The message was delivered"),
}
"""Where no other server said anything."""


class Reporter:
    """One in a process that sends."""

    def __init__(self, store: Store, config: Config, outbox: Outbox) -> None:
        self._store = store
        self._routes = Routes(store)
        self._outbox = outbox
        self._config = config
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    def reconfigure(self, config: Config) -> None:
        self._config = config

    def look(self) -> None:
        """Something new is owed."""
        self._wake.set()

    async def close(self) -> None:
        await end([self._task])

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            pause = self._config.send.rescan_seconds
            try:
                while owed := await queue_reports.owed(self._store, _AT_ONCE):
                    for account_id, queue_id in owed:
                        await self._make(account_id, queue_id)
            except StorageError as error:
                log.warning("reports to senders wait: %s", error)
                pause = _FAILED_SECONDS
            except Exception:
                log.exception("fault in the search for reports that are owed")
                pause = _FAILED_SECONDS
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _make(self, account_id: AccountId, queue_id: MessageId) -> None:
        owed = await queue_reports.take(self._store, account_id, queue_id, TAKEN_SECONDS)
        if owed is None:
            return
        try:
            await self._finish(owed)
        except Exception as error:
            # It is tried again when its time is over. The others need not wait for it.
            log.warning(
                "report=%s for=<%s> waits",
                owed.trace_id,
                owed.reverse_path,
                exc_info=not isinstance(error, StorageError),
            )

    async def _finish(self, owed: OwedReport) -> None:
        if owed.recipients and owed.reverse_path:
            try:
                await self._deliver(owed)
            except OverQuota as error:
                if time.time() - owed.created < 2 * self._config.send.give_up_seconds:
                    log.info("report=%s for=<%s> waits: %s", owed.trace_id, owed.reverse_path, error)
                    return
                log.warning("report=%s for=<%s> is dropped: %s", owed.trace_id, owed.reverse_path, error)
        await queue_reports.finish(self._store, owed)

    async def _deliver(self, owed: OwedReport) -> None:
        """Durable when this returns, or dropped for want of somebody to have it; OverQuota, Unavailable."""
        now = int(time.time())
        found = await self._find(owed.reverse_path)
        if not (found.accounts or found.remote):
            log.warning("report=%s for=<%s> is dropped: there is no such address", owed.trace_id, owed.reverse_path)
            return
        made = self._build(owed, await self._original(owed), now)
        octets = report.build(made)
        prefix = received.return_path("") + received.delivered_to(owed.reverse_path)
        out = outgoing(
            SYSTEM,
            "",
            [Recipient(owed.reverse_path, found.accounts, found.remote, "NEVER")],
            header_prefix=b"",
            body="7BIT" if octets.isascii() else "8BITMIME",
            smtputf8=made.smtputf8,
        )
        await accept(
            self._store,
            octets,
            [Placement(account, INBOX, now, header_prefix=prefix) for account in found.accounts],
            trace_id=owed.trace_id,
            quota="share",
            arrived=now,
            outgoing=out,
            outbox=self._outbox,
            message_id=owed.report_id,
            repeated=True,
        )
        log.info(
            "reported trace=%s queue=%s for=<%s>: %s", owed.trace_id, owed.queue_id, owed.reverse_path, made.action
        )

    async def _find(self, address: str) -> Resolved:
        try:
            found = await self._routes.find(address)
        except LimitReached:
            return Resolved((), (), "unknown")
        return Resolved((), (address,), "ok") if found.status == "not_ours" else found

    async def _original(self, owed: OwedReport) -> bytes:
        """What the report is about. One that cannot be read any more is no reason to say nothing.

        Anybody may ask for reports of success in anybody's name: those carry nothing that a stranger has written.
        """
        if owed.account_id == SYSTEM and all(one.report in _OF_SUCCESS for one in owed.recipients):
            return b""
        try:
            return b"".join(await stored.received(self._store, owed.account_id, owed.queue_id))
        except (NotFound, Damaged) as error:
            log.warning("the message of report=%s cannot be read: %s", owed.trace_id, error)
            return b""

    def _build(self, owed: OwedReport, original: bytes, now: int) -> Report:
        hostname = self._config.server.hostname
        give_up = int(owed.created + self._config.send.give_up_seconds)
        return Report(
            hostname=hostname,
            reverse_path=owed.reverse_path,
            recipients=tuple(_recipient(one, give_up) for one in owed.recipients),
            message_id=f"<{owed.trace_id}@{hostname}>",
            date=now,
            original=original,
            max_returned=self._config.send.returned_octets,
            arrival=int(owed.created),
            envelope_id=dsn.decode_xtext(owed.envid) if owed.envid else "",
            ret=owed.ret,
        )


def _recipient(one: Reported, give_up: int) -> ReportedRecipient:
    action = Action(one.report)
    if one.said is None:
        code, (status, text), host = 0, _WORDS.get(action, ("5.0.0", "")), ""
    else:
        code, status, text, host = one.said
    return ReportedRecipient(
        address=one.address,
        action=action,
        status=_status(action, status),
        original_recipient=dsn.original_recipient(one.orcpt) if one.orcpt else "",
        code=code,
        text=text,
        host=host,
        last_attempt=None if one.last_attempt is None else int(one.last_attempt),
        will_retry_until=give_up if action is Action.DELAYED else None,
    )


def _status(action: Action, status: str) -> str:
    """The class says what became of it (RFC 3463 §2): who was given up was failed by what was to pass."""
    return status if action is not Action.FAILED or status[:1] == "5" else f"4{status[1:]}"
