from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests.net.tools import LOOPS, Tls, run

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=sorted(LOOPS))
def on_loop(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function, on each kind of loop; what the loop complains of is an error."""
    return partial(run, request.param)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("certificates"))
