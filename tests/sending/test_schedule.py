"""When destinations are to be looked at."""

from __future__ import annotations

import math

from mailserver.sending.schedule import Schedule


def test_due_in_the_order_of_their_moments() -> None:
    it = Schedule()
    for name, moment in {"c": 3.0, "a": 1.0, "b": 2.0}.items():
        assert it.note(name, moment)
    assert it.next() == 1.0
    assert it.take_due(2.5) == ["a", "b"] and it.take_due(2.5) == []
    assert it.next() == 3.0 and "c" in it and "a" not in it


def test_a_sooner_moment_counts() -> None:
    it = Schedule()
    it.note("a", 5.0)
    assert not it.note("a", 6.0) and it.note("a", 4.0)
    assert it.next() == 4.0 and it.take_due(10.0) == ["a"]
    assert it.next() == math.inf and it.take_due(10.0) == []


def test_others_take_the_place_of_all() -> None:
    it = Schedule()
    it.note("a", 1.0)
    it.replace({"b": 2.0, "c": 1.5})
    assert "a" not in it and it.take_due(10.0) == ["c", "b"]


def test_what_was_taken_may_come_again() -> None:
    it = Schedule()
    it.note("a", 1.0)
    it.take_due(1.0)
    assert it.note("a", 2.0) and it.take_due(2.0) == ["a"]
