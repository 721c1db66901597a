"""Settings are read again, compared, and merged by what their change takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from config.load import ConfigErrors
from config.schema import Config
from config.secret import Secret
from mailserver.node.settings import Source, changes, merged, of_s3, with_s3

OLD = Config(server={"hostname": "a.example"})
NEW = Config(
    server={"hostname": "b.example", "port_offset": 5, "shutdown_seconds": 3},
    mail={"separator": "."},
    smtp={"max_errors": 7},
    http={"metrics_token": "secret"},
)


def test_changes_are_named_by_what_they_take() -> None:
    assert changes(OLD, NEW) == {
        "reload": ["server.hostname", "server.shutdown_seconds", "smtp.max_errors"],
        "workers": ["mail.separator", "http.metrics_token"],
        "restart": ["server.port_offset"],
    }
    assert changes(NEW, NEW) == {"reload": [], "workers": [], "restart": []}


def test_a_reload_leaves_what_takes_more() -> None:
    after = merged(OLD, NEW, "reload")
    assert changes(OLD, after) == {**changes(OLD, NEW), "workers": [], "restart": []}
    assert changes(after, NEW) == {**changes(OLD, NEW), "reload": []}
    assert changes(merged(after, NEW, "workers"), NEW) == {
        "reload": [],
        "workers": [],
        "restart": ["server.port_offset"],
    }
    assert OLD.smtp.max_errors == 20


def test_a_source_is_read_from_where_the_server_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server works elsewhere: relative paths keep their meaning."""
    start = tmp_path / "start"
    start.mkdir()
    (start / "token").write_text("abc")
    (start / "p.toml").write_text('[tls]\ncertificate = "a.crt"\nkey = "a.key"\n[http]\nmetrics_token = "file:token"\n')
    monkeypatch.setenv("PILLARBOX_STORAGE__BLOBS", "blobs")
    monkeypatch.setenv("PILLARBOX_STORAGE__INSTALL_KEY_FILE", "install")
    (start / "install").write_text("ab" * 32)
    source = Source(Path("p.toml"), {"server": {"workers": 3, "roles": None}}, start)
    monkeypatch.chdir(tmp_path)
    config = source.load()
    assert (config.tls.certificate, config.tls.key) == (start / "a.crt", start / "a.key")
    assert config.storage.blobs == str(start / "blobs")
    assert config.storage.install_key is not None and config.storage.install_key.reveal() == "ab" * 32
    assert config.http.metrics_token is not None and config.http.metrics_token.reveal() == "abc"
    assert config.server.workers == 3
    (start / "p.toml").write_text("[server]\nworkers = 5\n[smtp]\nmax_hops = 9\n")
    again = source.load()
    assert (again.server.workers, again.smtp.max_hops) == (3, 9), "options of the command line win"
    (start / "p.toml").unlink()
    with pytest.raises(ConfigErrors, match="cannot be read"):
        source.load()


def test_without_a_file(tmp_path: Path) -> None:
    assert Source(None, {}, tmp_path).load() == Config()


def test_s3_is_told_and_taken() -> None:
    told = {"s3_endpoint_url": "http://127.0.0.1:1", "s3_access_key_id": "a", "s3_secret_access_key": Secret("hidden")}
    storage = Config().storage.model_copy(update=told)
    written = json.loads(json.dumps(of_s3(storage)))
    assert written["s3_secret_access_key"] == "hidden" and "s3_timeout_seconds" not in written
    assert with_s3(Config(), written).storage == storage
    assert with_s3(Config(), {}) == Config()
