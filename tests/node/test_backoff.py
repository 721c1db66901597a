"""Starting again: at once, then more slowly, and anew after a time of health."""

from __future__ import annotations

import pytest

from mailserver.node import backoff as subject
from mailserver.node.backoff import Backoff


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(subject, "monotonic", lambda: now[0])
    return now


def test_pauses_grow_up_to_a_bound(clock: list[float]) -> None:
    backoff = Backoff()
    pauses = []
    for _ in range(12):
        backoff.note_start()
        clock[0] += 0.01
        backoff.note_death()
        pauses.append(backoff.pause)
        clock[0] = backoff.not_before
    assert pauses[:4] == pytest.approx([0.0, 0.1, 0.2, 0.4], abs=1e-6)
    assert pauses[-1] == pytest.approx(subject.LONGEST)
    assert pauses == sorted(pauses)


def test_who_lived_long_is_started_at_once(clock: list[float]) -> None:
    backoff = Backoff(failures=7)
    backoff.note_start()
    clock[0] += subject.STEADY_SECONDS + 1
    backoff.note_death()
    assert backoff.failures == 1 and backoff.pause <= 0
