"""What the first start makes: a certificate of its own, the first domain, and the administrator's account.

Every step can be repeated: what is there is left alone.
"""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mailserver.administration import Refused, first_start
from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.process import own
from mailserver.login import hasher
from mailserver.net.tls import make_self_signed
from mailserver.node.data_directory import DataDirectory, write_private
from storage import addresses

if TYPE_CHECKING:
    from config.schema import Config
    from mailserver.administration.accounts import Added
    from storage import Store

FALLBACK_DOMAIN = "localhost.localdomain"
_MAIL_LABELS = frozenset({"mail", "mx", "smtp", "imap"})


class FirstStartError(Exception):
    """The first start cannot be completed; the text says what to do."""


def first_domain(config: Config) -> str:
    """The setting, else the host's name without a leading mail., else something that works on this host alone."""
    if config.mail.first_domain is not None:
        return config.mail.first_domain
    host = config.server.hostname.strip(".").lower()
    first, _, rest = host.partition(".")
    if _is_address(host) or not first:
        return FALLBACK_DOMAIN
    guess = f"{first}.localdomain" if not rest else rest if first in _MAIL_LABELS and "." in rest else host
    try:
        return addresses.domain(guess)
    except ValueError:
        return FALLBACK_DOMAIN


def certificate_names(config: Config) -> list[str]:
    """Names of the first certificate."""
    host = config.server.hostname
    names = ["localhost", host, f"mail.{first_domain(config)}", "127.0.0.1", "::1"]
    return [name for name in dict.fromkeys(names) if name in ("127.0.0.1", "::1") or not _is_address(name)]


def make_certificate(config: Config, directory: DataDirectory, account: ServiceAccount | None) -> bool:
    """A self-signed certificate, unless the settings name one or one is there; True where it was made."""
    certificate, key = directory.tls / "server.crt", directory.tls / "server.key"
    if config.tls.certificate is not None or certificate.exists() or key.exists():
        return False
    make_self_signed(certificate, key, certificate_names(config))
    own(certificate, account, 0o644)
    own(key, account, 0o600)
    return True


async def is_done(store: Store) -> bool:
    """Has this installation begun already?"""
    return await first_start.is_done(store)


async def begin(store: Store, config: Config) -> Added | None:
    """The first domain and the first account in an empty directory; None where there are accounts. FirstStartError."""
    domain = first_domain(config)
    try:
        return await first_start.begin(store, hasher(config.auth), domain)
    except Refused as error:
        raise FirstStartError(f"the first domain {domain} cannot be made: {error}; set mail.first_domain") from error


def show_login(added: Added, directory: DataDirectory, named: Path) -> str:
    """Hands the first password over: what to print, with the password itself only on a terminal, else in a file."""
    name, address = added.account.username, added.account.primary_address
    if os.isatty(1):
        return (
            f"First administrator: username {name}, address {address}, password {added.password}\n"
            "  (shown once; `pillarbox admin account passwd` sets another)"
        )
    write_private(directory.first_login, f"username: {name}\naddress: {address}\npassword: {added.password}\n")
    return f"First administrator: {address}; the password is in {named}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True
