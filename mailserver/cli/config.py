"""`pillarbox config …`"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from mailserver.cli.context import fail, given, load_config

app = typer.Typer(
    no_args_is_help=True,
    help="Look at the settings.",
    epilog="Example: pillarbox config describe > pillarbox.toml",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


@app.command(epilog="Example: pillarbox config describe > pillarbox.toml")
def describe() -> None:
    """Print a settings file with every setting, its default and what it means."""
    from config.describe import example

    sys.stdout.write(example())


@app.command(epilog="Example: pillarbox --config pillarbox.toml config check")
def check(ctx: typer.Context, as_json: Json = False) -> None:
    """Check the settings of the file and the environment; every mistake is named at once."""
    from config.load import ConfigErrors

    try:
        load_config(given(ctx))
    except ConfigErrors as errors:
        if as_json:
            found = [{"where": p.where, "key": p.key, "problem": p.text} for p in errors.problems]
            print(json.dumps({"ok": False, "problems": found}, indent=2))
            raise typer.Exit(1) from None
        fail("\n".join(["the settings cannot be used:", *(f"  {problem}" for problem in errors.problems)]))
    print(json.dumps({"ok": True, "problems": []}) if as_json else "the settings are good")
