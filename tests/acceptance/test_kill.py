"""kill -9 in the middle of work: what was acknowledged is there, once, with its octets (see ledger.py)."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import pytest

from tests.acceptance.ledger import Ledger, await_progress, judge, settle, writing
from tests.acceptance.server import DOMAIN, Account, Pillarbox, eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

PEOPLE = [Account(f"person{number}@{DOMAIN}", f"correct horse {number}") for number in range(4)]


@pytest.fixture
def killed_server(own_server: Pillarbox) -> Pillarbox:
    own_server.start("--workers", "2")
    own_server.run("admin", "domain", "add", DOMAIN)
    own_server.add_accounts(PEOPLE)
    return own_server


@pytest.fixture
def ledger(killed_server: Pillarbox) -> Iterator[Ledger]:
    with writing(PEOPLE, killed_server) as kept:
        yield kept


def _kill_one(server: Pillarbox, kind: str) -> None:
    """Mail goes on without some of them, so one killed before may still be on its way back."""
    eventually(lambda: bool(server.processes()[kind]), 30, f"a {kind} to kill")
    os.kill(random.choice(server.processes()[kind]), signal.SIGKILL)


@pytest.mark.parametrize("kind", ["worker", "postgres", "redis"])
def test_kill(killed_server: Pillarbox, ledger: Ledger, kind: str) -> None:
    """Three kills of one kind of process, work going on in between."""
    if not killed_server.processes()[kind]:
        pytest.skip(f"{kind} does not run here")
    await_progress(ledger, 50)
    for _ in range(3):
        _kill_one(killed_server, kind)
        await_progress(ledger, 50)
    settle(killed_server, ledger)
    judge(killed_server, ledger)


@pytest.mark.parametrize("kinds", [("postgres", "redis", "worker"), ("worker",), ()], ids=["all", "workers", "alone"])
def test_kill_supervisor(killed_server: Pillarbox, ledger: Ledger, kinds: tuple[str, ...]) -> None:
    """The supervisor with all, some or none of its processes at one instant, then a start on the same directory."""
    await_progress(ledger, 100)
    assert killed_server.process is not None
    below = killed_server.processes()
    for pid in (killed_server.process.pid, *(pid for kind in kinds for pid in below[kind])):
        os.kill(pid, signal.SIGKILL)
    killed_server.process.wait(timeout=10)
    killed_server.start("--workers", "2")
    await_progress(ledger, 50)
    settle(killed_server, ledger)
    judge(killed_server, ledger)
