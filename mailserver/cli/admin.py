"""`pillarbox admin …`: what administrators do, on a running server or on a stopped one."""

from __future__ import annotations

import typer

from mailserver.cli import admin_account, admin_alias, admin_domain, admin_fsck, admin_queue

app = typer.Typer(
    no_args_is_help=True,
    help="Administer domains, accounts, aliases and the outbound queue.",
    epilog="Example: pillarbox admin account add alice@example.org",
)
app.add_typer(admin_domain.app, name="domain")
app.add_typer(admin_account.app, name="account")
app.add_typer(admin_alias.app, name="alias")
app.add_typer(admin_queue.app, name="queue")
app.command(epilog="Example: pillarbox admin fsck --account alice --octets")(admin_fsck.fsck)
