from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import pytest

from mailserver.protocols.imap import commands
from mailserver.protocols.imap.commands import Command
from mailserver.protocols.imap.server_states import ALLOWED, State, allowed

# RFC 3501 §6.1 to §6.4 by headings, with the extensions' commands beside those that they resemble.
ANY = {"Capability", "Noop", "Logout", "Id"}
NOT_AUTHENTICATED = {"StartTls", "Authenticate", "Login"}
AUTHENTICATED = {
    "Enable",
    "Select",
    "Create",
    "Delete",
    "Rename",
    "Subscribe",
    "Unsubscribe",
    "List",
    "Lsub",
    "Namespace",
    "Status",
    "Append",
    "Idle",
}
SELECTED = {"Check", "Close", "Unselect", "Expunge", "Search", "Fetch", "Store", "Copy", "Move"}

LEGAL = {
    State.NOT_AUTHENTICATED: ANY | NOT_AUTHENTICATED,
    State.AUTHENTICATED: ANY | AUTHENTICATED,
    State.SELECTED: ANY | AUTHENTICATED | SELECTED,
    State.LOGOUT: set[str](),
}
NAMES = sorted(ANY | NOT_AUTHENTICATED | AUTHENTICATED | SELECTED)


def some(name: str) -> Command:
    """A command of that kind; its arguments do not matter."""
    kind: Any = getattr(commands, name)
    made: Command = kind(*(None for field in fields(kind) if field.default is field.default_factory is MISSING))
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("state", State)
def test_every_pair(name: str, state: State) -> None:
    assert allowed(some(name), state) == (name in LEGAL[state])


def test_no_command_is_forgotten() -> None:
    assert {kind.__name__ for kind in ALLOWED} == set(NAMES)
    declared = {
        kind.__name__
        for kind in vars(commands).values()
        if isinstance(kind, type) and issubclass(kind, Command) and kind is not Command
    }
    assert declared == set(NAMES)
