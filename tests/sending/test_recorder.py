"""Outcomes are written in few transactions, and never given up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import pytest

from mailserver.sending import recorder
from mailserver.sending.recorder import Recorder
from storage import OutcomeUnknown, Store, Unavailable, queue
from storage.queue import Again, Ended, Gone, Key, Move, Moved, Said

SAID = Said(451, "4.3.0", "later", "mx")


def moved(number: int, move: Move | None = None) -> Moved:
    return Moved(Key(1, number, "x@remote.test"), uuid4(), move or Gone())


class Written:
    """Takes the place of the queue; `failures` are raised first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *failures: Exception) -> None:
        self.failures = list(failures)
        self.batches: list[list[Moved]] = []
        self.go = asyncio.Event()
        self.go.set()
        monkeypatch.setattr(queue, "record", self.record)
        monkeypatch.setattr(recorder, "_FIRST_PAUSE", 0.001)

    async def record(self, store: Store, moves: Sequence[Moved]) -> None:
        await self.go.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(list(moves))


STORE: Store = None  # type: ignore[assignment]


async def test_what_waits_while_one_is_written_goes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch)
    written.go.clear()
    it = Recorder(STORE, lambda: None)
    moves = [moved(number) for number in range(10)]
    it.put(moves[:1])
    await asyncio.sleep(0.01)
    for one in moves[1:]:
        it.put([one])
    written.go.set()
    await it.close(5)
    assert written.batches == [moves[:1], moves[1:]]


@pytest.mark.parametrize("failure", [Unavailable("gone"), OutcomeUnknown("lost"), RuntimeError("a fault")])
async def test_it_is_tried_until_it_is_written(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    written = Written(monkeypatch, failure, failure, failure)
    it = Recorder(STORE, lambda: None)
    it.put([moved(1)])
    await it.close(5)
    assert [len(batch) for batch in written.batches] == [1]


async def test_who_makes_reports_is_told_where_one_is_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    Written(monkeypatch)
    told: list[int] = []
    it = Recorder(STORE, lambda: told.append(1))
    for move in (Gone(), Again(SAID, 1.0, 2.0), Again(SAID, 1.0, 2.0, notice=True), Ended("failed", SAID)):
        it.put([moved(1, move)])
        async with asyncio.timeout(5):
            while it._waiting or it._writing:
                await asyncio.sleep(0)
    await it.close(5)
    assert len(told) == 2


async def test_there_is_no_room_while_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch)
    written.go.clear()
    it = Recorder(STORE, lambda: None)
    await it.room()
    it.put([moved(number) for number in range(recorder.MAX_WAITING)])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await it.room()
    written.go.set()
    async with asyncio.timeout(5):
        await it.room()
    await it.close(5)
    assert sum(map(len, written.batches)) == recorder.MAX_WAITING


async def test_closing_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    written = Written(monkeypatch)
    written.go.clear()
    it = Recorder(STORE, lambda: None)
    it.put([moved(1)])
    await it.close(0.05)
    assert "1 recipients could not be written" in caplog.text
