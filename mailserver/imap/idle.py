"""IDLE (RFC 2177): from `+ idling` to the client's DONE the session has no task, and the mailbox's view calls it.

What changes is told at once, by the session's `push`. A client that does not read is told nothing more until it does,
and then of everything that is different: there is no backlog.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mailserver.imap.errors import bad
from mailserver.protocols.imap import responses

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands

_DONE = b"DONE"
_LINE_OCTETS = 64


class Idling:
    """A session in IDLE: the command's tag, and how to stop listening."""

    __slots__ = ("_unlisten", "tag")

    def __init__(self, tag: str, unlisten: Callable[[], None] | None) -> None:
        self.tag = tag
        self._unlisten = unlisten

    def stop(self) -> None:
        if self._unlisten is not None:
            self._unlisten()


async def handle(s: Session, cmd: commands.Idle) -> None:
    changes = None
    if s.selected is not None:
        await s.selected.view.refresh()
        changes = await s.selected.advance(s, expunge_ok=True)
    s.framer.expect_line(_LINE_OCTETS)
    s.idling = Idling(cmd.tag, s.selected.view.listen(s.push) if s.selected is not None else None)
    # News come behind the continuation, in one piece with it. Thunderbird and IMAPClient take the first answer to IDLE
    # for the continuation, and Thunderbird may sleep on what arrives just after it.
    continuation = responses.continuation("Idling")
    if s.selected is not None and changes:
        await s.selected.tell(s, changes, continuation)
    else:
        s.write(continuation)


async def line(s: Session, octets: bytes) -> None:
    """The client ends IDLE; anything but DONE ends it too, as a mistake."""
    idling, s.idling = s.idling, None
    assert idling is not None
    idling.stop()
    if octets.strip().upper() != _DONE:
        s.refuse(idling.tag, bad("Expected DONE"))
        return
    if s.selected is not None:
        await s.selected.catch_up(s, expunge_ok=True)
    s.write(responses.ok(idling.tag, "IDLE completed"))
