"""The two keys of an installation: from the settings, or from files made at the first start.

The database keeps a fingerprint of each (storage/installation.py). A key that was made here and turns out not to be the
database's is removed again, so that putting the right file back is all there is to do.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.process import own
from mailserver.node.data_directory import DataDirectory, write_private
from storage.installation import WrongKeys, claim

if TYPE_CHECKING:
    from config.schema import StorageConfig
    from config.secret import Secret

KEY_OCTETS = 32


class KeyFileError(Exception):
    """A key cannot be used; the text says which and what to do."""


@dataclass(frozen=True, slots=True, repr=False)
class SecretKeys:
    """install names and seals blobs, master wraps the accounts' keys; made: files that were made just now."""

    install: bytes
    master: bytes
    made: tuple[Path, ...] = ()


def load_or_make(config: StorageConfig, directory: DataDirectory, account: ServiceAccount | None) -> SecretKeys:
    """Both keys. KeyFileError."""
    made: list[Path] = []
    install = _one(config.install_key, directory.secrets / "install.key", account, made)
    master = _one(config.master_key, directory.secrets / "master.key", account, made)
    return SecretKeys(install, master, tuple(made))


async def check(dsn: str, keys: SecretKeys) -> None:
    """Compares them with the database's fingerprints, or leaves them there at first use. KeyFileError."""
    try:
        await claim(dsn, {"install_key": keys.install, "master_key": keys.master})
    except WrongKeys as error:
        for path in keys.made:
            path.unlink(missing_ok=True)
        raise KeyFileError(
            f"{' and '.join(error.names)}: not the key that this database was begun with. Take the file from "
            "secrets/ of the data directory that was first used with it (another node's, or a backup), or name it in "
            f"storage.{error.names[0]}_file"
        ) from error


def _one(given: Secret | None, path: Path, account: ServiceAccount | None, made: list[Path]) -> bytes:
    if given is not None:
        return bytes.fromhex(given.reveal())
    try:
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        text = secrets.token_hex(KEY_OCTETS)
        write_private(path, text + "\n")
        own(path, account, 0o600)
        made.append(path)
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path} cannot be read: {error}") from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_OCTETS:
        raise KeyFileError(
            f"{path} is damaged: it must hold {2 * KEY_OCTETS} hexadecimal digits; restore it from a backup"
        )
    return key
