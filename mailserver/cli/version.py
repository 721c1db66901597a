"""`pillarbox version`"""

from __future__ import annotations

import importlib.metadata
import json
import platform
from typing import Annotated

import typer

app = typer.Typer()


def number() -> str:
    """The version that is installed."""
    return importlib.metadata.version("pillarbox")


@app.command(epilog="Example: pillarbox version --json")
def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Print the version."""
    if as_json:
        print(json.dumps({"version": number(), "python": platform.python_version()}))
    else:
        print(f"pillarbox {number()}")
