"""The API on a real socket, PostgreSQL and Redis, and a client whose every answer must be one that is documented."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from admin_api.app import ROUTES, make_app
from admin_api.route import PREFIX
from admin_api.routes.health import Health
from admin_api.schemas import ProblemDocument
from admin_api.service import Api
from config.schema import AuthConfig, Config, HttpConfig, MailConfig, ServerConfig
from mailserver import passwords
from mailserver.login import Logins
from mailserver.net.limits import Limits
from storage import Account, Store, accounts, domains

PASSWORD = "correct horse battery"
CHEAP: dict[str, Any] = {"argon2_memory_kib": 64, "argon2_time": 1}
_EVERYWHERE = {400, 422, 503}
_OF_BODIES = {408, 413, 415}


class Memory:
    """The worker's memory for messages."""

    def __init__(self, octets: int = 256 << 20) -> None:
        self.left = octets

    def take(self, octets: int) -> bool:
        if octets > self.left:
            return False
        self.left -= octets
        return True

    def give(self, octets: int) -> None:
        self.left += octets


@dataclass
class Reply:
    status: int
    headers: Any
    octets: bytes
    json: Any = None

    @property
    def problem(self) -> tuple[int, str]:
        """Status and field."""
        return self.status, self.json.get("field", "")


@dataclass
class Client:
    """Speaks to one server, as one account once it has logged in."""

    base: str
    session: aiohttp.ClientSession
    prefix: str = PREFIX
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    async def ask(self, method: str, path: str, *, check: bool = True, headers: Any = (), **more: Any) -> Reply:
        sent = {**self.headers, **dict(headers)}
        if self.token is not None:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        url = self.base + self.prefix + path
        async with self.session.request(method, url, headers=sent, allow_redirects=False, **more) as answer:
            octets = await answer.read()
            reply = Reply(answer.status, answer.headers, octets)
        if octets and answer.content_type.endswith("json"):
            reply.json = json.loads(octets)
        if check:
            documented(method, path, reply, answer.content_type)
        return reply

    async def get(self, path: str, **more: Any) -> Reply:
        return await self.ask("GET", path, **more)

    async def post(self, path: str, document: Any = None, **more: Any) -> Reply:
        if document is not None:
            more["json"] = document
        return await self.ask("POST", path, **more)

    async def log_in(self, name: str, password: str = PASSWORD) -> Client:
        """A client of that account."""
        reply = await self.post("/login", {"username": name, "password": password})
        assert reply.status == 200, reply
        return Client(self.base, self.session, self.prefix, reply.json["token"])


def documented(method: str, path: str, reply: Reply, media: str) -> None:
    """The answer is one that the table of routes names, in the form that it names."""
    path = path.partition("?")[0]
    route = next(
        route
        for route in ROUTES
        if route.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route.path), path)
    )
    known = route.answers.get(reply.status)
    if known is None:
        allowed = _EVERYWHERE | set(route.problems) | ({401} if route.login else set())
        allowed |= _OF_BODIES if route.body else set()
        assert reply.status in allowed, (method, path, reply)
        assert media == "application/problem+json"
        ProblemDocument.model_validate(reply.json)
        assert reply.json["status"] == reply.status
    elif known.model is not None:
        assert media == "application/json"
        known.model.model_validate(reply.json)
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "Content-Security-Policy" in reply.headers and "Server" not in reply.headers


@dataclass
class Site:
    """A running API; its store has the accounts alice and bob of example.org, and open.test is open to anybody."""

    store: Store
    api: Api
    logins: Logins
    memory: Memory
    alice: Account
    bob: Account
    client: Client


Start = Callable[..., Any]


@pytest.fixture
async def store(database: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(database, redis_url, tmp_path)
    await domains.add(opened, "example.org")
    await domains.add(opened, "open.test", "open")
    hasher = passwords.Hasher(64, 1)
    for name in ("alice", "bob"):
        await accounts.add(opened, name, f"{name}@example.org", hasher.hash(PASSWORD))
    yield opened
    await opened.close()


async def open_store(dsn: str, redis_url: str | None, folder: Path, **settings: Any) -> Store:
    config = Config()
    return await Store.open(
        config.storage.model_copy(update=settings),
        mail=config.mail,
        dsn=dsn,
        redis_url=redis_url,
        blobs=str(folder / "blobs"),
        install_key=b"i" * 32,
        master_key=b"m" * 32,
        worker="tests",
    )


@asynccontextmanager
async def serving(store: Store, *, trusted: tuple[str, ...] = ("127.0.0.0/8",), **settings: Any) -> AsyncIterator[Site]:
    """Starts the API on a store; settings: sections of the configuration."""
    config = Config(
        server=ServerConfig(hostname="mail.example.org", insecure_loopback_auth=True),
        auth=AuthConfig(**{**CHEAP, **settings.get("auth", {})}),
        http=HttpConfig(**settings.get("http", {})),
        mail=MailConfig(**settings.get("mail", {})),
    )
    memory = Memory(settings.get("memory", 256 << 20))
    logins = Logins(store, config.auth, Limits(trusted))
    api = Api(config, store, logins, memory)

    async def well() -> dict[str, str]:
        return {}

    app = make_app(config, Health(well), secure=False, https_port=None, api=api)
    runner = web.AppRunner(app, auto_decompress=False, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        client = Client(f"http://127.0.0.1:{runner.addresses[0][1]}", session)
        alice, bob = [await accounts.find(store, name) for name in ("alice", "bob")]
        yield Site(store, api, logins, memory, alice, bob, client)
    await runner.cleanup()
    api.close()
    logins.close()


@pytest.fixture
async def site(store: Store) -> AsyncIterator[Site]:
    async with serving(store) as running:
        yield running


@pytest.fixture
async def client(site: Site) -> Client:
    """Nobody."""
    return site.client


@pytest.fixture
async def alice(site: Site) -> Client:
    return await site.client.log_in("alice")


@pytest.fixture
async def bob(site: Site) -> Client:
    return await site.client.log_in("bob")
