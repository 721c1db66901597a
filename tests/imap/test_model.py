"""Three sessions in two workers do what they like; every untagged response is held against a model (model.py).

PILLARBOX_HISTORIES says how many histories there are (default 300); each has a mailbox of its own. With it they are
other ones each time, and one that fails is made as short as possible.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from storage import Store
from storage.clock import Stamps
from tests.imap.conftest import Client as Wire
from tests.imap.conftest import add_accounts, opened, running
from tests.imap.model import Client, Flags, Truth, numbers

T = TypeVar("T")

LONG = "PILLARBOX_HISTORIES" in os.environ
HISTORIES = int(os.environ.get("PILLARBOX_HISTORIES", "300"))
STEPS = 20
SESSIONS = (("ann", 0, False), ("ben", 0, True), ("cat", 1, True))
"""Name, worker, and whether the client asks for mod-sequences."""

_NAMES = ("\\Seen", "\\Flagged", "\\Deleted", "$Work")
FLAGS = st.frozensets(st.sampled_from(_NAMES), max_size=2)
WHO = st.integers(0, len(SESSIONS) - 1)
PICK = st.lists(st.integers(0, 30), min_size=1, max_size=4)


class World:
    """Two workers on one database, in one loop, and three connections."""

    def __init__(self, dsn: str, folder: Path, certificate: Path) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.wires: list[Wire] = []
        self.mailboxes = 0
        self.folds = 0
        self._stores: list[Store] = []
        self.run(self._start(dsn, folder, certificate))

    def run(self, work: Awaitable[T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(60):
                return await work

        return self._runner.run(bounded())

    async def _start(self, dsn: str, folder: Path, certificate: Path) -> None:
        servers = []
        stamps = Stamps()
        for worker in range(2):
            store = await opened(dsn, folder, worker, stamps)
            self._stores.append(store)
            self._stack.push_async_callback(store.close)
            if worker == 0:
                await add_accounts(store, "alice")
            servers.append(await self._stack.enter_async_context(running(store, certificate)))
        for _, worker, condstore in SESSIONS:
            wire = await servers[worker].logged_in()
            if condstore:
                await wire.ask("ENABLE CONDSTORE")
            self.wires.append(wire)

    def fold(self, worker: int) -> None:
        """The worker has no memory left for views; sessions come to rest first."""
        self.run(self._rest(worker))
        self.give_up(worker)

    async def _rest(self, worker: int) -> None:
        views = self._stores[worker].views._open.values()
        while any(holder.is_busy for view in views for holder in view.holders):
            await asyncio.sleep(0)

    def give_up(self, worker: int) -> None:
        self.folds += sum(view.fold() for view in self._stores[worker].views._open.values())

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._runner.close()


class Mailbox(RuleBasedStateMachine):
    """One mailbox and what three sessions do to it."""

    world: ClassVar[World]
    folded: ClassVar[bool] = False
    """Does every command find its mailbox folded, if it may be?"""

    @initialize(count=st.integers(0, 70))
    def begin(self, count: int) -> None:
        self.world.mailboxes += 1
        self.name = f"box-{self.world.mailboxes}"
        self.truth = Truth()
        self.clients = [Client(name, self.truth, condstore=condstore) for name, _, condstore in SESSIONS]
        self._ask(0, f"CREATE {self.name}")
        for _ in range(min(count, 3)):
            self._ask(0, _append(self.name, frozenset()))
            self.truth.add(frozenset())
        for who in range(len(SESSIONS)):
            self._select(who)
        if count > 3:  # beyond one page
            self._fill(count - 3)

    def _fill(self, count: int) -> None:
        """Copies of what is there, so that there are several pages."""
        while count > 0:
            copied = min(count, len(self.truth.messages))
            lines = self._ask(0, f"UID COPY 1:{copied} {self.name}")
            for uid in range(1, copied + 1):
                self.truth.add(self.truth.messages[uid])
            self._tell(0, lines, expunge_ok=True)
            count -= copied

    def teardown(self) -> None:
        if not hasattr(self, "clients"):
            return
        for who in range(len(SESSIONS)):
            self._look(who)
            self._ask_all(who)
            self._ask(who, "UNSELECT")
        self._ask(0, f"DELETE {self.name}")

    # How a session asks -----------------------------------------------------------------------------------------------

    def _ask(self, who: int, command: str) -> list[str]:
        if self.folded:
            self.world.fold(SESSIONS[who][1])
        return self.world.run(self.world.wires[who].ask(command))

    def _hear(self, who: int, command: str, *, expunge_ok: bool = True, asked: bool = False) -> list[str]:
        """Carries out a command whose untagged responses are all the mailbox's."""
        lines = self._ask(who, command)
        self._tell(who, lines, expunge_ok=expunge_ok, asked=asked)
        return lines

    def _tell(self, who: int, lines: list[str], *, expunge_ok: bool, asked: bool = False) -> None:
        for line in lines[:-1]:
            self.clients[who].hear(line, expunge_ok=expunge_ok, asked=asked)

    def _select(self, who: int) -> None:
        lines = self._ask(who, f"SELECT {self.name}")
        client = self.clients[who]
        client.messages.clear()
        client.highest = 0
        for line in lines[:-1]:
            if line.endswith(" EXISTS") and line != "* 0 EXISTS":
                client.hear(line, expunge_ok=False)
        client.in_step()
        assert f"* OK [UIDNEXT {self.truth.uidnext}] Next UID" in lines

    def _look(self, who: int) -> None:
        self._hear(who, "NOOP")
        self.clients[who].in_step()

    def _ask_all(self, who: int) -> None:
        """Everything at once is as it was told piece by piece."""
        client = self.clients[who]
        if not client.messages:
            return
        for line in self._ask(who, "UID FETCH 1:* (FLAGS MODSEQ)")[:-1]:
            client.condstore = True  # asking is enough (RFC 7162 §3.1)
            client.hear(line, expunge_ok=True, asked=True)
        client.in_step()
        assert all(known.flags is not None and known.modseq for known in client.messages)

    def _picked(self, who: int, pick: list[int]) -> list[int]:
        """Sequence numbers of the session."""
        count = len(self.clients[who].messages)
        return sorted({at % count + 1 for at in pick}) if count else []

    # What sessions do -------------------------------------------------------------------------------------------------

    @rule(who=WHO, flags=FLAGS)
    def append(self, who: int, flags: Flags) -> None:
        lines = self._ask(who, _append(self.name, flags))
        assert f" {self.truth.add(flags)}] APPEND completed" in lines[-1]
        self._tell(who, lines, expunge_ok=True)

    @rule(
        who=WHO,
        sign=st.sampled_from(["+", "-", ""]),
        flags=FLAGS,
        pick=PICK,
        silent=st.booleans(),
        by_uid=st.booleans(),
    )
    def store(self, who: int, sign: str, flags: Flags, pick: list[int], silent: bool, by_uid: bool) -> None:
        self._store(who, sign, flags, pick, silent=silent, by_uid=by_uid, since=None)

    @rule(who=st.sampled_from([1, 2]), sign=st.sampled_from(["+", "-", ""]), flags=FLAGS, pick=PICK, old=st.booleans())
    def conditional_store(self, who: int, sign: str, flags: Flags, pick: list[int], old: bool) -> None:
        """UNCHANGEDSINCE what the session knows, or something older."""
        known = [self.clients[who].messages[seq - 1].modseq for seq in self._picked(who, pick)]
        since = max(known, default=0)
        self._store(who, sign, flags, pick, silent=False, by_uid=True, since=max(0, since - 1) if old else since)

    def _store(
        self, who: int, sign: str, flags: Flags, pick: list[int], *, silent: bool, by_uid: bool, since: int | None
    ) -> None:
        client = self.clients[who]
        targets = self._targets(who, picked := self._picked(who, pick))
        picked = [seq for seq in picked if client.messages[seq - 1].uid is not None]
        if not picked:
            return
        chosen = [client.messages[seq - 1] for seq in picked]
        which = [known.uid for known in chosen] if by_uid else picked
        condition = "" if since is None else f" (UNCHANGEDSINCE {since})"
        command = f"{'UID ' * by_uid}STORE {','.join(map(str, which))}{condition} {sign}FLAGS{'.SILENT' * silent}"
        lines = self._ask(who, f"{command} ({' '.join(sorted(flags))})")
        failed = self._modified(lines[-1], targets, picked, by_uid=by_uid)
        for uid in targets:
            if uid not in failed and uid in self.truth.messages:
                self.truth.store(uid, _stored(sign, self.truth.messages[uid], flags))
        if silent:
            for known in chosen:  # the client works it out, and is told only where it is wrong
                known.flags = None if known.flags is None else _stored(sign, known.flags, flags)
        client.answered.clear()
        self._tell(who, lines, expunge_ok=by_uid)
        if not silent:
            passed = set(targets) - failed
            assert passed & self.truth.messages.keys() <= {known.uid for known in client.answered}

    def _targets(self, who: int, picked: list[int]) -> list[int]:
        """The UIDs of the session's messages, as the server numbers them."""
        self._identify(who, picked)
        return [known.uid for seq in picked if (known := self.clients[who].messages[seq - 1]).uid is not None]

    def _identify(self, who: int, picked: list[int]) -> None:
        """Asks for UIDs that the session was not told; of messages that are gone they may not be known any more."""
        unknown = [seq for seq in picked if self.clients[who].messages[seq - 1].uid is None]
        if unknown:
            self._hear(who, f"FETCH {','.join(map(str, unknown))} UID", expunge_ok=False, asked=True)

    def _modified(self, tagged: str, targets: list[int], picked: list[int], *, by_uid: bool) -> set[int]:
        match = re.search(r"\[MODIFIED ([\d:,]+)\]", tagged)
        if match is None:
            return set()
        named = numbers(match[1])
        return set(named) if by_uid else {targets[picked.index(seq)] for seq in named}

    @rule(who=WHO)
    def expunge(self, who: int) -> None:
        gone = self.truth.deleted()
        lines = self._ask(who, "EXPUNGE")
        self.truth.remove(gone)
        self._tell(who, lines, expunge_ok=True)
        assert not gone & {known.uid for known in self.clients[who].messages}

    @rule(who=WHO, pick=PICK)
    def uid_expunge(self, who: int, pick: list[int]) -> None:
        targets = set(self._targets(who, self._picked(who, pick)))
        if not targets:
            return
        gone = targets & self.truth.deleted()
        lines = self._ask(who, f"UID EXPUNGE {','.join(map(str, sorted(targets)))}")
        self.truth.remove(gone)
        self._tell(who, lines, expunge_ok=True)

    @rule(who=WHO, pick=PICK, move=st.booleans())
    def copy_or_move(self, who: int, pick: list[int], move: bool) -> None:
        """Into the same mailbox, so that all sessions see it come."""
        targets = self._targets(who, self._picked(who, pick))
        if not targets:
            return
        verb = "MOVE" if move else "COPY"
        lines = self._ask(who, f"UID {verb} {','.join(map(str, targets))} {self.name}")
        there = [uid for uid in targets if uid in self.truth.messages]
        added = [self.truth.add(self.truth.messages[uid]) for uid in there]
        if move:
            self.truth.remove(set(there))
        code = next((match for line in lines if (match := re.search(r"\[COPYUID \d+ (\S+) (\S+)\]", line))), None)
        if there:
            assert code is not None
            assert (numbers(code[1]), numbers(code[2])) == (there, added)
        self._tell(who, lines, expunge_ok=True)

    @rule(who=WHO, pick=PICK)
    def read(self, who: int, pick: list[int]) -> None:
        """BODY[] sets \\Seen."""
        picked = self._picked(who, pick)
        if not picked:
            return
        targets = self._targets(who, picked)
        lines = self._ask(who, f"FETCH {','.join(map(str, picked))} RFC822.TEXT")
        for uid in targets:
            if uid in self.truth.messages:
                self.truth.store(uid, self.truth.messages[uid] | {"\\Seen"})
        for line in lines[:-1]:
            if line.startswith("* "):
                self.clients[who].hear(line, expunge_ok=False, asked="RFC822.TEXT" in line)

    @rule(who=WHO, pick=PICK)
    def fetch(self, who: int, pick: list[int]) -> None:
        """What is still there is answered for; what is gone may be, as long as EXPUNGE was not told."""
        targets = self._targets(who, picked := self._picked(who, pick))
        if not targets:
            return
        self.clients[who].answered.clear()
        items = "UID FLAGS MODSEQ" if SESSIONS[who][2] else "UID FLAGS"
        self._hear(who, f"FETCH {','.join(map(str, picked))} ({items})", expunge_ok=False, asked=True)
        answered = {known.uid for known in self.clients[who].answered}
        assert set(targets) & self.truth.messages.keys() <= answered

    @rule(who=WHO)
    def search(self, who: int) -> None:
        client = self.clients[who]
        for line in self._ask(who, "SEARCH ALL")[:-1]:
            client.hear(line, expunge_ok=False)
            if line.startswith("* SEARCH"):
                assert line.split()[2:] == [str(seq) for seq in range(1, len(client.messages) + 1)]

    @rule(who=WHO)
    def look(self, who: int) -> None:
        self._look(who)

    @rule(worker=st.integers(0, 1))
    def fold(self, worker: int) -> None:
        """What sessions know is given up, and has to be known again."""
        self.world.fold(worker)

    @rule(who=WHO)
    def look_at_all(self, who: int) -> None:
        self._look(who)
        if SESSIONS[who][2]:
            self._ask_all(who)

    @rule(who=WHO)
    def select_again(self, who: int) -> None:
        self._ask(who, "UNSELECT")
        self._select(who)

    @rule(who=WHO, other=WHO, flags=FLAGS)
    def told_while_idle(self, who: int, other: int, flags: Flags) -> None:
        """Whoever idles in the same worker is told at once, in the other soon."""
        if who == other:
            return
        self.world.run(self._idle(who, other, flags))

    async def _idle(self, who: int, other: int, flags: Flags) -> None:
        idler, client = self.world.wires[who], self.clients[who]
        await idler.send(b"i IDLE\r\n")
        assert await idler.line() == "+ Idling"
        wire = self.world.wires[other]
        if self.folded:
            self.world.give_up(SESSIONS[who][1])
        lines = await wire.ask(_append(self.name, flags))
        self.truth.add(flags)
        self._tell(other, lines, expunge_ok=True)
        told = [await idler.line()]
        while told[-1] != f"* {len(self.truth.messages)} EXISTS":
            told.append(await idler.line())
        await idler.send(b"DONE\r\n")
        while not told[-1].startswith("i "):
            told.append(await idler.line())
        self._tell(who, told, expunge_ok=True)
        client.in_step()


def _append(mailbox: str, flags: Flags) -> str:
    return f"APPEND {mailbox} ({' '.join(sorted(flags))}) {{1+}}\r\nx"


def _stored(sign: str, before: Flags, flags: Flags) -> Flags:
    if sign == "+":
        return before | flags
    return before - flags if sign == "-" else flags


@pytest.fixture
def world(database: str, tmp_path: Path, certificate: Path) -> Iterator[World]:
    world = World(database, tmp_path, certificate)
    yield world
    world.close()


@pytest.mark.slow
@pytest.mark.timeout(0 if LONG else 600)
@pytest.mark.parametrize("folded", [False, True])
def test_every_untagged_response(world: World, folded: bool) -> None:
    """folded: there is never memory for the mailboxes of those who are at rest."""

    class Machine(Mailbox):
        pass

    Machine.world, Machine.folded = world, folded
    profile: dict[str, Any] = {
        "max_examples": HISTORIES,
        "stateful_step_count": STEPS,
        "deadline": None,
        "derandomize": not LONG,
        "database": None,
        "suppress_health_check": list(HealthCheck),
        "phases": [Phase.generate, Phase.shrink] if LONG else [Phase.generate],
    }
    run_state_machine_as_test(Machine, settings=settings(**profile))  # type: ignore[no-untyped-call]
    assert world.folds > HISTORIES * (STEPS // 2 if folded else 1) // 2
