"""The settings of a running server: read again from where they came, compared, and put together.

What a change takes is said with each setting (config/schema.py, Change): a running server goes on with the old value
of all that needs more than was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from config.load import load, sections
from config.schema import Change, Config, StorageConfig
from config.secret import Secret

_OF_S3 = ("s3_endpoint_url", "s3_region", "s3_path_style", "s3_access_key_id", "s3_secret_access_key")


@dataclass(frozen=True, slots=True)
class Source:
    """Where settings come from. overrides: the options of `serve`; folder: where relative paths begin."""

    file: Path | None
    overrides: Mapping[str, Mapping[str, Any]]
    folder: Path

    def load(self) -> Config:
        """The settings as they are written at this moment, every path absolute. ConfigErrors."""
        file = None if self.file is None else self.folder / self.file
        config = load(file, self.overrides, folder=self.folder)
        tls, storage = config.tls, config.storage
        if tls.certificate is not None and tls.key is not None:
            update = {"certificate": self.folder / tls.certificate, "key": self.folder / tls.key}
            tls = tls.model_copy(update=update)
        if storage.blobs is not None and "://" not in storage.blobs:
            storage = storage.model_copy(update={"blobs": str(self.folder / storage.blobs)})
        return config.model_copy(update={"tls": tls, "storage": storage})


def changes(old: Config, new: Config) -> dict[Change, list[str]]:
    """The names (section.key) of settings that differ, by what their change takes."""
    found: dict[Change, list[str]] = {"reload": [], "workers": [], "restart": []}
    for section, key, change in _settings():
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key):
            found[change].append(f"{section}.{key}")
    return found


def merged(running: Config, wanted: Config, change: Change) -> Config:
    """The running settings, with those of the wanted ones whose change takes just that."""
    updates: dict[str, dict[str, Any]] = {}
    for section, key, takes in _settings():
        if takes == change:
            updates.setdefault(section, {})[key] = getattr(getattr(wanted, section), key)
    return running.model_copy(
        update={section: getattr(running, section).model_copy(update=update) for section, update in updates.items()}
    )


def of_s3(storage: StorageConfig) -> dict[str, Any]:
    """How S3 is reached, the secret in clear: for server.json, which only its owner reads."""
    told = {name: getattr(storage, name) for name in _OF_S3}
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in told.items()}


def with_s3(config: Config, told: Mapping[str, Any]) -> Config:
    """The settings, with S3 as `of_s3` has told it."""
    known = {name: told[name] for name in _OF_S3 if name in told}
    secret = known.get("s3_secret_access_key")
    if secret is not None:
        known["s3_secret_access_key"] = Secret(secret)
    return config.model_copy(update={"storage": config.storage.model_copy(update=known)})


def _settings() -> Iterator[tuple[str, str, Change]]:
    for section, model in sections():
        for key, about in model.model_fields.items():
            extra = about.json_schema_extra
            assert isinstance(extra, dict)
            yield section, key, extra["change"]  # type: ignore[misc]
