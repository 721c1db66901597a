"""`pillarbox serve`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mailserver.cli.context import data_directory, given

app = typer.Typer()

NETWORK = "Network"
PARTS = "Other servers"


@app.command(epilog="Example: pillarbox --data /srv/mail serve --host 0.0.0.0")
def serve(
    ctx: typer.Context,
    host: Annotated[
        list[str] | None,
        typer.Option(help="Address to listen on; may be repeated. Default: 127.0.0.1.", rich_help_panel=NETWORK),
    ] = None,
    port_offset: Annotated[
        int | None,
        typer.Option(
            help="Added to the standard ports 25, 587, 465, 143, 993, 80, 443. Default: 0, or 20000 where low ports "
            "may not be bound.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes. Default: one for each core.")] = None,
    roles: Annotated[
        str | None, typer.Option(metavar="R,…", help="Any of smtp, submission, imap, api, index. Default: all.")
    ] = None,
    insecure_loopback_auth: Annotated[
        bool | None,
        typer.Option(
            "--insecure-loopback-auth",
            help="Allow clear-text login to clients on loopback; for trials and tests.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    postgres: Annotated[
        str | None,
        typer.Option(metavar="DSN", help="PostgreSQL 15 or newer. Default: an embedded one.", rich_help_panel=PARTS),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Redis, or off. Default: an embedded one.", rich_help_panel=PARTS),
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|s3://…",
            help="Where large parts are kept. Default: in the data directory.",
            rich_help_panel=PARTS,
        ),
    ] = None,
) -> None:
    """Run the server in the foreground, until it is interrupted or told to stop.

    At the first start the data directory is made, with a certificate, a first domain and an administrator's account.
    """
    server: dict[str, Any] = {
        "host": host or None,
        "port_offset": port_offset,
        "workers": workers,
        "roles": roles,
        "insecure_loopback_auth": insecure_loopback_auth,
    }
    storage: dict[str, Any] = {"postgres": postgres, "redis": redis, "blobs": blobs}
    from mailserver.node.settings import Source

    options = given(ctx)
    source = Source(options.config, {"server": server, "storage": storage}, Path.cwd())
    config = source.load()

    from mailserver import logs

    logs.configure(config.log.level, config.log.format)
    from mailserver.supervisor import supervise

    raise typer.Exit(supervise(config, data_directory(options).root, source))
