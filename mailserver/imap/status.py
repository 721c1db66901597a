"""STATUS: answered from the mailbox's row alone (RFC 3501 §6.3.10)."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from mailserver.imap.errors import Done
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import StatusItem
from storage import mailboxes

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands

_VALUES = {
    StatusItem.MESSAGES: attrgetter("messages"),
    StatusItem.RECENT: attrgetter("recent"),
    StatusItem.UIDNEXT: attrgetter("uidnext"),
    StatusItem.UIDVALIDITY: attrgetter("uidvalidity"),
    StatusItem.UNSEEN: attrgetter("unseen"),
}


async def handle(s: Session, cmd: commands.Status) -> Done:
    assert s.account is not None
    mailbox = await mailboxes.find(s.service.store, s.account.account_id, cmd.mailbox)
    values = [(item.value, _VALUES[item](mailbox)) for item in cmd.items]
    s.write(responses.status(mailbox.name, s.service.separator, values))
    return Done("STATUS completed")
