"""Defaults, units in names, bounds, and what a value may be written as."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from config.load import sections
from config.schema import MIB, Config, local_hostname

UNITS = {"octets": "_octets", "seconds": "_seconds", "MiB": "_mib", "KiB": "_kib", "days": "_days"}

SETTINGS = [(name, key, about) for name, section in sections() for key, about in section.model_fields.items()]


@pytest.mark.parametrize(("section", "key", "about"), SETTINGS, ids=[f"{name}.{key}" for name, key, _ in SETTINGS])
def test_every_setting_says_what_it_is(section, key, about):
    extra = about.json_schema_extra
    assert about.description
    assert about.description.endswith((".", "…", ".)"))
    # A bare number says nothing: its unit stands in the name, or is a countable thing in its documentation.
    for unit, ending in UNITS.items():
        assert (extra["unit"] == unit) == key.endswith(ending)
    default = about.get_default(call_default_factory=True)
    assert default is not None or (extra["shown_default"] and extra["example"] is not None)


def test_the_defaults_pass_their_own_checks():
    dumped = Config().model_dump()
    assert Config(**dumped) == Config()


def test_the_default_is_closed_to_the_network_and_to_clear_text():
    config = Config()
    assert config.server.host == ("127.0.0.1",)
    assert config.server.insecure_loopback_auth is False
    assert config.storage.seal_content is True
    assert config.tls.minimum == "1.2"


def test_it_cannot_be_changed():
    with pytest.raises(ValidationError):
        Config().smtp.max_hops = 5


@pytest.mark.parametrize(
    ("given", "octets"),
    [(70000, 70000), ("70000", 70000), ("1 MiB", MIB), ("2mib", 2 * MIB), (" 64 KiB ", 65536), ("1 GiB", 1024 * MIB)],
)
def test_sizes(given, octets):
    assert Config(mail={"max_message_octets": given}).mail.max_message_octets == octets


@pytest.mark.parametrize("given", ["1 MB", "-1", "1.5 MiB", "", "MiB", "2 GiB", 1, None])
def test_wrong_sizes(given):
    with pytest.raises(ValidationError):
        Config(mail={"max_message_octets": given})


@pytest.mark.parametrize("given", ["a", ["a"], ("a",), " a ,"])
def test_one_address_or_a_list(given):
    assert Config(server={"host": given}).server.host == ("a",)


def test_append_takes_what_mail_takes_unless_it_is_told_otherwise():
    assert Config(mail={"max_message_octets": "3 MiB"}).max_append_octets == 3 * MIB
    assert Config(imap={"max_append_octets": "2 MiB"}).max_append_octets == 2 * MIB


@pytest.mark.parametrize(
    ("section", "key", "wrong"),
    [
        ("server", "port_offset", 65536),
        ("server", "workers", 0),
        ("server", "roles", "smtp,juggler"),
        ("server", "roles", []),
        ("server", "host", []),
        ("server", "hostname", "a b"),
        ("server", "trusted_networks", ["10.0.0.1/8"]),
        ("server", "system_account", "Pillar Box"),
        ("storage", "postgres", "mysql://x"),
        ("storage", "redis", "http://x"),
        ("storage", "install_key", "00"),
        ("storage", "pool_size", 1),
        ("mail", "separator", "\\"),
        ("mail", "default_mailboxes", [{"name": "Sent", "use": "Sent"}]),
        ("mail", "default_mailboxes", [{"name": ""}]),
        ("smtp", "greeting", "two\r\nlines"),
        ("tls", "minimum", "1.0"),
        ("tls", "key", "only.key"),
        ("log", "level", "loud"),
    ],
)
def test_wrong_values_are_refused(section, key, wrong):
    with pytest.raises(ValidationError):
        Config(**{section: {key: wrong}})


@pytest.mark.parametrize(
    ("name", "hosts", "whole"),
    [
        ("mail.example.org", "", "mail.example.org"),
        ("mail", "127.0.1.1 mail.example.org mail\n", "mail.example.org"),
        ("mail", "127.0.1.1 mail other.example.org # mail.example.net\n", "mail"),
        ("mail", "10.0.0.1 post.example.org mail\n", "mail"),
        ("", "", "localhost"),
    ],
)
def test_the_name_of_this_host(monkeypatch, tmp_path, name, hosts, whole):
    (tmp_path / "hosts").write_text(hosts)
    monkeypatch.setattr("config.schema.socket.gethostname", lambda: name)
    monkeypatch.setattr("config.schema.HOSTS_FILE", tmp_path / "hosts")
    assert local_hostname() == whole
