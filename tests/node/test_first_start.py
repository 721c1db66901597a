"""Names of the first domain and the first certificate, and how the first password is handed over."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from config.schema import Config, MailConfig, ServerConfig
from mailserver.node import first_start
from mailserver.node.data_directory import DataDirectory


def config(hostname: str, domain: str | None = None) -> Config:
    return Config(server=ServerConfig(hostname=hostname), mail=MailConfig(first_domain=domain))


@pytest.mark.parametrize(
    ("hostname", "domain"),
    [
        ("mail.example.org", "example.org"),
        ("mx.example.org", "example.org"),
        ("server.example.org", "server.example.org"),
        ("example.org", "example.org"),
        ("mail.org", "mail.org"),
        ("Box", "box.localdomain"),
        ("box.", "box.localdomain"),
        ("127.0.0.1", "localhost.localdomain"),
        ("[::1]", "localhost.localdomain"),
        ("-", "localhost.localdomain"),
    ],
)
def test_first_domain(hostname: str, domain: str) -> None:
    assert first_start.first_domain(config(hostname)) == domain
    assert first_start.first_domain(config(hostname, "set.example")) == "set.example"


@pytest.mark.parametrize(
    ("hostname", "names"),
    [
        ("box.example.org", ["localhost", "box.example.org", "mail.box.example.org", "127.0.0.1", "::1"]),
        ("mail.example.org", ["localhost", "mail.example.org", "127.0.0.1", "::1"]),
        ("192.0.2.1", ["localhost", "mail.localhost.localdomain", "127.0.0.1", "::1"]),
    ],
)
def test_certificate_names(hostname: str, names: list[str]) -> None:
    assert first_start.certificate_names(config(hostname)) == names


def test_a_certificate_is_made_once(tmp_path: Path) -> None:
    directory = DataDirectory(tmp_path)
    directory.tls.mkdir()
    assert first_start.make_certificate(config("mail.example.org"), directory, None)
    certificate, key = directory.tls / "server.crt", directory.tls / "server.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "mail.example.org" in names.get_values_for_type(x509.DNSName)
    before = certificate.read_bytes()
    assert not first_start.make_certificate(config("mail.example.org"), directory, None)
    assert certificate.read_bytes() == before


@dataclass
class _Account:
    username: str = "admin"
    primary_address: str = "admin@example.org"


@dataclass
class _Added:
    account: _Account
    password: str = "s3cret-words"


@pytest.mark.parametrize("terminal", [True, False])
def test_the_password_goes_to_the_terminal_or_into_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(first_start.os, "isatty", lambda descriptor: terminal)
    directory = DataDirectory(tmp_path)
    text = first_start.show_login(_Added(_Account()), directory, directory.first_login)  # type: ignore[arg-type]
    if terminal:
        assert "s3cret-words" in text and "admin@example.org" in text
        assert not directory.first_login.exists()
    else:
        assert "s3cret-words" not in text and str(directory.first_login) in text
        assert stat.S_IMODE(directory.first_login.stat().st_mode) == 0o600
        assert "s3cret-words" in directory.first_login.read_text()
