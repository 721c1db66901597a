"""`pillarbox stop`"""

from __future__ import annotations

import os
import signal
import time
from typing import Annotated

import typer

from mailserver.cli.context import data_directory, fail, given

app = typer.Typer()


@app.command(epilog="Example: pillarbox --data /srv/mail stop")
def stop(
    ctx: typer.Context,
    wait: Annotated[float, typer.Option(help="Seconds to wait for its end.", min=0)] = 90,
) -> None:
    """Stop the running server in good order, and wait until it has ended."""
    from mailserver.node.data_directory import is_held, server_pid

    directory = data_directory(given(ctx))
    pid = server_pid(directory)
    if pid is None:
        print(f"no server is running on {directory.root}")
        return
    try:
        os.kill(pid, signal.SIGTERM)
    except PermissionError:
        fail(f"the server is process {pid} of another user; stop it as that user or as root")
    except ProcessLookupError:
        pass
    deadline = time.monotonic() + wait
    while is_held(directory):
        if time.monotonic() > deadline:
            fail(f"the server (process {pid}) has not ended within {wait:.0f} s")
        time.sleep(0.05)
    print("stopped")
