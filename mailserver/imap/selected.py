"""The mailbox that a session has selected: the worker's view of it, and the session's own numbering.

`catch_up` tells the client what has changed since it was last told. Nothing is queued for a client: what it missed is
the difference between two snapshots, worked out when it may be sent, so a slow client costs no memory that grows.

\\Recent (RFC 3501 §2.3.2): new messages are recent in the first read-write session that is told of them. It claims
them in the database before it says EXISTS; a session that only looks (EXAMINE) shows as recent what nobody has
claimed yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from mailserver.imap import flags
from mailserver.imap.errors import Goodbye
from mailserver.imap.view import NOTHING, Changes, Memo, Range, SessionView
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import Extension
from storage import mailboxes
from storage.errors import Unavailable

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap.sequence_set import SequenceSet
    from storage import Mailbox
    from storage.pages import Snapshot
    from storage.views import MailboxView

_AT_ONCE = 500
"""Changes of so many messages are sent without letting other sessions run."""


class Selected:
    """A selected mailbox; `close` gives the view back."""

    __slots__ = ("_is_busy", "_memo", "numbers", "read_only", "view")

    def __init__(self, view: MailboxView, memo: Memo, *, read_only: bool, is_busy: Callable[[], bool]) -> None:
        """is_busy: is the session carrying out a command?"""
        self.view = view
        self._is_busy = is_busy
        self.read_only = read_only
        self.numbers = SessionView(view.snapshot, memo)
        self._memo = memo
        view.holders.add(self)

    def close(self) -> None:
        self.view.holders.discard(self)
        self.view.close()

    @property
    def snapshot(self) -> Snapshot:
        return self.numbers.snapshot

    @property
    def is_busy(self) -> bool:
        return self._is_busy()

    def rest(self) -> None:
        self._memo.forget()

    async def wake(self) -> None:
        """Sees to it that the session's numbers are in memory, and the mailbox's."""
        if self.snapshot.folded or self.view.folded:
            await self.view.unfold()
            self.check()

    async def look(self, session: Session) -> None:
        """Before messages are read: what became of them is told first where it is not known what the client knows."""
        await self.wake()
        if self.snapshot.vague:
            await self.catch_up(session, expunge_ok=False)

    @property
    def mailbox(self) -> Mailbox:
        """The mailbox's row as the client knows it."""
        return self.numbers.snapshot.mailbox

    @property
    def recent_count(self) -> int:
        return self.numbers.recent.count(self.numbers.snapshot)

    def messages(self, messages: SequenceSet, by_uid: bool) -> list[Range]:
        """The runs of sequence numbers that a set names; NoSuchMessage."""
        return self.numbers.ranges(messages, by_uid)

    async def claim(self, session: Session) -> None:
        """Makes new messages that nobody has claimed recent in this session."""
        mailbox = self.view.snapshot.mailbox
        if self.read_only:
            self._look_at_recent()
        elif self._claimable:
            self._memo.claimed = mailbox.recent_uid
            try:
                claimed = await mailboxes.claim_recent(session.service.store, mailbox)
            except Unavailable:
                # What was done before is done, and reading goes on. RFC 3501 §2.3.2: in doubt they are recent.
                self._memo.claimed = 0
                self._look_at_recent()
                return
            except BaseException:
                self._memo.claimed = 0
                raise
            if claimed is not None:
                self.numbers.recent.add(*claimed)

    async def catch_up(self, session: Session, *, expunge_ok: bool) -> None:
        """Tells the client everything that may be told now."""
        changes = await self.advance(session, expunge_ok=expunge_ok)
        if changes:
            await self.tell(session, changes)

    async def advance(self, session: Session, *, expunge_ok: bool) -> Changes:
        """Moves the session's numbering on; the caller tells the client of the changes before anything else."""
        self.check()
        if self.view.folded:
            if self.snapshot is self.view.snapshot:
                return NOTHING
            try:
                await self.wake()
            except Unavailable:
                return NOTHING  # what the command did is done; the client is told of the rest when the store answers
        if self._news:
            await self.claim(session)
        return self.numbers.advance(self.view.snapshot, expunge_ok=expunge_ok)

    async def tell(self, session: Session, changes: Changes, before: bytes = b"") -> None:
        """Writes what is to be told behind these octets, in one piece where it is not too much."""
        if changes.weight <= _AT_ONCE:
            session.write(before + b"".join(self._lines(session, changes)))
            return
        session.write(before)
        for lines in self._lines(session, changes):
            session.write(lines)
            await session.breathe()

    def push(self, session: Session) -> bool:
        """Tells an idle client at once; False, and nothing told, where it takes more than a moment (`catch_up`)."""
        self.check()
        if self.view.folded:
            return self.snapshot is self.view.snapshot
        if self._news and self.read_only:
            self._look_at_recent()
        elif self._news and self._claimable:
            return False
        if self.numbers.pending(self.view.snapshot).weight > _AT_ONCE:
            return False
        changes = self.numbers.advance(self.view.snapshot, expunge_ok=True)
        if changes:
            session.write(b"".join(self._lines(session, changes)))
        return True

    @property
    def _claimable(self) -> bool:
        mailbox = self.view.snapshot.mailbox
        return bool(mailbox.recent) and self._memo.claimed != mailbox.recent_uid

    @property
    def _news(self) -> bool:
        """Has a message come that the client does not know?"""
        return self.view.snapshot.max_uid > self.numbers.snapshot.max_uid

    def _look_at_recent(self) -> None:
        snapshot = self.view.snapshot
        if snapshot.mailbox.recent:
            self.numbers.recent.add(snapshot.mailbox.recent_uid, snapshot.max_uid + 1)

    async def including(self, uids: Sequence[int]) -> None:
        """Sees to it that messages which this session has just added are in the view."""
        if uids and not self.view.snapshot.seq_of(uids[-1]):
            await self.look_again()

    async def without(self, uids: Sequence[int]) -> None:
        """Sees to it that messages which this session has just removed (UIDs, ascending) are not in the view."""
        # A view that lags behind still has the first of them, and may have never had the last.
        if uids and any(map(self.view.snapshot.seq_of, (uids[0], uids[-1]))):
            await self.look_again()

    async def since(self, modseq: int) -> None:
        """Sees to it that what this session has just changed is in the view."""
        if self.view.snapshot.mailbox.highestmodseq < modseq:
            await self.look_again()

    async def look_again(self) -> None:
        """Sees what others have changed, if the store answers."""
        try:
            await self.view.refresh()
        except Unavailable:
            pass  # The change was made; the client is told of it when the store answers again.

    def check(self) -> None:
        """RFC 2180 §3.4: whoever has a deleted mailbox selected is disconnected."""
        if self.view.deleted:
            raise Goodbye("The selected mailbox was deleted")
        if self.snapshot.folded and not self.view.folded:
            raise Goodbye("What has become of the selected mailbox is not known any more, select it again")

    def _lines(self, session: Session, changes: Changes) -> Iterator[bytes]:
        if changes.keywords is not None:
            yield self.flag_lines()
        yield from changes.head()
        if changes.arrived:
            yield responses.recent(self.recent_count)
        modseq = Extension.CONDSTORE in session.enabled
        yield from changes.flag_lines(self.mailbox.keywords, self.numbers.recent, modseq=modseq)

    def flag_lines(self) -> bytes:
        """FLAGS and PERMANENTFLAGS (RFC 3501 §7.1, §7.2.6); read-only, nothing can be changed for good."""
        keywords = self.mailbox.keywords
        permanent = b"" if self.read_only else flags.permanent(keywords)
        code = f"PERMANENTFLAGS ({permanent.decode()})"
        return responses.flags(flags.defined(keywords)) + responses.ok("*", "Flags permitted", code)
