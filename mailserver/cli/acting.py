"""What the `admin` commands share: running one piece of work on the store, and saying what came of it.

A command prints sentences for people, or with --json one JSON value; warnings and errors go to standard error. The
exit status is 0 where what was asked for is so now (whether or not it was before), 1 where it is not, 2 for a wrong
command line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from config.schema import Config
from mailserver.administration import Refused
from mailserver.cli.context import open_store
from storage import OutcomeUnknown, StorageError, Store
from storage.errors import BlobsUnavailable

Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Told how many are done, and of how many."""

LINE_SECONDS = 5.0

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")]


def act(ctx: typer.Context, work: Callable[[Store, Config], Awaitable[Result]], *, as_json: bool = False) -> Result:
    """Does the work on the store of the data directory; ends the program with a sentence where it is refused."""

    async def run() -> Result:
        async with open_store(ctx) as (store, config):
            return await work(store, config)

    try:
        return asyncio.run(run())
    except Refused as error:
        fail(str(error), field=error.field, as_json=as_json)
    except OutcomeUnknown as error:
        fail(f"the database was lost while it wrote, look before you repeat: {error}", as_json=as_json)
    except BlobsUnavailable as error:
        fail(str(error), as_json=as_json)
    except StorageError as error:
        fail(f"the database refuses: {error}", as_json=as_json)


def fail(text: str, *, field: str = "", as_json: bool = False) -> NoReturn:
    """Ends the program with status 1."""
    if as_json:
        typer.echo(json.dumps({"error": text, "field": field}), err=True)
    else:
        typer.echo(f"pillarbox: {text}", err=True)
    raise typer.Exit(1)


def warn(text: str) -> None:
    typer.echo(f"pillarbox: warning: {text}", err=True)


def say(value: object, text: str, *, as_json: bool) -> None:
    """The value for a program, or the text for a person."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2) if as_json else text)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side; only a sentence where there are no rows."""
    if not rows:
        return "none"
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows])
    return "\n".join(line.rstrip() for line in lines)


def confirm(question: str, *, yes: bool) -> None:
    """Asks a person before something is lost; a program is not asked."""
    if not yes and is_terminal():
        typer.confirm(question, abort=True)


def is_terminal() -> bool:
    """Is there a person to ask?"""
    return sys.stdin.isatty() and sys.stdout.isatty()


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A bar on standard error where that is a terminal, else a line now and then. what: is counted, in the plural."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what)
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(what: str) -> Progress:
    said = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said > LINE_SECONDS:
            said = time.monotonic()
            typer.echo(f"{done} of {total} {what} done", err=True)

    return tell


def shown(value: Any) -> str:
    """An amount for a table: nothing where there is no limit."""
    return str(value) if value else "none"
