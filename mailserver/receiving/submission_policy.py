"""Mail from our own users: after login, from addresses of their own (RFC 6409), edited once before it is stored.

A user owns what routes to the account alone: its addresses, with any +tag, and aliases that lead nowhere else. Both
MAIL FROM and every address in From: must be owned; the null sender is let pass, for receipts and replies made by
clients.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import uuid4

from mailserver.delivery.outgoing import Recipient
from mailserver.message import address as address_list
from mailserver.message import edit, headers, structure
from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.replies import Refused
from mailserver.receiving.session import Receiving, Transaction
from storage import AccountId, LimitReached, accounts


class SubmissionPolicy:
    name = "submission"
    login = True

    def __init__(self, receiving: Receiving) -> None:
        self._receiving = receiving
        self._routes = receiving.routes

    async def sender(self, transaction: Transaction, sender: str) -> None:
        if sender and not await accounts.owns_address(self._receiving.store, self._account(transaction), sender):
            raise Refused(replies.NOT_YOUR_ADDRESS)

    async def recipient(self, transaction: Transaction, address: str) -> Recipient:
        try:
            found = await self._routes.find(address)
        except LimitReached:
            raise Refused(replies.MISCONFIGURED_ALIAS) from None
        if found.status == "unknown":
            raise Refused(replies.NO_SUCH_USER)
        if found.status == "not_ours":
            return Recipient(address, (), (address,))
        return Recipient(address, found.accounts, found.remote)

    def owner(self, transaction: Transaction) -> AccountId:
        return self._account(transaction)

    async def message(self, transaction: Transaction, octets: bytes) -> bytes:
        account_id = self._account(transaction)
        header = octets[: structure.end_of_header(octets, 0, len(octets))]
        for author in dict.fromkeys(_authors(header)):
            if not await accounts.owns_address(self._receiving.store, account_id, author):
                raise Refused(replies.NOT_YOUR_FROM)
        account = transaction.session.account
        assert account is not None
        sender = transaction.sender or account.primary_address
        return edit.submission(
            octets,
            date=int(time.time()),
            message_id=f"<{uuid4()}@{self._receiving.hostname}>".encode("ascii"),
            sender=sender.encode(),
        )

    @staticmethod
    def _account(transaction: Transaction) -> AccountId:
        account = transaction.session.account
        if account is None:
            raise Refused(replies.LOGIN_NEEDED)
        return account.account_id


def _authors(header: bytes) -> Iterator[str]:
    """Every address of every From field; "" for a field that names none, or more than are read."""
    for value in headers.values(header, b"from"):
        entries = address_list.parse(value)
        found = [entry for entry in entries if entry.host is not None]
        if not found or len(entries) >= address_list.MAX_ADDRESSES or len(value) > address_list.MAX_OCTETS:
            yield ""
        for entry in found:
            yield f"{address_list.local_part(_text(entry.mailbox or b''))}@{_text(entry.host or b'')}"


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
