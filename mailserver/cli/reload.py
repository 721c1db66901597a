"""`pillarbox reload`"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

from mailserver.cli.context import NOT_RUNNING, data_directory, fail, given

if TYPE_CHECKING:
    from mailserver.node.data_directory import DataDirectory
    from mailserver.node.report import Report

app = typer.Typer()


@app.command(epilog="Example: pillarbox --data /srv/mail reload --workers")
def reload(
    ctx: typer.Context,
    workers: Annotated[
        bool,
        typer.Option(
            "--workers",
            help="Replace the workers, too, one by one: each successor is ready before the old one says goodbye to its "
            "sessions.",
        ),
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for its end.", min=0)] = 600,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value.")] = False,
) -> None:
    """Let the running server take up changed settings and certificates, and say what it did.

    The server reads the file, the environment and the options that it was started with. Where they have a mistake, the
    old settings stay in force. `config describe` says of each setting whether a reload is enough. No connection is
    closed, but with --workers.

    Status 0: done. 1: refused, or not done whole. 3: no server is running.
    """
    from mailserver.node.data_directory import server_pid

    directory = data_directory(given(ctx))
    pid = server_pid(directory)
    if pid is None:
        fail(f"no server is running on {directory.root}", NOT_RUNNING)
    asked = time.monotonic()
    try:
        os.kill(pid, signal.SIGUSR2 if workers else signal.SIGHUP)
    except PermissionError:
        fail(f"the server is process {pid} of another user; do this as that user or as root")
    except ProcessLookupError:
        fail(f"no server is running on {directory.root}", NOT_RUNNING)
    report = _await(directory, pid, asked, wait)
    if as_json:
        print(json.dumps({"ok": not report.problems, **dataclasses.asdict(report)}, indent=2))
        raise typer.Exit(1 if report.problems else 0)
    text = "\n".join(report.lines())
    if report.problems:
        fail(text)
    print(text)


def _await(directory: DataDirectory, pid: int, asked: float, seconds: float) -> Report:
    """The report of a reload that began after it was asked for."""
    from mailserver.node import report
    from mailserver.node.data_directory import server_pid

    while True:
        found = report.read(directory.reload_json)
        if found is not None and found.pid == pid and found.began >= asked:
            return found
        if server_pid(directory) != pid:
            fail("the server has ended meanwhile")
        if time.monotonic() > asked + seconds:
            fail(f"the server (process {pid}) is not done within {seconds:.0f} s; it goes on with it")
        time.sleep(0.05)
