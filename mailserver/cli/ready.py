"""`pillarbox ready`"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from mailserver.cli import probe
from mailserver.cli.context import NOT_RUNNING, data_directory, fail, given

app = typer.Typer()


@app.command(epilog="Example: pillarbox --data /srv/mail ready --wait 60")
def ready(
    ctx: typer.Context,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the server to become ready.", min=0)] = 0,
) -> None:
    """End with status 0 once every listener of the running server answers as it should."""
    from mailserver.node.data_directory import read_server

    directory = data_directory(given(ctx))
    deadline = time.monotonic() + wait
    while True:
        server = read_server(directory)
        problem = f"no server is running on {directory.root}" if server is None else _problem(server)
        if problem is None:
            print("ready")
            return
        if time.monotonic() >= deadline:
            fail(problem, NOT_RUNNING if server is None else 1)
        time.sleep(0.1)


def _problem(server: dict[str, object]) -> str | None:
    try:
        for name, host, port in probe.addresses(server):
            probe.listener(name, host, port)
    except probe.NoAnswer as failure:
        return str(failure)
    return None
