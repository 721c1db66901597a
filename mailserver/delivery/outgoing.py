"""What a message's recipients mean for the queue: who is written to elsewhere, and of whom the sender wants to hear.

An address that leads to one address elsewhere keeps what was asked of its reports (RFC 3461 §5.2.7.1, a confidential
forward). One that leads to several is expanded: reports of failure and delay are asked of each, and success is the
expansion itself (§5.2.7.3). Delivery here is reported where that was asked for, by the queue as well, so that the
report is owed from the moment at which the message is accepted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from storage import AccountId, Outgoing, OutgoingRecipient, addresses


class Recipient(NamedTuple):
    """One address that was let in, and where it leads: accounts of ours, addresses elsewhere.

    notify, orcpt: as they were said (RFC 3461), None and "" where they were not.
    """

    address: str
    accounts: tuple[AccountId, ...]
    remote: tuple[str, ...] = ()
    notify: str | None = None
    orcpt: str = ""

    @property
    def asks_for_success(self) -> bool:
        return self.notify is not None and "SUCCESS" in self.notify.split(",")


def outgoing(
    owner: AccountId,
    reverse_path: str,
    recipients: Sequence[Recipient],
    *,
    header_prefix: bytes,
    body: str = "7BIT",
    smtputf8: bool = False,
    ret: str = "",
    envid: str = "",
) -> Outgoing | None:
    """None where the queue has nothing to do."""
    found: dict[str, OutgoingRecipient] = {}
    for recipient in recipients:
        for one in _of(recipient, reported=bool(reverse_path)):
            found.setdefault(one.address, one)
    if not found:
        return None
    return Outgoing(owner, reverse_path, tuple(found.values()), header_prefix, body, smtputf8, ret, envid)


def elsewhere(address: str) -> tuple[str, str]:
    """An address as it goes out, and its domain in stored form: only the domain is ours to fold. ValueError."""
    local, name = addresses.split(address)
    domain = addresses.domain(name)
    return f"{local}@{domain}", domain


def _of(recipient: Recipient, *, reported: bool) -> Iterator[OutgoingRecipient]:
    alone = not recipient.accounts and len(recipient.remote) == 1
    notify = recipient.notify if alone else _without_success(recipient.notify)
    for address in recipient.remote:
        yield OutgoingRecipient(*elsewhere(address), notify, recipient.orcpt)
    if reported and recipient.asks_for_success and not alone:
        kind = "expanded" if recipient.remote or len(recipient.accounts) > 1 else "delivered"
        name, domain = elsewhere(recipient.address) if "@" in recipient.address else (recipient.address, "")
        yield OutgoingRecipient(name, domain, recipient.notify, recipient.orcpt, report=kind)


def _without_success(notify: str | None) -> str | None:
    if notify is None:
        return None
    return ",".join(event for event in notify.split(",") if event != "SUCCESS") or "NEVER"
