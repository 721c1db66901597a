"""The command: scripts/chaos [options]."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path

from survival import report, run
from survival.object_store import PROGRAM as S3_PROGRAM
from survival.site import PROGRAM, Kind

_EXAMPLES = """
examples:
  scripts/chaos                               20 kills, a minute
  scripts/chaos --kills 500 --seconds 3600    an hour at most
  scripts/chaos --blobs s3 --seed 7           only the installation with S3 and a Redis that can be cut off
  scripts/chaos --keep                        ledgers, logs and data stay

The seed decides what clients send and which faults come in which order; at which instant of the server's work they come
is left to the machine. The exit status is 1 where something was lost, doubled or wrong: then the directory is kept, and
its ledger.jsonl has every attempt. As root the data lie on a small tmpfs, so that the disk can be full.
"""


def main() -> int:
    options = _parser().parse_args()
    kinds: list[Kind] = ["directory", "s3"] if options.blobs == "both" else [options.blobs]
    for needed in (PROGRAM, *([S3_PROGRAM] if "s3" in kinds else [])):
        if not needed.exists():
            print(f"scripts/chaos: {needed} is not there: scripts/test installs it", file=sys.stderr)
            return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))  # so that everything is stopped then too
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    plan = run.Plan(kinds, options.kills, options.seconds, seed, options.directory, options.keep)
    _say(f"seed {seed}")
    reports = run.run(plan, _say)
    print("\n\n".join(report.table(one) for one in reports))
    failed = any(one.all_failures for one in reports)
    result = "FAILED" if failed else "All is as it was acknowledged"
    print(f"\n{result}; again: scripts/chaos {_again(plan, options.blobs)}")
    return 1 if failed else 0


def _again(plan: run.Plan, blobs: str) -> str:
    return f"--kills {plan.faults} --seconds {plan.seconds:g} --blobs {blobs} --seed {plan.seed}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Kills, stops and starves a server under load, then proves that no acknowledged mail is lost.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=_count, default=20, metavar="N", help="faults, over all installations (20)")
    parser.add_argument(
        "--seconds", type=float, default=600, metavar="S", help="no fault begins later than that, an installation (600)"
    )
    parser.add_argument("--seed", type=int, metavar="K", help="of an earlier run; default: a new one")
    parser.add_argument(
        "--blobs",
        choices=("directory", "s3", "both"),
        default="both",
        help="where large parts are: one installation each (both)",
    )
    parser.add_argument("--directory", type=Path, help="where the temporary directory is made (default: the system's)")
    parser.add_argument("--keep", action="store_true", help="keep the temporary directory")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
