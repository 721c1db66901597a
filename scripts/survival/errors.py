"""What ends a run."""

from __future__ import annotations


class ChaosError(Exception):
    """The run cannot go on; the text says why."""


class Incident(Exception):
    """The server has not come back from a fault; the text says from which."""
