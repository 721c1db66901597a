"""`pillarbox admin account …`"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Literal

import typer

from config.schema import Config
from mailserver.administration import accounts, importing
from mailserver.administration.accounts import Shown, Wish
from mailserver.administration.importing import Report
from mailserver.cli.acting import Json, Yes, act, confirm, fail, say, shown, table, warn
from mailserver.login import hasher
from storage import Account, Store

MIB = 1024 * 1024
MAX_WARNINGS = 20

app = typer.Typer(
    no_args_is_help=True,
    help="Accounts: who has a mailbox here and may log in.",
    epilog="Example: pillarbox admin account add alice@example.org",
)
address_app = typer.Typer(
    no_args_is_help=True,
    help="Further addresses of an account.",
    epilog="Example: pillarbox admin account address add alice a.smith@example.org",
)
app.add_typer(address_app, name="address")

Name = Annotated[str, typer.Argument(help="User name, or any address of the account.")]
Password = Annotated[str | None, typer.Option(help="The password. Others on this host may see it: prefer another way.")]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input, a line.")]
PasswordHash = Annotated[
    str | None, typer.Option(help="Instead of a password: {ARGON2ID}…, {BCRYPT}… or {SHA512-CRYPT}….")
]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password up and print it.")]
QuotaMib = Annotated[int, typer.Option(min=0, help="Room for mail in MiB; 0 = no limit.")]
QuotaMessages = Annotated[int, typer.Option(min=0, help="Most messages; 0 = no limit.")]
RoleName = Literal["superadmin", "domain_admin", "user", "service"]
Role = Annotated[RoleName, typer.Option(help="What the account may do.")]


@app.command(epilog="Example: pillarbox admin account add alice@example.org --quota-mib 1024")
def add(
    ctx: typer.Context,
    address: Annotated[str, typer.Argument(help="The primary address; its domain must be one of ours.")],
    username: Annotated[
        str | None, typer.Option(help="Name to log in with. Not given: the part before the @, where that is free.")
    ] = None,
    further: Annotated[list[str] | None, typer.Option("--address", help="A further address; may be repeated.")] = None,
    quota_mib: QuotaMib = 0,
    quota_messages: QuotaMessages = 0,
    role: Role = "user",
    password: Password = None,
    password_stdin: PasswordStdin = False,
    password_hash: PasswordHash = None,
    generate: Generate = False,
    as_json: Json = False,
) -> None:
    """Make an account with its mailboxes.

    Without a password option a terminal is asked for one; elsewhere, or where nothing is entered, one is made up.
    """
    wish = Wish(
        address,
        username,
        _password(password, password_stdin, password_hash, generate),
        password_hash,
        role,
        quota_mib * MIB,
        quota_messages,
        tuple(further or ()),
    )
    made = act(ctx, lambda store, config: accounts.add(store, hasher(config.auth), wish), as_json=as_json)
    if made.weakness:
        warn(f"the password is weak: {made.weakness}")
    text = f"Account {made.account.username} ({made.account.primary_address})"
    text += " added." if made.created else " exists already; nothing was changed."
    say(
        {**_value(made.account), "created": made.created, **_made_up(made.password), **_weak(made.weakness)},
        text + (f"\nPassword: {made.password}" if made.password else ""),
        as_json=as_json,
    )


@app.command("list", epilog="Example: pillarbox admin account list --domain example.org")
def list_all(
    ctx: typer.Context,
    domain: Annotated[str | None, typer.Option(help="Only accounts with an address in this domain.")] = None,
    as_json: Json = False,
) -> None:
    """All accounts."""
    found = act(ctx, lambda store, _: accounts.list_all(store, domain), as_json=as_json)
    rows = [(account.username, account.primary_address, account.role, account.status) for account in found]
    say(
        [_value(account) for account in found],
        table(("USER NAME", "ADDRESS", "ROLE", "STATUS"), rows),
        as_json=as_json,
    )


@app.command(epilog="Example: pillarbox admin account show alice")
def show(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """One account: its addresses, role, status, quota and use."""
    found = act(ctx, lambda store, _: accounts.show(store, name), as_json=as_json)
    _say_sheet(found, as_json)


@app.command(epilog="Example: echo 'a long pass phrase' | pillarbox admin account passwd alice --password-stdin")
def passwd(
    ctx: typer.Context,
    name: Name,
    password: Password = None,
    password_stdin: PasswordStdin = False,
    password_hash: PasswordHash = None,
    generate: Generate = False,
    as_json: Json = False,
) -> None:
    """Set a password; the account's sessions end."""
    chosen = _password(password, password_stdin, password_hash, generate)
    made = act(
        ctx,
        lambda store, config: accounts.set_password(store, hasher(config.auth), name, chosen, password_hash),
        as_json=as_json,
    )
    if made.weakness:
        warn(f"the password is weak: {made.weakness}")
    say(
        {**_value(made.account), **_made_up(made.password), **_weak(made.weakness)},
        f"Password of {made.account.username} set." + (f"\nPassword: {made.password}" if made.password else ""),
        as_json=as_json,
    )


@app.command(epilog="Example: pillarbox admin account enable alice")
def enable(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Let a disabled account log in and send again."""
    _set_enabled(ctx, name, True, as_json)


@app.command(epilog="Example: pillarbox admin account disable alice")
def disable(ctx: typer.Context, name: Name, as_json: Json = False) -> None:
    """Keep an account from logging in and sending; its mail still arrives, its sessions end."""
    _set_enabled(ctx, name, False, as_json)


@app.command("set", epilog="Example: pillarbox admin account set alice --quota-mib 2048")
def set_values(
    ctx: typer.Context,
    name: Name,
    quota_mib: Annotated[int | None, typer.Option(min=0, help="Room for mail in MiB; 0 = no limit.")] = None,
    quota_messages: Annotated[int | None, typer.Option(min=0, help="Most messages; 0 = no limit.")] = None,
    role: Annotated[RoleName | None, typer.Option(help="What the account may do.")] = None,
    as_json: Json = False,
) -> None:
    """Change quota or role."""
    if quota_mib is None and quota_messages is None and role is None:
        raise typer.BadParameter("say what to change: --quota-mib, --quota-messages or --role")

    async def change(store: Store, _: Config) -> Shown:
        if role is not None:
            await accounts.set_role(store, name, role)
        if quota_mib is not None or quota_messages is not None:
            octets = None if quota_mib is None else quota_mib * MIB
            await accounts.set_quota(store, name, octets, quota_messages)
        return await accounts.show(store, name)

    _say_sheet(act(ctx, change, as_json=as_json), as_json)


@app.command(epilog="Example: pillarbox admin account remove alice")
def remove(ctx: typer.Context, name: Name, yes: Yes = False, as_json: Json = False) -> None:
    """Remove an account with all its mail, at once and for good."""
    confirm(f"Remove the account {name} with all its mail?", yes=yes)
    gone = act(ctx, lambda store, _: accounts.remove(store, name), as_json=as_json)
    text = f"Account {gone.account.username} ({gone.account.primary_address}) removed."
    if gone.aliases:
        text += f"\nAliases that led to it alone went with it: {', '.join(gone.aliases)}"
    say({**_value(gone.account), "status": "removed", "aliases": gone.aliases}, text, as_json=as_json)


@app.command("import", epilog="Example: pillarbox admin account import accounts.csv")
def import_file(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="CSV: address,password,quota_mib; - for standard input.", allow_dash=True)
    ],
    as_json: Json = False,
) -> None:
    """Make accounts from a CSV file: address,password,quota_mib.

    The header may be left out; a quota of 0 is no limit; a password may be a hash: {ARGON2ID}…, {BCRYPT}… or
    {SHA512-CRYPT}…. Bad lines are named, good ones are made; accounts that exist are left as they are. The exit status
    is 1 where a line was bad.
    """
    with _opened(file, as_json) as lines, _progress(file) as progress:
        report = act(
            ctx,
            lambda store, config: importing.run(store, hasher(config.auth), lines, progress=progress),
            as_json=as_json,
        )
    _tell(report, as_json)
    if report.problems:
        raise typer.Exit(1)


@address_app.command("add", epilog="Example: pillarbox admin account address add alice a.smith@example.org")
def add_address(
    ctx: typer.Context,
    name: Name,
    address: Annotated[str, typer.Argument(help="The further address.")],
    as_json: Json = False,
) -> None:
    """Give an account a further address, to receive, send and log in with."""
    created = act(ctx, lambda store, _: accounts.add_address(store, name, address), as_json=as_json)
    text = f"Address {address} added to {name}." if created else f"{name} has the address {address} already."
    say({"account": name, "address": address, "created": created}, text, as_json=as_json)


@address_app.command("remove", epilog="Example: pillarbox admin account address remove alice a.smith@example.org")
def remove_address(
    ctx: typer.Context,
    name: Name,
    address: Annotated[str, typer.Argument(help="The address to take away.")],
    as_json: Json = False,
) -> None:
    """Take a further address away from an account."""
    act(ctx, lambda store, _: accounts.remove_address(store, name, address), as_json=as_json)
    say(
        {"account": name, "address": address, "removed": True},
        f"Address {address} taken away from {name}.",
        as_json=as_json,
    )


def _set_enabled(ctx: typer.Context, name: str, enabled: bool, as_json: bool) -> None:
    account, changed = act(ctx, lambda store, _: accounts.set_enabled(store, name, enabled), as_json=as_json)
    state = "enabled" if enabled else "disabled"
    text = f"Account {account.username} {'is ' + state if changed else 'was ' + state + ' already'}."
    say({**_value(account), "changed": changed}, text, as_json=as_json)


def _password(password: str | None, from_stdin: bool, hashed: str | None, generate: bool) -> str | None:
    """The password that was given or typed in; None: make one up, or the hash counts."""
    if sum((password is not None, from_stdin, hashed is not None, generate)) > 1:
        raise typer.BadParameter("give the password in one way only")
    if from_stdin:
        return _line_from_stdin()
    if password is not None or hashed is not None or generate or not sys.stdin.isatty():
        return password
    typed: str = typer.prompt(
        "Password (nothing: make one up)", default="", show_default=False, hide_input=True, confirmation_prompt=True
    )
    return typed or None


def _line_from_stdin() -> str:
    line = sys.stdin.buffer.readline(4096)
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise typer.BadParameter("the password on standard input is not UTF-8") from None
    if not text:
        raise typer.BadParameter("there is no password on standard input")
    return text


@contextmanager
def _opened(file: Path, as_json: bool) -> Iterator[IO[bytes]]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except OSError as error:
        fail(f"{file}: {error.strerror}", field="file", as_json=as_json)
    with opened:
        yield opened


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, on a terminal only; it counts octets of the file."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    total = file.stat().st_size if file.is_file() else None
    columns = (TextColumn("importing"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("importing", total=total)
        yield lambda octets: bar.advance(task, octets)


def _tell(report: Report, as_json: bool) -> None:
    if not as_json:
        for line, address in report.weak[:MAX_WARNINGS]:
            warn(f"line {line}: {address}: the password is weak")
        if len(report.weak) > MAX_WARNINGS:
            warn(f"{len(report.weak) - MAX_WARNINGS} more passwords are weak; --json names them all")
        for problem in report.problems:
            typer.echo(f"line {problem.line}: {problem.address}: {problem.reason}", err=True)
    value = {
        "created": report.created,
        "existing": [{"line": line, "address": address} for line, address in report.existing],
        "problems": [
            {"line": problem.line, "address": problem.address, "reason": problem.reason} for problem in report.problems
        ],
        "weak": [{"line": line, "address": address} for line, address in report.weak],
    }
    text = f"{report.created} accounts made, {len(report.existing)} existed already, {len(report.problems)} bad lines."
    say(value, text, as_json=as_json)


def _value(account: Account) -> dict[str, object]:
    return {
        "account_id": account.account_id,
        "username": account.username,
        "address": account.primary_address,
        "role": account.role,
        "status": account.status,
    }


def _made_up(password: str | None) -> dict[str, object]:
    return {"password": password} if password else {}


def _weak(weakness: str | None) -> dict[str, object]:
    return {"warning": f"the password is weak: {weakness}"} if weakness else {}


def _say_sheet(found: Shown, as_json: bool) -> None:
    value: dict[str, object] = {**_value(found.account), "addresses": found.addresses, "quota": None}
    if found.quota:
        value["quota"] = {
            "octets": found.quota.quota_octets,
            "messages": found.quota.quota_messages,
            "used_octets": found.quota.used_octets,
            "used_messages": found.quota.used_messages,
        }
    say(value, _sheet(found), as_json=as_json)


def _sheet(found: Shown) -> str:
    rows = [
        ("account id", str(found.account.account_id)),
        ("addresses", ", ".join(found.addresses)),
        ("role", found.account.role),
        ("status", found.account.status),
    ]
    if found.quota:
        used, octets = found.quota.used_octets / MIB, found.quota.quota_octets
        limit = f"{octets / MIB:.0f} MiB" if octets else "none"
        rows += [
            ("quota", f"{limit}, {used:.1f} MiB used"),
            ("quota of messages", f"{shown(found.quota.quota_messages)}, {found.quota.used_messages} used"),
        ]
    return "\n".join([f"Account {found.account.username}", *(f"  {name:<18} {text}" for name, text in rows)])
