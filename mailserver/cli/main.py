"""`pillarbox [--data DIR] [--config FILE] COMMAND`.

These two options may stand before the command or after it, on every level: each command is wrapped so that it takes
them, too. Only the module of the command that was asked for is imported; `version`, which scripts ask often, needs
hardly any.

Exit status: 0 done, 1 failed or refused, 2 wrong command line, 3 no server is running.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    import typer

PROGRAM = "pillarbox"

# Each module has `app`, a typer application: one command, or a group of them.
COMMANDS = {
    "serve": "mailserver.cli.serve",
    "ready": "mailserver.cli.ready",
    "reload": "mailserver.cli.reload",
    "stop": "mailserver.cli.stop",
    "status": "mailserver.cli.status",
    "migrate": "mailserver.cli.migrate",
    "admin": "mailserver.cli.admin",
    "config": "mailserver.cli.config",
    "version": "mailserver.cli.version",
}
GROUPS = frozenset({"admin", "config"})


def main() -> None:
    """The console script."""
    words = sys.argv[1:]
    if words == ["version"]:
        from mailserver.cli.version import number

        print(f"{PROGRAM} {number()}")
        return
    sys.exit(run(words))


def run(words: Sequence[str]) -> int:
    """Carries a command line out; the exit status."""
    from mailserver.cli.context import CommandFailed

    app = build(_named(words))
    try:
        result = app(list(words), prog_name=PROGRAM, standalone_mode=True)
    except CommandFailed as failed:
        return _complain(str(failed), failed.code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain about it once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if not _is_for_the_user(error):
            raise
        return _complain(str(error), 1)
    return int(result) if isinstance(result, int) else 0


def _complain(text: str, code: int) -> int:
    print(f"{PROGRAM}: {text}", file=sys.stderr)
    return code


def _is_for_the_user(error: Exception) -> bool:
    """Errors whose text says what is wrong and what to do; everything else is a fault of ours and shows where."""
    from config.load import ConfigErrors
    from mailserver.embedded.account import AccountError
    from mailserver.embedded.process import ServiceError
    from mailserver.node.data_directory import DataDirectoryError, Held

    kinds: list[type[Exception]] = [ConfigErrors, AccountError, ServiceError, DataDirectoryError, Held]
    for module, names in {
        "mailserver.supervisor": ("StartError",),
        "mailserver.node.listeners": ("PortError",),
        "mailserver.node.secret_keys": ("KeyFileError",),
        "mailserver.node.first_start": ("FirstStartError",),
        "mailserver.node.workers": ("WorkersFailed",),
        "mailserver.net.tls": ("CertificateError",),
        "mailserver.administration": ("Refused",),
        "storage.migrate": ("MigrationError",),
        "storage.errors": ("StorageError",),
    }.items():
        # One that was not imported cannot have raised anything.
        if module in sys.modules:
            kinds += [getattr(sys.modules[module], name) for name in names]
    return isinstance(error, tuple(kinds))


def _named(words: Sequence[str]) -> str | None:
    """The command that is asked for; None where all are wanted: help, completion, mistakes."""
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("--data", "--config"):
            skip = True
        elif not word.startswith("-"):
            return word if word in COMMANDS else None
        elif not word.startswith(("--data=", "--config=")):
            return None
    return None


def build(only: str | None = None) -> typer.Typer:
    """The whole application, or as much of it as one command needs."""
    import typer

    app = typer.Typer(
        name=PROGRAM,
        help="Pillarbox, a mail server: SMTP, submission and IMAP.",
        epilog="Example: pillarbox --data /srv/mail serve",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_with_options(_nothing))
    for name, module in COMMANDS.items():
        if only not in (None, name):
            continue
        part: typer.Typer = importlib.import_module(module).app
        _wrap(part)
        if name in GROUPS:
            app.add_typer(part, name=name)
        else:
            app.registered_commands += part.registered_commands
    return app


def _nothing() -> None:
    """Pillarbox, a mail server: SMTP, submission and IMAP."""


def _wrap(app: typer.Typer) -> None:
    """Gives every command and group below the two options."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _with_options(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _wrap(group.typer_instance)
    if len(app.registered_commands) + len(app.registered_groups) > 1:
        app.callback()(_with_options(_nothing_more))


def _nothing_more() -> None: ...


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which also takes --data and --config, and notes them for cli/context.py."""
    if getattr(function, "takes_options", False):
        return function
    import typer

    from mailserver.cli import context

    signature = inspect.signature(function, eval_str=True)
    has_context = "ctx" in signature.parameters
    data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Data directory; default ./data.")]
    config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Settings, a TOML file.")]

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        ctx = options["ctx"] if has_context else options.pop("ctx")
        given = context.given(ctx)
        given.data = options.pop("data_option") or given.data
        given.config = options.pop("config_option") or given.config
        return function(*arguments, **options)

    extra: dict[str, Any] = {"data_option": data, "config_option": config}
    if not has_context:
        extra["ctx"] = typer.Context
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in signature.parameters.values()]
    parameters += [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=annotation,
            default=inspect.Parameter.empty if name == "ctx" else None,
        )
        for name, annotation in extra.items()
    ]
    del wrapped.__wrapped__
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    wrapped.takes_options = True  # type: ignore[attr-defined]
    return wrapped


if __name__ == "__main__":
    main()
