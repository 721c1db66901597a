"""`pillarbox admin domain`, as people and programs see it."""

from __future__ import annotations

from tests.cli.conftest import Admin, AdminJson


def test_a_domain_from_beginning_to_end(admin: Admin) -> None:
    steps = [
        (("add", "Example.org"), 0, "Domain example.org added, registration closed.\n"),
        (("add", "example.org"), 0, "Domain example.org exists already.\n"),
        (
            ("add", "example.org", "--registration", "open"),
            0,
            "Domain example.org exists already; registration is open now.\n",
        ),
        (("list",), 0, "DOMAIN       REGISTRATION\nexample.org  open\n"),
        (("remove", "EXAMPLE.org"), 0, "Domain EXAMPLE.org removed.\n"),
        (("list",), 0, "none\n"),
    ]
    for arguments, status, output in steps:
        result = admin("domain", *arguments)
        assert (result.exit_code, result.stdout) == (status, output)


def test_json(admin_json: AdminJson) -> None:
    made = admin_json("domain", "add", "bücher.example", "--registration", "open")
    assert made == {"name": "xn--bcher-kva.example", "registration": "open", "created": True, "changed": False}
    assert admin_json("domain", "list") == [{"name": "xn--bcher-kva.example", "registration": "open"}]
    assert admin_json("domain", "show", "bücher.example") == {
        "name": "xn--bcher-kva.example",
        "registration": "open",
        "unicode": "bücher.example",
        "addresses": 0,
        "aliases": 0,
    }
    assert admin_json("domain", "remove", "bücher.example") == {"name": "bücher.example", "removed": True}
    assert admin_json("domain", "list") == []


def test_refusals_are_a_sentence_and_a_status(admin: Admin, admin_json: AdminJson) -> None:
    for act in ("show", "remove"):
        result = admin("domain", act, "example.org")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "pillarbox: the domain example.org does not exist\n"
    assert admin_json("domain", "add", "a b", status=1) == {"error": "a b is not a domain name", "field": "name"}
    assert admin("domain", "add", "x.org", "--registration", "maybe").exit_code == 2
    assert admin("domain", "add").exit_code == 2


def test_a_domain_in_use_is_shown_and_kept(admin: Admin) -> None:
    admin("domain", "add", "example.org")
    admin("account", "add", "alice@example.org", "--generate")
    admin("alias", "add", "sales@example.org", "alice@example.org")
    shown = admin("domain", "show", "example.org")
    assert shown.stdout == (
        "Domain example.org\n  registration          closed\n  addresses of accounts 1\n  aliases               1\n"
    )
    assert admin("domain", "remove", "example.org").exit_code == 1
