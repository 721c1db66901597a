"""`pillarbox admin queue …`"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import typer

from config.schema import Config
from mailserver.administration import queue
from mailserver.administration.queue import Message, Page, Which
from mailserver.cli.acting import Json, Yes, act, confirm, fail, is_terminal, progress, say, table
from storage import Store, Unavailable
from storage.queue import Said
from storage.queue_admin import Amounts, Listed, Summary, Tally

REFRESH_SECONDS = 2.0
MAX_REPLY = 60
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}

app = typer.Typer(
    no_args_is_help=True,
    help="Mail that waits for other servers.",
    epilog="Example: pillarbox admin queue list --destination example.com",
)


def _age(text: str) -> float:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhdw]?)", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no age such as 90s, 15m, 2h, 3d or 1w")
    return float(found[1]) * _UNITS[found[2]]


Id = Annotated[int, typer.Argument(min=0, metavar="ID", help="The queue id, as in `list`.")]
MaybeId = Annotated[
    int | None, typer.Argument(min=0, metavar="ID", help="The queue id of one message.", show_default=False)
]
Destination = Annotated[str | None, typer.Option(metavar="DOMAIN", help="To this domain; *.DOMAIN is all below it.")]
Sender = Annotated[str | None, typer.Option(metavar="ADDRESS", help="From this address or domain; <> for bounces.")]
Recipient = Annotated[str | None, typer.Option(metavar="ADDRESS", help="To this address or domain.")]
AccountName = Annotated[str | None, typer.Option("--account", metavar="NAME", help="Sent by this account.")]
StateName = Literal["waiting", "leased", "held", "failed", "delivered"]
State = Annotated[
    StateName | None,
    typer.Option(help="leased: a worker has it; failed, delivered: its sender is still to be told."),
]
OlderThan = Annotated[float | None, typer.Option(parser=_age, metavar="AGE", help="At least so old: 15m, 2h, 3d.")]
YoungerThan = Annotated[float | None, typer.Option(parser=_age, metavar="AGE", help="Less than so old.")]
Due = Annotated[bool, typer.Option("--due", help="Waiting, and its time has come.")]
Reply = Annotated[str | None, typer.Option(metavar="TEXT", help="With this in the last reply: 451, greylisted.")]
All = Annotated[bool, typer.Option("--all", help="Everything in the queue.")]


@app.command("list", epilog="Example: pillarbox admin queue list --state waiting --older-than 2h --reply greylisted")
def list_some(
    ctx: typer.Context,
    destination: Destination = None,
    sender: Sender = None,
    recipient: Recipient = None,
    account: AccountName = None,
    state: State = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    due: Due = False,
    reply: Reply = None,
    limit: Annotated[int, typer.Option(min=1, max=queue.MAX_LIMIT, help="Most lines.")] = 100,
    after: Annotated[str | None, typer.Option(metavar="PLACE", help="Go on where a list before has ended.")] = None,
    as_json: Json = False,
) -> None:
    """Recipients in the queue, those of the oldest messages first."""
    which = Which(
        None, destination, sender, recipient, account, state, older_than, younger_than, due, reply, everything=True
    )
    page = act(ctx, lambda store, _: queue.list_page(store, which, after, limit), as_json=as_json)
    say(
        {"recipients": [_value(one) for one in page.recipients], "after": page.after},
        _list_text(page, time.time()),
        as_json=as_json,
    )
    if page.after is not None and not as_json:
        typer.echo(f"There are more: go on with --after '{page.after}'", err=True)


@app.command(epilog="Example: pillarbox admin queue show 1873904172384951234")
def show(ctx: typer.Context, queue_id: Id, as_json: Json = False) -> None:
    """One message: its sender, subject, and what became of each recipient."""
    found = act(ctx, lambda store, _: queue.show(store, queue_id), as_json=as_json)
    say(_message_value(found), _message_text(found, time.time()), as_json=as_json)


Move = Callable[[Store, Which, queue.Progress], Awaitable[Tally]]


def _mover(name: str, help_text: str, example: str, move: Move, done: str) -> None:
    """Adds a command that moves recipients. done: what they are then, said of several."""

    def command(
        ctx: typer.Context,
        queue_id: MaybeId = None,
        destination: Destination = None,
        sender: Sender = None,
        recipient: Recipient = None,
        account: AccountName = None,
        state: State = None,
        older_than: OlderThan = None,
        younger_than: YoungerThan = None,
        due: Due = False,
        reply: Reply = None,
        everything: All = False,
        as_json: Json = False,
    ) -> None:
        which = Which(
            *(queue_id, destination, sender, recipient, account, state),
            *(older_than, younger_than, due, reply, everything),
        )
        with progress("recipients") as tell:
            tally = act(ctx, lambda store, _: move(store, which, tell), as_json=as_json)
        _say_tally(tally, done, as_json)

    command.__doc__ = help_text
    command.__name__ = name
    app.command(name, epilog=f"Example: pillarbox admin queue {example}")(command)


_mover(
    "retry",
    """Try recipients now, whether their time has come or not, held ones included.

    One that is being tried just now is left to that attempt.
    """,
    "retry --destination example.com",
    queue.retry,
    "due now",
)
_mover(
    "hold",
    """Keep recipients back until they are released; they do not expire meanwhile.

    An attempt that is under way comes to its end.
    """,
    "hold --sender newsletter@example.org",
    queue.hold,
    "held",
)
_mover(
    "release",
    """Let recipients go on that are held; they are tried now.""",
    "release 1873904172384951234",
    queue.release,
    "released, and due now",
)


@app.command(epilog="Example: pillarbox admin queue drop --recipient nobody@example.com --notify")
def drop(
    ctx: typer.Context,
    queue_id: MaybeId = None,
    destination: Destination = None,
    sender: Sender = None,
    recipient: Recipient = None,
    account: AccountName = None,
    state: State = None,
    older_than: OlderThan = None,
    younger_than: YoungerThan = None,
    due: Due = False,
    reply: Reply = None,
    everything: All = False,
    notify: Annotated[bool, typer.Option("--notify", help="Tell senders that it was not delivered.")] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take recipients out of the queue for good.

    Without --notify nobody hears of it, and reports that are still owed go, too. An attempt that is under way may
    deliver nonetheless: hold first what must not go out. To drop more than one message --yes is needed where there is
    no terminal to ask on.
    """
    if queue_id is None and not yes and not is_terminal():
        fail("this may drop many messages: look with `list` first, then say --yes", field="yes", as_json=as_json)
    which = Which(
        queue_id, destination, sender, recipient, account, state, older_than, younger_than, due, reply, everything
    )

    async def dropping(store: Store, _: Config) -> Tally:
        if not yes:
            number = await queue.count(store, which)
            confirm(f"Drop {_recipients(number)} from the queue, {_heard(notify)}?", yes=not number)
        with progress("recipients") as tell:
            return await queue.drop(store, which, notify=notify, progress=tell)

    _say_tally(act(ctx, dropping, as_json=as_json), f"dropped, {_heard(notify)}", as_json)


def _heard(notify: bool) -> str:
    return "and senders are told" if notify else "and nobody is told"


@app.command(epilog="Example: pillarbox admin queue top --once")
def top(
    ctx: typer.Context,
    limit: Annotated[int | None, typer.Option(min=1, max=queue.MAX_LIMIT, help="Most destinations.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once, and end.")] = False,
    as_json: Json = False,
) -> None:
    """The destinations for which most mail waits, renewed every two seconds until Ctrl-C."""
    if once or as_json:
        found = act(ctx, lambda store, _: queue.top(store, limit or 20), as_json=as_json)
        say(_summary_value(found), _summary_text(found), as_json=as_json)
        return
    if not is_terminal():
        fail("there is no terminal to show it on: use --once or --json", field="once")
    try:
        act(ctx, lambda store, _: _watch(store, limit))
    except KeyboardInterrupt:
        pass


async def _watch(store: Store, limit: int | None) -> None:
    """Shows the summary until it is cancelled."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            try:
                found = await queue.top(store, limit or max(1, console.height - 5))
                text = _summary_text(found)
            except Unavailable as error:
                text = f"The database does not answer: {error}"
            live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)


# For people -----------------------------------------------------------------------------------------------------------


def _list_text(page: Page, now: float) -> str:
    head = ("QUEUE ID", "AGE", "SIZE", "STATE", "TRIES", "NEXT", "FROM", "TO", "LAST REPLY")
    return table(
        head,
        [
            (
                *(str(one.queue_id), _span(now - one.created), _size(one.size), one.state, str(one.attempts)),
                *(_next(one, now), f"<{one.sender}>", one.recipient, _short(one.said)),
            )
            for one in page.recipients
        ],
    )


def _message_text(found: Message, now: float) -> str:
    shown = found.shown
    rows = [
        ("trace", str(shown.trace_id)),
        ("account", str(shown.account_id)),
        ("from", f"<{shown.sender}>"),
        ("subject", found.subject or "-"),
        ("begins with", found.preview or "-"),
        ("size", _size(shown.size)),
        ("age", _span(now - shown.created)),
    ]
    if shown.done is not None:
        rows.append(("state", f"has left the queue {_span(now - shown.done)} ago"))
    lines = [f"Queue id {shown.queue_id}", *(f"  {name:<12} {text}" for name, text in rows)]
    for one in shown.recipients:
        lines.append(f"  to           {one.recipient}: {_state(one, now)}")
        if one.said is not None:
            at = "" if one.last_attempt is None else f" {_span(now - one.last_attempt)} ago"
            lines.append(f"               {_said(one.said)}{f' ({one.said.host}{at})' if one.said.host else ''}")
    return "\n".join(lines)


def _state(one: Listed, now: float) -> str:
    tries = f"{one.attempts} attempt{'' if one.attempts == 1 else 's'}"
    report = f", report owed: {one.report}" if one.report else ""
    following = f", next {_next(one, now)}" if one.state == "waiting" else ""
    under_way = ", one under way" if one.lease_until is not None and one.lease_until > now else ""
    return f"{one.state}, {tries}{under_way}{following}{report}"


def _summary_text(found: Summary) -> str:
    head = ("DESTINATION", "WAITING", "LEASED", "HELD", "REPORTS", "OLDEST", "NEXT", "LAST REPLY")
    rows = [(one.name, *_columns(one.amounts), _short(one.said)) for one in found.destinations]
    if found.all > len(rows):
        rows.append((f"({found.all - len(rows)} more)", *[""] * 7))
    return table(head, [*rows, ("total", *_columns(found.total), "")])


def _columns(amounts: Amounts) -> tuple[str, ...]:
    numbers = (amounts.waiting, amounts.leased, amounts.held, amounts.owed)
    oldest = "-" if amounts.oldest is None else _span(amounts.oldest)
    following = "-" if amounts.next_in is None else _in(amounts.next_in)
    return (*map(str, numbers), oldest, following)


def _say_tally(tally: Tally, done: str, as_json: bool) -> None:
    moved, matched = tally.moved, tally.matched
    if not matched:
        text = "No recipient matches; nothing was changed."
    else:
        text = f"{_recipients(moved)} {done}."
        if matched > moved:
            text += f" {_recipients(matched - moved)} left as {'it was' if matched - moved == 1 else 'they were'}."
    say({"matched": matched, "changed": moved}, text, as_json=as_json)


def _recipients(number: int) -> str:
    return f"{number} recipient{'' if number == 1 else 's'}"


def _next(one: Listed, now: float) -> str:
    return _in(one.next_attempt - now) if one.state == "waiting" else "-"


def _in(seconds: float) -> str:
    return "now" if seconds <= 0 else f"in {_span(seconds)}"


def _span(seconds: float) -> str:
    whole = max(0, int(seconds))
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole >= 2 * unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"


def _size(octets: int) -> str:
    for unit, name in ((1024 * 1024, "MiB"), (1024, "KiB")):
        if octets >= unit:
            return f"{octets / unit:.1f} {name}"
    return f"{octets} B"


def _short(said: Said | None) -> str:
    text = "" if said is None else _said(said)
    return text if len(text) <= MAX_REPLY else f"{text[: MAX_REPLY - 1]}…"


def _said(said: Said) -> str:
    return " ".join(word for word in (str(said.code or ""), said.status, said.text) if word)


# For programs ---------------------------------------------------------------------------------------------------------


def _value(one: Listed) -> dict[str, Any]:
    """Queue ids are strings: as numbers they are more than most programs can read exactly."""
    return {
        "queue_id": str(one.queue_id),
        "account_id": one.account_id,
        "sender": one.sender,
        "recipient": one.recipient,
        "destination": one.destination,
        "state": one.state,
        "attempts": one.attempts,
        "created": _moment(one.created),
        "size": one.size,
        "next_attempt": _moment(one.next_attempt),
        "leased_until": _moment(one.lease_until),
        "last_attempt": _moment(one.last_attempt),
        "last_reply": _said_value(one.said),
        "report_owed": one.report or None,
        "told_of_delay": one.told,
    }


def _message_value(found: Message) -> dict[str, Any]:
    shown = found.shown
    return {
        "queue_id": str(shown.queue_id),
        "trace_id": str(shown.trace_id),
        "account_id": shown.account_id,
        "sender": shown.sender,
        "subject": found.subject,
        "preview": found.preview,
        "size": shown.size,
        "created": _moment(shown.created),
        "done": _moment(shown.done),
        "body": shown.body,
        "smtputf8": shown.smtputf8,
        "ret": shown.ret,
        "envid": shown.envid,
        "recipients": [_value(one) for one in shown.recipients],
    }


def _summary_value(found: Summary) -> dict[str, Any]:
    return {
        "total": _amounts_value(found.total),
        "destinations": [
            {"destination": one.name, **_amounts_value(one.amounts), "last_reply": _said_value(one.said)}
            for one in found.destinations
        ],
        "all_destinations": found.all,
    }


def _amounts_value(amounts: Amounts) -> dict[str, Any]:
    return {
        "waiting": amounts.waiting,
        "leased": amounts.leased,
        "held": amounts.held,
        "reports_owed": amounts.owed,
        "oldest_seconds": None if amounts.oldest is None else round(amounts.oldest),
        "next_attempt_seconds": None if amounts.next_in is None else round(amounts.next_in),
    }


def _said_value(said: Said | None) -> dict[str, Any] | None:
    return None if said is None else said._asdict()


def _moment(epoch: float | None) -> str | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds")
