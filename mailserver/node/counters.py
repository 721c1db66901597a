"""Where the processes of a node count, so that one of them can show the sum.

prometheus_client decides at its import whether it counts for itself or in files, and the first counters are made when
mailserver/metrics.py is imported: `begin` must come before. Import metrics inside functions where that is not sure.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.process import own, own_folder

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def begin(folder: Path, account: ServiceAccount | None) -> None:
    """An empty folder for the counters of this run; makes the supervisor's own counters."""
    own_folder(folder, account)
    for path in folder.glob("*.db"):
        path.unlink(missing_ok=True)
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before its folder was known")
    os.environ[VARIABLE] = str(folder)
    import mailserver.metrics  # noqa: F401

    for path in folder.glob("*.db"):
        own(path, account, 0o600)


def forget_process(pid: int) -> None:
    """A process has died: what it had open is open no more; what it counted stays."""
    folder = os.environ.get(VARIABLE)
    if folder:
        with contextlib.suppress(OSError):  # a wrong number in a gauge is all that comes of it
            for path in Path(folder).glob(f"gauge_live*_{pid}.db"):
                path.unlink(missing_ok=True)
