"""Mailboxes held in memory: one view a worker, shared by all sessions that have the mailbox open.

A view is loaded once, then kept true in three ways. A change made by this worker is applied from the values the
writer has in its hands. A notice from another worker makes the view read what has a higher modseq. And `refresh`,
which every command that may show changes calls, compares the mailbox row, so that a lost notice heals.

Reading order matters: the mailbox row first, then `vanished`, then pages. The row's highestmodseq then promises no
more than the pages hold; and a page that `vanished` touches but that no longer stands among the changed ones is
surely gone. Pages that are newer than the row may have keywords that it does not name, so these are looked up again.

A notice may be lost without anybody knowing, as when its writer is killed behind the COMMIT; so views that somebody
listens to are looked at once a minute even where all is well.

All views together take no more memory than the worker has for them. Closed ones are kept while there is room, the
longest unused go first. Then open ones are folded whose sessions are all at rest: of what each session knows only the
mailbox's row is left, until one of them needs its numbers again, or has to be told of a change (storage/folding.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from storage import clock, folding, mailboxes, membership, vanished
from storage.aside import aside
from storage.errors import NotFound, StorageError
from storage.membership import Effect
from storage.packed import UINT4, unpack
from storage.pages import Page, Snapshot
from storage.records import AccountId, Mailbox, MailboxId, Notice
from storage.tasks import end

if TYPE_CHECKING:
    from storage.store import Store

log = logging.getLogger(__name__)

_OCTETS_A_MESSAGE = 64
_OCTETS_A_PAGE = 1_200
_OCTETS_A_VIEW = 2_000
_OCTETS_A_PLACE = 56
"""What a snapshot takes for each of its pages beside the page."""
_WEIGHED_AT_ONCE = 500
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 60.0
_TOLD_AT_ONCE = 100

_OCTETS_A_TEXT = 4_096
"""A page's lines for one set of FETCH items."""
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"

Key = tuple[int, int]


class Holder(Protocol):
    """A session that has a mailbox open."""

    @property
    def snapshot(self) -> Snapshot:
        """What its client knows."""
        ...

    @property
    def is_busy(self) -> bool:
        """Is it carrying out a command?"""
        ...

    def rest(self) -> None:
        """Its snapshot was folded: it lets go of whatever else has pages."""
        ...


class MailboxView:
    """One mailbox as this worker knows it. `snapshot` is replaced, never changed; `deleted` once it does not exist."""

    def __init__(self, views: Views, account_id: AccountId, mailbox_id: MailboxId) -> None:
        self._views = views
        self.account_id = account_id
        self.mailbox_id = mailbox_id
        self.snapshot: Snapshot
        self.deleted = False
        self.users = 0
        self.holders: set[Holder] = set()
        self._listeners: dict[object, Callable[[], None]] = {}
        self._lock = asyncio.Lock()
        self._begun = 0
        self._ended = 0
        self._failure: StorageError | None = None
        self._mark = clock.NEVER
        self._telling = False
        self.kept_octets = 0
        self.missed = False

    def listen(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Calls back, from the loop, after the snapshot changed or the mailbox went; returns how to stop."""
        key = object()
        self._listeners[key] = callback
        return lambda: self._listeners.pop(key, None) and None

    @property
    def listened(self) -> bool:
        return bool(self._listeners)

    def close(self) -> None:
        """One user less; each `open` is closed once."""
        self._views.closed(self)

    async def load(self) -> bool:
        """False where another had loaded it, perhaps too early for who asks now."""
        async with self._lock:
            if hasattr(self, "snapshot"):
                return False
            mark = self._views.store.clock.mark(self.account_id)
            async with self._views.store.acquire() as conn:
                mailbox = await mailboxes.get_in(conn, self.account_id, self.mailbox_id)
                rows = await conn.fetch(membership.READ_ALL, self.account_id, self.mailbox_id)
                pages = membership.pages_of(rows)
                mailbox = await self._naming(conn, mailbox, pages)
            self.snapshot = Snapshot(mailbox, pages)
            self._mark = mark
            self._views.weigh(self)
            if self.missed:
                self._views.read_soon(self)
            return True

    async def refresh(self) -> None:
        """Sees everything that was told before the call: all that this node has committed, and what it has heard of
        others (storage/clock.py). StorageError where the database has to be asked and does not answer.

        Those that wait for each other share one reading, and its failure; one that was cancelled counts for nobody.
        A folded view stays folded where nothing has changed.
        """
        self._views.used(self)
        await self.follow()

    async def follow(self) -> None:
        """`refresh` where no session asks for it, so that it is no use of the view."""
        if self._views.store.clock.stands(self.account_id, self._mark):
            return
        asked = self._begun
        async with self._lock:
            if self.deleted:
                return
            if self._ended <= asked:
                await self._read()
            if self._failure is not None:
                raise self._failure

    @property
    def is_read(self) -> bool:
        """Is it being read just now, by who may have asked too early?"""
        return self._lock.locked()

    @property
    def folded(self) -> bool:
        return self.snapshot.folded

    async def unfold(self) -> None:
        """Gives view and sessions their pages back; what has changed since is told like any change. StorageError.

        A snapshot that stays folded cannot be known any more: its session has to end.
        """
        self._views.used(self)
        async with self._lock:
            if not self.deleted and any(snapshot.folded for snapshot in self._snapshots()):
                try:
                    await self._unfold()
                except NotFound:
                    self.gone()

    def fold(self) -> bool:
        """Gives up all pages, unless they are needed or could not be worked out again."""
        if self.deleted or self.folded or self._lock.locked() or self._telling or len(self.holders) < self.users:
            return False
        if any(holder.is_busy for holder in self.holders):
            return False
        snapshots = [snapshot for snapshot in self._snapshots() if not snapshot.folded]
        if not all(map(folding.is_foldable, snapshots)):
            return False
        for snapshot in snapshots:
            snapshot.fold()
        for holder in self.holders:
            holder.rest()
        return True

    def _snapshots(self) -> set[Snapshot]:
        return {self.snapshot, *(holder.snapshot for holder in self.holders)}

    async def _unfold(self) -> None:
        key = (self.account_id, self.mailbox_id)
        mark = self._views.store.clock.mark(self.account_id)
        folded = [snapshot for snapshot in self._snapshots() if snapshot.folded]
        folded.sort(key=lambda snapshot: snapshot is self.snapshot)  # until that has its pages, sessions wait
        async with self._views.store.acquire() as conn:
            await conn.execute(_BEGIN)
            try:
                mailbox = await mailboxes.get_in(conn, *key)
                rows = await conn.fetch(membership.READ_ALL, *key)
                left = await conn.fetch(
                    folding.VANISHED_SINCE, *key, min(snapshot.mailbox.highestmodseq for snapshot in folded)
                )
            finally:
                await conn.execute("ROLLBACK")
        pages = membership.pages_of(rows)
        for snapshot in folded:
            known = await aside(mailbox.messages * _OCTETS_A_MESSAGE, folding.as_known, snapshot.mailbox, pages, left)
            if known is None:
                log.warning("mailbox %s of account %s cannot be known as it was", self.mailbox_id, self.account_id)
            else:
                snapshot.unfold(known.pages, vague=known.vague)
        was = self.snapshot.mailbox
        if mailbox.highestmodseq > was.highestmodseq or self.snapshot.folded:
            self.snapshot = Snapshot(mailbox, pages)
            self._tell()
        elif mailbox != was and mailbox.modseq >= was.modseq:
            self.snapshot = self.snapshot.replaced(mailbox, ())
        self._mark = mark
        self._views.weigh(self)

    async def _read(self) -> None:
        self._begun += 1
        self._failure = None
        try:
            await self._read_changes()
        except NotFound:
            self.gone()
        except StorageError as error:
            self._failure = error
        self._ended = self._begun

    async def _read_changes(self) -> None:
        mark = self._views.store.clock.mark(self.account_id)
        held = self.snapshot.mailbox.highestmodseq
        key = (self.account_id, self.mailbox_id)
        async with self._views.store.acquire() as conn:
            mailbox = await mailboxes.get_in(conn, *key)
            if mailbox.highestmodseq <= held:
                # The row alone may differ: its name, or \\Recent, whose claims raise no modseq.
                is_newer = mailbox.modseq >= self.snapshot.mailbox.modseq
                if is_newer and mailbox != self.snapshot.mailbox and not self.folded:
                    self.snapshot = self.snapshot.replaced(mailbox, ())
                self._mark = mark
                return
            if not self.folded:
                left = await conn.fetch(vanished.SINCE, *key, held)
                pages = membership.pages_of(await conn.fetch(membership.READ_SINCE, *key, held))
                mailbox = await self._naming(conn, mailbox, pages)
        if self.folded:
            await self._unfold()
            return
        emptied = {number for row in left for number in membership.numbers_of(unpack(UINT4, row["uids"]))}
        emptied.difference_update(page.number for page in pages)
        self._take(mailbox, pages, [n for n in emptied if self._held_modseq(n) <= mailbox.highestmodseq])
        self._mark = mark

    async def _naming(self, conn: Any, mailbox: Mailbox, pages: Sequence[Page]) -> Mailbox:
        """The row as it was read before these pages, with all keywords that they use."""
        if all(page.modseq <= mailbox.highestmodseq for page in pages):
            return mailbox
        now = await mailboxes.get_in(conn, self.account_id, self.mailbox_id)
        return replace(mailbox, keywords=now.keywords)

    def _held_modseq(self, number: int) -> int:
        index = self.snapshot.page_index(number)
        return self.snapshot.pages[index].modseq if index >= 0 else 0

    def apply(self, effect: Effect) -> None:
        """A change of this worker: exact where the view stands where the change began, else it has to be read."""
        if self.folded or self.snapshot.mailbox.highestmodseq != effect.before.highestmodseq or effect.stale:
            self._views.read_soon(self)
            return
        pages = map(self._merged, effect.pages) if effect.appended else effect.pages
        self._take(effect.after, list(pages), effect.gone)

    def _merged(self, new: Page) -> Page:
        index = self.snapshot.page_index(new.number)
        if index < 0:
            return new
        old = self.snapshot.pages[index]
        if old.modseq > new.modseq or old.uids[-1] >= new.uids[0]:  # it was read after the new messages had come
            return old
        return Page(
            new.number,
            new.modseq,
            old.uids + new.uids,
            old.message_ids + new.message_ids,
            old.flags + new.flags,
            old.modseqs + new.modseqs,
            old.sizes + new.sizes,
            old.received + new.received,
            old.saved + new.saved,
        )

    def _take(self, mailbox: Mailbox, pages: Sequence[Page], gone: Sequence[int]) -> None:
        now = self.snapshot.mailbox
        if (mailbox.highestmodseq, mailbox.modseq) < (now.highestmodseq, now.modseq):
            mailbox = now
        self.snapshot = self.snapshot.replaced(mailbox, pages, gone)
        self._tell()

    def claimed(self, recent_uid: int) -> None:
        """Messages below this UID are claimed; those that came since the claim are not."""
        if not self.folded and recent_uid > self.snapshot.mailbox.recent_uid:
            recent = self.snapshot.count - self.snapshot.count_below(recent_uid)
            mailbox = replace(self.snapshot.mailbox, recent=recent, recent_uid=recent_uid)
            self.snapshot = self.snapshot.replaced(mailbox, ())

    def gone(self) -> None:
        self.deleted = True
        self._tell()

    def _tell(self) -> None:
        """Tells the listeners in slices, so that a thousand sessions do not hold up the loop."""
        if self._listeners and not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell_slice, list(self._listeners))

    def _tell_slice(self, keys: list[object]) -> None:
        self._telling = False
        for key in keys[:_TOLD_AT_ONCE]:
            callback = self._listeners.get(key)
            if callback is not None:
                try:
                    callback()
                except Exception:
                    log.exception("a listener of a mailbox view failed")
        if len(keys) > _TOLD_AT_ONCE:
            asyncio.get_running_loop().call_soon(self._tell_slice, keys[_TOLD_AT_ONCE:])

    @property
    def weight(self) -> int:
        """About how much memory the view takes, and what its sessions know that lag behind, octets."""
        older = self._snapshots() - {self.snapshot}
        left: set[Page] = set().union(*(snapshot.pages for snapshot in older)).difference(self.snapshot.pages)
        pages = [*self.snapshot.pages, *left]
        texts = sum([len(page.cache) for page in pages if page.cache])
        messages = self.snapshot.count + sum(map(len, left))
        places = sum(len(snapshot.pages) for snapshot in older)
        return (
            _OCTETS_A_VIEW
            + messages * _OCTETS_A_MESSAGE
            + len(pages) * _OCTETS_A_PAGE
            + places * _OCTETS_A_PLACE
            + texts * _OCTETS_A_TEXT
        )


class Views:
    """All views of one worker."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._open: OrderedDict[Key, MailboxView] = OrderedDict()
        self._idle: OrderedDict[Key, MailboxView] = OrderedDict()
        self.octets = 0
        self._limit = store.config.view_memory_mib << 20
        self._due: set[MailboxView] = set()
        self._reading: set[asyncio.Task[None]] = set()
        # Commands find a connection too, however many views have to be read at once.
        self._readers = asyncio.Semaphore(max(1, store.config.pool_size // 2))
        self._unlisten = store.changes.listen(self._heard)
        self._poller = asyncio.create_task(self._poll())

    async def close(self) -> None:
        self._unlisten()
        await end([*self._reading, self._poller])

    async def open(self, account_id: AccountId, mailbox_id: MailboxId) -> MailboxView:
        """The shared view, up to date; NotFound. Whoever opens closes."""
        key = (account_id, mailbox_id)
        view = self._open.get(key) or self._taken(key) or MailboxView(self, account_id, mailbox_id)
        self._open[key] = view
        view.users += 1
        try:
            if hasattr(view, "snapshot") or not await view.load():
                await view.refresh()
                await view.unfold()
            if view.deleted:
                raise NotFound(f"mailbox {mailbox_id}")
        except BaseException:
            self.closed(view)
            raise
        return view

    def closed(self, view: MailboxView) -> None:
        view.users -= 1
        key = (view.account_id, view.mailbox_id)
        if view.users or self._open.get(key) is not view:
            return
        del self._open[key]
        if hasattr(view, "snapshot") and not view.deleted and not view.folded:
            self._idle[key] = view
            self.weigh(view)
        else:
            self._forget(view)

    def used(self, view: MailboxView) -> None:
        """A session needs it: it is the last that is folded."""
        key = (view.account_id, view.mailbox_id)
        if key in self._open:
            self._open.move_to_end(key)

    def weigh(self, view: MailboxView) -> None:
        """The view has become larger or smaller: others make room where all are too large."""
        self._count(view)
        while self.octets > self._limit and self._idle:
            self._forget(self._idle.popitem(last=False)[1])
        for open_view in list(self._open.values()) if self.octets > self._limit else ():
            if hasattr(open_view, "snapshot") and open_view is not view and open_view.fold():
                self._count(open_view)
                if self.octets <= self._limit:
                    break

    def _count(self, view: MailboxView) -> None:
        if self._held(view.account_id, view.mailbox_id) is not view:
            return  # its last session left while it was read
        weight = view.weight
        self.octets += weight - view.kept_octets
        view.kept_octets = weight

    def _forget(self, view: MailboxView) -> None:
        self.octets -= view.kept_octets
        view.kept_octets = 0

    def _taken(self, key: Key) -> MailboxView | None:
        """Takes a view out of those that are kept for later."""
        return self._idle.pop(key, None)

    def apply(self, effect: Effect) -> None:
        """A committed change of this worker."""
        view = self._held(effect.before.account_id, effect.before.mailbox_id)
        if view is not None:
            try:
                view.apply(effect)
            except Exception:  # what is committed stays committed, so its writer hears of no failure here
                log.exception("a change could not be applied to a view")
                self.read_soon(view)

    def gone(self, account_id: int, mailbox_id: int) -> None:
        view = self._held(account_id, mailbox_id)
        if view is not None:
            view.gone()
            if self._taken((account_id, mailbox_id)) is not None:
                self._forget(view)

    def claimed(self, account_id: int, mailbox_id: int, recent_uid: int) -> None:
        view = self._held(account_id, mailbox_id)
        if view is not None:
            view.claimed(recent_uid)

    def holds(self, account_id: int, mailbox_id: int) -> bool:
        """Is this mailbox in memory, so that a change of it is worth describing?"""
        key = (account_id, mailbox_id)
        return key in self._open or key in self._idle

    def _held(self, account_id: int, mailbox_id: int) -> MailboxView | None:
        key = (account_id, mailbox_id)
        view = self._open.get(key) or self._idle.get(key)
        return view if view is not None and hasattr(view, "snapshot") else None

    def _heard(self, notice: Notice) -> None:
        if notice.kind in ("resync", "look"):
            for view in list(self._open.values()):
                self.read_soon(view)
        elif notice.kind == "mail":
            for mailbox_id in notice.pages:
                self._changed((notice.account_id, mailbox_id), notice.modseq)

    def _changed(self, key: Key, modseq: int) -> None:
        view = self._open.get(key)
        if view is None:
            return
        if not hasattr(view, "snapshot"):
            view.missed = True
        elif view.snapshot.mailbox.highestmodseq < modseq:
            self.read_soon(view)

    def read_soon(self, view: MailboxView) -> None:
        """Refreshes the view in a task of its own, unless one is due that has not begun yet."""
        if view.users and hasattr(view, "snapshot") and not view.deleted and view not in self._due:
            if view.folded and not view.listened and not view.is_read:
                return  # whoever needs it next reads it
            self._due.add(view)
            task = asyncio.create_task(self._read(view))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _read(self, view: MailboxView) -> None:
        async with self._readers:
            self._due.discard(view)
            try:
                await view.follow()
            except StorageError as error:
                log.info("mailbox %s of account %s could not be read: %s", view.mailbox_id, view.account_id, error)

    async def _weigh_all(self) -> None:
        """Views grow with their mail, and with the texts that are kept of them."""
        last = None
        for number, view in enumerate(list(self._open.values()), 1):
            if number % _WEIGHED_AT_ONCE == 0:
                await asyncio.sleep(0)
            if hasattr(view, "snapshot") and self._open.get((view.account_id, view.mailbox_id)) is view:
                self._count(view)
                last = view
        if self.octets > self._limit and last is not None:
            self.weigh(last)

    async def _poll(self) -> None:
        """While notices may be missing, looks at the open mailboxes once a second; else now and then."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            await self._weigh_all()
            healthy, now = self.store.changes.healthy, time.monotonic()
            if healthy and now - looked < _LOOK_SECONDS:
                continue
            looked = now
            for view in list(self._open.values()):
                if view.listened or not healthy:
                    self.read_soon(view)
