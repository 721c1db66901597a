"""What `serve` says when it is up: where it listens, and what to type into a mail client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mailserver.node.listeners import Address

if TYPE_CHECKING:
    from config.schema import Config

_SECURITY = {"starttls": "STARTTLS", "implicit": "SSL/TLS", "none": "clear text"}


def banner(
    config: Config, addresses: Sequence[Address], *, version: str, data: Path, fingerprint: str, services: str
) -> str:
    """The whole text."""
    lines = [f"Pillarbox {version} is ready.", f"  Data directory   {data}", f"  Services         {services}", ""]
    lines += [_line(address) for address in addresses]
    lines += ["", "  Certificate fingerprint (SHA-256):", f"    {fingerprint}", ""]
    lines += _mail_client(config, addresses)
    return "\n".join(lines)


def _line(address: Address) -> str:
    return f"  {address!s:<24} {address.endpoint.title} ({_SECURITY[address.endpoint.tls]})"


def _mail_client(config: Config, addresses: Sequence[Address]) -> list[str]:
    incoming = _best(addresses, "imaps", "imap")
    outgoing = _best(addresses, "submissions", "submission")
    if incoming is None and outgoing is None:
        return []
    lines = ["  In a mail client:"]
    for title, address in (("Incoming (IMAP)", incoming), ("Outgoing (SMTP)", outgoing)):
        if address is not None:
            security = _SECURITY[address.endpoint.tls]
            host = _host(address.host)
            lines.append(f"    {title:<16} server {host}, port {address.port}, {security}, normal password")
    lines.append("    User name        the account's user name or any of its addresses")
    if config.tls.certificate is None:
        lines.append("    The certificate is self-signed: compare its fingerprint when the client asks.")
    return lines


def _best(addresses: Sequence[Address], *names: str) -> Address | None:
    for name in names:
        for address in addresses:
            if address.endpoint.name == name:
                return address
    return None


def _host(host: str) -> str:
    """Loopback by the name that is in the certificate; all addresses by this host's name."""
    from config.schema import local_hostname

    if host in ("127.0.0.1", "::1"):
        return "localhost"
    return local_hostname() if host in ("0.0.0.0", "::") else host
