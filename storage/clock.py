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
_NAMES = _CELLS
_OF_ALL = 2 * _CELLS
_OCTETS = 8


class Mark(NamedTuple):
    """The stamps that stood when a reading began, and when that was. names: of the account's mailbox names alone."""

    account: int
    names: int
    all: int
    moment: float


class Stamps:
    """The cells, in memory that processes forked from now on share."""

    def __init__(self) -> None:
        self.node = secrets.token_hex(8)
        self.cells = memoryview(mmap.mmap(-1, (2 * _CELLS + 1) * _OCTETS)).cast("Q")


class Clock:
    """One process's view of the stamps. None: the other writers do not share them, so nothing ever stands.

    feed_is_whole: do notices of the other nodes arrive?
    """

    def __init__(self, stamps: Stamps | None, feed_is_whole: Callable[[], bool]) -> None:
        self._cells = None if stamps is None else stamps.cells
        self._feed_is_whole = feed_is_whole
        self._new = itertools.count(secrets.randbits(62))
        self.node = secrets.token_hex(8) if stamps is None else stamps.node

    def touch(self, account_id: int, *, names: bool = True) -> None:
        """A change of the account was committed, perhaps of its mailboxes' names; before its writer says so.

        0: nobody knows of which account.
        """
        if self._cells is not None:
            self._cells[account_id % _CELLS if account_id else _OF_ALL] = next(self._new)
            if names:
                self._cells[_NAMES + account_id % _CELLS] = next(self._new)

    def mark(self, account_id: int) -> Mark:
        """To be taken before reading."""
        if self._cells is None:
            return NEVER
        cell = account_id % _CELLS
        return Mark(self._cells[cell], self._cells[_NAMES + cell], self._cells[_OF_ALL], time.monotonic())

    def stands(self, account_id: int, mark: Mark) -> bool:
        """Would reading again give the same?"""
        cells = self._cells
        return cells is not None and cells[account_id % _CELLS] == mark.account and self._is_new(cells, mark)

    def names_stand(self, account_id: int, mark: Mark) -> bool:
        """Would the account's mailboxes have the same names and ids?"""
        cells = self._cells
        return cells is not None and cells[_NAMES + account_id % _CELLS] == mark.names and self._is_new(cells, mark)

    def _is_new(self, cells: memoryview, mark: Mark) -> bool:
        return cells[_OF_ALL] == mark.all and time.monotonic() - mark.moment < STANDS_SECONDS and self._feed_is_whole()


NEVER = Mark(0, 0, 0, float("-inf"))
"""Does not stand."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """What was read of accounts, as long as it stands; the longest unused goes first."""

    def __init__(self, stands: Callable[[int, Mark], bool], limit: int) -> None:
        self._stands = stands
        self._limit = limit
        self._kept: OrderedDict[tuple[int, K], tuple[Mark, V]] = OrderedDict()

    def get(self, account_id: int, key: K) -> V | None:
        kept = self._kept.get((account_id, key))
        if kept is None or not self._stands(account_id, kept[0]):
            return None
        self._kept.move_to_end((account_id, key))
        return kept[1]

    def keep(self, account_id: int, key: K, mark: Mark, value: V) -> None:
        self._kept[account_id, key] = (mark, value)
        self._kept.move_to_end((account_id, key))
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)
