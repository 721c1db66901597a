"""`pillarbox admin fsck`"""

from __future__ import annotations

from typing import Annotated

import typer

from mailserver.administration import consistency
from mailserver.administration.consistency import Report
from mailserver.cli.acting import Json, act, progress, say
from storage.findings import Fault


def fsck(
    ctx: typer.Context,
    account: Annotated[str | None, typer.Option(help="User name or address. Not given: all, and the blobs.")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what follows from the rest.")] = False,
    octets: Annotated[bool, typer.Option("--octets", help="Read and rebuild every message, too.")] = False,
    as_json: Json = False,
) -> None:
    """Check that the stored mail agrees with itself; the server may run.

    Without --repair nothing is written. With it, counters, sums, mod-sequences, flags without a name and references to
    blobs are put right, account by account; mail is never removed. The exit status is 1 where faults are left.
    """
    with progress("accounts") as tell:
        report = act(
            ctx,
            lambda store, _: consistency.check(store, account, repair=repair, octets=octets, progress=tell),
            as_json=as_json,
        )
    say(_value(report), _text(report), as_json=as_json)
    if not report.clean:
        raise typer.Exit(1)


def _value(report: Report) -> dict[str, object]:
    return {
        "clean": report.clean,
        "accounts": report.accounts,
        "looked_at": dict(report.looked_at),
        "faults": [_fault(fault) for fault in report.faults],
        "more_faults": report.more_faults,
        "repaired": [_fault(fault) for fault in report.repaired],
        "garbage": dict(report.garbage),
    }


def _fault(fault: Fault) -> dict[str, object]:
    return {"account_id": fault.account_id, "kind": fault.kind, "where": fault.where, "text": fault.text}


def _text(report: Report) -> str:
    lines = [f"repaired: {_line(fault)}" for fault in report.repaired]
    lines += [f"fault: {_line(fault)}" for fault in report.faults]
    if report.more_faults:
        lines.append(f"and {report.more_faults} more faults")
    if +report.garbage:
        lines.append(f"left to housekeeping: {_amounts(report.garbage)}")
    faults = len(report.faults) + report.more_faults
    lines.append(f"{report.accounts} accounts checked ({_amounts(report.looked_at)}): {_verdict(faults, report)}.")
    return "\n".join(lines)


def _line(fault: Fault) -> str:
    return f"account {fault.account_id}, {fault.where}: {fault.text}"


def _amounts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing"


def _verdict(faults: int, report: Report) -> str:
    parts = [f"{faults} faults" if faults else "no fault"]
    if report.repaired:
        parts.append(f"{len(report.repaired)} repaired")
    return ", ".join(parts)
