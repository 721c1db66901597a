"""How a node sends, out of its settings."""

from __future__ import annotations

from typing import Any

import pytest

from config.schema import Config
from config.secret import Secret
from mailserver.sending import ways
from mailserver.sending.ways import Ways


def made(**settings: Any) -> Ways:
    return ways.of_config(Config(send=settings), [("127.0.0.1", 25)], "abc")


def test_without_settings_each_domain_has_its_own_exchangers() -> None:
    found = made()
    assert found.route("remote.test") is None and found.smarthost is None
    assert found.direct.tls == "opportunistic" and not found.direct.verify and found.direct.instance == "abc"
    assert found.direct.hello_name == Config().server.hostname
    assert found.this_host.listening == (("127.0.0.1", 25),)


def test_fixed_routes_come_before_the_smarthost() -> None:
    found = made(
        routes=["remote.test = 127.0.0.1:2525", "*.test = [::1]"],
        smarthost="smtp.provider.example",
        smarthost_username="me",
        smarthost_password="secret",
    )
    assert found.route("remote.test") == ("127.0.0.1", 2525)
    assert found.route("other.test") == ("::1", 25)
    smarthost = found.route("example.org")
    assert smarthost == found.smarthost == ("smtp.provider.example", 587)
    assert found.manner(("127.0.0.1", 2525)).username == ""
    smart = found.manner(smarthost)
    assert (smart.username, smart.password, smart.tls, smart.verify) == ("me", Secret("secret"), "required", True)


@pytest.mark.parametrize(
    ("how", "tls", "implicit", "verify"),
    [
        ("implicit", "required", True, True),
        ("required", "required", False, True),
        ("opportunistic", "opportunistic", False, False),
    ],
)
def test_tls_to_the_smarthost(how: str, tls: str, implicit: bool, verify: bool) -> None:
    smart = made(smarthost="[::1]:2525", smarthost_tls=how).smart
    assert (smart.tls, smart.implicit_tls, smart.verify) == (tls, implicit, verify)


def test_the_loopback_is_an_address_of_this_host() -> None:
    assert "127.0.0.1" in ways.local_addresses()
