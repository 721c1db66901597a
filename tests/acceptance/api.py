"""The whole API of a client library as tests: what belongs to it, and what of it a test has used."""

from __future__ import annotations

import inspect
from typing import Any

SUBJECTS = ("one", "two", "three")
"""Of the messages in the mailbox that a case is given; their UIDs are 1 to 3."""


class Noting:
    """To stand before a client's class: notes the public names that are used, by a test or by the client itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.used: set[str] = set()
        super().__init__(*args, **options)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name != "used":
            self.used.add(name)
        return super().__getattribute__(name)


def public(*classes: type) -> set[str]:
    """The names of all their public methods and properties."""
    members = [found for cls in classes for found in inspect.getmembers_static(cls, _acts)]
    return {name for name, _ in members if not name.startswith("_")}


def _acts(member: object) -> bool:
    return inspect.isroutine(member) or isinstance(member, property)
