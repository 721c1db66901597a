"""Accounts with very many mailboxes, and trees as deep as they may be. Bounds on time are against squares of them."""

from __future__ import annotations

import asyncio
import time

from storage import accounts, mailboxes
from tests.imap.conftest import Server
from tests.imap.mail import put
from tests.imap.trees import plant

MANY = [
    *("Lists", *(f"Lists/{number:04}" for number in range(5000))),
    *(f"Work/{number // 100:02}/{number:04}" for number in range(4999)),
]
"""10,000, and 51 places that are no mailboxes."""
SECONDS = 10.0
"""Of the processor, for a dozen commands that take less than a second of it together."""


async def test_ten_thousand_mailboxes(server: Server) -> None:
    await plant(server, MANY, subscribed=MANY)
    client, other = await server.logged_in(), await server.logged_in()
    started = time.process_time()

    assert len(await client.ask('LIST "" *')) == 1 + 10_000 + 51 + 1
    assert len(await client.ask('LIST "" %')) == 1 + 1 + 1 + 1
    assert len(await client.ask('LIST "" Work/%/0001')) == 1 + 1
    assert len(await client.ask('LIST (SUBSCRIBED) "" * RETURN (STATUS (MESSAGES SIZE))')) == 2 * 10_000 + 1
    assert len(await client.ask('LIST (SUBSCRIBED RECURSIVEMATCH) "" %')) == 2 + 1
    assert len(await client.ask('LSUB "" *')) == 10_000 + 1
    assert len(await client.ask("STATUS Lists/0001 (MESSAGES)")) == 1 + 1

    await client.ask("CREATE New/One")
    await client.ask("RENAME Lists Old/Lists")
    await client.ask("DELETE Old/Lists/0001")
    lines = await client.ask('LIST "" (New* Lists* Old/*)')
    assert len(lines) == 2 + 5000 + 1
    assert lines[0] == r'* LIST (\HasChildren) "/" New'
    assert lines[-2] == r'* LIST (\HasNoChildren) "/" Old/Lists/4999'
    assert time.process_time() - started < SECONDS

    # One who asks for much does not keep others waiting.
    much = 'LIST "" (' + " ".join(f"*x{number}*" for number in range(25)) + ")"
    asking = asyncio.ensure_future(client.ask(much))
    answered = 0
    while not asking.done():
        await other.ask("NOOP")
        answered += 1
    assert len(await asking) == 1
    assert answered > 5


async def test_a_tree_as_deep_as_may_be(server: Server) -> None:
    """10,000 mailboxes in a hundred branches of a hundred levels."""
    names = ["/".join([f"branch{branch}", *["d"] * level]) for branch in range(100) for level in range(100)]
    await plant(server, names, subscribed=names[99::100])
    client = await server.logged_in()
    started = time.process_time()
    assert len(await client.ask('LIST "" *')) == 1 + 10_000 + 1
    assert len(await client.ask('LSUB "" %')) == 100 + 1
    assert len(await client.ask('LIST (SUBSCRIBED RECURSIVEMATCH) "" branch7%/d')) == 11 + 1
    await client.ask("RENAME branch0 renamed")
    await client.ask(f"STATUS renamed{'/d' * 99} (MESSAGES)")
    await client.ask(f"RENAME renamed{'/d' * 99} leaf")
    await client.ask(f"CREATE new{'/d' * 99}")
    assert len(await client.ask('LIST "" (new* renamed*)')) == 100 + 99 + 1
    assert time.process_time() - started < SECONDS


async def test_a_tree_of_mail_is_renamed_at_once(server: Server) -> None:
    """One transaction: UIDs, UIDVALIDITY and what is selected stay, and no session ever sees half of it."""
    await plant(server, MANY)
    account = await accounts.find(server.store, "alice")
    await put(server, b"one", mailbox=("Lists", "0007"))
    before = await mailboxes.find(server.store, account.account_id, ("Lists", "0007"))
    client, other = await server.logged_in(), await server.logged_in()
    await client.ask("SELECT Lists/0007")
    renaming = asyncio.ensure_future(other.ask("RENAME Lists Moved"))
    while not renaming.done():
        names = await mailboxes.uses(server.store, account.account_id)
        assert sum(name[0] == "Lists" for name in names) in (0, 5001)
        await asyncio.sleep(0)
    await renaming
    after = await mailboxes.find(server.store, account.account_id, ("Moved", "0007"))
    assert (after.mailbox_id, after.uidvalidity, after.messages) == (before.mailbox_id, before.uidvalidity, 1)
    assert "* 1 FETCH (UID 1)" in await client.ask("FETCH 1 UID")
