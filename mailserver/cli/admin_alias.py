"""`pillarbox admin alias …`"""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.administration import aliases
from mailserver.cli.acting import Json, act, say, table, warn
from storage.aliases import Alias

app = typer.Typer(
    no_args_is_help=True,
    help="Addresses that lead to other addresses, here or elsewhere; @example.org catches what nobody else has.",
    epilog="Example: pillarbox admin alias add sales@example.org alice@example.org bob@example.org",
)

Address = Annotated[str, typer.Argument(help="The alias: an address of ours, or @DOMAIN for a catch-all.")]


@app.command(epilog="Example: pillarbox admin alias add sales@example.org alice@example.org bob@elsewhere.example")
def add(
    ctx: typer.Context,
    address: Address,
    targets: Annotated[list[str], typer.Argument(help="Where its mail goes: one address or more.")],
    as_json: Json = False,
) -> None:
    """Make an alias, or add targets to it."""
    made = act(ctx, lambda store, _: aliases.add(store, address, targets), as_json=as_json)
    for warning in made.warnings:
        warn(warning)
    state = "leads to" if made.added else "exists already and leads to"
    text = f"Alias {made.alias.address} {state} {', '.join(made.alias.targets)}."
    say(
        {**_value(made.alias), "added": list(made.added), "warnings": list(made.warnings)},
        text,
        as_json=as_json,
    )


@app.command("list", epilog="Example: pillarbox admin alias list --domain example.org")
def list_all(
    ctx: typer.Context,
    domain: Annotated[str | None, typer.Option(help="Only aliases in this domain.")] = None,
    as_json: Json = False,
) -> None:
    """All aliases."""
    found = act(ctx, lambda store, _: aliases.list_all(store, domain), as_json=as_json)
    rows = [(alias.address, ", ".join(alias.targets)) for alias in found]
    say([_value(alias) for alias in found], table(("ALIAS", "LEADS TO"), rows), as_json=as_json)


@app.command(epilog="Example: pillarbox admin alias remove sales@example.org bob@elsewhere.example")
def remove(
    ctx: typer.Context,
    address: Address,
    targets: Annotated[list[str] | None, typer.Argument(help="Take only these targets away.")] = None,
    as_json: Json = False,
) -> None:
    """Remove an alias, or some of its targets."""
    gone = act(ctx, lambda store, _: aliases.remove(store, address, targets or ()), as_json=as_json)
    say(
        {"address": address, "removed": list(gone)},
        f"Alias {address} leads no more to {', '.join(gone)}.",
        as_json=as_json,
    )


def _value(alias: Alias) -> dict[str, object]:
    return {"address": alias.address, "targets": list(alias.targets)}
