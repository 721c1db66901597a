"""Imports everything that workers may need, before root is dropped and before they are forked.

A virtual environment or an interpreter below a closed home cannot be read any more once root is dropped: from then on
an import that was put off would fail in the middle of a session. What is imported here is also shared by all workers.
"""

from __future__ import annotations

import contextlib
import encodings
import importlib
import io
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from mailserver.embedded.account import ServiceAccount

OURS = ("config", "storage", "mailserver", "admin_api")
_NOT_IN_WORKERS = ("mailserver.cli",)

# Packages of others with modules that they import on first use.
OTHERS = (
    "aiohttp",
    "argon2",
    "asyncpg",
    "cryptography",
    "dns",
    "idna",
    "jwt",
    "lz4",
    "prometheus_client",
    "pydantic",
    "redis",
    "structlog",
)
S3 = ("aiobotocore", "botocore")
_NEVER = ("test", "tests", "_testing", "pytest_plugin", "worker", "_aiohttp_ext")

# The standard library's, which import each other on first use.
STANDARD = (
    "_strptime",
    "calendar",
    "concurrent.futures.process",
    "concurrent.futures.thread",
    "email",
    "getpass",
    "html.entities",
    "ipaddress",
    "linecache",
    "mimetypes",
    "multiprocessing.util",
    "pwd",
    "quopri",
    "stringprep",
    "tempfile",
    "tracemalloc",
    "unicodedata",
    "zoneinfo",
)


def import_ours() -> None:
    """Every module of this program that runs in a worker."""
    for name in OURS:
        for module in _modules(name):
            if not module.startswith(_NOT_IN_WORKERS) and not module.endswith("__main__"):
                importlib.import_module(module)


def import_all(*more: str) -> None:
    """Besides, everything of others that might be imported later; more: packages that are needed at times only."""
    for name in STANDARD:
        importlib.import_module(name)
    for _, name, _ in pkgutil.iter_modules(encodings.__path__, "encodings."):
        _try(name)
    for package in ("email", "asyncio", *OTHERS, *more):
        for name in _modules(package):
            if not any(part in _NEVER for part in name.split(".")):
                _try(name)
    # What is found on first use: tables of codecs, a list of common passwords.
    for codec in ("idna", "punycode"):
        "".encode(codec)
    from mailserver.passwords import Hasher

    Hasher(8, 1, 1).weakness("password")


def needs_all(account: ServiceAccount | None) -> bool:
    """Can the account not read what this process is made of?"""
    if account is None:
        return False
    places = {Path(entry) for entry in sys.path if entry}
    return any(place.exists() and not account.reaches(place / "x") for place in places)


def _modules(package: str) -> Iterator[str]:
    yield package
    module = importlib.import_module(package)
    for found in pkgutil.iter_modules(getattr(module, "__path__", ()), f"{package}."):
        if found.ispkg:
            if not any(part in _NEVER for part in found.name.split(".")):
                with contextlib.suppress(ImportError):
                    yield from _modules(found.name)
        else:
            yield found.name


def _try(name: str) -> None:
    """Modules for other systems, or that want packages we have not, do not import; nor would they later."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(name)
        except Exception:
            return
