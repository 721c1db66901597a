"""What may go wrong in a run, told apart by what the run does next."""

from __future__ import annotations


class NotAvailable(Exception):
    """This server cannot be measured here (not installed, or not allowed to start it): leave it out and say so."""


class BenchError(Exception):
    """A measurement failed: the figure shows the reason instead of a number, the run goes on."""
