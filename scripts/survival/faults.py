"""What is done to a server and its services: each a generator that breaks something, yields for how many seconds it
shall last, and heals what does not heal by itself."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable, Generator
from dataclasses import dataclass

from survival import processes
from survival.site import Site

Course = Generator[float, None, None]
Chance = random.Random

_SHORT = (0.0, 1.5)
_LONG = (0.5, 7.0)
"""Longer than a client waits for an answer, now and then."""


@dataclass(frozen=True, slots=True)
class Fault:
    """applies: can it happen at this site?"""

    name: str
    course: Callable[[Site, Chance], Course]
    applies: Callable[[Site], bool]


FAULTS: list[Fault] = []


def fault(
    name: str, applies: Callable[[Site], bool] = lambda site: True
) -> Callable[[Callable[[Site, Chance], Course]], Callable[[Site, Chance], Course]]:
    def register(course: Callable[[Site, Chance], Course]) -> Callable[[Site, Chance], Course]:
        FAULTS.append(Fault(name, course, applies))
        return course

    return register


def deck(site: Site, chance: Chance) -> Generator[Fault, None, None]:
    """Faults without end, each kind as often as any other, in an order of chance."""
    possible = [kind for kind in FAULTS if kind.applies(site)]
    while True:
        yield from chance.sample(possible, len(possible))


def has_services(site: Site) -> bool:
    return site.kind == "s3"


# kill -9 --------------------------------------------------------------------------------------------------------------


@fault("kill worker")
def kill_worker(site: Site, chance: Chance) -> Course:
    processes.send(_one(site.workers(), chance), signal.SIGKILL)
    yield chance.uniform(*_SHORT)


@fault("kill all workers")
def kill_workers(site: Site, chance: Chance) -> Course:
    processes.send(site.workers(), signal.SIGKILL)
    yield chance.uniform(*_SHORT)


@fault("kill supervisor")
def kill_supervisor(site: Site, chance: Chance) -> Course:
    """Alone, or together with some of what is below it."""
    below = [*site.workers(), *site.postmaster(), *site.redis_pids()]
    processes.send([*site.supervisor, *chance.sample(below, chance.randrange(len(below) + 1))], signal.SIGKILL)
    if site.process is not None:
        site.process.wait(timeout=30)
    yield 0.0
    site.serve_again()


@fault("kill postgres")
def kill_postgres(site: Site, chance: Chance) -> Course:
    processes.send(site.postmaster(), signal.SIGKILL)
    yield chance.uniform(*_SHORT)


@fault("kill backend")
def kill_backend(site: Site, chance: Chance) -> Course:
    """PostgreSQL ends all its sessions then and recovers."""
    processes.send(_one(site.backends(), chance), signal.SIGKILL)
    yield chance.uniform(*_SHORT)


@fault("kill redis")
def kill_redis(site: Site, chance: Chance) -> Course:
    processes.send(site.redis_pids(), signal.SIGKILL)
    yield chance.uniform(*_SHORT)
    if site.redis is not None:
        site.redis.stop()
        site.redis.launch()


@fault("kill s3", has_services)
def kill_s3(site: Site, chance: Chance) -> Course:
    assert site.object_store is not None
    site.object_store.kill()
    yield chance.uniform(*_SHORT)
    site.object_store.start()


# SIGSTOP --------------------------------------------------------------------------------------------------------------


@fault("stop worker")
def stop_worker(site: Site, chance: Chance) -> Course:
    yield from _stopped(_one(site.workers(), chance), chance, may_die=True)


@fault("stop supervisor")
def stop_supervisor(site: Site, chance: Chance) -> Course:
    """Nobody is replaced meanwhile."""
    stopped = site.supervisor
    processes.send(_one(site.workers(), chance), signal.SIGKILL)
    yield from _stopped(stopped, chance)


@fault("stop postgres")
def stop_postgres(site: Site, chance: Chance) -> Course:
    yield from _stopped([*site.postmaster(), *site.backends()], chance)


@fault("stop backend")
def stop_backend(site: Site, chance: Chance) -> Course:
    yield from _stopped(_one(site.backends(), chance), chance)


@fault("stop redis")
def stop_redis(site: Site, chance: Chance) -> Course:
    yield from _stopped(site.redis_pids(), chance)


@fault("stop s3", has_services)
def stop_s3(site: Site, chance: Chance) -> Course:
    assert site.object_store is not None
    yield from _stopped(site.object_store.pids, chance)


def _stopped(pids: list[int], chance: Chance, *, may_die: bool = False) -> Course:
    """may_die: some of those that are stopped never go on."""
    processes.send(pids, signal.SIGSTOP)
    try:
        yield chance.uniform(*_LONG)
    finally:
        processes.send(pids, signal.SIGKILL if may_die and chance.random() < 0.3 else signal.SIGCONT)


# Restarts -------------------------------------------------------------------------------------------------------------


@fault("restart")
def restart(site: Site, chance: Chance) -> Course:
    """In good order; the second signal of an impatient administrator comes now and then."""
    if site.process is not None:
        processes.send(site.supervisor, signal.SIGTERM)
        yield chance.uniform(*_SHORT)
        if chance.random() < 0.3:
            processes.send(site.supervisor, signal.SIGTERM)
        try:
            site.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            return  # looked after by the run
    site.serve_again()


@fault("reload workers")
def reload_workers(site: Site, chance: Chance) -> Course:
    processes.send(site.supervisor, signal.SIGUSR2)
    yield chance.uniform(*_SHORT)


# Disk and network -----------------------------------------------------------------------------------------------------


@fault("disk full", lambda site: site.disk is not None)
def fill_disk(site: Site, chance: Chance) -> Course:
    assert site.disk is not None
    with site.disk.full(left=chance.choice((0, 0, 100_000))):
        yield chance.uniform(*_LONG)


@fault("blobs fail", lambda site: site.kind == "directory")
def close_blobs(site: Site, chance: Chance) -> Course:
    """Nobody may enter their folder, whose owner is no root."""
    site.blobs.chmod(0)
    try:
        yield chance.uniform(*_LONG)
    finally:
        site.blobs.chmod(0o700)


@fault("redis silent", has_services)
def hold_redis(site: Site, chance: Chance) -> Course:
    """A partition: nothing arrives, nobody says so."""
    assert site.proxy is not None
    site.proxy.hold()
    try:
        yield chance.uniform(*_LONG)
        if chance.random() < 0.5:
            site.proxy.cut()
    finally:
        site.proxy.heal()


@fault("redis refuses", has_services)
def refuse_redis(site: Site, chance: Chance) -> Course:
    assert site.proxy is not None
    site.proxy.refuse()
    try:
        yield chance.uniform(*_LONG)
    finally:
        site.proxy.heal()


def _one(pids: list[int], chance: Chance) -> list[int]:
    """One of them; none where there is none just now."""
    return [chance.choice(pids)] if pids else []
