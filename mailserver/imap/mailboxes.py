"""The mailbox tree: CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, NAMESPACE.

Creating a mailbox creates the ones above it. Deleting one that has others below it leaves its name as a place in the
tree that holds no messages (RFC 3501 §6.3.4): such a name is not stored, it is seen from the names below it. Renaming
takes all that is below along (§6.3.5). Subscriptions are the client's own and change with neither (§6.3.6).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailserver.imap.errors import Done
from mailserver.protocols.imap import responses
from storage import mailboxes

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands


async def create(s: Session, cmd: commands.Create) -> Done:
    await mailboxes.create(s.service.store, s.account_id, cmd.mailbox, cmd.uses)
    return Done("CREATE completed")


async def delete(s: Session, cmd: commands.Delete) -> Done:
    mailbox = await mailboxes.find(s.service.store, s.account_id, cmd.mailbox)
    await mailboxes.delete(s.service.store, mailbox.account_id, mailbox.mailbox_id)
    if s.selected is not None and s.selected.view.mailbox_id == mailbox.mailbox_id:
        s.deselect()
    return Done("DELETE completed")


async def rename(s: Session, cmd: commands.Rename) -> Done:
    await mailboxes.rename(s.service.store, s.account_id, cmd.source, cmd.target)
    return Done("RENAME completed")


async def subscribe(s: Session, cmd: commands.Subscribe) -> Done:
    """The mailbox need not exist (RFC 3501 §6.3.6)."""
    await mailboxes.subscribe(s.service.store, s.account_id, cmd.mailbox)
    return Done("SUBSCRIBE completed")


async def unsubscribe(s: Session, cmd: commands.Unsubscribe) -> Done:
    await mailboxes.unsubscribe(s.service.store, s.account_id, cmd.mailbox)
    return Done("UNSUBSCRIBE completed")


async def namespace(s: Session, cmd: commands.Namespace) -> Done:
    s.write(responses.namespace(s.wire))
    return Done("NAMESPACE completed")
