"""Defaults, units in names, bounds, and what a value may be written as."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from config.load import sections
from config.schema import MIB, Change, Config, local_hostname

UNITS = {"octets": "_octets", "seconds": "_seconds", "MiB": "_mib", "KiB": "_kib", "days": "_days"}

SETTINGS = [(name, key, about) for name, section in sections() for key, about in section.model_fields.items()]


@pytest.mark.parametrize(("section", "key", "about"), SETTINGS, ids=[f"{name}.{key}" for name, key, _ in SETTINGS])
def test_every_setting_says_what_it_is(section, key, about):
    extra = about.json_schema_extra
    assert about.description
    assert extra["change"] in get_args(Change)
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
        ("mail", "default_mailboxes", [{"name": "Starred", "use": "\\Flagged"}]),
        ("mail", "default_mailboxes", [{"name": "a\0"}]),
        ("mail", "default_mailboxes", [{"name": "ä" * 128}]),
        ("mail", "default_mailboxes", [{"name": "a/"}]),
        ("mail", "default_mailboxes", [{"name": "Inbox"}]),
        ("mail", "default_mailboxes", [{"name": "Inbox/Sent"}]),
        ("mail", "default_mailboxes", [{"name": "Caf\u00e9"}, {"name": "Cafe\u0301"}]),
        ("mail", "default_mailboxes", [{"name": "a", "use": "\\Sent"}, {"name": "b", "use": "\\Sent"}]),
        ("smtp", "greeting", "two\r\nlines"),
        ("send", "resolvers", ["ns.example.org"]),
        ("send", "resolvers", ["192.0.2.1:99999"]),
        ("send", "routes", ["remote.test"]),
        ("send", "routes", ["remote.test = a b"]),
        ("send", "routes", ["x@remote.test = 127.0.0.1:25"]),
        ("send", "routes", ["remote.test = 127.0.0.1:0"]),
        ("send", "smarthost", "smtp://x"),
        ("send", "smarthost_username", "alone"),
        ("send", "source_addresses", ["eth0"]),
        ("send", "hello_name", "two words"),
        ("send", "retry_pauses_seconds", []),
        ("send", "retry_pauses_seconds", [0]),
        ("send", "longest_backoff_seconds", 1),
        ("tls", "minimum", "1.0"),
        ("tls", "key", "only.key"),
        ("log", "level", "loud"),
    ],
)
def test_wrong_values_are_refused(section, key, wrong):
    with pytest.raises(ValidationError):
        Config(**{section: {key: wrong}})


@pytest.mark.parametrize(
    ("key", "given", "read"),
    [
        ("routes", "remote.test=127.0.0.1:2525, *.test = [::1]", ("remote.test = 127.0.0.1:2525", "*.test = [::1]")),
        ("routes", ["*=mx.example.org"], ("* = mx.example.org",)),
        ("resolvers", "192.0.2.1, [2001:db8::1]:53, 2001:db8::2", ("192.0.2.1", "[2001:db8::1]:53", "2001:db8::2")),
        ("retry_pauses_seconds", "60, 300", (60.0, 300.0)),
    ],
)
def test_ways_of_mail_to_others(key, given, read):
    assert getattr(Config(send={key: given}).send, key) == read


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


@pytest.mark.parametrize(
    "given", ["/srv/blobs", "blobs", "s3://mail", "s3://mail/", "s3://my.mail-1/a/b_c", "s3://Mail_1/x"]
)
def test_places_of_blobs(given):
    assert Config(storage={"blobs": given}).storage.blobs == given


@pytest.mark.parametrize(
    "given",
    [
        "s3://",
        "s3://ab",
        "s3:///x",
        "s3://key:secret@mail",
        "s3://mail/x?region=y",
        "s3://mail/a b",
        "http://mail",
        "gs://mail",
    ],
)
def test_places_that_cannot_be(given):
    with pytest.raises(ValidationError, match=r"must be a directory, or s3://bucket") as failure:
        Config(storage={"blobs": given})
    assert given not in str(failure.value) or given == "s3://"


@pytest.mark.parametrize(
    "given", ["http://localhost:8333", "https://s3.example.org", "https://s3.example.org/", "http://[::1]:9"]
)
def test_endpoints(given):
    assert Config(storage={"s3_endpoint_url": given}).storage.s3_endpoint_url == given


@pytest.mark.parametrize(
    "given", ["localhost:8333", "https://key:secret@s3.example.org", "ftp://x", "https://x/bucket"]
)
def test_wrong_endpoints(given):
    with pytest.raises(ValidationError, match=r"must be http:// or https://"):
        Config(storage={"s3_endpoint_url": given})


@pytest.mark.parametrize("given", [{"s3_access_key_id": "x"}, {"s3_secret_access_key": "x"}])
def test_the_key_of_s3_is_given_whole_or_not_at_all(given):
    with pytest.raises(ValidationError, match="are set together or not at all"):
        Config(storage=given)
    whole = Config(storage={"s3_access_key_id": "id", "s3_secret_access_key": "hidden-secret"})
    assert "hidden-secret" not in repr(whole) + str(whole.model_dump()) + whole.model_dump_json()


def test_the_threshold_of_blobs_is_the_store_s_where_none_is_set():
    assert Config().storage.blob_threshold_octets is None
    assert Config(storage={"blob_threshold_octets": "1 MiB"}).storage.blob_threshold_octets == MIB
