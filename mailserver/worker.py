"""One worker process: forked by the supervisor with its sockets, it serves its roles until it is told to stop.

Signals: TERM stops in good order. INT and HUP are the supervisor's business: a terminal sends them to all of us. It
tells us of changed settings by a channel (node/channel.py). When the supervisor dies, however, the worker is killed
(PR_SET_PDEATHSIG), since nothing it serves would last. A worker that loses its database goes on: its answers say "try
again later" until it is back.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

from config.schema import Config
from mailserver import logs
from mailserver.app import Services, serve
from mailserver.embedded.process import die_with_parent
from mailserver.net.limits import raise_descriptor_limit
from mailserver.net.tally import Share
from mailserver.net.tls import Certificates
from mailserver.node import channel
from storage import Store, Unavailable

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.25
_SWITCH_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is to do."""

    number: int
    workers: int
    """How many the node has."""
    config: Config
    sockets: Mapping[str, Sequence[socket.socket]]
    certificates: Certificates
    store_options: Mapping[str, Any]
    """For Store.open."""
    share: Share
    """Of what the node's processes count together."""
    parent: int
    channel: socket.socket
    """To the supervisor."""


def run(job: Job) -> int:
    """The whole life of a worker, in the forked process; its exit status."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    logs.configure(job.config.log.level, job.config.log.format, worker=job.number)
    die_with_parent(job.parent, signal.SIGKILL)
    raise_descriptor_limit()
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
    # The loop gets its turn sooner from threads that work on something long.
    sys.setswitchinterval(_SWITCH_SECONDS)
    store = await _open_store(job, stop)
    if store is None:
        return
    services = Services(job.config, store, job.certificates, job.share)
    loop.add_reader(job.channel.fileno(), _listen, job, services)
    try:
        await serve(
            services,
            job.sockets,
            stop=stop,
            ready=lambda: _tell_ready(job),
            workers=job.workers,
            housekeeper=job.number == 0 and "index" in job.config.server.roles,
        )
    finally:
        loop.remove_reader(job.channel.fileno())
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


def _tell_ready(job: Job) -> None:
    channel.say(job.channel, channel.READY)
    log.info("worker is ready")


def _listen(job: Job, services: Services) -> None:
    """The supervisor has sent something."""
    try:
        settings = channel.receive(job.channel)
    except BlockingIOError:
        return
    if settings is None:
        asyncio.get_running_loop().remove_reader(job.channel.fileno())
        return
    try:
        logs.configure(settings.config.log.level, settings.config.log.format, worker=job.number)
        services.reconfigure(settings.config, settings.pem)
    except Exception:
        log.exception("the settings could not be taken up")
        channel.say(job.channel, channel.FAILED)
    else:
        channel.say(job.channel, channel.TAKEN)


def _log_fault(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    failure = context.get("exception")
    log.error(
        "fault in the loop: %s",
        context.get("message"),
        exc_info=failure if isinstance(failure, BaseException) else None,
    )
