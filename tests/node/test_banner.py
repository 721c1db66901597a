"""The banner says what a person must type into a mail client."""

from __future__ import annotations

import socket
from pathlib import Path

from config.schema import Config
from mailserver.node.banner import banner
from mailserver.node.listeners import Address, endpoints


def text(*roles: str, host: str = "127.0.0.1") -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    addresses = [Address(endpoint, family, host, endpoint.standard_port + 20_000) for endpoint in endpoints(roles)]
    return banner(
        Config(), addresses, version="1.2.3", data=Path("/srv/da ta"), fingerprint="AA:BB", services="PostgreSQL"
    )


def test_a_mail_client_finds_its_settings() -> None:
    said = text("smtp", "submission", "imap", "api")
    assert "server localhost, port 20993, SSL/TLS" in said
    assert "server localhost, port 20465, SSL/TLS" in said
    for part in ("1.2.3", "/srv/da ta", "AA:BB", "127.0.0.1:20025", "127.0.0.1:20143", "STARTTLS", "self-signed"):
        assert part in said, part
    assert all(len(line) <= 120 for line in said.splitlines())


def test_only_what_is_served_is_named() -> None:
    said = text("smtp")
    assert "20025" in said and "mail client" not in said and "20993" not in said


def test_addresses_that_mean_all_are_no_server_names() -> None:
    assert "server 0.0.0.0" not in text("imap", host="0.0.0.0")
    assert "[::1]:20143" in text("imap", host="::1")
