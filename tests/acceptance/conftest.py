"""One server for all tests that only use it, started the way a user starts it: TLS wherever a password goes."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.server import DOMAIN, PROGRAM, Account, Pillarbox

HERE = Path(__file__).parent
_POOL = 40


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A first start, a whole session of a client or 20 MB take their time."""
    for item in items:
        if HERE in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(180))


@pytest.fixture(scope="session")
def program() -> Path:
    if not PROGRAM.exists():
        pytest.fail(f"{PROGRAM} is not installed: pip install -e . makes it")
    return PROGRAM


@pytest.fixture(scope="session")
def server(program: Path) -> Iterator[Pillarbox]:
    """A running server with the domain example.test, whose log is shown when it did not start."""
    running = Pillarbox()
    try:
        running.start("--workers", "2")
        running.run("admin", "domain", "add", DOMAIN)
        yield running
    finally:
        running.end()


@pytest.fixture(scope="session")
def _pool(server: Pillarbox) -> Iterator[Account]:
    """Accounts without end, made some at a time."""

    def accounts() -> Iterator[Account]:
        for first in itertools.count(0, _POOL):
            some = range(first, first + _POOL)
            made = [Account(f"person{number}@{DOMAIN}", f"correct horse {number}") for number in some]
            server.add_accounts(made)
            yield from made

    return accounts()


@pytest.fixture
def new_account(_pool: Iterator[Account]) -> Callable[[], Account]:
    """Makes an account that no other test has."""
    return lambda: next(_pool)


@pytest.fixture
def alice(new_account: Callable[[], Account]) -> Account:
    return new_account()


@pytest.fixture
def bob(new_account: Callable[[], Account]) -> Account:
    return new_account()


@pytest.fixture(scope="session")
def limited_accounts(server: Pillarbox) -> Iterator[Account]:
    """Accounts with room for 1 MiB."""
    accounts = [Account(f"small{number}@{DOMAIN}", f"correct horse {number}") for number in range(6)]
    server.add_accounts(accounts, quota_mib=1)
    return iter(accounts)


_numbers = itertools.count(1)


@pytest.fixture
def own_server(program: Path) -> Iterator[Pillarbox]:
    """A server, not started yet, for tests that stop, kill or configure it."""
    server = Pillarbox(f"data {next(_numbers)}")  # a path with a space must do
    try:
        yield server
    finally:
        server.end()


@pytest.fixture
def tool() -> Callable[[str], str]:
    """The path of a client program; without it the test is skipped by the client's name."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not installed")
        return path

    return find
