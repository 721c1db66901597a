"""EXPUNGE and UID EXPUNGE (RFC 4315 §2.1). The EXPUNGE answers are the session's ordinary news of its mailbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailserver.imap.errors import Done, read_only
from storage import messages

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands


async def handle(s: Session, cmd: commands.Expunge) -> Done:
    selected = s.selected
    assert selected is not None
    if selected.read_only:
        raise read_only()
    uids = None
    if cmd.uids is not None:
        uids = selected.numbers.uids(selected.messages(cmd.uids, by_uid=True))
        if not uids:
            return Done("UID EXPUNGE completed")
    mailbox = selected.mailbox
    gone = await messages.expunge(s.service.store, mailbox.account_id, mailbox.mailbox_id, uids)
    await selected.without(gone)
    return Done("EXPUNGE completed" if cmd.uids is None else "UID EXPUNGE completed")
