"""The arrows between the parts: they hold, and each one that is not meant to be is caught.

ARROWS says what may import what, apart from pyproject.toml, where the contracts say it backwards. A copy of the
packages gets every import that ARROWS does not allow, all at once, and import-linter must name each of them; a second
copy gets every import that ARROWS allows, and import-linter must be content.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("mailserver", "admin_api", "storage", "config")

PROCESSES = {"mailserver.cli", "mailserver.app", "mailserver.supervisor", "mailserver.worker", "mailserver.node"}
BELOW = {
    "mailserver.delivery",
    "mailserver.net",
    "mailserver.protocols",
    "mailserver.message",
    "mailserver.metrics",
    "storage",
    "config.schema",
}
EDGE = BELOW | {"mailserver.login", "mailserver.passwords"}
EVERYTHING = (
    PROCESSES
    | EDGE
    | {
        "mailserver.administration",
        "mailserver.embedded",
        "mailserver.logs",
        "mailserver.receiving",
        "mailserver.imap",
        "mailserver.sending",
        "admin_api",
    }
)
ARROWS: dict[str, set[str]] = {
    **dict.fromkeys(PROCESSES, EVERYTHING),
    "admin_api": {
        "mailserver.administration",
        "mailserver.delivery",
        "mailserver.login",
        "mailserver.passwords",
        "mailserver.message",
        "storage",
        "config.schema",
    },
    "mailserver.receiving": EDGE,
    "mailserver.imap": EDGE,
    "mailserver.sending": {
        "mailserver.delivery",
        "mailserver.net",
        "mailserver.protocols",
        "mailserver.message",
        "mailserver.metrics",
        "storage",
        "config.schema",
    },
    "mailserver.administration": {
        "storage",
        "mailserver.login",
        "mailserver.passwords",
        "mailserver.message",
        "mailserver.metrics",
        "config.schema",
    },
    "mailserver.embedded": {"config.schema"},
    "mailserver.login": {
        "mailserver.net.limits",
        "mailserver.passwords",
        "mailserver.metrics",
        "storage",
        "config.schema",
    },
    "mailserver.passwords": {"config.schema"},
    "mailserver.delivery": {"mailserver.message", "mailserver.metrics", "storage", "config.schema"},
    "mailserver.net": {"mailserver.protocols", "mailserver.metrics", "config.schema"},
    "mailserver.protocols": {"mailserver.message"},
    "mailserver.message": set(),
    "mailserver.logs": {"config.schema"},
    "mailserver.metrics": {"config.schema"},
    "storage": {"config.schema"},
    "config": set(),
}
# What is imported in the copies: every part, and one module of a part where that makes a difference.
TARGETS = EVERYTHING | {"mailserver.net.limits", "mailserver.net.tls"}

# Packages of others, and the parts that may import them.
OUTSIDE: dict[str, set[str]] = {
    "asyncpg": {"storage", "mailserver.embedded"},
    "redis": {"storage", "mailserver.embedded"},
    "aiobotocore": {"storage"},
    "aiohttp": {"admin_api"},
    "aiosmtpd": {"mailserver.receiving"},
    "dns": {"mailserver.sending"},
    **dict.fromkeys(
        ("asyncio", "socket", "time", "random", "ssl", "threading", "logging", "pydantic"),
        set(ARROWS) - {"mailserver.protocols", "mailserver.message"},
    ),
}
OUTSIDE["pydantic"] = OUTSIDE["pydantic"] | {"mailserver.protocols"}


def lint(folder: Path) -> tuple[bool, set[tuple[str, str]], str]:
    """Runs import-linter: is everything kept, and which imports does it complain of?"""
    program = "import sys; sys.path.insert(0, '.'); from importlinter.cli import lint_imports_command as f; f()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    links = re.findall(r"(\S+) -> (\S+) \(l\.", done.stdout)
    return done.returncode == 0, set(links), done.stdout + done.stderr


def copy_of_the_packages(folder: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def add_import(folder: Path, part: str, target: str) -> tuple[str, str]:
    """Makes one part of the copy import something; returns importer and imported as import-linter will name them."""
    place = folder.joinpath(*part.split("."))
    if not place.is_dir():
        with place.with_suffix(".py").open("a") as file:
            file.write(f"\nimport {target}\n")
        return part, target
    name = f"importing_{target.replace('.', '_')}"
    (place / f"{name}.py").write_text(f"import {target}\n")
    return f"{part}.{name}", target


def is_part_of(name: str, part: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


def is_allowed(part: str, target: str) -> bool:
    if target in OUTSIDE:
        return part in OUTSIDE[target]
    return any(is_part_of(target, known) for known in ARROWS[part])


PAIRS = [
    (part, target)
    for part in ARROWS
    for target in sorted(TARGETS | set(OUTSIDE))
    if not is_part_of(target, part) and not is_part_of(part, target)
]


def test_the_arrows_hold():
    kept, _, output = lint(ROOT)
    assert kept, output


def test_every_import_against_the_arrows_is_caught(tmp_path):
    folder = copy_of_the_packages(tmp_path)
    wrong = {add_import(folder, *pair) for pair in PAIRS if not is_allowed(*pair)}
    assert len(wrong) > 200
    kept, links, output = lint(folder)
    assert not kept, output
    assert sorted(wrong - links) == []


def test_every_import_along_the_arrows_is_free(tmp_path):
    folder = copy_of_the_packages(tmp_path)
    right = [add_import(folder, *pair) for pair in PAIRS if is_allowed(*pair)]
    assert len(right) > 200
    kept, links, output = lint(folder)
    assert kept, (links, output)


def test_no_part_is_forgotten():
    """A new file or folder in mailserver/ needs its arrows."""
    files = [
        path for path in (ROOT / "mailserver").iterdir() if path.suffix in ("", ".py") and path.name[0] not in "_."
    ]
    assert {f"mailserver.{path.stem}" for path in files} <= set(ARROWS)


def test_aiohttp_serves_in_admin_api_only():
    """import-linter sees aiohttp as one package; mailserver/net/http.py may use its client, never its server."""
    offenders = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "mailserver").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiohttp.web"))
        or (isinstance(node, ast.Import) and any(name.name.startswith("aiohttp.web") for name in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "aiohttp" and "web" in [n.name for n in node.names])
    ]
    assert offenders == []


@pytest.mark.parametrize("part", ["mailserver/protocols", "mailserver/message"])
def test_pure_parts_take_the_time_as_an_argument(part):
    """`datetime` is allowed there for its types; asking it for the time is not."""
    clocks = re.compile(r"\.(now|utcnow|today)\(|\blocaltime\(|\bopen\(")
    offenders = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (ROOT / part).rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if clocks.search(line.partition("#")[0])
    ]
    assert offenders == []
