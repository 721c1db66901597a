"""Commands whose connection to the database breaks at any step, as the client sees it.

Surely not done: NO [UNAVAILABLE], and the session goes on. Nobody knows, since COMMIT was sent: BYE and no tagged line.
Nothing is done by halves, nothing twice. A step is a message from the driver that asks the server for an answer;
ways of breaking it: tests/support/proxy.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from storage import Store, accounts, mailboxes
from storage.records import AccountId, Mailbox
from tests.imap.conftest import Client, OpenStore, Server, running
from tests.support.proxy import Fault, How, PostgresProxy

LAST = b"COMMIT"
MESSAGES = (b"Subject: one\r\n\r\n1\r\n", b"Subject: two\r\n\r\n22\r\n", b"Subject: three\r\n\r\n333\r\n")

# What the client says with 3 messages in the selected mailbox TREE/source, the third \Deleted, beside TREE/target.
CHANGES = {
    "store": "UID STORE 1:2 +FLAGS (\\Flagged Work)",
    "copy": "UID COPY 1:3 TREE/target",
    "move": "UID MOVE 1:2 TREE/target",
    "expunge": "EXPUNGE",
    "close": "CLOSE",
    "create": "CREATE TREE/made/below",
    "rename": "RENAME TREE/target TREE/else/where",
    "delete": "DELETE TREE/target",
}

State = dict[str, Any]


@dataclass
class Scene:
    """A server whose connections pass the proxy, and a store beside it that knows the truth."""

    server: Server
    truth: Store
    proxy: PostgresProxy
    account_id: AccountId
    client: Client | None = None
    tree: str = ""
    trees: int = 0
    used: int = 0
    before: State = field(default_factory=dict)
    done: State = field(default_factory=dict)

    async def set_up(self) -> None:
        """A tree of its own, and a client that has its source selected."""
        self.trees += 1
        self.tree = f"tree{self.trees}"
        self.client = await self.server.logged_in()
        for name in ("source", "target"):
            await self.client.ask(f"CREATE {self.tree}/{name}")
        for octets in MESSAGES:
            await self.client.ask(f"APPEND {self.tree}/source {{{len(octets)}+}}\r\n{octets.decode()}")
        await self.client.ask(f"SELECT {self.tree}/source")
        await self.client.ask("UID STORE 3 +FLAGS.SILENT (\\Deleted)")
        account = await mailboxes.quota(self.truth, self.account_id)
        self.used = account.used_octets
        self.before = await self.state(self.tree)

    async def state(self, tree: str) -> State:
        """All that is there of a tree, and what the account uses; counters are compared with messages on the way."""
        account_id = self.account_id
        found: State = {"octets": (await mailboxes.quota(self.truth, account_id)).used_octets - self.used}
        for box in await mailboxes.list_all(self.truth, account_id):
            if box.name[0] == tree:
                found["/".join(box.name[1:])] = await self._messages(box)
        found["subscribed"] = {n[1:] for n in await mailboxes.subscriptions(self.truth, account_id) if n[0] == tree}
        return found

    async def _messages(self, box: Mailbox) -> list[tuple[int, int]]:
        view = await self.truth.views.open(box.account_id, box.mailbox_id)
        snapshot = view.snapshot
        view.close()
        entries = list(snapshot.entries())
        row = snapshot.mailbox
        assert row.messages == len(entries) and row.octets == sum(entry.size for entry in entries)
        assert row.unseen == sum(not entry.flags & 1 for entry in entries)
        return [(entry.uid, entry.flags) for entry in entries]

    async def try_once(self, command: str, fault: Fault | None = None) -> tuple[str, str]:
        """What the client was told (OK, NO, BYE), and what became of it (done, absent).

        Without a fault it is done, and remembered as what has to come of it.
        """
        if self.client is None:
            self.client = await self.server.logged_in()
            await self.client.ask(f"SELECT {self.tree}/source")
        if fault is not None:
            self.proxy.arm(fault)
        await self.client.send(f"x {command}\r\n".replace("TREE", self.tree).encode())
        told = await _told(self.client)
        assert self.proxy.disarm() == 0, f"it did not happen: {fault}"
        if told == "BYE":
            self.client = None
        now = await self.state(self.tree)
        if now == self.before:
            return told, "absent"
        if fault is None:
            self.done = now
        assert now == self.done
        return told, "done"

    async def until_healthy(self) -> None:
        async with asyncio.timeout(20):
            while await self.server.store.healthy():
                await asyncio.sleep(0.02)


async def _told(client: Client) -> str:
    """OK, NO or BYE: how a command ended."""
    while line := await client.line():
        if line.startswith("* BYE"):
            assert await client.closed(), "a tagged line after all"
            return "BYE"
        if line.startswith("x "):
            assert not line.startswith("x NO") or "[UNAVAILABLE]" in line, line
            return line.split()[1]
    raise AssertionError("closed without a word")


@pytest.fixture
async def scene(
    store: Store, open_store: OpenStore, proxy: PostgresProxy, database: str, certificate: Path
) -> AsyncIterator[Scene]:
    settings = {"lock_timeout_seconds": 2, "statement_timeout_seconds": 1, "pool_size": 2}
    broken = await open_store(proxy.dsn_of(database), **settings)
    login = await accounts.find_login(store, "alice")
    assert login is not None
    async with running(broken, certificate) as server:
        yield Scene(server, store, proxy, login.account.account_id)
        proxy.heal()
    await broken.close()


@pytest.mark.parametrize("command", CHANGES.values(), ids=CHANGES.keys())
async def test_a_change_that_breaks_at_any_step(scene: Scene, command: str) -> None:
    await scene.set_up()
    assert await scene.try_once(command) == ("OK", "done")
    await scene.set_up()
    for how in ("before", "after"):
        step, fault = 0, Fault(0, how)
        while LAST not in fault.broke:
            fault = Fault(step, how)
            told, became = await scene.try_once(command, fault)
            if LAST not in fault.broke:
                assert (told, became) == ("NO", "absent"), f"{how} step {step}: {fault.broke!r}"
            step += 1
        assert (told, became) == ("BYE", "absent" if how == "before" else "done")
        assert step > 3


@pytest.mark.parametrize(
    ("how", "told", "became"),
    [
        ("rollback", "NO", "absent"),
        ("fatal", "BYE", "done"),
        ("killed", "BYE", "absent"),
        ("halfway", "BYE", "done"),
        ("hung", "BYE", "done"),
        ("stalled", "BYE", "absent"),
    ],
)
async def test_how_a_commit_is_answered(scene: Scene, how: How, told: str, became: str) -> None:
    command = CHANGES["move"]
    await scene.set_up()
    assert await scene.try_once(command) == ("OK", "done")
    await scene.set_up()
    assert await scene.try_once(command, Fault(0, how, marker=LAST)) == (told, became)


async def test_a_statement_that_is_not_answered(scene: Scene) -> None:
    """Its time is over before COMMIT: surely not done, and said so."""
    await scene.set_up()
    for how in ("stalled", "hung"):
        assert await scene.try_once(CHANGES["store"], Fault(2, how)) == ("NO", "absent")  # type: ignore[arg-type]
    assert await scene.try_once(CHANGES["store"]) == ("OK", "done")


@pytest.mark.parametrize("marker", [b"BEGIN", b"deliver_batch"])
async def test_append_that_breaks_at_any_step(scene: Scene, marker: bytes) -> None:
    """It is tried again or found to be there, once; the client sees no more of it than that it took a moment."""
    await scene.set_up()
    assert scene.client is not None
    keyword = " Work" if marker == b"BEGIN" else ""  # keywords go by statements
    command = f"x APPEND {scene.tree}/target (\\Seen{keyword}) {{15+}}\r\nSubject: x\r\n\r\nx\r\n"
    uids: list[int] = []
    for how in ("before", "after"):
        for step in range(2 if marker != b"BEGIN" else 100):
            scene.proxy.cut()
            await scene.until_healthy()
            fault = Fault(step, how, marker)
            scene.proxy.arm(fault)
            await scene.client.send(command.encode())
            assert await _told(scene.client) == "OK"
            assert scene.proxy.disarm() == 0
            uids.append(len(uids) + 1)
            found = (await scene.state(scene.tree))["target"]
            assert [uid for uid, _ in found] == uids, f"{how} step {step}: {fault.broke!r}"
            if LAST in fault.broke:
                break


async def test_what_was_done_is_said_though_the_mailbox_cannot_be_read_again(scene: Scene) -> None:
    """The database goes away behind COMMIT: the command was carried out, so it is OK."""
    await scene.set_up()
    assert scene.client is not None
    scene.proxy.cut()
    await scene.until_healthy()
    scene.proxy.arm(Fault(0, "before", marker=b"SET recent_uid"))
    await scene.client.send(f"x UID COPY 1 {scene.tree}/source\r\n".encode())
    assert await _told(scene.client) == "OK"
    assert scene.proxy.disarm() == 0, "it had nothing to read"
    assert [uid for uid, _ in (await scene.state(scene.tree))["source"]] == [1, 2, 3, 4]


async def test_reading_that_breaks(scene: Scene) -> None:
    await scene.set_up()
    assert scene.client is not None
    scene.proxy.refuse()
    for command in ("NOOP", "FETCH 1 (ENVELOPE)", f"STATUS {scene.tree}/target (MESSAGES)", 'LIST "" *'):
        await scene.client.send(f"x {command}\r\n".encode())
        assert await _told(scene.client) == "NO", command
    other = await scene.server.connect()
    await other.line()
    await other.send(b"x LOGIN alice pw\r\nx LOGIN alice wrong\r\n")
    assert [await _told(other), await _told(other)] == ["NO", "NO"], "and neither says that the password is wrong"
    scene.proxy.heal()
    await scene.until_healthy()
    await scene.client.ask("FETCH 1 (ENVELOPE)")
    await other.ask("LOGIN alice pw")
