"""Mail from other servers: for addresses of ours only (RFC 5321 §3.6.2, no relay), from anybody.

An address of ours may lead elsewhere, by an alias. What goes there is nobody's, so the system account owns it.
"""

from __future__ import annotations

from mailserver.delivery.outgoing import Recipient
from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.replies import Refused
from mailserver.receiving.session import Receiving, Transaction
from storage import SYSTEM, AccountId, LimitReached


class MxPolicy:
    name = "mx"
    login = False

    def __init__(self, receiving: Receiving) -> None:
        self._routes = receiving.routes

    async def sender(self, transaction: Transaction, sender: str) -> None:
        """Any, the null sender of bounces included."""

    async def recipient(self, transaction: Transaction, address: str) -> Recipient:
        try:
            found = await self._routes.find(address)
        except LimitReached:
            raise Refused(replies.MISCONFIGURED_ALIAS) from None
        if found.status == "not_ours":
            raise Refused(replies.NO_RELAY)
        if found.status == "unknown":
            raise Refused(replies.NO_SUCH_USER)
        return Recipient(address, found.accounts, found.remote)

    def owner(self, transaction: Transaction) -> AccountId:
        return SYSTEM

    async def message(self, transaction: Transaction, octets: bytes) -> bytes:
        return octets
