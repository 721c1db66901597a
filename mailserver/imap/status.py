"""STATUS: answered from the mailbox's row alone (RFC 3501 §6.3.10)."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import TYPE_CHECKING

from mailserver.imap import enable
from mailserver.imap.errors import Done
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import StatusItem
from storage import mailboxes

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands
    from storage import Mailbox

_VALUES = {
    StatusItem.MESSAGES: attrgetter("messages"),
    StatusItem.RECENT: attrgetter("recent"),
    StatusItem.UIDNEXT: attrgetter("uidnext"),
    StatusItem.UIDVALIDITY: attrgetter("uidvalidity"),
    StatusItem.UNSEEN: attrgetter("unseen"),
    StatusItem.HIGHESTMODSEQ: attrgetter("highestmodseq"),
    StatusItem.SIZE: attrgetter("octets"),
}


async def handle(s: Session, cmd: commands.Status) -> Done:
    mailbox = await mailboxes.find(s.service.store, s.account_id, cmd.mailbox)
    if StatusItem.HIGHESTMODSEQ in cmd.items:
        enable.condstore(s)
    s.write(line(s, mailbox, cmd.items))
    return Done("STATUS completed")


def line(s: Session, mailbox: Mailbox, items: Iterable[StatusItem]) -> bytes:
    """The STATUS response. APPENDLIMIT is the same for all mailboxes (RFC 7889 §2)."""
    values = [
        (item.value, s.append_limit if item is StatusItem.APPENDLIMIT else _VALUES[item](mailbox)) for item in items
    ]
    return responses.status(mailbox.name, s.wire, values)
