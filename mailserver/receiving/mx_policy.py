"""Mail from other servers: for addresses of ours only (RFC 5321 §3.6.2, no relay), from anybody."""

from __future__ import annotations

from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.replies import Refused
from mailserver.receiving.session import Receiving, Recipient, Transaction
from storage import LimitReached


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
        if found.remote:
            raise Refused(replies.NO_OUTBOUND)
        return Recipient(address, found.accounts)

    async def message(self, transaction: Transaction, octets: bytes) -> bytes:
        return octets
