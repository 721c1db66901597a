"""Mailboxes held in memory: one view a worker, shared by all sessions that have the mailbox open.

A view is loaded once, then kept true in three ways. A change made by this worker is applied from the values the
writer has in its hands. A notice from another worker makes the view read what has a higher modseq. And `refresh`,
which every command that may show changes calls, compares the mailbox row, so that a lost notice heals.

Reading order matters: the mailbox row first, then `vanished`, then pages. The row's highestmodseq then promises no
more than the pages hold; and a page that `vanished` touches but that no longer stands among the changed ones is
surely gone.

A notice may be lost without anybody knowing, as when its writer is killed behind the COMMIT; so views that somebody
listens to are looked at once a minute even where all is well.

Closed views are kept while the worker's memory for them lasts, the longest unused go first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from storage import clock, mailboxes, membership, vanished
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
_POLL_SECONDS = 1.0
_LOOK_SECONDS = 60.0
_TOLD_AT_ONCE = 100

Key = tuple[int, int]


class MailboxView:
    """One mailbox as this worker knows it. `snapshot` is replaced, never changed; `deleted` once it does not exist."""

    def __init__(self, views: Views, account_id: AccountId, mailbox_id: MailboxId) -> None:
        self._views = views
        self.account_id = account_id
        self.mailbox_id = mailbox_id
        self.snapshot: Snapshot
        self.deleted = False
        self.users = 0
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
            self.snapshot = Snapshot(mailbox, membership.pages_of(rows))
            self._mark = mark
            if self.missed:
                self._views.read_soon(self)
            return True

    async def refresh(self) -> None:
        """Sees everything that was told before the call: all that this node has committed, and what it has heard of
        others (storage/clock.py). StorageError where the database has to be asked and does not answer.

        Those that wait for each other share one reading, and its failure; one that was cancelled counts for nobody.
        """
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
                if mailbox.modseq >= self.snapshot.mailbox.modseq and mailbox != self.snapshot.mailbox:
                    self.snapshot = self.snapshot.replaced(mailbox, ())
                self._mark = mark
                return
            left = await conn.fetch(vanished.SINCE, *key, held)
            rows = await conn.fetch(membership.READ_SINCE, *key, held)
        pages = membership.pages_of(rows)
        emptied = {number for row in left for number in membership.numbers_of(unpack(UINT4, row["uids"]))}
        emptied.difference_update(page.number for page in pages)
        self._take(mailbox, pages, [n for n in emptied if self._held_modseq(n) <= mailbox.highestmodseq])
        self._mark = mark

    def _held_modseq(self, number: int) -> int:
        index = self.snapshot.page_index(number)
        return self.snapshot.pages[index].modseq if index >= 0 else 0

    def apply(self, effect: Effect) -> None:
        """A change of this worker: exact where the view stands where the change began, else it has to be read."""
        if self.snapshot.mailbox.highestmodseq != effect.before.highestmodseq or effect.stale:
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
        if recent_uid > self.snapshot.mailbox.recent_uid:
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
        """About how much memory the view takes, octets."""
        snapshot = self.snapshot
        return _OCTETS_A_VIEW + snapshot.count * _OCTETS_A_MESSAGE + len(snapshot.pages) * _OCTETS_A_PAGE


class Views:
    """All views of one worker."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._open: dict[Key, MailboxView] = {}
        self._idle: OrderedDict[Key, MailboxView] = OrderedDict()
        self._idle_octets = 0
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
        if hasattr(view, "snapshot") and not view.deleted:
            self._idle[key] = view
            view.kept_octets = view.weight
            self._idle_octets += view.kept_octets
            while self._idle_octets > self._limit:
                self._taken(next(iter(self._idle)))

    def _taken(self, key: Key) -> MailboxView | None:
        """Takes a view out of those that are kept for later."""
        view = self._idle.pop(key, None)
        if view is not None:
            self._idle_octets -= view.kept_octets
        return view

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
            self._taken((account_id, mailbox_id))

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
            self._due.add(view)
            task = asyncio.create_task(self._read(view))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _read(self, view: MailboxView) -> None:
        async with self._readers:
            self._due.discard(view)
            try:
                await view.refresh()
            except StorageError as error:
                log.info("mailbox %s of account %s could not be read: %s", view.mailbox_id, view.account_id, error)

    async def _poll(self) -> None:
        """While notices may be missing, looks at the open mailboxes once a second; else now and then."""
        looked = time.monotonic()
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            healthy, now = self.store.changes.healthy, time.monotonic()
            if healthy and now - looked < _LOOK_SECONDS:
                continue
            looked = now
            for view in list(self._open.values()):
                if view.listened or not healthy:
                    self.read_soon(view)
