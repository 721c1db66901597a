"""The mail store: the only package that speaks SQL, and the only one that knows where octets are kept.

Everything that belongs to an account carries its account_id, is locked by account_state and stamped by its modseq; see
docs/architecture.md for the ways through it.
"""

from storage.errors import (
    AlreadyExists,
    LimitReached,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    OverQuota,
    StorageError,
    Unavailable,
)
from storage.records import (
    INBOX,
    SYSTEM,
    Account,
    AccountId,
    Brief,
    CopyResult,
    Extent,
    Flag,
    FlagChange,
    Mailbox,
    MailboxId,
    MessageId,
    Name,
    Notice,
    Outgoing,
    OutgoingRecipient,
    Placed,
    Placement,
    Quota,
    StoreResult,
    Uid,
)
from storage.store import Store

__all__ = [
    "INBOX",
    "SYSTEM",
    "Account",
    "AccountId",
    "AlreadyExists",
    "Brief",
    "CopyResult",
    "Extent",
    "Flag",
    "FlagChange",
    "LimitReached",
    "Mailbox",
    "MailboxId",
    "MessageId",
    "Name",
    "NotAllowed",
    "NotFound",
    "Notice",
    "OutcomeUnknown",
    "Outgoing",
    "OutgoingRecipient",
    "OverQuota",
    "Placed",
    "Placement",
    "Quota",
    "StorageError",
    "Store",
    "StoreResult",
    "Uid",
    "Unavailable",
]
