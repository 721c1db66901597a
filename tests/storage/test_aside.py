from __future__ import annotations

import threading

import pytest

from storage.aside import IN_LOOP_OCTETS, aside


@pytest.mark.parametrize(("octets", "in_loop"), [(0, True), (IN_LOOP_OCTETS, True), (IN_LOOP_OCTETS + 1, False)])
async def test_much_is_done_in_a_thread(octets: int, in_loop: bool) -> None:
    assert (await aside(octets, threading.current_thread) is threading.main_thread()) is in_loop


@pytest.mark.parametrize("octets", [1, 1 << 30])
async def test_errors_are_those_of_the_work(octets: int) -> None:
    with pytest.raises(ZeroDivisionError):
        await aside(octets, divmod, 1, 0)
