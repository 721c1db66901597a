"""Which command is legal when (RFC 3501 §3 and §6). Everything that decides it is in this table.

The table does not know what else may stand against a command: STARTTLS under TLS, LOGIN without it, a mailbox that is
read-only.
"""

from __future__ import annotations

from enum import Enum

from mailserver.protocols.imap import commands
from mailserver.protocols.imap.commands import Command


class State(Enum):
    """RFC 3501 §3. The value says where a client is, for the answer to a command that is not legal there."""

    NOT_AUTHENTICATED = "before login"
    AUTHENTICATED = "without a selected mailbox"
    SELECTED = "with a selected mailbox"
    LOGOUT = "after LOGOUT"


_ANY = frozenset({State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED})
_BEFORE = frozenset({State.NOT_AUTHENTICATED})
_AFTER = frozenset({State.AUTHENTICATED, State.SELECTED})
_SELECTED = frozenset({State.SELECTED})

ALLOWED: dict[type[Command], frozenset[State]] = {
    commands.Capability: _ANY,
    commands.Noop: _ANY,
    commands.Logout: _ANY,
    commands.Id: _ANY,
    commands.StartTls: _BEFORE,
    commands.Authenticate: _BEFORE,
    commands.Login: _BEFORE,
    commands.Enable: _AFTER,
    commands.Select: _AFTER,
    commands.Create: _AFTER,
    commands.Delete: _AFTER,
    commands.Rename: _AFTER,
    commands.Subscribe: _AFTER,
    commands.Unsubscribe: _AFTER,
    commands.List: _AFTER,
    commands.Lsub: _AFTER,
    commands.Namespace: _AFTER,
    commands.Status: _AFTER,
    commands.Append: _AFTER,
    commands.Idle: _AFTER,
    commands.Check: _SELECTED,
    commands.Close: _SELECTED,
    commands.Unselect: _SELECTED,
    commands.Expunge: _SELECTED,
    commands.Search: _SELECTED,
    commands.Fetch: _SELECTED,
    commands.Store: _SELECTED,
    commands.Copy: _SELECTED,
    commands.Move: _SELECTED,
}


def allowed(command: Command, state: State) -> bool:
    """Whether the command is legal in this state; where it is not, the answer is BAD."""
    return state in ALLOWED[type(command)]
