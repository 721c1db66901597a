"""Workers are forked, told, replaced, stopped, and given up where they never come up, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

HEAD = """
import os, select, signal, socket, sys, time
from config.schema import Config
from mailserver.net.tls import Pem
from mailserver.node import channel
from mailserver.node.channel import Settings
from mailserver.node.workers import Workers, WorkersFailed
lock = os.open("/dev/null", os.O_RDONLY)
def until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        workers.look_after()
        assert time.monotonic() < end
        time.sleep(0.01)
def serve(place):
    channel.say(place.channel, channel.READY)
    time.sleep(60)
    return 0
def run(steps):
    done = []
    until(lambda: next(steps, done) is done, 30)
pids = lambda: [worker.process and worker.process.pid for worker in workers._workers]
never = lambda seconds: time.sleep(seconds) and False
ended = lambda: all(process.status is not None for process in workers.processes)
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
assert ended()
""")


def test_a_worker_that_does_not_stop_is_killed() -> None:
    run("""
def stubborn(place):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return serve(place)
workers = Workers([{}], stubborn, lock)
workers.start()
until(lambda: workers.all_ready)
began = time.monotonic()
workers.stop(0.5, never)
assert 0.4 < time.monotonic() - began < 30 and ended()
""")


def test_a_second_signal_cuts_the_wait_short() -> None:
    run("""
def stubborn(place):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return serve(place)
workers = Workers([{}], stubborn, lock)
workers.start()
until(lambda: workers.all_ready)
began = time.monotonic()
workers.stop(60, lambda seconds: True)
assert time.monotonic() - began < 30 and ended()
""")


def test_workers_that_never_come_up_are_given_up() -> None:
    run("""
workers = Workers([{}], lambda place: 1, lock)
workers.start()
try:
    until(lambda: False)
except WorkersFailed:
    pass
""")


def test_one_that_fails_after_a_good_start_is_tried_again_and_again() -> None:
    run("""
marker = sys.executable and os.path.join(os.environ.get("TMPDIR", "/tmp"), f"worker-test-{os.getpid()}")
def once(place):
    if os.path.exists(marker):
        return 1
    open(marker, "w").close()
    channel.say(place.channel, channel.READY)
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


def test_a_worker_holds_neither_the_lock_nor_what_is_another_s() -> None:
    said = run("""
def look(place):
    try:
        os.fstat(lock)
    except OSError:
        if len([fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]) <= plain + 1:
            channel.say(place.channel, channel.READY)
    time.sleep(60)
plain = len([fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]) - 1
workers = Workers([{}, {}, {}], look, lock)
workers.start()
until(lambda: workers.all_ready)
workers.stop(5, never)
print("done")
""")
    assert said == "done\n"


def test_settings_reach_all_and_are_answered() -> None:
    run("""
def listening(place):
    channel.say(place.channel, channel.READY)
    while True:
        select.select([place.channel], [], [])
        told = channel.receive(place.channel)
        channel.say(place.channel, channel.TAKEN if told.config.smtp.max_hops == 9 else channel.FAILED)
def tell(hops):
    workers.tell(Settings(Config(smtp={"max_hops": hops}), Pem(b"", b"")))
    assert len(workers.unanswered()) == 2
    assert 0.02 in workers.pauses()
    until(lambda: not workers.unanswered())
workers = Workers([{}, {}], listening, lock)
workers.start()
tell(9)  # before they are ready
assert workers.failed() == []
tell(8)
assert workers.failed() == pids()
tell(9)
assert workers.failed() == []
os.kill(pids()[0], signal.SIGSTOP)
workers.tell(Settings(Config(), Pem(b"", b"")))
until(lambda: workers.unanswered() == pids()[:1])
os.kill(pids()[0], signal.SIGKILL)
until(lambda: workers.unanswered() == [])
workers.stop(5, never)
""")


CLIENTS = """
listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
def answering(place):
    running = []
    signal.signal(signal.SIGTERM, lambda *_: running.clear())
    running.append(True)
    (sock,) = place.sockets["x"]
    sock.setblocking(False)
    channel.say(place.channel, channel.READY)
    while running:
        if select.select([sock], [], [], 0.05)[0]:
            try:
                client, _ = sock.accept()
            except BlockingIOError:
                continue
            client.send(b"%d" % os.getpid())
            client.close()
    time.sleep(LAST)  # the old one takes its time to end
    return 0
def who():
    with socket.create_connection(address, 10) as client:
        client.settimeout(10)
        return int(client.recv(100))
"""


def test_replaced_on_demand_one_by_one_with_nobody_refused() -> None:
    run(
        CLIENTS
        + """
LAST = 0.3
workers = Workers([{"x": [listener.dup()]}, {"x": [listener.dup()]}], answering, lock)
workers.start()
until(lambda: workers.all_ready)
first = pids()
most = 0
steps = workers.replace(20)
def look():
    global most
    most = max(most, len(workers.processes))
    assert who() in set(first) | {process.pid for process in workers.processes}
    return next(steps, "done") == "done"
until(look, 30)
assert most == 3, "never more than one too many"
assert not set(pids()) & set(first)
assert {who() for _ in range(20)} <= set(pids())
assert len({process.row for process in workers.processes}) == 2
workers.stop(5, never)
"""
    )


def test_an_old_one_that_does_not_end_is_killed() -> None:
    run(
        CLIENTS
        + """
LAST = 60
workers = Workers([{"x": [listener]}], answering, lock)
workers.start()
until(lambda: workers.all_ready)
first = pids()
run(workers.replace(0.2))
assert pids() != first and who() == pids()[0]
assert len(workers.processes) == 1
workers.stop(0.1, never)
"""
    )


def test_where_the_new_one_fails_the_old_one_serves_on() -> None:
    run("""
def once(place):
    return 1 if os.getppid() == supervisor and replacing[0] else serve(place)
supervisor, replacing = os.getpid(), [False]
workers = Workers([{}, {}], once, lock)
workers.start()
until(lambda: workers.all_ready)
first, replacing[0] = pids(), True
try:
    run(workers.replace(5))
except WorkersFailed as failed:
    assert "worker 0" in str(failed)
else:
    raise AssertionError
until(lambda: len(workers.processes) == 2)
assert pids() == first
workers.stop(5, never)
""")


def test_where_the_old_one_dies_meanwhile_its_successor_moves_up() -> None:
    run("""
def slowly(place):
    if pace[0]:
        time.sleep(0.5)
    return serve(place)
pace = [False]
workers = Workers([{}], slowly, lock)
workers.start()
until(lambda: workers.all_ready)
(first,), pace[0] = pids(), True
steps = workers.replace(5)
next(steps)
(new,) = [process.pid for process in workers.processes if process.pid != first]
os.kill(first, signal.SIGKILL)
run(steps)
assert pids() == [new]
workers.stop(5, never)
""")


def test_a_stop_in_the_midst_of_it_ends_both() -> None:
    run("""
workers = Workers([{}], serve, lock)
workers.start()
until(lambda: workers.all_ready)
steps = workers.replace(5)
next(steps)
assert len(workers.processes) == 2
workers.stop(5, never)
assert ended()
""")


LIMITED = """
import resource
import mailserver.metrics  # while it can be read
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)  # root has no limits
usual, most = resource.getrlimit(resource.RLIMIT_NPROC)
def allow(processes):
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, most))
def first_free():
    descriptor = os.dup(lock)
    os.close(descriptor)
    return descriptor
"""


def test_a_fork_that_fails_is_tried_again() -> None:
    run(
        LIMITED
        + """
workers = Workers([{}], serve, lock)
workers.start()
until(lambda: workers.all_ready)
(first,) = pids()
allow(0)
os.kill(first, signal.SIGKILL)
until(lambda: workers._workers[0].backoff.failures > 3)
assert pids() == [None] and workers.pauses()
before = first_free()
until(lambda: workers._workers[0].backoff.failures > 5)
assert first_free() == before
allow(usual)
until(lambda: pids() != [None], 30)
workers.stop(5, never)
"""
    )


def test_a_successor_that_cannot_be_forked_leaves_the_old_one() -> None:
    run(
        LIMITED
        + """
workers = Workers([{}], serve, lock)
workers.start()
until(lambda: workers.all_ready)
first = pids()
allow(0)
try:
    run(workers.replace(5))
except WorkersFailed as failed:
    assert "worker 0 cannot be started" in str(failed)
else:
    raise AssertionError
assert pids() == first
allow(usual)
run(workers.replace(5))
assert pids() != first
workers.stop(5, never)
"""
    )


def test_where_no_fork_succeeds_at_the_start_there_is_an_end() -> None:
    run(
        LIMITED
        + """
allow(0)
workers = Workers([{}], serve, lock)
workers.start()
try:
    until(lambda: False)
except WorkersFailed:
    pass
"""
    )


def test_settings_that_cannot_be_sent_are_owed_by_nobody() -> None:
    run("""
import resource
workers = Workers([{}], serve, lock)
workers.start()
until(lambda: workers.all_ready)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
try:
    workers.tell(Settings(Config(), Pem(b"", b"")))
except OSError:
    pass
else:
    raise AssertionError
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert workers.unanswered() == []
workers.stop(5, never)
""")


def test_nobody_has_to_read_the_standard_output() -> None:
    run("""
read, write = os.pipe()
os.close(read)
sys.stdout = os.fdopen(write, "w")
sys.stdout.write("text")
workers = Workers([{}], serve, lock)
workers.start()
until(lambda: workers.all_ready)
workers.stop(5, never)
os._exit(0)
""")
