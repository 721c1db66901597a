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
server.shutdown_seconds, the services are stopped. A second one cuts that short. HUP: workers take up certificates.

When the supervisor itself is killed the kernel ends workers and services (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from config.schema import Config
from mailserver.embedded import account as accounts
from mailserver.embedded import postgres, redis
from mailserver.embedded.account import ServiceAccount
from mailserver.embedded.process import own_folder
from mailserver.net.tls import Certificates
from mailserver.node import counters, data_directory, first_start, listeners, preimport, secret_keys
from mailserver.node.banner import banner
from mailserver.node.data_directory import DataDirectory
from mailserver.node.listeners import Address, Slot
from mailserver.node.secret_keys import SecretKeys
from mailserver.node.services import Services
from mailserver.node.workers import Worker, Workers
from storage import Store
from storage.migrate import migrate, migrations

log = logging.getLogger(__name__)

LOCK_SECONDS = 10.0
GRACE_SECONDS = 5.0
"""Beyond server.shutdown_seconds, for a worker to close its store."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_STOP = (signal.SIGTERM, signal.SIGINT)


class StartError(Exception):
    """The server cannot be started; the text says why and what to do."""


class _Stopped(Exception):
    """A signal came while things were being made ready."""


def supervise(config: Config, data: Path, config_file: Path | None) -> int:
    """Serves until told to stop; the exit status. Call it in the main thread of a process that has no other threads.

    Raises errors with a text for the user: StartError, PortError, ServiceError and their like.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    config = _with_absolute_paths(config)
    directory, account = data_directory.make(data, config.server.system_account, _say)
    with ExitStack() as stack:
        lock = _take_lock(directory)
        stack.callback(os.close, lock)
        try:
            Supervisor(config, directory, account, config_file).run(lock, stack)
        except _Stopped:
            log.info("stopped before it was ready")
    return 0


def _with_absolute_paths(config: Config) -> Config:
    """Relative paths begin where we were started, and we will work elsewhere."""
    tls, storage = config.tls, config.storage
    if tls.certificate is not None and tls.key is not None:
        tls = tls.model_copy(update={"certificate": tls.certificate.absolute(), "key": tls.key.absolute()})
    if storage.blobs is not None and "://" not in storage.blobs:
        storage = storage.model_copy(update={"blobs": str(Path(storage.blobs).expanduser().absolute())})
    return config.model_copy(update={"tls": tls, "storage": storage})


def _take_lock(directory: DataDirectory) -> int:
    try:
        return data_directory.take_lock(directory, "pillarbox serve", LOCK_SECONDS)
    except data_directory.Held as held:
        raise StartError(
            f"{directory.root} is in use by process {held.pid} ({held.what}): stop it with "
            f"`pillarbox --data {directory.root} stop`, or name another data directory"
        ) from None


class Supervisor:
    """One `serve`, holding the lock of its directory."""

    _addresses: list[Address]
    _keys: SecretKeys
    _certificates: Certificates

    def __init__(
        self, config: Config, directory: DataDirectory, account: ServiceAccount | None, config_file: Path | None
    ) -> None:
        self._config = config
        self._outside = directory
        self._inside = directory.as_seen_from_inside(account)
        self._account = account
        self._config_file = config_file
        self._services = Services(config.storage)
        self._pid = os.getpid()
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
        stack.callback(workers.stop, self._config.server.shutdown_seconds + GRACE_SECONDS, _wait_for_second_signal)
        workers.start()
        stack.callback(self._inside.server_json.unlink, missing_ok=True)
        self._write_server_json(len(workers))
        self._watch(workers)

    # Making ready, perhaps as root -----------------------------------------------------------------------------------

    def _make_ready(self, stack: ExitStack) -> list[Slot]:
        server = self._config.server
        os.chdir(self._outside.root)
        self._outside.server_json.unlink(missing_ok=True)
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
            preimport.import_all()
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
        store = await Store.open(worker="supervisor", **{**self._store_options(), "redis_url": None})
        try:
            added = await first_start.begin(store, self._config)
        finally:
            await store.close()
        if added is not None:
            _print(first_start.show_login(added, self._inside, self._outside.first_login))

    def _store_options(self) -> dict[str, Any]:
        return {
            "config": self._config.storage,
            "mail": self._config.mail,
            "dsn": self._services.dsn,
            "redis_url": self._services.redis_url,
            "blobs": self._config.storage.blobs or str(self._inside.blobs),
            "install_key": self._keys.install,
            "master_key": self._keys.master,
        }

    # Workers and what happens to them --------------------------------------------------------------------------------

    def _work(self, worker: Worker, ready: int) -> int:
        """In the forked process."""
        from mailserver import worker as worker_process  # not earlier: see node/counters.py

        return worker_process.run(
            worker_process.Job(
                number=worker.number,
                config=self._config,
                sockets=worker.sockets,
                certificates=self._certificates,
                store_options=self._store_options(),
                parent=self._pid,
                ready=ready,
            )
        )

    def _watch(self, workers: Workers) -> None:
        announced = False
        while True:
            workers.look_after()
            self._services.look_after()
            if workers.all_ready and not announced:
                announced = True
                _print(self._banner(len(workers)))
            patience = min([5.0, *workers.pauses(), *self._services.pauses()])
            received = signal.sigtimedwait(SIGNALS, max(0.01, patience))
            if received is not None and received.si_signo in _STOP:
                log.info("stopping on %s", signal.Signals(received.si_signo).name)
                return
            if received is not None and received.si_signo == signal.SIGHUP:
                workers.send(signal.SIGHUP)

    # What it tells ---------------------------------------------------------------------------------------------------

    def _write_server_json(self, workers: int) -> None:
        outside = self._outside
        config = self._config
        about = {
            "pid": self._pid,
            "version": self._version,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": list(dict.fromkeys(address.host for address in self._addresses)),
            "ports": {address.endpoint.name: address.port for address in self._addresses},
            "roles": list(config.server.roles),
            "hostname": config.server.hostname,
            "workers": workers,
            "data": str(outside.root),
            "config": str(self._config_file.absolute()) if self._config_file else None,
            "postgres": "embedded" if self._services.embeds_postgres else "external",
            "dsn": postgres.plain_dsn(outside.postgres) if self._services.embeds_postgres else self._services.dsn,
            "redis": redis.plain_url(outside.redis) if self._services.embeds_redis else self._services.redis_url,
            "blobs": config.storage.blobs or str(outside.blobs),
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
    """To the person who started us; it is no part of the log."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        pass
