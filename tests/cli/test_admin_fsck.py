"""`pillarbox admin fsck`, as people and programs see it."""

from __future__ import annotations

import asyncio

import asyncpg

from tests.cli.conftest import Admin, AdminJson


async def damage(database: str) -> None:
    conn = await asyncpg.connect(database)
    await conn.execute("UPDATE mailboxes SET messages = 3 WHERE mailbox_id = 1")
    await conn.close()


def make_alice(admin: Admin) -> None:
    admin("domain", "add", "example.org")
    admin("account", "add", "alice@example.org", "--generate")


def test_sound(admin: Admin, admin_json: AdminJson) -> None:
    make_alice(admin)
    result = admin("fsck", "--account", "alice")
    assert (result.exit_code, result.stdout) == (0, "1 accounts checked (6 mailboxes): no fault.\n")
    found = admin_json("fsck", "--octets")
    assert (found["clean"], found["accounts"], found["faults"], found["repaired"]) == (True, 1, [], [])


async def test_damaged_and_repaired(admin: Admin, database: str) -> None:
    """The commands run beside the loop, since each has a loop of its own."""
    await asyncio.to_thread(make_alice, admin)
    await damage(database)
    steps = [
        ((), 1, "fault: account 1, INBOX: messages is 3, counted 0\n1 accounts checked (6 mailboxes): 1 faults.\n"),
        (
            ("--repair",),
            0,
            (
                "repaired: account 1, INBOX: messages is 3, counted 0\n"
                "1 accounts checked (6 mailboxes): no fault, 1 repaired.\n"
            ),
        ),
        (("--repair",), 0, "1 accounts checked (6 mailboxes): no fault.\n"),
    ]
    for options, status, output in steps:
        result = await asyncio.to_thread(admin, "fsck", *options)
        assert (result.exit_code, result.stdout) == (status, output)


def test_nobody(admin: Admin) -> None:
    result = admin("fsck", "--account", "nobody")
    assert (result.exit_code, result.stderr) == (1, "pillarbox: the account nobody does not exist\n")
