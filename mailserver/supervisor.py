"""`pillarbox serve`: makes everything ready, forks the workers, and keeps them and the embedded services running.

The order, and why:

    data directory and its lock    one server on a directory; it is the working directory from here on
    sockets, keys, certificate     what may need root; a port that is taken is said before anything is started
    imports                        a closed home cannot be read afterwards; forked workers share them
    root is dropped                for good; from here on everything runs as the system account
    PostgreSQL, Redis, schema      embedded where no server was named
    first start                    first domain and administrator
    workers                        one process a slot; run/server.json, and the banner once they are ready

Then it waits for signals. A worker that dies is replaced, at once the first time and then more and more slowly; its
sockets were kept, so nothing that waits in their backlogs is lost. An embedded service that dies is started again; the
workers find it by themselves. TERM or INT: listeners are closed, workers say goodbye for at most
server.shutdown_seconds, the services are stopped. A second one cuts that short.

HUP reads settings and certificate again. What cannot be used is refused whole, and the old ones stay in force; else
workers are sent those settings that may change while they serve, and workers forked later have them, too. USR2 does
that, and replaces the workers one by one, which brings in settings that a worker keeps for life. A worker is forked
from this process: other code comes with a restart only. What was done stands in run/reload.json (node/report.py). No
fault in it ends the server, nor does a fork that fails: that is tried again like a worker that dies.

When the supervisor itself is killed the kernel ends workers and services (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from config.load import ConfigErrors
from config.schema import Config
from mailserver import logs
from mailserver.embedded import account as accounts
from mailserver.embedded import postgres, redis
from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.process import own_folder
from mailserver.net.tls import CertificateError, Certificates, Pem
from mailserver.node import counters, data_directory, first_start, listeners, preimport, secret_keys, settings
from mailserver.node.banner import banner
from mailserver.node.channel import Settings
from mailserver.node.data_directory import DataDirectory
from mailserver.node.listeners import Address, Slot
from mailserver.node.report import Report
from mailserver.node.secret_keys import SecretKeys
from mailserver.node.services import Services
from mailserver.node.settings import Source
from mailserver.node.workers import Place, Workers, WorkersFailed
from storage import Store, housekeeping, s3_requests
from storage.blobs import S3_SCHEME
from storage.clock import Stamps
from storage.migrate import migrate, migrations

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0
"""For a command that works on the directory just now."""
GRACE_SECONDS = 5.0
"""Beyond server.shutdown_seconds, for a worker to close its store."""
ANSWER_SECONDS = 30.0
"""For a worker to take up settings."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)
_STOP = (signal.SIGTERM, signal.SIGINT)
_DONE = object()


class StartError(Exception):
    """The server cannot be started; the text says why and what to do."""


class _Stopped(Exception):
    """A signal came while things were being made ready."""


def supervise(config: Config, data: Path, source: Source) -> int:
    """Serves until told to stop; the exit status. Call it in the main thread of a process that has no other threads.

    source: where the settings come from. Raises errors with a text for the user: StartError, PortError, ServiceError
    and their like.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    directory, account = data_directory.make(data, config.server.system_account, _say)
    with ExitStack() as stack:
        lock = _take_lock(directory)
        stack.callback(os.close, lock)
        try:
            Supervisor(config, directory, account, source).run(lock, stack)
        except _Stopped:
            log.info("stopped before it was ready")
    return 0


def _take_lock(directory: DataDirectory) -> int:
    try:
        return data_directory.take_lock(directory, data_directory.SERVER, LOCK_SECONDS)
    except data_directory.Held as held:
        root = directory.root
        serves = held.what == data_directory.SERVER
        way = f"stop it with `pillarbox --data {shlex.quote(str(root))} stop`" if serves else "wait for its end"
        raise StartError(
            f"{root} is in use by process {held.pid} ({held.what}): {way}, or name another data directory"
        ) from None


class Supervisor:
    """One `serve`, holding the lock of its directory."""

    _addresses: list[Address]
    _keys: SecretKeys
    _certificates: Certificates

    def __init__(
        self, config: Config, directory: DataDirectory, account: ServiceAccount | None, source: Source
    ) -> None:
        self._config = config
        self._stamps = Stamps()
        self._outside = directory
        self._inside = directory.as_seen_from_inside(account)
        self._account = account
        self._source = source
        self._services = Services(config.storage)
        self._pid = os.getpid()
        self._started = datetime.now(UTC)
        self._version = version("pillarbox")

    def run(self, lock: int, stack: ExitStack) -> None:
        """Everything from the sockets to the end; what has to be undone goes onto the stack."""
        slots = self._make_ready(stack)
        self._drop_root()
        stack.callback(self._services.stop)
        self._services.start()
        _look_for_stop()
        asyncio.run(self._prepare_database())
        _look_for_stop()
        workers = Workers(slots, self._work, lock)
        stack.callback(lambda: workers.stop(self._stop_seconds, _wait_for_second_signal))
        workers.start()
        stack.callback(self._inside.server_json.unlink, missing_ok=True)
        try:
            self._write_server_json(len(workers))
        except OSError as error:
            raise StartError(f"{self._outside.server_json} cannot be written: {error.strerror}") from error
        self._watch(workers)

    # Making ready, perhaps as root -----------------------------------------------------------------------------------

    def _make_ready(self, stack: ExitStack) -> list[Slot]:
        server = self._config.server
        os.chdir(self._outside.root)
        for told in (self._outside.server_json, self._outside.reload_json):
            told.unlink(missing_ok=True)
        offset = listeners.choose_offset(server.port_offset, server.host)
        self._addresses = listeners.addresses(server.roles, server.host, offset)
        slots = listeners.bind(self._addresses, server.workers or len(os.sched_getaffinity(0)))
        stack.callback(listeners.close, slots)
        self._keys = secret_keys.load_or_make(self._config.storage, self._outside, self._account)
        first_start.make_certificate(self._config, self._outside, self._account)
        self._services.prepare(self._outside, self._account, len(slots), _say)
        self._make_blob_folder()
        counters.begin(self._inside.metrics, self._account)
        return slots

    def _make_blob_folder(self) -> None:
        """One outside the data directory must be the account's, too."""
        blobs = self._config.storage.blobs
        if blobs is None or "://" in blobs:
            return
        folder = Path(blobs)
        try:
            own_folder(folder, self._account)
        except OSError as error:
            raise StartError(f"storage.blobs: {folder} cannot be made: {error.strerror}") from error
        if self._account is not None and not self._account.reaches(folder / "x"):
            raise StartError(f"storage.blobs: the account {self._account.name} cannot enter {folder}")

    def _drop_root(self) -> None:
        """Goes on as the account. What perhaps only root can read is read before."""
        from admin_api.listener import ALPN  # not earlier: see node/counters.py

        preimport.import_ours()
        if preimport.needs_all(self._account):
            preimport.import_all(*(preimport.S3 if self._blobs_in_s3 else ()))
        if self._blobs_in_s3:
            s3_requests.prepare()
        self._migrations = migrations()
        self._certificates = Certificates(self._config.tls, self._inside.root)
        for protocols in ((), ALPN):
            self._certificates.server_context(*protocols)
        self._fingerprint = self._certificates.fingerprint()
        if self._account is not None:
            accounts.drop_root(self._account)
        self._services.move_inside(self._inside)

    # The database ----------------------------------------------------------------------------------------------------

    async def _prepare_database(self) -> None:
        dsn = self._services.dsn
        applied = await migrate(dsn, self._migrations)
        if applied:
            log.info("schema brought up to date: %s", ", ".join(applied))
        await secret_keys.check(dsn, self._keys)
        options = {**self._store_options(), "redis_url": None, "blob_cache": None, "stamps": None}
        store = await Store.open(worker="supervisor", **options)
        try:
            await self._look_at_blobs(store)
            added = await first_start.begin(store, self._config)
        finally:
            await store.close()
        if added is not None:
            _print(first_start.show_login(added, self._inside, self._outside.first_login))

    async def _look_at_blobs(self, store: Store) -> None:
        """A mistake in the settings is said before anything is made; later on an outage keeps nobody from serving."""
        problem = await store.blobs.problem()
        if problem is None:
            if await housekeeping.blobs_are_elsewhere(store):
                raise StartError(
                    f"storage.blobs: {self._config.storage.blobs or self._outside.blobs} does not hold what messages "
                    "refer to: mount what belongs there, or name the place where it is, the same on all nodes, or copy "
                    "it there first, names as they are"
                )
        elif await first_start.is_done(store):
            log.error("storage.blobs: %s", problem)
        else:
            raise StartError(f"storage.blobs: {problem}")

    @property
    def _blobs_in_s3(self) -> bool:
        return (self._config.storage.blobs or "").startswith(S3_SCHEME)

    def _store_options(self) -> dict[str, Any]:
        return {
            "config": self._config.storage,
            "mail": self._config.mail,
            "dsn": self._services.dsn,
            "redis_url": self._services.redis_url,
            "blobs": self._config.storage.blobs or str(self._inside.blobs),
            "blob_cache": self._inside.blob_cache,
            "install_key": self._keys.install,
            "master_key": self._keys.master,
            "stamps": self._stamps,
        }

    # Workers and what happens to them --------------------------------------------------------------------------------

    @property
    def _stop_seconds(self) -> float:
        """How long workers may take to end."""
        return self._config.server.shutdown_seconds + GRACE_SECONDS

    def _work(self, place: Place) -> int:
        """In the forked process."""
        from mailserver import worker as worker_process  # not earlier: see node/counters.py

        return worker_process.run(
            worker_process.Job(
                number=place.number,
                workers=self._config.server.workers or len(os.sched_getaffinity(0)),
                config=self._config,
                sockets=place.sockets,
                certificates=self._certificates,
                store_options=self._store_options(),
                share=place.share,
                parent=self._pid,
                channel=place.channel,
            )
        )

    def _watch(self, workers: Workers) -> None:
        announced = False
        asked: set[int] = set()
        reload: Iterator[None] | None = None
        while True:
            workers.look_after()
            self._services.look_after()
            if workers.all_ready and not announced:
                announced = True
                _print(self._banner(len(workers)))
            if asked and reload is None:
                reload = self._reload(workers, replace=signal.SIGUSR2 in asked)
                asked.clear()
            if reload is not None and next(reload, _DONE) is _DONE:
                reload = None
                continue
            patience = min([5.0, *workers.pauses(), *self._services.pauses()])
            received = signal.sigtimedwait(SIGNALS, max(0.01, patience))
            if received is not None and received.si_signo in _STOP:
                log.info("stopping on %s", signal.Signals(received.si_signo).name)
                return
            if received is not None and received.si_signo in (signal.SIGHUP, signal.SIGUSR2):
                asked.add(received.si_signo)

    # Other settings --------------------------------------------------------------------------------------------------

    def _reload(self, workers: Workers, *, replace: bool) -> Iterator[None]:
        """Takes up what the settings say by now, in steps between which everything else is looked after.

        Whatever goes wrong with that, the server goes on.
        """
        report = Report(self._pid, time.monotonic())
        try:
            yield from self._change(workers, report, replace=replace)
        except Exception as error:
            log.exception("fault in a reload")
            report.problems.append(f"broken off by a fault ({type(error).__name__}), the log says where")
        log.log(logging.ERROR if report.problems else logging.INFO, "reload: %s", "; ".join(report.lines()))
        try:
            report.write(self._inside.reload_json)
        except OSError as error:
            log.error(
                "%s cannot be written, who asked for the reload is not told: %s", self._outside.reload_json, error
            )

    def _change(self, workers: Workers, report: Report, *, replace: bool) -> Iterator[None]:
        try:
            wanted = self._source.load()
            pem = self._certificates.read(wanted.tls)
        except (ConfigErrors, CertificateError) as error:
            reader = f", read as {self._account.name}," if self._account else ""
            report.problems = [f"the settings{reader} cannot be used, the old ones stay in force:"]
            report.problems += str(error).split("\n")
            return
        report.changed = settings.changes(self._config, wanted)
        yield from self._take_up(wanted, pem, workers, report)
        if replace and not report.problems:
            yield from self._replace_workers(wanted, workers, report)
        try:
            self._write_server_json(len(workers))
        except OSError as error:
            report.problems.append(f"{self._outside.server_json} cannot be written: {error.strerror}")

    def _take_up(self, wanted: Config, pem: Pem, workers: Workers, report: Report) -> Iterator[None]:
        """What may change while workers serve, here and in all of them."""
        config = settings.merged(self._config, wanted, "reload")
        if self._certificates.use(pem):
            report.certificate = pem.fingerprint()
        workers.tell(Settings(config, pem))
        self._config = config
        logs.configure(config.log.level, config.log.format)
        deadline = time.monotonic() + ANSWER_SECONDS
        while workers.unanswered() and time.monotonic() < deadline:
            yield
        report.problems += [f"worker process {pid} has not answered" for pid in workers.unanswered()]
        report.problems += [f"worker process {pid} has failed, the log says why" for pid in workers.failed()]

    def _replace_workers(self, wanted: Config, workers: Workers, report: Report) -> Iterator[None]:
        """One by one, with what a worker keeps for life."""
        before = self._config
        self._use_for_later(settings.merged(before, wanted, "workers"))
        try:
            yield from workers.replace(self._stop_seconds)
        except WorkersFailed as error:
            self._use_for_later(before)
            report.problems.append(str(error))
        else:
            report.replaced = True

    def _use_for_later(self, config: Config) -> None:
        """For workers that are forked from now on."""
        self._config = config
        self._certificates.reconfigure(config.tls)

    # What it tells ---------------------------------------------------------------------------------------------------

    def _write_server_json(self, workers: int) -> None:
        outside = self._outside
        config = self._config
        about = {
            "pid": self._pid,
            "version": self._version,
            "started": self._started.isoformat(timespec="seconds"),
            "host": list(dict.fromkeys(address.host for address in self._addresses)),
            "ports": {address.endpoint.name: address.port for address in self._addresses},
            "roles": list(config.server.roles),
            "hostname": config.server.hostname,
            "workers": workers,
            "data": str(outside.root),
            "config": str(self._source.folder / self._source.file) if self._source.file else None,
            "postgres": "embedded" if self._services.embeds_postgres else "external",
            "dsn": postgres.plain_dsn(outside.postgres) if self._services.embeds_postgres else self._services.dsn,
            "redis": redis.plain_url(outside.redis) if self._services.embeds_redis else self._services.redis_url,
            "blobs": config.storage.blobs or str(outside.blobs),
            "s3": settings.of_s3(config.storage) if self._blobs_in_s3 else None,
            "certificate": str(config.tls.certificate or outside.tls / "server.crt"),
        }
        data_directory.write_private(self._inside.server_json, json.dumps(about, indent=2) + "\n")

    def _banner(self, workers: int) -> str:
        who = f", as {self._account.name}" if self._account else ""
        return banner(
            self._config,
            self._addresses,
            version=self._version,
            data=self._outside.root,
            fingerprint=self._fingerprint,
            services=f"{self._services}, {workers} worker{'s' if workers != 1 else ''}{who}",
        )


def _look_for_stop() -> None:
    """Signals are blocked while things are made ready; has one come?"""
    if signal.sigpending() & set(_STOP):
        raise _Stopped


def _wait_for_second_signal(seconds: float) -> bool:
    received = signal.sigtimedwait(SIGNALS, seconds)
    return received is not None and received.si_signo in _STOP


def _say(text: str) -> None:
    log.info("%s", text)


def _print(text: str) -> None:
    """To the person who started us, in whatever encoding that is; it is no part of the log."""
    with suppress(OSError):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
            sys.stdout.write(text + "\n")
            sys.stdout.flush()
