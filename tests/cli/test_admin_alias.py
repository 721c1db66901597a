"""`pillarbox admin alias`, as people and programs see it."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Admin, AdminJson


@pytest.fixture(autouse=True)
def _alice(admin: Admin) -> None:
    admin("domain", "add", "example.org")
    admin("account", "add", "alice@example.org", "--generate")


def test_an_alias_from_beginning_to_end(admin: Admin) -> None:
    steps = [
        (("add", "sales@example.org", "alice@example.org"), "Alias sales@example.org leads to alice@example.org.\n"),
        (
            ("add", "sales@example.org", "alice@example.org"),
            "Alias sales@example.org exists already and leads to alice@example.org.\n",
        ),
        (
            ("add", "sales@example.org", "bob@elsewhere.example", "alice@example.org"),
            "Alias sales@example.org leads to alice@example.org, bob@elsewhere.example.\n",
        ),
        (("list",), "ALIAS              LEADS TO\nsales@example.org  alice@example.org, bob@elsewhere.example\n"),
        (("list", "--domain", "example.net"), "none\n"),
        (
            ("remove", "sales@example.org", "alice@example.org"),
            "Alias sales@example.org leads no more to alice@example.org.\n",
        ),
        (("remove", "sales@example.org"), "Alias sales@example.org leads no more to bob@elsewhere.example.\n"),
        (("list",), "none\n"),
    ]
    for arguments, output in steps:
        result = admin("alias", *arguments)
        assert (result.exit_code, result.stdout) == (0, output)


def test_json(admin_json: AdminJson) -> None:
    made = admin_json("alias", "add", "@example.org", "alice@example.org")
    assert made == {
        "address": "@example.org",
        "targets": ["alice@example.org"],
        "added": ["alice@example.org"],
        "warnings": [],
    }
    assert admin_json("alias", "list") == [{"address": "@example.org", "targets": ["alice@example.org"]}]
    assert admin_json("alias", "remove", "@example.org")["removed"] == ["alice@example.org"]


def test_a_target_that_leads_nowhere_is_a_warning(admin: Admin) -> None:
    result = admin("alias", "add", "sales@example.org", "nobody@example.org")
    assert result.exit_code == 0
    assert result.stderr == "pillarbox: warning: nobody@example.org leads nowhere\n"


def test_refusals(admin: Admin, admin_json: AdminJson) -> None:
    for arguments in (
        ("add", "alice@example.org", "b@elsewhere.example"),
        ("add", "x@elsewhere.example", "alice@example.org"),
        ("add", "x@example.org", "x@example.org"),
        ("remove", "x@example.org"),
        ("remove", "alice@example.org"),
    ):
        result = admin("alias", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("pillarbox: ")
    assert admin("alias", "add", "x@example.org").exit_code == 2
    assert admin_json("alias", "add", "x@example.org", "nonsense", status=1)["field"] == "targets"
