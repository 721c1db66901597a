"""aioimaplib, every public method of its class: a case that uses it, or the capability that the server lacks for it.

A method that a later release brings makes a test fail until it has its case. A case is a coroutine function of a
logged-in client whose selected mailbox, named like the method, holds three messages: UIDs 1 to 3, subjects "one" to
"three".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aioimaplib import IMAP4, IMAP4_SSL, STOP_WAIT_SERVER_PUSH  # type: ignore[import-untyped]

from tests.acceptance.api import SUBJECTS, Noting, public
from tests.acceptance.mail import all_octets, deliver, imap, message, subjects
from tests.acceptance.server import DOMAIN, Account, Pillarbox

ACCOUNT = Account(f"aioimaplib@{DOMAIN}", "correct horse")


class Client(Noting, IMAP4_SSL):  # type: ignore[misc]
    def __init__(self, server: Pillarbox) -> None:
        self.server = server
        self.mailbox = ""
        super().__init__("localhost", server.port(993), timeout=60, ssl_context=server.tls())


Case = Callable[[Client], Awaitable[None]]


@pytest.fixture(scope="module")
def account(server: Pillarbox) -> Account:
    server.add_accounts([ACCOUNT])
    return ACCOUNT


@pytest.fixture
async def client(server: Pillarbox, account: Account, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    made = Client(server)
    await made.wait_hello_from_server()
    await ok(made.login(account.address, account.password))
    made.mailbox = request.node.callspec.params["name"]
    await ok(made.create(made.mailbox))
    for subject in SUBJECTS:
        await ok(made.append(message(account.address, subject), made.mailbox))
    await ok(made.select(made.mailbox))
    made.used.clear()
    yield made
    if made.get_state() != "LOGOUT":
        await made.logout()


async def ok(answer: Awaitable[Any]) -> list[bytes]:
    """The lines of an answer that must be OK, the tagged one's text last."""
    response = await answer
    assert response.result == "OK", response
    return [bytes(line) for line in response.lines]


# Cases ---------------------------------------------------------------------------------------------------------------


async def get_state(c: Client) -> None:
    assert c.get_state() == "SELECTED"
    await ok(c.close())
    assert c.get_state() == "AUTH"


async def login(c: Client) -> None:
    other = Client(c.server)
    await other.wait_hello_from_server()
    assert (await other.login(ACCOUNT.address, "wrong")).result == "NO"
    await ok(other.login(ACCOUNT.username, ACCOUNT.password))
    await ok(other.logout())
    c.used |= other.used


async def append(c: Client) -> None:
    octets = message(ACCOUNT.address, "four")
    came = datetime(2020, 2, 29, 12, 30, tzinfo=UTC)
    assert b"APPENDUID" in (await ok(c.append(octets, c.mailbox, r"\Seen $Mine", came)))[-1]
    lines = await ok(c.fetch("4", "(FLAGS INTERNALDATE BODY.PEEK[])"))
    assert lines[1] == octets
    assert rb"\Seen" in lines[0] and b"$Mine" in lines[0] and b'"29-Feb-2020 12:30:00 +0000"' in lines[0]


async def fetch(c: Client) -> None:
    lines = await ok(c.fetch("1:3", "(UID ENVELOPE BODYSTRUCTURE)"))
    assert [b'"one"' in lines[0], b'"two"' in lines[1], b'"three"' in lines[2]] == [True] * 3
    assert (await ok(c.fetch("2", "(BODY.PEEK[TEXT]<0.3>)")))[1] == b"Hel"


async def uid(c: Client) -> None:
    await ok(c.create("by-uid"))
    assert rb"\Deleted" in (await ok(c.uid("store", "1,3", "+FLAGS", r"(\Deleted)")))[0]
    await ok(c.uid("expunge", "3"))
    assert b"UID 1" in (await ok(c.uid("fetch", "1:*", "(FLAGS)")))[0]
    await ok(c.uid("copy", "2", "by-uid"))
    await ok(c.uid("move", "2", "by-uid"))
    assert (await ok(c.uid_search("ALL")))[0] == b"1"
    assert await _subjects(c, "by-uid") == ["two", "two"]


async def store(c: Client) -> None:
    lines = await ok(c.store("1:2", "+FLAGS", r"(\Flagged $Mine)"))
    assert all(rb"\Flagged" in line and b"$Mine" in line for line in lines[:2])


async def search(c: Client) -> None:
    assert (await ok(c.search("SUBJECT", '"o"')))[0] == b"1 2"
    assert (await ok(c.search("ALL", charset=None)))[0] == b"1 2 3"


async def uid_search(c: Client) -> None:
    await ok(c.store("1", "+FLAGS", r"(\Deleted)"))
    await ok(c.expunge())
    assert (await ok(c.uid_search("ALL")))[0] == b"2 3"


async def expunge(c: Client) -> None:
    await ok(c.store("1,3", "+FLAGS", r"(\Deleted)"))
    lines = await ok(c.expunge())
    assert sum(line.endswith(b" EXPUNGE") for line in lines) == 2
    assert await _subjects(c, c.mailbox) == ["two"]


async def copy(c: Client) -> None:
    await ok(c.create("copied"))
    assert b"COPYUID" in b" ".join(await ok(c.copy("1,3", "copied")))
    assert await _subjects(c, "copied") == ["one", "three"]


async def move(c: Client) -> None:
    await ok(c.create("moved"))
    await ok(c.move("1,3", "moved"))
    assert await _subjects(c, "moved") == ["one", "three"]
    assert await _subjects(c, c.mailbox) == ["two"]


async def close(c: Client) -> None:
    await ok(c.store("2", "+FLAGS", r"(\Deleted)"))
    await ok(c.close())
    assert await _subjects(c, c.mailbox) == ["one", "three"]


async def select(c: Client) -> None:
    lines = await ok(c.select(c.mailbox))
    assert b"3 EXISTS" in lines and b"[READ-WRITE]" in lines[-1]
    assert (await c.select("Nothing")).result == "NO"


async def examine(c: Client) -> None:
    assert b"[READ-ONLY]" in (await ok(c.examine(c.mailbox)))[-1]
    assert (await c.store("1", "+FLAGS", r"(\Deleted)")).result == "NO"


async def status(c: Client) -> None:
    line = (await ok(c.status(c.mailbox, "(MESSAGES UIDNEXT UNSEEN SIZE HIGHESTMODSEQ)")))[0]
    assert b"MESSAGES 3" in line and b"UIDNEXT 4" in line and b"SIZE " in line and b"HIGHESTMODSEQ " in line


async def create(c: Client) -> None:
    await ok(c.create('"B&APw-cher/Neu"'))
    assert (await c.create('"B&APw-cher/Neu"')).result == "NO"
    assert b"B&APw-cher/Neu" in b"".join(await ok(c.list('""', '"B&APw-cher/*"')))


async def rename(c: Client) -> None:
    await ok(c.create("before/child"))
    await ok(c.rename("before", "after"))
    assert b"after/child" in b"".join(await ok(c.list('""', "after/%")))


async def delete(c: Client) -> None:
    await ok(c.create("gone"))
    await ok(c.delete("gone"))
    assert len(await ok(c.list('""', "gone"))) == 1


async def list_(c: Client) -> None:
    lines = b"\n".join(await ok(c.list('""', "*")))
    assert rb'(\HasNoChildren \Sent) "/" Sent' in lines and c.mailbox.encode() in lines


async def lsub(c: Client) -> None:
    assert b"INBOX" in b"".join(await ok(c.lsub('""', "INB*")))


async def subscribe(c: Client) -> None:
    await ok(c.subscribe(c.mailbox))
    assert len(await ok(c.lsub('""', c.mailbox))) == 2


async def unsubscribe(c: Client) -> None:
    await ok(c.subscribe(c.mailbox))
    await ok(c.unsubscribe(c.mailbox))
    assert len(await ok(c.lsub('""', c.mailbox))) == 1


async def noop(c: Client) -> None:
    with imap(c.server, ACCOUNT) as other:
        other.append(c.mailbox, "", "", message(ACCOUNT.address))  # type: ignore[arg-type]
    assert b"4 EXISTS" in b"\n".join(await ok(c.noop()))


async def check(c: Client) -> None:
    await ok(c.check())


async def id_(c: Client) -> None:
    assert b"Pillarbox" in (await ok(c.id(name="aioimaplib", version="2")))[0]


async def namespace(c: Client) -> None:
    assert (await ok(c.namespace()))[0] == b'(("" "/")) NIL NIL'


async def enable(c: Client) -> None:
    await ok(c.close())
    assert b"ENABLED CONDSTORE" in b"\n".join(await ok(c.enable("CONDSTORE")))


async def has_capability(c: Client) -> None:
    assert c.has_capability("IDLE") and not c.has_capability("STARTTLS")


async def idle_start(c: Client) -> None:
    """The whole of its IDLE: begun, told, ended; told by a deadline; and the future of it."""
    await ok(c.select("INBOX"))
    ended = await c.idle_start(timeout=60)
    assert c.has_pending_idle()
    await asyncio.to_thread(deliver, c.server, message(ACCOUNT.address), ACCOUNT.address)
    told: list[bytes] = []
    while not any(line.endswith(b"EXISTS") for line in told):
        told += await c.wait_server_push(timeout=30)
    assert await c.stop_wait_server_push()
    while await c.wait_server_push(timeout=30) != STOP_WAIT_SERVER_PUSH:
        pass
    c.idle_done()
    assert (await asyncio.wait_for(ended, 30)).result == "OK"
    assert not c.has_pending_idle() and not await c.stop_wait_server_push()


async def idle(c: Client) -> None:
    ended = asyncio.create_task(c.idle())
    async with asyncio.timeout(30):
        while not c.has_pending_idle():
            await asyncio.sleep(0.01)
        await c.protocol.wait_for_idle_response()
    c.idle_done()
    assert (await asyncio.wait_for(ended, 30)).result == "OK"


async def logout(c: Client) -> None:
    await ok(c.logout())
    assert c.get_state() == "LOGOUT"


async def _subjects(c: Client, mailbox: str) -> list[str]:
    """As another client sees them."""

    def look() -> list[str]:
        with imap(c.server, ACCOUNT) as other:
            return subjects(other, mailbox)

    return await asyncio.to_thread(look)


CASES: dict[str, Case] = {
    case.__name__.rstrip("_"): case
    for case in (
        *(get_state, login, append, fetch, uid, store, search, uid_search, expunge, copy, move),
        *(close, select, examine, status, create, rename, delete, list_, lsub, subscribe, unsubscribe, noop, check),
        *(id_, namespace, enable, has_capability, idle_start, idle, logout),
    )
}
WITHIN = {
    "create_client": "login",
    "wait_hello_from_server": "login",
    "has_pending_idle": "idle_start",
    "wait_server_push": "idle_start",
    "stop_wait_server_push": "idle_start",
    "idle_done": "idle_start",
}
"""Methods whose case is another's."""
LACKING = {"getquotaroot": "QUOTA", "xoauth2": "AUTH=XOAUTH2"}
"""Methods for what the server does not announce."""


# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
async def test_method(client: Client, name: str) -> None:
    await CASES[name](client)
    assert {name, *(part for part, case in WITHIN.items() if case == name)} <= client.used


async def test_without_the_capability(server: Pillarbox, account: Account) -> None:
    """They are refused, and the session goes on."""
    client = Client(server)
    await client.wait_hello_from_server()
    for name, capability in LACKING.items():
        assert not client.has_capability(capability), f"{capability} is announced: {name} needs a case"
    assert (await client.xoauth2(account.address, "token")).result == "NO"
    await ok(client.login(account.address, account.password))
    assert (await client.getquotaroot("INBOX")).result == "BAD"
    await ok(client.logout())
    assert LACKING.keys() <= client.used


async def test_without_tls(server: Pillarbox, account: Account) -> None:
    """The library has no STARTTLS: without TLS from the beginning it is told not to log in."""
    client = IMAP4("localhost", server.port(143), timeout=60)
    await client.wait_hello_from_server()
    assert client.has_capability("LOGINDISABLED") and client.has_capability("STARTTLS")
    assert (await client.login(account.address, account.password)).result == "NO"
    assert client.get_state() == "NONAUTH"
    await ok(client.noop())
    await ok(client.logout())


async def test_a_message_of_many_megabytes(server: Pillarbox, account: Account) -> None:
    octets = message(account.address, body=f"{'x' * 70}\r\n" * 50_000)
    client = Client(server)
    await client.wait_hello_from_server()
    await ok(client.login(account.address, account.password))
    await ok(client.create("large"))
    await ok(client.append(octets, "large"))
    await ok(client.select("large"))
    assert (await ok(client.fetch("1", "(BODY.PEEK[])")))[1] == octets
    await ok(client.logout())
    with imap(server, account) as other:
        assert all_octets(other, "large") == [octets]


def test_every_method_is_here() -> None:
    assert public(IMAP4, IMAP4_SSL) == {*CASES, *WITHIN, *LACKING}
