"""`admin`: runs one command of `pillarbox admin` on a fresh installation whose database is running."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mailserver.cli.admin import app
from mailserver.cli.context import Given

Admin = Callable[..., Result]
AdminJson = Callable[..., Any]


@pytest.fixture
def admin(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Admin]:
    data = Path(tempfile.mkdtemp(prefix="pillarbox-"))  # sockets need a short path
    monkeypatch.setenv("PILLARBOX_STORAGE__POSTGRES", database)
    monkeypatch.setenv("PILLARBOX_AUTH__ARGON2_MEMORY_KIB", "64")
    monkeypatch.setenv("PILLARBOX_AUTH__ARGON2_TIME", "1")

    def run(*arguments: str, stdin: str | bytes = "") -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, obj=Given(data=data))

    yield run
    shutil.rmtree(data)


@pytest.fixture
def admin_json(admin: Admin) -> AdminJson:
    """The same with --json: the value of a command that must succeed."""

    def run(*arguments: str, stdin: str | bytes = "", status: int = 0) -> Any:
        result = admin(*arguments, "--json", stdin=stdin)
        assert result.exit_code == status, result.output
        return json.loads(result.stdout if status == 0 or result.stdout else result.stderr)

    return run
