"""COPY and MOVE (RFC 3501 §6.4.7, RFC 6851), each one transaction: all messages of the set or none.

Messages of the set that others have expunged meanwhile are passed over; COPYUID names what went where (RFC 4315 §3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailserver.imap.errors import Done, Refusal, read_only
from mailserver.protocols.imap import responses
from storage import mailboxes, messages
from storage.errors import NotFound

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands
    from storage import CopyResult, Mailbox, MailboxId, Name


async def copy(s: Session, cmd: commands.Copy) -> Done:
    uids, target = await _what_and_where(s, cmd)
    if not uids:
        return Done("COPY completed")
    mailbox = _source(s)
    result = await messages.copy(s.service.store, mailbox.account_id, mailbox.mailbox_id, uids, target)
    await _show(s, target, result)
    return Done("COPY completed", _code(result))


async def move(s: Session, cmd: commands.Move) -> Done:
    assert s.selected is not None
    if s.selected.read_only:
        raise read_only()
    uids, target = await _what_and_where(s, cmd)
    if not uids:
        return Done("MOVE completed")
    mailbox = _source(s)
    result = await messages.move(s.service.store, mailbox.account_id, mailbox.mailbox_id, uids, target)
    if result.source:
        # RFC 6851 §4.3: before the EXPUNGE answers, so that the client knows where the messages are.
        s.write(responses.ok("*", "Moved", _code(result)))
    await s.selected.without(result.source)
    await _show(s, target, result)
    return Done("MOVE completed")


def _source(s: Session) -> Mailbox:
    assert s.selected is not None
    return s.selected.mailbox


async def _what_and_where(s: Session, cmd: commands.Copy | commands.Move) -> tuple[list[int], MailboxId]:
    assert s.selected is not None
    uids = s.selected.numbers.uids(s.selected.messages(cmd.messages, cmd.by_uid))
    return uids, await find_target(s, cmd.mailbox)


async def find_target(s: Session, name: Name) -> MailboxId:
    """The mailbox that messages shall go to; where there is none, the client may create it (RFC 3501 §6.3.11)."""
    try:
        return await mailboxes.locate(s.service.store, s.account_id, name)
    except NotFound:
        raise Refusal("No such mailbox", "TRYCREATE") from None


def _code(result: CopyResult) -> str:
    return responses.copy_uid(result.uidvalidity, result.source, result.destination) if result.source else ""


async def _show(s: Session, target: MailboxId, result: CopyResult) -> None:
    """New messages in the selected mailbox are told of at once."""
    if s.selected is not None and target == s.selected.view.mailbox_id:
        await s.selected.including(result.destination)
