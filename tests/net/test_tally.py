"""Counts of several processes: real ones, forked, and killed."""

from __future__ import annotations

import os
import signal
import time

from mailserver.net.limits import Limits
from mailserver.net.sessions import Sessions
from mailserver.net.tally import Share, Tally, alone


def test_others_are_all_but_oneself() -> None:
    tally = Tally(3)
    shares = [Share(tally, row) for row in range(3)]
    for share, count in zip(shares, (1, 2, 4), strict=True):
        for _ in range(count):
            share.add("key")
    assert [share.elsewhere("key") for share in shares] == [6, 5, 3]
    assert shares[0].elsewhere("another key") == 0
    shares[2].remove("key")
    assert shares[0].elsewhere("key") == 5


def test_a_wiped_row_counts_no_more() -> None:
    tally = Tally(3)
    for row in (1, 2):
        Share(tally, row).add("key")
    tally.wipe(1)
    assert Share(tally, 0).elsewhere("key") == 1


def test_many_keys_seldom_disturb_each_other() -> None:
    tally = Tally(2)
    here, there = Share(tally, 0), Share(tally, 1)
    for number in range(2000):
        there.add(f"key {number}")
    assert all(here.elsewhere(f"key {number}") >= 1 for number in range(2000))
    assert sum(here.elsewhere(f"other {number}") for number in range(1000)) < 100


def test_what_a_forked_process_counts_is_seen_until_it_is_wiped() -> None:
    tally = Tally(2)
    here = Share(tally, 0)
    pid = os.fork()
    if pid == 0:
        there = Share(tally, 1)
        for _ in range(3):
            there.add("address 192.0.2.1")
        time.sleep(60)
        os._exit(0)
    try:
        deadline = time.monotonic() + 20
        while here.elsewhere("address 192.0.2.1") < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert here.elsewhere("address 192.0.2.1") == 3
    tally.wipe(1)
    assert here.elsewhere("address 192.0.2.1") == 0


def test_connections_of_an_address_are_those_of_all_workers() -> None:
    tally = Tally(2)
    one, other = (Limits((), Share(tally, row)).connections(total=10, per_address=3) for row in range(2))
    assert [one.admit("192.0.2.1"), other.admit("192.0.2.1"), one.admit("192.0.2.1")] == [True] * 3
    assert not one.admit("192.0.2.1")
    assert not other.admit("192.0.2.1")
    assert other.admit("192.0.2.2")
    one.release("192.0.2.1")
    assert other.admit("192.0.2.1")


def test_without_a_bound_for_an_address_only_those_in_all_count() -> None:
    counter = Limits().connections(total=3)
    assert [counter.admit("192.0.2.1") for _ in range(4)] == [True, True, True, False]


def test_sessions_of_an_account_are_those_of_all_workers() -> None:
    class Session:
        def end(self, reason: str) -> None: ...

    tally = Tally(2)
    one, other = (Sessions(Share(tally, row)) for row in range(2))
    mine = Session()
    one.add(7, mine)
    one.add(7, mine)
    other.add(7, Session())
    assert (one.count(7), other.count(7), one.count(8)) == (2, 2, 0)
    one.remove(7, mine)
    one.remove(7, mine)
    assert (one.count(7), other.count(7)) == (1, 1)


def test_alone() -> None:
    share = alone()
    share.add("key")
    assert share.elsewhere("key") == 0
