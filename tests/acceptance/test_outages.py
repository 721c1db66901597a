"""PostgreSQL and Redis go away and come back under two nodes, and the nodes themselves: what clients see meanwhile.

Both nodes have one PostgreSQL, one Redis and one S3 bucket. Proxies before the first two break their connections. The
nodes wait 2 s for what they would wait 10 s for by default, so that the tests need not wait longer.
"""

from __future__ import annotations

import asyncio
import imaplib
import json
import os
import shutil
import signal
import smtplib
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from mailserver.embedded.redis import EmbeddedRedis
from tests.acceptance.ledger import await_progress, judge, writing
from tests.acceptance.mail import deliver, exact, imap, message, octets_of, ok, status, submission
from tests.acceptance.server import DOMAIN, HOST, Account, Pillarbox, eventually
from tests.support.proxy import PostgresProxy, Proxy, running
from tests.support.s3 import BUCKET, KEY_ID, SECRET, running_seaweedfs
from tests.support.services import Databases, run_apart, running_databases, running_redis

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

SECONDS = 30
CONNECTIONS = 60
HASTE = {
    "PILLARBOX_STORAGE__LOCK_TIMEOUT_SECONDS": "2",
    "PILLARBOX_STORAGE__STATEMENT_TIMEOUT_SECONDS": "5",
    "PILLARBOX_AUTH__CACHE_SECONDS": "0",
}
PEOPLE = [Account(f"person{number}@{DOMAIN}", f"correct horse {number}") for number in range(12)]
WRITERS, (ALICE, BOB, CAROL) = PEOPLE[:4], PEOPLE[4:7]


@dataclass
class Site:
    """Two nodes and what they share."""

    one: Pillarbox
    two: Pillarbox
    databases: Databases
    dsn: str
    redis: EmbeddedRedis
    before_postgres: PostgresProxy
    before_redis: Proxy
    options: tuple[str, ...]
    environment: dict[str, str]

    def execute(self, *statements: str) -> None:
        """Each by itself, past the proxy, as an administrator."""

        async def run() -> None:
            conn = await asyncpg.connect(self.dsn, timeout=20)
            await conn.execute("SET default_transaction_read_only = off")
            for statement in statements:
                await conn.execute(statement)
            await conn.close()

        run_apart(run())

    @property
    def nodes(self) -> tuple[Pillarbox, Pillarbox]:
        return self.one, self.two

    def until_well(self) -> None:
        for node in self.nodes:
            eventually(lambda node=node: not health(node)[1], SECONDS, f"{node.data} is well: {health(node)}")


@pytest.fixture(scope="module")
def _site(program: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        databases = stack.enter_context(
            running_databases(max_connections=str(CONNECTIONS), superuser_reserved_connections="0")
        )
        cache = stack.enter_context(running_redis())
        before_postgres = stack.enter_context(running(PostgresProxy(databases.server.folder / ".s.PGSQL.5432")))
        before_redis = stack.enter_context(running(Proxy(cache.folder / "redis.sock")))
        dsn = databases.dsn(databases.make())
        store = stack.enter_context(running_seaweedfs())
        environment = HASTE | {
            "PILLARBOX_STORAGE__S3_ENDPOINT_URL": store.url,
            "PILLARBOX_STORAGE__S3_ACCESS_KEY_ID": KEY_ID,
            "PILLARBOX_STORAGE__S3_SECRET_ACCESS_KEY": SECRET,
        }
        one, two = Pillarbox("one", **environment), Pillarbox("two", **environment)
        stack.callback(two.end)
        stack.callback(one.end)
        options = (
            *("--workers", "2", "--postgres", before_postgres.dsn_of(dsn)),
            *("--redis", f"redis://{HOST}:{before_redis.port}", "--blobs", f"s3://{BUCKET}/pillarbox"),
        )
        one.start(*options)
        one.run("admin", "domain", "add", DOMAIN)
        one.add_accounts(PEOPLE)
        take_keys(one, two)
        two.start(*options)
        yield Site(one, two, databases, dsn, cache, before_postgres, before_redis, options, environment)


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    """Whole before each test, and afterwards, however it went."""
    yield _site
    for service in (_site.databases.server, _site.redis):
        if not service.is_running():
            service.start()
    for proxy in (_site.before_postgres, _site.before_redis):
        proxy.heal()
    _site.until_well()


def take_keys(first: Pillarbox, other: Pillarbox) -> None:
    """What README says of a second node."""
    (other.data / "secrets").mkdir(parents=True)
    for name in ("install.key", "master.key"):
        shutil.copy(first.data / "secrets" / name, other.data / "secrets" / name)


def health(node: Pillarbox, page: str = "readyz") -> tuple[int, dict[str, str]]:
    """The status of a health page, and the problems it names."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{node.port(80)}/{page}", timeout=20) as answer:
            return answer.status, json.load(answer).get("problems", {})
    except urllib.error.HTTPError as answer:
        return answer.code, json.load(answer).get("problems", {})
    except OSError as error:
        return 0, {"http": str(error)}


def said_by_smtp(node: Pillarbox, to: Account) -> tuple[int, str]:
    """The reply that refused a message, else 250."""
    try:
        return 250, deliver(node, message(to.address), to.address)
    except smtplib.SMTPResponseException as refused:
        return refused.smtp_code, str(refused.smtp_error)


def said_by_login(node: Pillarbox, account: Account) -> str:
    try:
        with imap(node, account):
            return "OK"
    except imaplib.IMAP4.error as refused:
        return str(refused)


def said_by_submission(node: Pillarbox, account: Account) -> int:
    try:
        with submission(node, account):
            return 235
    except smtplib.SMTPAuthenticationError as refused:
        return refused.smtp_code


def check_what_clients_see(node: Pillarbox, session: imaplib.IMAP4) -> None:
    """While the database takes no writes: later, please; and nobody learns why."""
    code, text = said_by_smtp(node, BOB)
    assert code == 451 and "4.3.0" in text and "Traceback" not in text
    answer, data = session.append("INBOX", "", None, message(ALICE.address))
    assert answer == "NO" and b"[UNAVAILABLE]" in data[0]
    eventually(lambda: health(node)[0] == 503 and "postgres" in health(node)[1], SECONDS, "not ready, and why")
    eventually(lambda: "postgres" in health(node, "healthz")[1], SECONDS, "the other page says it too")
    assert health(node, "healthz")[0] == 200, "a restart of the node would not help"


def check_that_nobody_logs_in(node: Pillarbox) -> None:
    assert "[UNAVAILABLE]" in said_by_login(node, ALICE)
    assert said_by_submission(node, ALICE) // 100 == 4
    wrong = Account(ALICE.address, "not this one")
    assert "[UNAVAILABLE]" in said_by_login(node, wrong)


@contextmanager
def idling(node: Pillarbox, account: Account) -> Iterator[imaplib.IMAP4]:
    """A session in IDLE in the account's INBOX."""
    with imap(node, account) as client:
        ok(client.select("INBOX"))
        client.send(b"idle IDLE\r\n")
        assert client.readline().startswith(b"+")
        yield client
        client.send(b"DONE\r\n")


def told_of_mail(client: imaplib.IMAP4, sent: Callable[[], object]) -> float:
    """Seconds from the moment when `sent` had returned to EXISTS in an idle session."""
    sent()
    began = time.monotonic()
    while not client.readline().endswith(b"EXISTS\r\n"):
        assert time.monotonic() - began < SECONDS
    return time.monotonic() - began


# PostgreSQL -----------------------------------------------------------------------------------------------------------


def test_postgres_goes_down_and_comes_back(site: Site) -> None:
    """At once (immediate mode), under load, long enough that everybody notices; and nobody has to be restarted."""
    server = site.databases.server
    with writing(WRITERS, *site.nodes) as ledger, imap(site.one, ALICE) as session:
        await_progress(ledger, 30)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGQUIT)
        eventually(lambda: not server.is_running(), SECONDS, "the server is down")
        check_what_clients_see(site.one, session)
        check_that_nobody_logs_in(site.one)
        server.launch()
        server.wait()
        site.until_well()
        await_progress(ledger, 30)
        ok(session.append("INBOX", "", None, message(ALICE.address)))
    judge(site.two, ledger)


def test_all_connections_are_taken(site: Site) -> None:
    with imap(site.one, ALICE) as session, ThreadPoolExecutor(1) as pool:
        taking = pool.submit(asyncio.run, take_all_connections(site, session))
        taking.result(120)
        site.until_well()
        ok(session.append("INBOX", "", None, message(ALICE.address)))
        assert said_by_smtp(site.two, BOB)[0] == 250


async def take_all_connections(site: Site, session: imaplib.IMAP4) -> None:
    """Ends the nodes' connections and takes every place, until no node has one; then looks what clients see."""
    taken: list[Any] = []
    left = (
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE $1"
    )
    try:
        async with asyncio.timeout(SECONDS):
            while len(taken) < CONNECTIONS:
                try:
                    taken.append(await asyncpg.connect(site.dsn, timeout=20))
                except asyncpg.TooManyConnectionsError:
                    await taken[0].fetchval(left, "pillarbox%")
        await asyncio.to_thread(check_what_clients_see, site.one, session)
        await asyncio.to_thread(check_that_nobody_logs_in, site.one)
    finally:
        for conn in taken:
            conn.terminate()


def test_the_database_turns_read_only(site: Site) -> None:
    """Mail is refused for the moment, and what is there can be read."""
    deliver(site.one, message(ALICE.address), ALICE.address)
    with imap(site.one, ALICE) as session:
        site.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        try:
            eventually(lambda: "postgres" in health(site.one)[1], SECONDS, "it is noticed")
            check_what_clients_see(site.one, session)
            with imap(site.two, ALICE) as other:
                ok(other.select("INBOX"))
                assert octets_of(other, "*")
        finally:
            site.execute("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
        site.until_well()
        ok(session.append("INBOX", "", None, message(ALICE.address)))
    assert said_by_smtp(site.two, BOB)[0] == 250


# Redis ----------------------------------------------------------------------------------------------------------------


def subscribers(cache: EmbeddedRedis) -> int:
    with redis.Redis.from_url(cache.url) as administrator:
        ((_, count),) = administrator.pubsub_numsub("pillarbox")  # type: ignore[misc]
        return int(count)


@pytest.mark.parametrize("way", ["killed", "flushed", "cut", "silent"])
def test_redis_goes_away_and_comes_back(site: Site, way: str) -> None:
    """An idle session on the other node is told of new mail before, meanwhile and afterwards."""
    cache = site.redis
    sent = message(CAROL.address)
    eventually(lambda: subscribers(cache) == 4, SECONDS, "all workers listen to Redis")

    def send() -> None:
        deliver(site.two, sent, CAROL.address)

    with idling(site.one, CAROL) as client:
        told = [told_of_mail(client, send)]
        if way == "killed":
            assert cache.pid is not None
            os.kill(cache.pid, signal.SIGKILL)
        elif way == "flushed":
            with redis.Redis.from_url(cache.url) as administrator:
                administrator.flushall()
                administrator.script_flush()
        elif way == "cut":
            site.before_redis.cut()
        else:
            site.before_redis.hold()
        told += [told_of_mail(client, send) for _ in range(4)]
        if way == "killed":
            assert not cache.is_running()
            cache.start()
        site.before_redis.heal()
        site.until_well()
        told.append(told_of_mail(client, send))
    print(f"Redis {way}: told after", *(f"{seconds * 1000:.0f} ms" for seconds in told))
    assert max(told) < 10


def test_without_redis(site: Site) -> None:
    """A node that has none tells its workers by the database."""
    with ExitStack() as stack:
        node = Pillarbox("alone")
        stack.callback(node.end)
        node.start("--workers", "2", "--postgres", site.databases.dsn(site.databases.make()), "--redis", "off")
        node.run("admin", "domain", "add", DOMAIN)
        node.add_accounts([ALICE])
        clients = [stack.enter_context(idling(node, ALICE)) for _ in range(6)]  # some on either worker
        deliver(node, message(ALICE.address), ALICE.address)
        told = [told_of_mail(client, lambda: None) for client in clients]
        assert max(told) < 10
        assert health(node) == (200, {})


# Two nodes ------------------------------------------------------------------------------------------------------------


def test_changes_reach_the_other_node(site: Site) -> None:
    with idling(site.two, BOB) as client:
        told = [told_of_mail(client, lambda: deliver(site.one, message(BOB.address), BOB.address)) for _ in range(20)]
    print(f"other node: told after {statistics.median(told) * 1000:.1f} ms (median), {max(told) * 1000:.1f} ms (most)")
    assert max(told) < 10


def seen_by(client: imaplib.IMAP4, key: str, uids: bytes) -> None:
    """It finds these, within two seconds however much else goes on."""

    def found() -> bool:
        ok(client.noop())
        return ok(client.uid("SEARCH", key)) == [uids]

    eventually(found, 2, f"SEARCH {key} finding {uids!r}")


def test_commands_on_both_nodes_fit_together(site: Site) -> None:
    """Each sees soon what the other has done, in the order in which it was done; large parts are read from either."""
    with imap(site.one, ALICE) as one, imap(site.two, ALICE) as two:
        ok(one.create("Shared"))
        for client in (one, two):
            ok(client.select("Shared" if client is one else "INBOX"))
        large = message(ALICE.address, body="x" * 70 + "\r\n" + "".join(f"{n:070d}\r\n" for n in range(6000)))
        for octets in (large, message(ALICE.address), message(ALICE.address)):
            ok(two.append("Shared", "", None, octets))
        ok(two.select("Shared"))
        seen_by(one, "ALL", b"1 2 3")
        assert exact(octets_of(one, 1), large) and exact(octets_of(two, 1), large)
        ok(two.uid("STORE", "2", "+FLAGS.SILENT", "(\\Flagged \\Deleted)"))
        seen_by(one, "FLAGGED DELETED", b"2")
        ok(one.uid("COPY", "2:3", "Archive"))
        ok(one.expunge())
        seen_by(two, "ALL", b"1 3")
        ok(two.uid("MOVE", "1", "Archive"))
        seen_by(one, "ALL", b"3")
        eventually(lambda: (status(one, "Archive"), status(two, "Archive")) == (3, 3), 2, "three copies")
        ok(two.rename("Archive", "Old"))
        eventually(lambda: one.status("Old", "(MESSAGES)")[0] == "OK", 2, "the new name")
        assert status(one, "Old") == 3
        ok(one.delete("Old"))
        eventually(lambda: two.status("Old", "(MESSAGES)")[0] == "NO", 2, "no such name")
        ok(one.create("Archive"))


def test_a_node_is_killed_while_the_other_serves(site: Site) -> None:
    """All its processes at once, under load; then it is started again and takes part."""
    with writing(PEOPLE[7:11], *site.nodes) as ledger:
        await_progress(ledger, 30)
        two = site.two
        assert two.process is not None
        for pid in (two.process.pid, *two.processes()["worker"]):
            os.kill(pid, signal.SIGKILL)
        two.process.wait(10)
        await_progress(ledger, 30)
        assert said_by_smtp(site.one, BOB)[0] == 250
        assert health(site.one) == (200, {})
        two.start(*site.options)
        await_progress(ledger, 30)
        with idling(two, BOB) as client:
            assert told_of_mail(client, lambda: deliver(site.one, message(BOB.address), BOB.address)) < 10
    judge(two, ledger)


def test_a_node_with_other_keys_does_not_start(site: Site) -> None:
    """It says what to do, and leaves no keys behind that would be in the way."""
    stranger = Pillarbox("stranger", **site.environment)
    try:
        stranger.serve(*site.options)
        assert stranger.process is not None
        assert stranger.process.wait(60) == 1
        said = stranger.log_tail()
        assert "install_key" in said and "master_key" in said and "secrets/" in said and "Traceback" not in said
        assert not list((stranger.data / "secrets").glob("*.key"))
        take = stranger.data / "secrets"
        for name in ("install.key", "master.key"):
            shutil.copy(site.one.data / "secrets" / name, take / name)
        stranger.start(*site.options)
        assert stranger.stop() == 0
    finally:
        stranger.end()
