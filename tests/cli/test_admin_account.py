"""`pillarbox admin account`, as people and programs see it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from mailserver import passwords
from tests.cli.conftest import Admin, AdminJson

BCRYPT = "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"


@pytest.fixture(autouse=True)
def _domain(admin: Admin) -> None:
    admin("domain", "add", "example.org")


@pytest.fixture
def stored_hash(database: str) -> object:
    async def fetch(name: str) -> str:
        conn = await asyncpg.connect(database)
        found = await conn.fetchval("SELECT password_hash FROM accounts WHERE username = $1", name)
        await conn.close()
        return str(found)

    return lambda name: asyncio.run(fetch(name))


def test_an_account_from_beginning_to_end(admin: Admin) -> None:
    steps = [
        (
            ("add", "alice@example.org", "--password", "a good pass phrase"),
            "Account alice (alice@example.org) added.\n",
        ),
        (
            ("add", "alice@example.org", "--password", "another one"),
            "Account alice (alice@example.org) exists already; nothing was changed.\n",
        ),
        (("list",), "USER NAME  ADDRESS            ROLE  STATUS\nalice      alice@example.org  user  active\n"),
        (("disable", "alice"), "Account alice is disabled.\n"),
        (("disable", "alice@example.org"), "Account alice was disabled already.\n"),
        (("enable", "alice"), "Account alice is enabled.\n"),
        (("enable", "alice"), "Account alice was enabled already.\n"),
        (("passwd", "alice", "--password", "a new pass phrase"), "Password of alice set.\n"),
        (("address", "add", "alice", "al@example.org"), "Address al@example.org added to alice.\n"),
        (("address", "add", "alice", "al@example.org"), "alice has the address al@example.org already.\n"),
        (("address", "remove", "alice", "al@example.org"), "Address al@example.org taken away from alice.\n"),
        (("remove", "alice"), "Account alice (alice@example.org) removed.\n"),
        (("list", "--domain", "example.org"), "none\n"),
    ]
    for arguments, output in steps:
        result = admin("account", *arguments)
        assert (result.exit_code, result.stdout, result.stderr) == (0, output, "")


def test_show(admin: Admin, admin_json: AdminJson) -> None:
    admin(
        "account", "add", "alice@example.org", "--username", "al", "--address", "a.s@example.org", "--quota-mib", "10",
        "--generate",
    )  # fmt: skip
    value = admin_json("account", "show", "al")
    assert isinstance(value.pop("account_id"), int)
    assert value == {
        "username": "al",
        "address": "alice@example.org",
        "role": "user",
        "status": "active",
        "addresses": ["a.s@example.org", "alice@example.org"],
        "quota": {"octets": 10 * 1024 * 1024, "messages": 0, "used_octets": 0, "used_messages": 0},
    }
    text = admin("account", "show", "a.s@example.org").stdout
    assert re.search(r"quota +10 MiB, 0\.0 MiB used", text)
    assert re.search(r"addresses +a\.s@example\.org, alice@example\.org", text)


def test_set(admin: Admin, admin_json: AdminJson) -> None:
    admin("account", "add", "alice@example.org", "--generate")
    value = admin_json("account", "set", "alice", "--quota-mib", "5", "--role", "domain_admin")
    assert (value["quota"]["octets"], value["role"]) == (5 * 1024 * 1024, "domain_admin")
    value = admin_json("account", "set", "alice", "--quota-messages", "7")
    assert (value["quota"]["octets"], value["quota"]["messages"]) == (5 * 1024 * 1024, 7)
    assert admin("account", "set", "alice").exit_code == 2
    assert admin("account", "set", "alice", "--role", "king").exit_code == 2


def test_ways_to_give_a_password(admin: Admin, admin_json: AdminJson, stored_hash: object) -> None:
    assert callable(stored_hash)
    made = admin_json("account", "add", "a@example.org")
    assert passwords.verify(stored_hash("a"), made["password"])
    admin_json("account", "add", "b@example.org", "--password-stdin", stdin="from stdin, long\nrest\n")
    assert passwords.verify(stored_hash("b"), "from stdin, long")
    admin_json("account", "add", "c@example.org", "--password-hash", "{BCRYPT}" + BCRYPT)
    assert stored_hash("c") == BCRYPT
    made = admin_json("account", "passwd", "b", "--generate")
    assert passwords.verify(stored_hash("b"), made["password"])
    text = admin("account", "passwd", "b").stdout
    assert passwords.verify(stored_hash("b"), text.split("Password: ")[1].strip())
    for wrong in (["--password-stdin"], ["--password", "x", "--generate"], ["--password-hash", "x", "--password", "y"]):
        assert admin("account", "passwd", "b", *wrong).exit_code == 2
    assert admin("account", "passwd", "b", "--password-stdin", stdin=b"\xff\n").exit_code == 2


def test_weak_passwords_are_set_and_reported(admin: Admin, admin_json: AdminJson, stored_hash: object) -> None:
    assert callable(stored_hash)
    result = admin("account", "add", "a@example.org", "--password", "x")
    assert result.exit_code == 0
    assert result.stderr == "pillarbox: warning: the password is weak: it has fewer than 8 characters\n"
    assert passwords.verify(stored_hash("a"), "x")
    assert "warning" in admin_json("account", "passwd", "a", "--password", "password")


def test_refusals(admin: Admin, admin_json: AdminJson) -> None:
    admin("account", "add", "root@example.org", "--role", "superadmin", "--generate")
    for arguments in (
        ("add", "alice"),
        ("add", "alice@elsewhere.example"),
        ("add", "root@example.org", "--username", "other"),
        ("add", "x@example.org", "--password-hash", "plain"),
        ("show", "nobody"),
        ("passwd", "nobody", "--password", "x"),
        ("enable", "nobody"),
        ("remove", "nobody"),
        ("disable", "root"),
        ("address", "remove", "root", "root@example.org"),
    ):
        result = admin("account", *arguments)
        assert (result.exit_code, result.stdout) == (1, ""), arguments
        assert re.fullmatch(r"pillarbox: [^\n]+\n", result.stderr)
    assert admin_json("account", "add", "alice", status=1)["field"] == "address"


def test_removing_takes_aliases_along(admin: Admin, admin_json: AdminJson) -> None:
    admin("account", "add", "alice@example.org", "--generate")
    admin("alias", "add", "a@example.org", "alice@example.org")
    gone = admin_json("account", "remove", "alice")
    assert (gone["status"], gone["aliases"]) == ("removed", ["a@example.org"])


def test_import(admin: Admin, admin_json: AdminJson, tmp_path: Path) -> None:
    file = tmp_path / "accounts.csv"
    file.write_text("address,password,quota_mib\na@example.org,a good pass phrase,5\nb@example.org,short,0\n")
    result = admin("account", "import", str(file))
    assert (result.exit_code, result.stdout) == (0, "2 accounts made, 0 existed already, 0 bad lines.\n")
    assert result.stderr == "pillarbox: warning: line 3: b@example.org: the password is weak\n"
    assert admin_json("account", "show", "a")["quota"]["octets"] == 5 * 1024 * 1024
    with file.open("a") as more:
        more.write("c@example.org,a good pass phrase,0\nno address,x,0\n")
    result = admin("account", "import", str(file))
    assert (result.exit_code, result.stdout) == (1, "1 accounts made, 2 existed already, 1 bad lines.\n")
    assert result.stderr == "line 5: no address: no address is not an address of the form name@domain\n"
    report = admin_json("account", "import", str(file), status=1)
    assert (report["created"], len(report["existing"])) == (0, 3)
    assert [problem["line"] for problem in report["problems"]] == [5]


def test_import_from_standard_input(admin: Admin, admin_json: AdminJson) -> None:
    report = admin_json("account", "import", "-", stdin="a@example.org,a good pass phrase\n")
    assert report == {"created": 1, "existing": [], "problems": [], "weak": []}
    result = admin("account", "import", "/nonexistent.csv")
    assert result.exit_code == 1
    assert result.stderr == "pillarbox: /nonexistent.csv: No such file or directory\n"
