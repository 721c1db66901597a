"""ENABLE (RFC 5161): what the server does only for clients that know of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailserver.imap.errors import Done
from mailserver.protocols.imap import responses
from mailserver.protocols.imap.commands import EXTENSIONS, Extension

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands


async def handle(s: Session, cmd: commands.Enable) -> Done:
    """The client may do so with a mailbox selected too; RFC 5161 §3.1 leaves that to the server."""
    news = cmd.extensions & ~s.enabled
    s.write(responses.enabled(name for name, extension in EXTENSIONS.items() if extension in news))
    if Extension.CONDSTORE in news:
        condstore(s)
    s.enabled |= news
    return Done("ENABLE completed")


def condstore(s: Session) -> None:
    """Called by every command that says the client knows of mod-sequences (RFC 7162 §3.1)."""
    if Extension.CONDSTORE in s.enabled:
        return
    s.enabled |= Extension.CONDSTORE
    if s.selected is not None:
        s.write(responses.ok("*", "Highest mod-sequence", f"HIGHESTMODSEQ {s.selected.mailbox.highestmodseq}"))
