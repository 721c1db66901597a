"""One worker process: forked by the supervisor with its sockets, it serves its roles until it is told to stop.

Signals: TERM stops in good order, HUP takes up changed certificates. INT is the supervisor's business: a terminal sends
it to all of us. When the supervisor dies, however, the worker is killed (PR_SET_PDEATHSIG), since nothing it serves
would last. A worker that loses its database goes on: its answers say "try again later" until it is back.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from config.schema import Config
from mailserver import logs
from mailserver.app import Services, serve
from mailserver.embedded.process import die_with_parent
from mailserver.net.tls import CertificateError, Certificates
from storage import Store, Unavailable

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is to do."""

    number: int
    config: Config
    sockets: Mapping[str, Sequence[socket.socket]]
    certificates: Certificates
    store_options: Mapping[str, Any]
    """For Store.open."""
    parent: int
    ready: int
    """A pipe to write to when all listeners are open."""


def run(job: Job) -> int:
    """The whole life of a worker, in the forked process; its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    logs.configure(job.config.log.level, job.config.log.format, worker=job.number)
    die_with_parent(job.parent, signal.SIGKILL)
    try:
        uvloop.run(_run(job))
    except Exception:
        log.exception("worker failed")
        return 1
    finally:
        logs.attach(None)
    return 0


async def _run(job: Job) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    loop.set_exception_handler(_log_fault)
    logs.attach(loop)
    # What the supervisor imported is frozen; new garbage is mostly short-lived, so look for cycles less often.
    gc.set_threshold(10_000, 20, 20)
    store = await _open_store(job, stop)
    if store is None:
        return
    services = Services(job.config, store, job.certificates)
    loop.add_signal_handler(signal.SIGHUP, lambda: _reload(services.certificates))
    try:
        await serve(
            services,
            job.sockets,
            stop=stop,
            ready=_telling(job.ready),
            housekeeper=job.number == 0 and "index" in job.config.server.roles,
        )
    finally:
        await store.close()


async def _open_store(job: Job, stop: asyncio.Event) -> Store | None:
    """The store, as soon as the database answers; None where the worker is stopped before."""
    told = False
    while not stop.is_set():
        try:
            return await Store.open(worker=f"{socket.gethostname()} {os.getpid()}", **job.store_options)
        except Unavailable as error:
            if not told:
                log.warning("waiting for the database: %s", error)
                told = True
            await asyncio.sleep(_RETRY_SECONDS)
    return None


def _telling(pipe: int) -> Callable[[], None]:
    def ready() -> None:
        os.write(pipe, b"1")
        os.close(pipe)
        log.info("worker is ready")

    return ready


def _reload(certificates: Certificates) -> None:
    try:
        certificates.reload()
    except CertificateError as error:
        log.error("the certificates were not taken up: %s", error)
    else:
        log.info("certificates taken up")


def _log_fault(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    failure = context.get("exception")
    log.error(
        "fault in the loop: %s",
        context.get("message"),
        exc_info=failure if isinstance(failure, BaseException) else None,
    )
