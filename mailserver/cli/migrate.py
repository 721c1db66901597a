"""`pillarbox migrate`"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated

import typer

from mailserver.cli.context import Given, given, node

app = typer.Typer()


@app.command(epilog="Example: pillarbox --data /srv/mail migrate")
def migrate(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False
) -> None:
    """Bring the database's schema up to date; `serve` does it, too."""
    applied = asyncio.run(_migrate(given(ctx)))
    if as_json:
        print(json.dumps({"applied": applied}))
    elif applied:
        print("\n".join(f"applied {name}" for name in applied))
    else:
        print("the schema is up to date")


async def _migrate(options: Given) -> list[str]:
    from storage.migrate import migrate as bring_up_to_date

    async with node(options) as found:
        return found.migrated + await bring_up_to_date(found.dsn)
