"""How a worker knows without a query that nothing has changed: stamps that all workers of a node share.

Whoever has committed a change of an account puts a new stamp on it before anybody is told, and so does whoever hears of
a change that another node has made. What was read under a stamp that still stands is as new as a query would be, as far
as this node goes. Another node's change is seen with its notice; so that a lost one heals, nothing stands for more than
a second, nor while notices may be missing.

A stamp is never used twice, so writers need no lock: whichever of two stamps stays, it is none that a reader has seen.
"""

from __future__ import annotations

import itertools
import mmap
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

STANDS_SECONDS = 1.0
_CELLS = 65_536
"""Accounts that are so many apart share a cell, and read again now and then without need."""
_OF_ALL = _CELLS
_OCTETS = 8


class Mark(NamedTuple):
    """The stamps that stood when a reading began, and when that was."""

    account: int
    all: int
    moment: float


class Stamps:
    """The cells, in memory that processes forked from now on share."""

    def __init__(self) -> None:
        self.node = secrets.token_hex(8)
        self.cells = memoryview(mmap.mmap(-1, (_CELLS + 1) * _OCTETS)).cast("Q")


class Clock:
    """One process's view of the stamps. None: the other writers do not share them, so nothing ever stands.

    feed_is_whole: do notices of the other nodes arrive?
    """

    def __init__(self, stamps: Stamps | None, feed_is_whole: Callable[[], bool]) -> None:
        self._cells = None if stamps is None else stamps.cells
        self._feed_is_whole = feed_is_whole
        self._new = itertools.count(secrets.randbits(62))
        self.node = secrets.token_hex(8) if stamps is None else stamps.node

    def touch(self, account_id: int) -> None:
        """A change of the account was committed; before its writer says so. 0: nobody knows of which."""
        if self._cells is not None:
            self._cells[account_id % _CELLS if account_id else _OF_ALL] = next(self._new)

    def mark(self, account_id: int) -> Mark:
        """To be taken before reading."""
        if self._cells is None:
            return Mark(0, 0, 0.0)
        return Mark(self._cells[account_id % _CELLS], self._cells[_OF_ALL], time.monotonic())

    def stands(self, account_id: int, mark: Mark) -> bool:
        """Would reading again give the same?"""
        cells = self._cells
        return (
            cells is not None
            and self._feed_is_whole()
            and cells[account_id % _CELLS] == mark.account
            and cells[_OF_ALL] == mark.all
            and time.monotonic() - mark.moment < STANDS_SECONDS
        )


NEVER = Mark(0, 0, float("-inf"))
"""Does not stand."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """What was read of accounts, as long as it stands; the longest unused goes first."""

    def __init__(self, clock: Clock, limit: int) -> None:
        self._clock = clock
        self._limit = limit
        self._kept: OrderedDict[tuple[int, K], tuple[Mark, V]] = OrderedDict()

    def get(self, account_id: int, key: K) -> V | None:
        kept = self._kept.get((account_id, key))
        if kept is None or not self._clock.stands(account_id, kept[0]):
            return None
        self._kept.move_to_end((account_id, key))
        return kept[1]

    def keep(self, account_id: int, key: K, mark: Mark, value: V) -> None:
        self._kept[account_id, key] = (mark, value)
        self._kept.move_to_end((account_id, key))
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
