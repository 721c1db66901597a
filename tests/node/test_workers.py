"""Workers are forked, replaced, stopped, and given up where they never come up. Each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

HEAD = """
import os, signal, sys, time
from mailserver.node.workers import Workers, WorkersFailed
lock = os.open("/dev/null", os.O_RDONLY)
def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        workers.look_after()
        assert time.monotonic() < end
        time.sleep(0.01)
def serve(worker, ready):
    os.write(ready, b"1"); os.close(ready)
    time.sleep(60)
    return 0
pids = lambda: [worker.pid for worker in workers._workers]
never = lambda seconds: time.sleep(seconds) and False
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_ready_replaced_and_stopped() -> None:
    run("""
workers = Workers([{}, {}], serve, lock)
workers.start()
assert not workers.all_ready
until(lambda: workers.all_ready)
assert workers.pauses() == []
first = pids()
os.kill(first[0], signal.SIGKILL)
until(lambda: pids()[0] not in (None, first[0]))
assert pids()[1] == first[1]
workers.stop(5, never)
assert pids() == [None, None]
""")


def test_a_worker_that_does_not_stop_is_killed() -> None:
    run("""
def stubborn(worker, ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return serve(worker, ready)
workers = Workers([{}], stubborn, lock)
workers.start()
until(lambda: workers.all_ready)
began = time.monotonic()
workers.stop(0.5, never)
assert 0.4 < time.monotonic() - began < 30 and pids() == [None]
""")


def test_a_second_signal_cuts_the_wait_short() -> None:
    run("""
def stubborn(worker, ready):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return serve(worker, ready)
workers = Workers([{}], stubborn, lock)
workers.start()
until(lambda: workers.all_ready)
began = time.monotonic()
workers.stop(60, lambda seconds: True)
assert time.monotonic() - began < 30 and pids() == [None]
""")


def test_workers_that_never_come_up_are_given_up() -> None:
    run("""
workers = Workers([{}], lambda worker, ready: 1, lock)
workers.start()
try:
    until(lambda: False)
except WorkersFailed:
    pass
""")


def test_one_that_fails_after_a_good_start_is_tried_again_and_again() -> None:
    run("""
marker = sys.executable and os.path.join(os.environ.get("TMPDIR", "/tmp"), f"worker-test-{os.getpid()}")
def once(worker, ready):
    if os.path.exists(marker):
        return 1
    open(marker, "w").close()
    os.write(ready, b"1"); os.close(ready)
    time.sleep(0.3)
    return 1
workers = Workers([{}], once, lock)
workers.start()
try:
    until(lambda: workers._workers[0].backoff.failures > 6, 30)
    assert workers.all_ready and max(workers.pauses()) > 0
finally:
    os.unlink(marker)
workers.stop(5, never)
""")


def test_a_worker_does_not_hold_the_lock() -> None:
    said = run("""
def look(worker, ready):
    try:
        os.fstat(lock)
    except OSError:
        os.write(ready, b"1")
    os.close(ready)
    time.sleep(60)
workers = Workers([{}], look, lock)
workers.start()
until(lambda: workers.all_ready)
workers.stop(5, never)
print("done")
""")
    assert said == "done\n"
