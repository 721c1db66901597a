"""`pillarbox status`"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from mailserver.cli import probe
from mailserver.cli.context import NOT_RUNNING, Given, data_directory, dsn_of, fail, given

app = typer.Typer()


@app.command(epilog="Example: pillarbox --data /srv/mail status --json")
def status(
    ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False
) -> None:
    """Show whether a server runs on the data directory, where it listens, and what is wrong with it.

    Status 0: all is well. 1: something does not answer. 3: no server is running.
    """
    found = look(given(ctx))
    if found is None:
        root = data_directory(given(ctx)).root
        if as_json:
            print(json.dumps({"running": False, "data": str(root)}))
            raise typer.Exit(NOT_RUNNING)
        fail(f"no server is running on {root}", NOT_RUNNING)
    print(json.dumps(found, indent=2) if as_json else _text(found))
    raise typer.Exit(1 if found["problems"] else 0)


def look(options: Given) -> dict[str, Any] | None:
    """What there is to say about the running server; None where none runs."""
    from mailserver.node.data_directory import read_server

    directory = data_directory(options)
    server = read_server(directory)
    if server is None:
        return None
    problems: list[str] = []
    listeners = []
    for name, host, port in probe.addresses(server):
        try:
            probe.listener(name, host, port)
            listeners.append({"name": name, "host": host, "port": port, "answers": True})
        except probe.NoAnswer as failure:
            problems.append(str(failure))
            listeners.append({"name": name, "host": host, "port": port, "answers": False})
    problems += asyncio.run(_database_problems(dsn_of(server, directory)))
    started = datetime.fromisoformat(server["started"])
    kept = ("pid", "version", "started", "data", "hostname", "workers", "roles", "postgres", "blobs", "certificate")
    return {
        "running": True,
        **{key: server[key] for key in kept},
        "up_seconds": round((datetime.now(UTC) - started).total_seconds()),
        "redis": server["redis"] is not None,
        "listeners": listeners,
        "problems": problems,
    }


async def _database_problems(dsn: str) -> list[str]:
    from storage.errors import StorageError
    from storage.installation import warnings

    try:
        return await warnings(dsn)
    except StorageError as error:
        return [f"PostgreSQL: {error}"]


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"Pillarbox {found['version']} runs as process {found['pid']}, up {_span(found['up_seconds'])}",
        f"  data directory  {found['data']}",
        f"  workers         {found['workers']}, roles {', '.join(found['roles'])}",
        f"  PostgreSQL      {found['postgres']}",
        f"  Redis           {'yes' if found['redis'] else 'no'}",
        f"  blobs           {found['blobs']}",
    ]
    lines += [
        f"  {one['name']:<15} {one['host']}:{one['port']}  {'answers' if one['answers'] else 'DOES NOT ANSWER'}"
        for one in found["listeners"]
    ]
    lines += [f"  problem: {problem}" for problem in found["problems"]]
    return "\n".join(lines)


def _span(seconds: int) -> str:
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
