"""What crosses storage's border: frozen records and the types of ids. No protocol words, no rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NewType

AccountId = NewType("AccountId", int)
MailboxId = NewType("MailboxId", int)
MessageId = NewType("MessageId", int)
ModSeq = NewType("ModSeq", int)
Uid = NewType("Uid", int)

Name = tuple[str, ...]
"""A mailbox name as its components, outermost first. INBOX is `("INBOX",)`."""

INBOX = MailboxId(1)
"""Every account's INBOX."""

KEYWORDS_AT = 5
"""The flag bit of a mailbox's first keyword; the bits below are the system flags."""

MAX_KEYWORDS = 58


class Flag:
    """System flags (RFC 3501 §2.3.2) as bits; bit 5 + i is the mailbox's keyword i. \\Recent is not stored.

    Plain ints, not an enum: flags of 100,000 messages are combined at once.
    """

    SEEN: Final = 1
    ANSWERED: Final = 2
    FLAGGED: Final = 4
    DELETED: Final = 8
    DRAFT: Final = 16


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox's row: everything that STATUS answers."""

    account_id: AccountId
    mailbox_id: MailboxId
    name: Name
    uidvalidity: int
    uidnext: int
    highestmodseq: int
    modseq: int
    recent: int
    recent_uid: int
    special_use: str | None
    keywords: tuple[str, ...]
    messages: int
    unseen: int
    deleted: int
    octets: int
    deleted_octets: int


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits and use of an account; a limit of 0 is no limit."""

    quota_octets: int
    quota_messages: int
    used_octets: int
    used_messages: int


@dataclass(frozen=True, slots=True)
class Placement:
    """One copy of a message to be written: whose mailbox, with which flags.

    received: INTERNALDATE, epoch seconds. keywords are names; the mailbox's bits are found or allotted when it is
    written. header_prefix is put in front of the message's octets for this copy.
    """

    account_id: AccountId
    mailbox_id: MailboxId
    received: int
    flags: int = 0
    keywords: tuple[str, ...] = ()
    header_prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a copy went."""

    account_id: AccountId
    mailbox_id: MailboxId
    uidvalidity: int
    uid: Uid
    modseq: ModSeq
    message_id: MessageId


@dataclass(frozen=True, slots=True)
class OutgoingRecipient:
    """An address elsewhere: its domain in stored form, and what was asked for by DSN (RFC 3461)."""

    address: str
    destination: str
    notify: str | None = None
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for recipients elsewhere. reverse_path: "" is the null path; header_prefix: Received fields."""

    owner: AccountId
    reverse_path: str
    recipients: tuple[OutgoingRecipient, ...]
    header_prefix: bytes = b""
    body: str = "7BIT"
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where the parts of a message lie: what is needed to cut sections out of its octets.

    parts: see mailserver/message/structure.py.
    """

    message_id: MessageId
    header_prefix: bytes
    size: int
    header_octets: int
    parts: bytes | None


@dataclass(frozen=True, slots=True)
class Brief:
    """What little of a message's row a search needs; sent: its Date field, or arrival, epoch seconds."""

    message_id: MessageId
    header_prefix: bytes
    size: int
    sent: int


@dataclass(frozen=True, slots=True)
class FlagChange:
    """What STORE asks for: `op` is "+", "-" or "="; keywords are names."""

    op: str
    flags: int
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoreResult:
    """modseq of the change (0 where nothing changed); failed: UIDs changed since UNCHANGEDSINCE (RFC 7162 §3.1.3)."""

    modseq: int
    changed: Sequence[Uid]
    failed: tuple[Uid, ...] = ()


@dataclass(frozen=True, slots=True)
class CopyResult:
    """COPYUID's values (RFC 4315): sources that still existed and, in the same order, their new UIDs."""

    uidvalidity: int
    source: Sequence[Uid]
    destination: Sequence[Uid]


@dataclass(frozen=True, slots=True)
class Domain:
    name: str
    registration: str


@dataclass(frozen=True, slots=True)
class Account:
    account_id: AccountId
    username: str
    primary_address: str
    role: str
    status: str
    version: int


@dataclass(frozen=True, slots=True)
class Login:
    """What a password check needs to know."""

    account: Account
    password_hash: str | None


@dataclass(frozen=True, slots=True)
class Notice:
    """One committed change, as it spreads to other workers.

    kind "mail": `mailboxes` changed at `modseq`; pages maps mailbox to page numbers touched (empty: read by modseq).
    kind "list": the account's mailbox list or subscriptions changed. kind "account": login data or status changed,
    account_id 0 meaning any. kind "directory": addresses, aliases or domains changed. kind "look": mailboxes may have
    changed, nobody knows which. kind "resync": notices of every kind may have been missed.
    """

    kind: str
    account_id: AccountId = AccountId(0)
    modseq: int = 0
    pages: dict[MailboxId, tuple[int, ...]] = field(default_factory=dict)


LOOK: Final = Notice("look")
RESYNC: Final = Notice("resync")
