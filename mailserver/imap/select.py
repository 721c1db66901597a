"""SELECT, EXAMINE, and what looks at the selected mailbox or leaves it: NOOP, CHECK, CLOSE, UNSELECT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailserver.imap import enable
from mailserver.imap.errors import Done
from mailserver.imap.selected import Selected
from mailserver.protocols.imap import responses
from storage import mailboxes, messages
from storage.errors import NotFound

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands


async def select(s: Session, cmd: commands.Select) -> Done:
    # RFC 3501 §6.3.1: the mailbox that was selected is left first, even where the new one cannot be opened.
    if s.selected is not None:
        s.deselect()
        s.write(responses.ok("*", "The mailbox selected before is closed", "CLOSED"))  # RFC 7162 §3.2.11
    store = s.service.store
    mailbox = await mailboxes.find(store, s.account_id, cmd.mailbox)
    view = await store.views.open(mailbox.account_id, mailbox.mailbox_id)
    if cmd.condstore:
        enable.condstore(s)
    selected = s.selected = Selected(view, s.service.memo(view), read_only=cmd.read_only, is_busy=lambda: s.is_busy)
    try:
        await selected.claim(s)
    except BaseException:
        s.deselect()
        raise
    s.write(_description(selected))
    if cmd.read_only:
        return Done("EXAMINE completed", "READ-ONLY")
    return Done("SELECT completed", "READ-WRITE")


def _description(selected: Selected) -> bytes:
    """The untagged answers of SELECT (RFC 3501 §6.3.1)."""
    snapshot = selected.numbers.snapshot
    mailbox = snapshot.mailbox
    unseen = snapshot.first_unseen()
    lines = [
        selected.flag_lines(),
        responses.exists(snapshot.count),
        responses.recent(selected.recent_count),
        responses.ok("*", "First unseen", f"UNSEEN {unseen}") if unseen else b"",
        responses.ok("*", "UIDs are valid", f"UIDVALIDITY {mailbox.uidvalidity}"),
        responses.ok("*", "Next UID", f"UIDNEXT {mailbox.uidnext}"),
        responses.ok("*", "Highest mod-sequence", f"HIGHESTMODSEQ {mailbox.highestmodseq}"),
    ]
    return b"".join(lines)


async def noop(s: Session, cmd: commands.Noop) -> Done:
    if s.selected is not None:
        await s.selected.view.refresh()
    return Done("NOOP completed")


async def check(s: Session, cmd: commands.Check) -> Done:
    assert s.selected is not None
    await s.selected.view.refresh()
    return Done("CHECK completed")


async def close(s: Session, cmd: commands.Close) -> Done:
    """Expunges without a word (RFC 3501 §6.4.2), then leaves the mailbox."""
    assert s.selected is not None
    if not s.selected.read_only:
        mailbox = s.selected.mailbox
        try:
            await messages.expunge(s.service.store, mailbox.account_id, mailbox.mailbox_id, None)
        except NotFound:
            pass  # The mailbox was deleted meanwhile; it is left all the same.
    s.deselect()
    return Done("CLOSE completed")


async def unselect(s: Session, cmd: commands.Unselect) -> Done:
    s.deselect()
    return Done("UNSELECT completed")
