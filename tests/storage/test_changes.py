"""The change feed: what is published is heard by the others, by Redis or by the database, and never fails the
writer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from storage import changes, mailboxes
from storage.changes import decode, encode, merged
from storage.records import INBOX, AccountId, MailboxId, Notice
from storage.store import Store
from tests.storage.conftest import ALICE, OpenStore, deliver
from tests.support.proxy import Proxy, running

MAIL = Notice("mail", AccountId(1), 7, {MailboxId(1): (0, 3), MailboxId(2): ()})


async def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def test_wire_form() -> None:
    notices = [MAIL, Notice("list", AccountId(2), 3), Notice("account", AccountId(4))]
    assert decode(encode(notices, "w")) == ("w", notices)
    assert decode('{"kind":"account","account_id":4}') == ("", [Notice("account", AccountId(4))])


def test_gathered_notices_say_no_less_than_each_of_them() -> None:
    one, two = MailboxId(1), MailboxId(2)
    said = [
        Notice("mail", AccountId(1), 7, {one: (0, 3), two: ()}),
        Notice("list", AccountId(1), 8),
        Notice("mail", AccountId(1), 9, {one: (3, 4), two: (5,)}),
        Notice("mail", AccountId(2), 4, {one: (1,)}),
    ]
    assert merged(said) == [
        Notice("mail", AccountId(1), 9, {one: (0, 3, 4), two: ()}),
        Notice("list", AccountId(1), 8),
        Notice("mail", AccountId(2), 4, {one: (1,)}),
    ]


@pytest.mark.parametrize("payload", ["", "[]", "3", '{"notices":[{}]}', '{"notices":[3]}', '"x"', "{"])
def test_rubbish_is_refused(payload: str) -> None:
    with pytest.raises(ValueError):
        decode(payload)


async def pair(open_store: OpenStore, redis_url: str | None) -> tuple[Store, Store, list[Notice]]:
    one, two = await open_store(redis_url), await open_store(redis_url)
    await until(lambda: one.changes.healthy and two.changes.healthy)
    heard: list[Notice] = []
    two.changes.listen(lambda notice: heard.append(notice) if notice.kind not in ("resync", "look") else None)
    return one, two, heard


@pytest.mark.parametrize("feed", ["redis", "database"])
async def test_others_hear_it_once(open_store: OpenStore, redis_url: str, feed: str) -> None:
    one, _, heard = await pair(open_store, redis_url if feed == "redis" else None)
    own: list[Notice] = []
    one.changes.listen(own.append)
    await one.changes.publish([MAIL])
    assert own == [MAIL]
    await until(lambda: bool(heard))
    await asyncio.sleep(0.1)
    assert heard == [MAIL] and own == [MAIL]


async def test_workers_of_one_name_on_two_machines(open_store: OpenStore) -> None:
    one, two = [await open_store(worker="mail 12") for _ in range(2)]
    await until(lambda: one.changes.healthy and two.changes.healthy)
    heard: list[Notice] = []
    two.changes.listen(heard.append)
    await one.changes.publish([MAIL])
    await until(lambda: MAIL in heard)


async def test_without_redis_the_database_takes_over(open_store: OpenStore) -> None:
    one, two, heard = await pair(open_store, None)
    for store in (one, two):
        store.changes._redis_url = "unix:///nowhere"
    assert not one.changes.healthy and "redis" in one.changes.problems()
    await one.changes.publish([MAIL])
    await until(lambda: heard == [MAIL])


async def test_long_notices_are_shortened(open_store: OpenStore) -> None:
    one, _, heard = await pair(open_store, None)
    await one.changes.publish([Notice("mail", AccountId(1), 7, {MailboxId(1): tuple(range(5000))})])
    await until(lambda: bool(heard))
    assert heard == [Notice("mail", AccountId(1), 7, {MailboxId(1): ()})]


async def test_notify_is_heard_when_the_transaction_commits(open_store: OpenStore) -> None:
    one, _, heard = await pair(open_store, None)
    notice = Notice("account", AccountId(5))
    async with one.transaction() as conn:
        await changes.notify(conn, notice)
        await asyncio.sleep(0.1)
        assert heard == []
    await until(lambda: heard == [notice])


async def test_a_broken_connection_is_made_again_and_says_resync(open_store: OpenStore) -> None:
    one, two, heard = await pair(open_store, None)
    kinds: list[str] = []
    two.changes.listen(lambda notice: kinds.append(notice.kind))
    async with one.acquire() as conn:
        await conn.execute("""
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'pillarbox feed' AND datname = current_database()
        """)
    await until(lambda: "resync" in kinds)
    await until(lambda: one.changes.healthy)
    await one.changes.publish([MAIL])
    await until(lambda: heard == [MAIL])


async def test_a_listener_that_fails_harms_no_other(open_store: OpenStore) -> None:
    one = await open_store()
    heard: list[Notice] = []

    def failing(notice: Notice) -> None:
        raise RuntimeError("no")

    one.changes.listen(failing)
    stop = one.changes.listen(heard.append)
    await one.changes.publish([MAIL])
    stop()
    await one.changes.publish([MAIL])
    assert heard == [MAIL]


async def test_a_great_many_mailboxes_do_not_end_the_feed(open_store: OpenStore) -> None:
    one, _, heard = await pair(open_store, None)
    many = [Notice("mail", AccountId(a), 7, {MailboxId(m): (1,) for m in range(200)}) for a in range(60)]
    huge = Notice("mail", AccountId(99), 7, {MailboxId(m): (1,) for m in range(5000)})
    await one.changes.publish([*many, huge])
    await until(lambda: any(notice.account_id == 99 for notice in heard))
    for account in range(60):
        assert {m for n in heard if n.account_id == account for m in n.pages} == set(range(200))
    await until(lambda: {m for n in heard if n.account_id == 99 for m in n.pages} == set(range(5000)))
    await one.changes.publish([MAIL])
    await until(lambda: heard[-1] == MAIL)


async def test_an_overflow_tells_the_others_to_look(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, _ = await pair(open_store, None)
    kinds: list[str] = []
    two.changes.listen(lambda notice: kinds.append(notice.kind))
    monkeypatch.setattr(changes, "_MAX_WAITING", 10)
    await one.changes.publish([MAIL] * 8)
    await one.changes.publish([MAIL] * 8)
    await until(lambda: "resync" in kinds)


async def test_redis_that_stands_still_and_comes_back(open_store: OpenStore, redis_url: str) -> None:
    """Nobody waits long for it, the database takes over, and the feed recovers when it answers again."""
    one, two, heard = await pair(open_store, redis_url)
    with redis.Redis.from_url(redis_url) as client:
        pid = client.info("server")["process_id"]  # type: ignore[index]
    os.kill(pid, signal.SIGSTOP)
    try:
        await one.changes.publish([MAIL])
        await until(lambda: heard == [MAIL], 5)
        await until(lambda: not two.changes.redis_up, 10)
        await one.changes.publish([MAIL])
        await until(lambda: len(heard) == 2, 1)
    finally:
        os.kill(pid, signal.SIGCONT)
    await until(lambda: one.changes.healthy and two.changes.healthy, 15)
    heard.clear()
    await one.changes.publish([MAIL])
    await until(lambda: MAIL in heard)


async def test_no_fault_ends_the_feed(open_store: OpenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _, heard = await pair(open_store, None)
    real, failed = one.acquire, []

    def failing() -> object:
        if not failed:
            failed.append(1)
            raise RuntimeError("a fault")
        return real()

    monkeypatch.setattr(one, "acquire", failing)
    await one.changes.publish([MAIL])
    await until(lambda: bool(failed))
    await one.changes.publish([MAIL])
    await until(lambda: heard[-1:] == [MAIL])


@pytest.mark.parametrize("way", ["silent", "cut", "refused"])
async def test_one_worker_alone_loses_redis(open_store: OpenStore, redis_url: str, way: str) -> None:
    """The others go on telling Redis of their changes, so it looks by itself."""
    with running(Proxy(Path(urlsplit(redis_url).path))) as proxy:
        one, two = await open_store(redis_url), await open_store(f"redis://127.0.0.1:{proxy.port}")
        await mailboxes.create_account_state(one, ALICE)
        await until(lambda: one.changes.healthy and two.changes.healthy)
        view = await two.views.open(ALICE, INBOX)
        {"silent": proxy.hold, "cut": proxy.cut, "refused": proxy.refuse}[way]()
        for count in range(1, 4):
            await deliver(one)
            await until(lambda count=count: view.snapshot.count == count, 10)
            await asyncio.sleep(0.3)
        proxy.heal()
        await until(lambda: two.changes.healthy, 10)
        await deliver(one)
        await until(lambda: view.snapshot.count == 4)
        view.close()
        await two.close()
