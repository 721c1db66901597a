"""Every level of `pillarbox admin` explains itself with an example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mailserver.cli.admin import app


def levels(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from levels(below, (*path, name))


LEVELS = list(levels(typer.main.get_command(app)))


def test_the_commands_that_others_rely_on() -> None:
    words = {
        "domain": ["add", "list", "show", "remove"],
        "account": ["add", "list", "show", "passwd", "enable", "disable", "remove", "import"],
        "alias": ["add", "list", "remove"],
    }
    for group, commands in words.items():
        for command in commands:
            assert (group, command) in LEVELS


@pytest.mark.parametrize("path", LEVELS, ids=" ".join)
def test_help_has_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0
    example = " ".join(result.stdout.split("Example: ")[1].split())
    assert f"pillarbox admin {' '.join(path)}".rstrip() in example


@pytest.mark.parametrize("path", [path for path in LEVELS if len(path) > 1 and path[-1] != "address"], ids=" ".join)
def test_every_command_has_json(path: tuple[str, ...]) -> None:
    assert "--json" in CliRunner().invoke(app, [*path, "--help"]).stdout
