"""What storage refuses, in storage's own words; each edge maps these to its protocol in one table."""


class StorageError(Exception):
    """Base of everything storage raises on purpose."""


class NotFound(StorageError):
    """The account, mailbox, message or address does not exist (any more)."""


class AlreadyExists(StorageError):
    """Something of that name exists."""


class OverQuota(StorageError):
    """No room. `never` is true where the message could not fit into an empty account either."""

    def __init__(self, text: str = "over quota", *, never: bool = False) -> None:
        super().__init__(text)
        self.never = never


class LimitReached(StorageError):
    """A bound of the data model: keywords of a mailbox, UIDs, mailboxes of an account."""


class NotAllowed(StorageError):
    """The operation is refused for this object, such as deleting INBOX."""


class UseTaken(NotAllowed):
    """Another mailbox has the special use already."""


class Unavailable(StorageError):
    """The database, or another part we cannot do without, does not answer; surely nothing was written."""


class BlobsUnavailable(Unavailable):
    """The blob store does not answer, or refuses."""


class Damaged(StorageError):
    """What is stored is not what was put there, or does not open under its key."""


class BlobLost(Damaged):
    """A message refers to a blob that the store does not have."""


class OutcomeUnknown(StorageError):
    """COMMIT was sent and its answer was lost, and it could not be settled: say neither yes nor no."""
