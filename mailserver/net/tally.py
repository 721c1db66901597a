"""Counts that all workers of a node share: how many connections an address has, how many sessions an account.

A table in memory, mapped before the workers are forked. Each process counts in a row of its own, which nobody else
writes, so there is no lock, and a process that is killed leaves nothing half done: its row is wiped. A key has two
cells in each row, found by a salted hash; the lesser of the two sums is never too small, and too large only where
other keys share both cells (a count-min sketch).
"""

from __future__ import annotations

import mmap
import secrets

_CELLS = 65_536
"""Of each of the two halves of a row; a power of two."""
_CELL_OCTETS = 4


class Tally:
    """The table. rows: as many as there are ever processes at a time."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._memory = mmap.mmap(-1, rows * 2 * _CELLS * _CELL_OCTETS)  # pages that nobody touches cost nothing
        self._cells = memoryview(self._memory).cast("I")
        self._salt = secrets.token_hex(16)

    def wipe(self, row: int) -> None:
        """The process of this row has ended."""
        size = 2 * _CELLS * _CELL_OCTETS
        self._memory[row * size : (row + 1) * size] = bytes(size)

    def add(self, row: int, key: str, count: int) -> None:
        for cell in self._places(key):
            self._cells[row * 2 * _CELLS + cell] += count

    def others(self, row: int, key: str) -> int:
        """The count of a key in all rows but this one."""
        starts = [start * 2 * _CELLS for start in range(self.rows) if start != row]
        return min(sum([self._cells[start + cell] for start in starts]) for cell in self._places(key))

    def _places(self, key: str) -> tuple[int, int]:
        found = hash(self._salt + key)  # the same in all forked processes
        return found % _CELLS, _CELLS + (found >> 32) % _CELLS


class Share:
    """One process's part in a tally."""

    def __init__(self, tally: Tally, row: int) -> None:
        self._tally = tally
        self._row = row

    def add(self, key: str) -> None:
        self._tally.add(self._row, key, 1)

    def remove(self, key: str) -> None:
        self._tally.add(self._row, key, -1)

    def elsewhere(self, key: str) -> int:
        """What the other processes of the node have counted for the key."""
        return self._tally.others(self._row, key)


def alone() -> Share:
    """For a process that has no others beside it."""
    return Share(Tally(1), 0)
