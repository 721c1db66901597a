"""Health, metrics and the way to TLS, over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from admin_api.app import make_app
from admin_api.routes import health, metrics
from admin_api.routes.health import Health
from config.schema import Config, HttpConfig, ServerConfig
from config.secret import Secret

Get = Callable[..., Awaitable[tuple[int, dict[str, str], str]]]
Serve = Callable[..., Awaitable[Get]]


class State:
    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.asked = 0
        self.patience = 0

    async def ask(self) -> dict[str, str]:
        self.asked += 1
        await asyncio.sleep(self.patience)
        return self.problems


@pytest.fixture
def state() -> State:
    return State()


@pytest.fixture
async def serve(state: State) -> AsyncIterator[Serve]:
    """Starts an application; what is returned sends it GET requests."""
    runners: list[web.AppRunner] = []
    session = aiohttp.ClientSession()

    async def start(config: Config, *, secure: bool = True, https_port: int | None = 443) -> Get:
        runner = web.AppRunner(make_app(config, Health(state.ask), secure=secure, https_port=https_port))
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        base = f"http://127.0.0.1:{runner.addresses[0][1]}"

        async def get(path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
            async with session.request(method, base + path, headers=headers, allow_redirects=False) as answer:
                return answer.status, dict(answer.headers), await answer.text()

        return get

    yield start
    await session.close()
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("problems", "status", "word"),
    [
        ({}, 200, "ok"),
        ({"redis": "away"}, 200, "degraded"),
        ({"redis": "away", "notify": "away"}, 200, "degraded"),
        ({"postgres": "does not answer"}, 503, "unavailable"),
        ({"redis": "away", "blobs": "disk full"}, 503, "unavailable"),
    ],
)
async def test_readyz(serve: Serve, state: State, problems: dict[str, str], status: int, word: str) -> None:
    get = await serve(Config())
    state.problems = problems
    found, _, body = await get("/readyz")
    assert found == status and f'"{word}"' in body
    for reason in problems.values():
        assert reason in body
    assert (await get("/healthz"))[0] == 200


async def test_healthz_tells_and_stays_alive(serve: Serve, state: State) -> None:
    """200 as long as the process answers, whatever else does not, and without waiting for it."""
    get = await serve(Config())
    state.problems = {"postgres": "does not answer"}
    status, _, body = await get("/healthz")
    assert status == 200 and '"unavailable"' in body and "does not answer" in body


async def test_healthz_does_not_wait_for_the_parts(serve: Serve, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.05)
    state.patience = 60
    get = await serve(Config())
    async with asyncio.timeout(10):
        status, _, body = await get("/healthz")
    assert status == 200 and "not all parts have answered yet" in body


async def test_readiness_is_asked_for_once_a_second(serve: Serve, state: State) -> None:
    get = await serve(Config())
    for _ in range(20):
        await get("/readyz")
    assert state.asked <= 2


async def test_unknown_paths_and_methods_are_answered_as_json(serve: Serve) -> None:
    get = await serve(Config())
    status, headers, body = await get("/nothing")
    assert (status, headers["Content-Type"]) == (404, "application/problem+json") and '"status": 404' in body
    status, headers, _ = await get("/healthz", "DELETE")
    assert status == 405 and "GET" in headers["Allow"]


@pytest.mark.parametrize(
    ("host", "port", "path", "location"),
    [
        ("mail.example.org", 443, "/a?b=c", "https://mail.example.org/a?b=c"),
        ("mail.example.org:20080", 20443, "/", "https://mail.example.org:20443/"),
        ("[::1]:80", 20443, "/x", "https://[::1]:20443/x"),
        ("evil host", 443, "/", None),
        ("a@b", 443, "/", None),
        ("mail.example.org", None, "/", None),
    ],
)
async def test_clear_requests_are_sent_to_tls(
    serve: Serve, host: str, port: int | None, path: str, location: str | None
) -> None:
    get = await serve(Config(), secure=False, https_port=port)
    status, headers, _ = await get(path, Host=host)
    assert (status, headers.get("Location")) == ((308, location) if location else (403, None))
    assert (await get("/healthz"))[0] == 200
    assert (await get("/readyz"))[0] == 200


async def test_clear_requests_from_loopback_where_it_is_allowed(serve: Serve) -> None:
    config = Config(server=ServerConfig(insecure_loopback_auth=True))
    get = await serve(config, secure=False)
    assert (await get("/nothing"))[0] == 404


async def test_metrics_for_loopback(serve: Serve) -> None:
    status, headers, body = await (await serve(Config()))("/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    assert "# TYPE" in body


@pytest.mark.parametrize(
    ("token", "header", "status"),
    [
        (None, {}, 403),
        (None, {"Authorization": "Bearer x"}, 403),
        ("t0ken", {}, 401),
        ("t0ken", {"Authorization": "Bearer wrong"}, 401),
        ("t0ken", {"Authorization": "Basic t0ken"}, 401),
        ("t0ken", {"Authorization": "bearer t0ken"}, 200),
    ],
)
async def test_metrics_elsewhere_want_the_token(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, token: str | None, header: dict[str, str], status: int
) -> None:
    monkeypatch.setattr(metrics, "is_loopback", lambda request: False)
    config = Config(http=HttpConfig(metrics_token=Secret(token) if token else None))
    assert (await (await serve(config))("/metrics", **header))[0] == status


@pytest.mark.parametrize(
    ("peer", "loopback"),
    [
        (("127.0.0.1", 1), True),
        (("::1", 1, 0, 0), True),
        (("::ffff:127.0.0.1", 1, 0, 0), True),
        (("fe80::1%eth0", 1, 0, 0), False),
        (("192.0.2.1", 1), False),
        (None, False),
    ],
)
def test_is_loopback(peer: Any, loopback: bool) -> None:
    class Transport:
        def get_extra_info(self, name: str) -> Any:
            return peer

    class Request:
        transport = Transport()

    assert metrics.is_loopback(Request()) is loopback  # type: ignore[arg-type]
