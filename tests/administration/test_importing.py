"""Accounts from a CSV file: bad lines named, good ones made."""

from __future__ import annotations

import io

import pytest

from mailserver import passwords
from mailserver.administration import accounts, aliases, importing
from mailserver.administration.accounts import Wish
from mailserver.administration.importing import Report
from mailserver.passwords import Hasher
from storage import accounts as stored
from storage import domains, mailboxes
from storage.store import Store

MIB = 1024 * 1024
BCRYPT = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


async def load(store: Store, hasher: Hasher, text: str | bytes) -> Report:
    octets = text.encode() if isinstance(text, str) else text
    done: list[int] = []
    report = await importing.run(store, hasher, io.BytesIO(octets), progress=done.append)
    assert sum(done) == len(octets)
    return report


async def hash_of(store: Store, name: str) -> str:
    login = await stored.find_login(store, name)
    assert login is not None
    return str(login.password_hash)


async def test_a_file_with_everything(store: Store, hasher: Hasher) -> None:
    await aliases.add(store, "sales@example.org", ["root@example.org"])
    report = await load(
        store,
        hasher,
        "\ufeffaddress,password,quota_mib\r\n"
        "a@example.org,good enough one,10\r\n"
        'b@example.org,"with, comma ""quoted""",0\n'
        "\n"
        f"c@example.org,{{BCRYPT}}{BCRYPT},\n"
        "d@example.org,{PLAIN}{MD5}clear,5\n"
        "no address,x,0\n"
        "e@elsewhere.org,good enough one,0\n"
        "f@example.org,,0\n"
        "g@example.org\n"
        "h@example.org,good enough one,ten\n"
        "i@example.org,good enough one,-1\n"
        "j@example.org,good enough one,0,more\n"
        "k@example.org,{MD5}abc,0\n"
        "l@example.org,{BCRYPT}abc,0\n"
        'm@example.org,"lost quote,0\n'
        "A@example.org,good enough one,0\n"
        "root@example.org,good enough one,0\n"
        "sales@example.org,good enough one,0\n"
        "n@example.org,short,0\n"
        "o@example.org,good enough one,99999999999999999999\n"
        "jos\u00e9@example.org,good enough one\n"
        "last@example.org,good enough one,1",
    )
    assert {(problem.line, problem.address) for problem in report.problems} == {
        (7, "no address"),
        (8, "e@elsewhere.org"),
        (9, "f@example.org"),
        (10, "g@example.org"),
        (11, "h@example.org"),
        (12, "i@example.org"),
        (13, "j@example.org"),
        (14, "k@example.org"),
        (15, "l@example.org"),
        (16, "m@example.org"),
        (17, "A@example.org"),
        (19, "sales@example.org"),
        (21, "o@example.org"),
    }
    assert [problem.line for problem in report.problems] == sorted(problem.line for problem in report.problems)
    assert all(problem.reason and problem.reason.isprintable() for problem in report.problems)
    assert report.existing == [(18, "root@example.org")]
    assert report.weak == [(20, "n@example.org")]
    names = {account.username for account in await stored.list_all(store)}
    assert names == {"root", "a", "b", "c", "d", "n", "josé", "last"}
    assert report.created == 7
    assert passwords.verify(await hash_of(store, "b"), 'with, comma "quoted"')
    assert passwords.verify(await hash_of(store, "d"), "{MD5}clear")
    assert await hash_of(store, "c") == BCRYPT
    for name, quota in (("a", 10 * MIB), ("b", 0), ("last", MIB)):
        account = await stored.find(store, name)
        assert (await mailboxes.quota(store, account.account_id)).quota_octets == quota


async def test_without_a_header_and_in_another_order(store: Store, hasher: Hasher) -> None:
    report = await load(store, hasher, "a@example.org,good enough one\n")
    assert (report.created, report.problems) == (1, [])
    report = await load(store, hasher, "Address,quota_mib,password\nb@example.org,7,good enough one\n")
    assert (report.created, report.problems) == (1, [])
    account = await stored.find(store, "b")
    assert (await mailboxes.quota(store, account.account_id)).quota_octets == 7 * MIB


async def test_a_wrong_header_is_a_bad_line(store: Store, hasher: Hasher) -> None:
    report = await load(store, hasher, "address,shoe_size\na@example.org,good enough one\n")
    assert [(problem.line, problem.reason) for problem in report.problems] == [
        (1, "the header must be address,password,quota_mib")
    ]
    assert report.created == 1


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"a\xff@example.org,x,0\n", "not UTF-8"),
        (b"a@example.org," + b"x" * 20_000 + b"\n", "too long"),
        (b"a@example.org," + b"x" * 2000 + b"\n", "at most"),
        (b"a\x00@example.org,x,0\n", "not"),
        (b",x,0\n", "not an address"),
        (b"\r\r\n", None),
    ],
)
async def test_rubbish_costs_its_own_line(store: Store, hasher: Hasher, octets: bytes, reason: str | None) -> None:
    report = await load(store, hasher, octets + b"b@example.org,good enough one,0\n")
    assert report.created == 1
    assert [reason in problem.reason for problem in report.problems if reason] == ([True] if reason else [])


async def test_an_import_can_be_repeated(store: Store, hasher: Hasher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 7)
    text = "".join(f"user{number}@example.org,good enough {number},3\n" for number in range(40))
    assert (await load(store, hasher, text)).created == 40
    again = await load(store, hasher, text)
    assert (again.created, len(again.existing), again.problems) == (0, 40, [])
    assert len(await stored.list_all(store)) == 41


async def test_usernames_that_clash_become_addresses(store: Store, hasher: Hasher) -> None:
    await domains.add(store, "example.net")
    report = await load(store, hasher, "x@example.org,good enough one\nx@example.net,good enough one\n")
    assert report.created == 2
    assert {account.username for account in await stored.list_all(store)} == {"root", "x", "x@example.net"}


async def test_accounts_on_their_way_out_are_named(store: Store, hasher: Hasher) -> None:
    await accounts.add(store, hasher, Wish("a@example.org"))
    account = await stored.find(store, "a")
    async with store.transaction() as conn:
        await conn.execute("UPDATE accounts SET status = 'removing' WHERE account_id = $1", account.account_id)
    report = await load(store, hasher, "a@example.org,good enough one\n")
    assert [problem.reason for problem in report.problems] == ["the account is being removed"]
