"""`pillarbox admin domain …`"""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mailserver.administration import domains
from mailserver.cli.acting import Json, Yes, act, confirm, say, table
from storage.records import Domain

app = typer.Typer(
    no_args_is_help=True,
    help="Domains that this server receives mail for.",
    epilog="Example: pillarbox admin domain add example.org",
)

Name = Annotated[str, typer.Argument(help="The domain, such as example.org.")]
Registration = Annotated[
    Literal["open", "closed"] | None,
    typer.Option(help="open: anybody may register an account; closed: administrators make accounts."),
]


@app.command(epilog="Example: pillarbox admin domain add example.org --registration closed")
def add(ctx: typer.Context, name: Name, registration: Registration = None, as_json: Json = False) -> None:
    """Receive mail for a domain; for one that exists, set its registration."""
    made = act(ctx, lambda store, _: domains.add(store, name, registration), as_json=as_json)
    if made.created:
        text = f"Domain {made.domain.name} added, registration {made.domain.registration}."
    elif made.changed:
        text = f"Domain {made.domain.name} exists already; registration is {made.domain.registration} now."
    else:
        text = f"Domain {made.domain.name} exists already."
    say({**_value(made.domain), "created": made.created, "changed": made.changed}, text, as_json=as_json)


@app.command("list", epilog="Example: pillarbox admin domain list --json")
def list_all(ctx: typer.Context, as_json: Json = False) -> None:
    """All domains."""
    found = act(ctx, lambda store, _: domains.list_all(store), as_json=as_json)
    rows = [(domain.name, domain.registration) for domain in found]
    say([_value(domain) for domain in found], table(("DOMAIN", "REGISTRATION"), rows), as_json=as_json)


@app.command(epilog="Example: pillarbox admin domain show example.org")
def show(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """One domain, and how many addresses are in it."""
    found = act(ctx, lambda store, _: domains.show(store, name), as_json=as_json)
    value = {
        **_value(found.domain),
        "unicode": found.readable,
        "addresses": found.addresses,
        "aliases": found.aliases,
    }
    text = (
        f"Domain {found.domain.name}"
        + (f" ({found.readable})" if found.readable != found.domain.name else "")
        + f"\n  registration          {found.domain.registration}"
        + f"\n  addresses of accounts {found.addresses}"
        + f"\n  aliases               {found.aliases}"
    )
    say(value, text, as_json=as_json)


@app.command(epilog="Example: pillarbox admin domain remove example.org")
def remove(ctx: typer.Context, name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """Receive no more mail for a domain; refused while accounts or aliases are in it."""
    confirm(f"Remove the domain {name}?", yes=yes)
    act(ctx, lambda store, _: domains.remove(store, name), as_json=as_json)
    say({"name": name, "removed": True}, f"Domain {name} removed.", as_json=as_json)


def _value(domain: Domain) -> dict[str, object]:
    return {"name": domain.name, "registration": domain.registration}
