"""Connections that break at every step of a delivery: each message is there exactly once, or surely not at all.

A step is a message from the driver that asks the server for an answer. Ways of breaking it: tests/support/proxy.py.
"""

from __future__ import annotations

import asyncio
import uuid

import asyncpg
import pytest

from storage import mailboxes
from storage.errors import OutcomeUnknown, Unavailable
from storage.pages import Snapshot
from storage.records import INBOX, AccountId, Placed
from storage.store import Store
from tests.storage.conftest import ALICE, BOB, deliver, place
from tests.support.proxy import Fault, How, PostgresProxy

OF_A_CALL = b"deliver_batch"
OF_A_TRANSACTION = b"BEGIN"


@pytest.fixture(params=["function", "statements"])
def group_commit(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def marker(group_commit: str) -> bytes:
    """What the first step of a batch holds."""
    return OF_A_CALL if group_commit == "function" else OF_A_TRANSACTION


async def truth(store: Store, account: AccountId) -> Snapshot:
    """The account's INBOX as it stands, after its counters were compared with its messages."""
    view = await store.views.open(account, INBOX)
    snapshot = view.snapshot
    view.close()
    box, use = snapshot.mailbox, await mailboxes.quota(store, account)
    sizes = [entry.size for entry in snapshot.entries()]
    assert (box.messages, box.octets) == (use.used_messages, use.used_octets) == (len(sizes), sum(sizes))
    assert box.unseen == box.messages and box.uidnext == snapshot.max_uid + 1
    return snapshot


class Told:
    """What three messages that were delivered at once came to: to Alice, to Bob, and to both."""

    RECIPIENTS = ((ALICE,), (BOB,), (ALICE, BOB))

    def __init__(self, store: Store, broken: Store) -> None:
        self.store, self.broken = store, broken
        self.answers: list[list[Placed] | BaseException] = []
        self.known: dict[AccountId, set[int]] = {}

    async def deliver(self) -> None:
        self.known = {account: await self._ids(account) for account in (ALICE, BOB)}
        work = [deliver(self.broken, list(map(place, to)), trace_id=uuid.uuid4()) for to in self.RECIPIENTS]
        async with asyncio.timeout(20):
            self.answers = await asyncio.gather(*work, return_exceptions=True)

    async def _ids(self, account: AccountId) -> set[int]:
        snapshot = await truth(self.store, account)
        ids = [entry.message_id for entry in snapshot.entries()]
        assert len(ids) == len(set(ids)), "a message is there twice"
        return set(map(int, ids))

    async def judge(self) -> str:
        """Compares what was said with what is there; "placed", "absent" or "unknown", where all were told the same."""
        said: set[str] = set()
        least = most = dict.fromkeys((ALICE, BOB), 0)
        for to, answer in zip(self.RECIPIENTS, self.answers, strict=True):
            sure, possible = isinstance(answer, list), not isinstance(answer, Unavailable)
            assert sure or isinstance(answer, Unavailable | OutcomeUnknown), repr(answer)
            least = {account: count + (sure and account in to) for account, count in least.items()}
            most = {account: count + (possible and account in to) for account, count in most.items()}
            said.add("placed" if sure else "unknown" if possible else "absent")
        for account in (ALICE, BOB):
            new = await self._ids(account) - self.known[account]
            assert least[account] <= len(new) <= most[account]
            for answer in self.answers:
                if isinstance(answer, list):
                    assert {int(p.message_id) for p in answer if p.account_id == account} <= new
        return " and ".join(sorted(said))


async def steps(proxy: PostgresProxy, told: Told, marker: bytes) -> int:
    """How many steps a batch of three has on a fresh connection."""
    await told.deliver()  # the accounts' keys are known from here on, so that all three meet in one batch
    proxy.cut()
    watch = proxy.watch(marker)
    await told.deliver()
    assert await told.judge() == "placed"
    proxy.disarm()
    ends = [i for i, text in enumerate(watch.texts) if b"COMMIT" in text]
    return ends[0] + 1 if ends else len(watch.texts)


@pytest.mark.parametrize(
    ("how", "only_last"), [("before", 0), ("after", 0), ("killed", 3), ("sent", 3), ("halfway", 3)]
)
async def test_a_connection_that_breaks_at_any_step(
    store: Store, broken: Store, proxy: PostgresProxy, marker: bytes, how: How, only_last: int
) -> None:
    """Nobody who sends mail notices: it is tried again, or found to be there."""
    told = Told(store, broken)
    count = await steps(proxy, told, marker)
    for step in range(count)[-only_last:]:
        await once_broken(proxy, told, Fault(step, how, marker))


async def once_broken(proxy: PostgresProxy, told: Told, *faults: Fault) -> None:
    proxy.cut()
    proxy.arm(*faults)
    await told.deliver()
    assert proxy.disarm() == 0, f"not all of it happened: {faults}"
    assert await told.judge() == "placed", faults


async def test_a_fatal_error_in_answer_to_the_commit(
    store: Store, broken: Store, proxy: PostgresProxy, marker: bytes
) -> None:
    told = Told(store, broken)
    last = await steps(proxy, told, marker) - 1
    await once_broken(proxy, told, Fault(last, "fatal", marker))


@pytest.mark.parametrize("how", ["stalled", "hung"])
async def test_a_commit_that_nobody_answers(
    store: Store, broken: Store, proxy: PostgresProxy, marker: bytes, how: How
) -> None:
    """The deadline is over with it: nothing is said of it, and the next message is served as ever."""
    told = Told(store, broken)
    last = await steps(proxy, told, marker) - 1
    proxy.cut()
    proxy.arm(Fault(last, how, marker))
    await told.deliver()
    assert proxy.disarm() == 0
    assert await told.judge() == "unknown"
    await told.deliver()
    assert await told.judge() == "placed"


async def test_settling_breaks_at_any_step(store: Store, broken: Store, proxy: PostgresProxy, marker: bytes) -> None:
    """The answer to COMMIT is lost, and so is each connection that looks what became of it, or writes it again."""
    told = Told(store, broken)
    last = await steps(proxy, told, marker) - 1
    for first, count in (("after", 8), ("before", 16)):
        for step in range(0, count, 3):
            for how in ("before", "after"):
                lost = Fault(last, first, marker)  # type: ignore[arg-type]
                await once_broken(proxy, told, lost, Fault(step, how, OF_A_TRANSACTION))  # type: ignore[arg-type]


async def test_the_network_is_away_while_a_lost_commit_is_settled(
    store: Store, broken: Store, proxy: PostgresProxy, marker: bytes
) -> None:
    told = Told(store, broken)
    last = await steps(proxy, told, marker) - 1
    proxy.cut()
    proxy.arm(Fault(last, "after", marker))
    work = asyncio.create_task(told.deliver())
    async with asyncio.timeout(5):
        while proxy.armed:
            await asyncio.sleep(0.001)
    proxy.refuse()
    await work
    assert await told.judge() == "unknown"
    assert len((await truth(store, ALICE)).uids()) == 6, "it was committed all the same, once"
    proxy.heal()
    await told.deliver()
    assert await told.judge() == "placed"


async def test_an_error_in_answer_to_the_commit_is_surely_absent(
    store: Store, broken: Store, marker: bytes, database: str
) -> None:
    """A deferred trigger fails the first commit; of one message alone that is said, a batch is tried one by one."""
    told = Told(store, broken)
    await told.deliver()
    conn = await asyncpg.connect(database)
    await conn.execute(_FAIL_FIRST_COMMIT)
    await told.deliver()
    assert await told.judge() == "placed"
    assert await conn.fetchval("SELECT last_value FROM commits") > 4, "no commit failed"
    await conn.execute("ALTER SEQUENCE commits RESTART")
    try:
        await deliver(broken)
        expected = 9
    except Unavailable:
        expected = 8
    assert await conn.fetchval("SELECT count(*) FROM messages") == expected
    await conn.close()


_FAIL_FIRST_COMMIT = """
CREATE SEQUENCE commits;
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('commits') = 1 THEN
        RAISE EXCEPTION 'this commit fails';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON messages DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION fail();
"""


async def test_rollback_in_answer_to_commit_is_surely_absent(
    store: Store, broken: Store, proxy: PostgresProxy, group_commit: str
) -> None:
    if group_commit == "function":
        pytest.skip("its call has no COMMIT")
    told = Told(store, broken)
    last = await steps(proxy, told, OF_A_TRANSACTION) - 1
    await once_broken(proxy, told, Fault(last, "rollback"))  # of a batch of three each is tried again
    before = len((await truth(store, ALICE)).uids())
    proxy.cut()
    watch = proxy.watch()
    await deliver(broken)
    last = next(i for i, text in enumerate(watch.texts) if b"COMMIT" in text)
    proxy.cut()
    proxy.arm(Fault(last, "rollback"))
    with pytest.raises(Unavailable):
        await deliver(broken)
    assert len((await truth(store, ALICE)).uids()) == before + 1
