"""A row of the table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Row:
    """Messages for one account each, and edits of them. found: those that have been carried out."""

    attempted: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0
    found: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    sent_twice: int = 0
    """Or more often, of those found: something was broken at the time."""
