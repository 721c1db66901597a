"""The command: scripts/bench [options]."""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from pathlib import Path

from benchmark import report, runner
from benchmark.figures import FIGURES, QUICK, Figure, Sizes
from benchmark.peers import PostfixDovecotMaildir, PostfixDovecotMdbox
from benchmark.pillarbox import Pillarbox
from benchmark.servers import Server, StockAiosmtpd

SERVERS: tuple[type[Server], ...] = (Pillarbox, PostfixDovecotMaildir, PostfixDovecotMdbox, StockAiosmtpd)

_EXAMPLES = """
examples:
  scripts/bench --quick                       a minute or two: the most telling figures, small samples, one round
  scripts/bench --json run.json               everything, three rounds, about fifteen minutes with the peers
  scripts/bench --figures smtp --rounds 5     only the figures whose name matches
  scripts/bench --servers pillarbox,aiosmtpd  without the peers
  scripts/bench --list                        the figures and what they must reach

Postfix and Dovecot are started where they are installed (apt-get install postfix dovecot-imapd dovecot-lmtpd) and the
command runs as root; nothing of an installed service is touched. The disk under --directory decides what fsync costs.
"""


def main() -> int:
    options = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are stopped then too
    figures = _chosen_figures(options.figures, options.quick)
    if options.list:
        print("\n".join(_described(figure) for figure in figures))
        return 0
    results = runner.run(_plan(options, figures), lambda text: print(text, file=sys.stderr, flush=True))
    if options.json != "-":
        print(report.table(figures, results))
    if options.json:
        _write_json(options.json, json.dumps(report.as_json(figures, results), indent=1))
    return _exit_status(options, figures, results)


def _plan(options: argparse.Namespace, figures: list[Figure]) -> runner.Plan:
    return runner.Plan(
        servers=_chosen_servers(options.servers),
        figures=figures,
        sizes=QUICK if options.quick else Sizes(),
        rounds=options.rounds or (1 if options.quick else 3),
        seconds=options.time_limit,
        directory=options.directory,
        keep=options.keep,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="CPU an operation of Pillarbox, Postfix+Dovecot and stock aiosmtpd, side by side in one run.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    labels = ",".join(server.label for server in SERVERS)
    parser.add_argument("--quick", action="store_true", help="few figures, small samples, one round")
    parser.add_argument("--rounds", type=int, default=0, metavar="N", help="how often all is measured (3; quick: 1)")
    parser.add_argument("--figures", default=".", metavar="REGEX", help="only figures whose name matches")
    parser.add_argument("--servers", default=labels, metavar="LIST", help=f"which to start (default: {labels})")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON too; - prints only that")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure fails or misses what it must reach")
    parser.add_argument(
        "--time-limit", type=float, default=3600, metavar="SECONDS", help="begin nothing new after that"
    )
    parser.add_argument("--directory", type=Path, help="where the temporary directory is made (default: the system's)")
    parser.add_argument("--keep", action="store_true", help="keep the temporary directory, logs and mail in it")
    parser.add_argument("--list", action="store_true", help="print the figures and end")
    return parser


def _chosen_figures(pattern: str, quick: bool) -> list[Figure]:
    chosen = sorted((f for f in FIGURES if re.search(pattern, f.name)), key=_place)
    return [figure for figure in chosen if figure.quick] if quick and pattern == "." else chosen


def _place(figure: Figure) -> tuple[bool, bool]:
    """Those that need a fresh server first, then SMTP."""
    return not figure.fresh, figure.imap


def _chosen_servers(labels: str) -> list[type[Server]]:
    wanted = labels.split(",")
    unknown = set(wanted) - {server.label for server in SERVERS}
    if unknown:
        sys.exit(f"scripts/bench: no such server: {', '.join(sorted(unknown))}")
    return [server for server in SERVERS if server.label in wanted]


def _described(figure: Figure) -> str:
    bounds = ", ".join(f"{t.against}: must {_bound(t.must)}, aim {_bound(t.aim)}" for t in figure.targets)
    return f"{figure.name:22} {figure.unit:7} {figure.what}" + (f"  [{bounds}]" if bounds else "")


def _bound(value: float | None) -> str:
    return "–" if value is None else f"≤ {value:.2f}"


def _write_json(target: str, text: str) -> None:
    if target == "-":
        print(text)
    else:
        Path(target).write_text(text + "\n", encoding="utf-8")


def _exit_status(options: argparse.Namespace, figures: list[Figure], results: runner.Results) -> int:
    """0, or with --check 1 when something is amiss; 2 when Pillarbox was to be measured and did not start."""
    if report.OURS in results.left_out:
        print(f"scripts/bench: Pillarbox was not measured: {results.left_out[report.OURS]}", file=sys.stderr)
        return 2
    misses = report.missed(figures, results) if options.check else []
    for miss in misses:
        print(f"scripts/bench: {miss}", file=sys.stderr)
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
