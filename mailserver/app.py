"""Puts the parts of one worker together: what they share, a listener for each role, and an orderly end.

    Services    store, logins, certificates, limits, sessions, deadlines: one of each in a process
    Worker      opens them, listens for its roles, waits, and ends in the reverse order

Other settings: `Services.reconfigure`, in one go between two events of the loop, so that nobody sees half of them.
Parts that read settings at every use hold them as one object that is replaced; others have a method of that name.

The end: no new connections; every session says goodbye (421, BYE) once its command is done, bounded by
server.shutdown_seconds; then the store finishes what it accepted and is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import prometheus_client

from admin_api.listener import ALPN, MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, HttpListener
from admin_api.routes.health import Health
from admin_api.service import Api
from config.schema import Config
from mailserver import metrics
from mailserver.delivery.outbox import Outbox
from mailserver.imap.service import Service as ImapService
from mailserver.imap.session import Session as ImapSession
from mailserver.login import Logins
from mailserver.net.connection import Connection
from mailserver.net.deadlines import Deadlines
from mailserver.net.limits import Limits
from mailserver.net.listener import Listener, stop_connections
from mailserver.net.sessions import Sessions
from mailserver.net.tally import Share
from mailserver.net.tls import Certificates, Pem
from mailserver.receiving.mx_policy import MxPolicy
from mailserver.receiving.server import SmtpConnection
from mailserver.receiving.session import Memory, Receiving
from mailserver.receiving.submission_policy import SubmissionPolicy
from mailserver.sending.service import Sending
from storage import Account, AccountId, NotFound, Notice, StorageError, Store, accounts, housekeeping
from storage.blobs import BlobCounts
from storage.tasks import end

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 1.0
LATE_SECONDS = 3.0
"""After server.shutdown_seconds."""

_SMTP_SESSIONS = metrics.sessions.labels("smtp")
_SMTP_REFUSED = metrics.refused.labels("smtp")
_SMTP_OPEN = metrics.sessions_open.labels("smtp")

Sockets = Mapping[str, Sequence[socket.socket]]
Factory = Callable[[], Connection]
Counted = prometheus_client.Counter


class Services:
    """What all parts of a worker share."""

    def __init__(self, config: Config, store: Store, certificates: Certificates, share: Share | None = None) -> None:
        self.config = config
        self.store = store
        self.certificates = certificates
        self.limits = Limits(config.server.trusted_networks, share)
        self.logins = WatchedLogins(store, config.auth, self.limits)
        self.sessions = Sessions(share)
        self.deadlines = Deadlines()
        self.memory = Memory(config.mail.receive_memory_mib * 1024 * 1024)
        self.health = Health(self._problems)
        self.outbox = Outbox(config.send.first_act_seconds)
        self.receiving: Receiving | None = None
        self.imap: ImapService | None = None
        self.sending: Sending | None = None
        self.api: Api | None = None
        self.stopping = False
        self._checks: set[asyncio.Task[None]] = set()

    def reconfigure(self, config: Config, pem: Pem) -> None:
        """Other settings and another certificate from now on; no connection is closed."""
        self.certificates.use(pem)
        self.config = config
        self.limits.set_trusted(config.server.trusted_networks)
        self.memory.limit = config.mail.receive_memory_mib * 1024 * 1024
        self.store.reconfigure(config.storage, config.mail)
        self.logins.reconfigure(config.auth)
        self.outbox.act_seconds = config.send.first_act_seconds
        for service in (self.receiving, self.imap, self.sending, self.api):
            if service is not None:
                service.reconfigure(config)

    def hear(self, notice: Notice) -> None:
        """The change feed: accounts whose password, status or existence changed lose their sessions."""
        if self.sending is not None:
            self.sending.hear(notice)
        if notice.kind == "account":
            self._end(notice.account_id)
        elif notice.kind == "resync":
            self.logins.forget(AccountId(0))
            task = asyncio.get_running_loop().create_task(self._recheck())
            self._checks.add(task)
            task.add_done_callback(self._checks.discard)

    async def _recheck(self) -> None:
        """The feed was broken: looks whether an account with sessions was changed meanwhile."""
        known = self.logins.versions
        for account_id in map(AccountId, self.sessions.accounts()):
            try:
                account = await accounts.get(self.store, account_id)
                unchanged = account.status == "active" and account.version == known.get(account_id, account.version)
            except NotFound:
                unchanged = False
            except StorageError:
                return  # the feed will break again, and be heard of again
            if not unchanged:
                self._end(account_id)
        open_now = set(self.sessions.accounts())
        for gone in [known_id for known_id in known if known_id not in open_now]:
            del known[gone]

    def _end(self, account_id: AccountId) -> None:
        self.logins.forget(account_id)
        self.logins.versions.pop(account_id, None)
        self.sessions.end(account_id, "The account was changed")

    async def _problems(self) -> dict[str, str]:
        return {"server": "is stopping"} if self.stopping else await self.store.healthy()


class WatchedLogins(Logins):
    """Logins that count, and remember the version of each account at the first login since its sessions were ended."""

    versions: dict[int, int]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.versions = {}

    async def check(self, name: str, password: str, *, peer: str, service: str) -> Account:
        try:
            account = await super().check(name, password, peer=peer, service=service)
        except Exception as error:
            metrics.logins.labels(service, type(error).__name__).inc()
            raise
        metrics.logins.labels(service, "ok").inc()
        self.versions.setdefault(account.account_id, account.version)
        return account


class SharedMemory:
    """The memory of messages being received, as IMAP asks for it; SMTP counts in the same place."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def take(self, octets: int) -> bool:
        if not self._memory.has_room(octets):
            return False
        self._memory.used += octets
        return True

    def give(self, octets: int) -> None:
        self._memory.used -= octets


# Roles ---------------------------------------------------------------------------------------------------------------


def mail_factories(services: Services, roles: Sequence[str]) -> dict[str, Factory]:
    """What is made for each connection, by the listener's name."""
    found: dict[str, Factory] = {}
    if "smtp" in roles or "submission" in roles:
        found |= _smtp_factories(services)
    if "imap" in roles:
        found |= _imap_factories(services)
    return found


def _smtp_factories(services: Services) -> dict[str, Factory]:
    receiving = Receiving(
        services.config,
        services.store,
        services.logins,
        services.limits,
        services.sessions,
        services.certificates,
        services.deadlines,
        services.outbox,
    )
    receiving.memory = services.memory
    services.receiving = receiving
    mx, submission = MxPolicy(receiving), SubmissionPolicy(receiving)
    return {
        "smtp": lambda: CountedConnection(receiving, mx),
        "submission": lambda: CountedConnection(receiving, submission),
        "submissions": lambda: CountedConnection(receiving, submission, tls=True),
    }


class CountedConnection(SmtpConnection):
    """One that metrics know of."""

    __slots__ = ()

    def admit(self) -> bytes | None:
        refusal = super().admit()
        (_SMTP_SESSIONS if refusal is None else _SMTP_REFUSED).inc()
        return refusal


def _imap_factories(services: Services) -> dict[str, Factory]:
    service = ImapService(
        services.config,
        services.store,
        services.logins,
        limits=services.limits,
        sessions=services.sessions,
        deadlines=services.deadlines,
        memory=SharedMemory(services.memory),
        tls=services.certificates.server_context,
    )
    services.imap = service
    return {
        "imap": lambda: ImapSession(service),
        "imaps": lambda: ImapSession(service, services.certificates.server_context()),
    }


# A worker's life -----------------------------------------------------------------------------------------------------


async def serve(
    services: Services,
    sockets: Sockets,
    *,
    stop: asyncio.Event,
    ready: Callable[[], None],
    housekeeper: bool,
    workers: int = 1,
) -> None:
    """Serves until `stop` is set; `ready` is called once all listeners are open. workers: how many the node has."""
    roles = services.config.server.roles
    if "api" in roles:
        services.api = Api(
            services.config, services.store, services.logins, SharedMemory(services.memory), services.outbox
        )
    http = HttpListener(
        services.config,
        services.health,
        tls=services.certificates.lasting_context(*ALPN),
        connections=services.limits.connections(MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS, kind="http"),
        api=services.api,
    )
    unlisten = services.store.changes.listen(services.hear)
    services.deadlines.start()
    listeners = [
        Listener(sockets[name], factory) for name, factory in mail_factories(services, roles).items() if name in sockets
    ]
    async with AsyncExitStack() as stack:
        stack.callback(unlisten)
        stack.callback(services.logins.close)
        stack.callback(services.deadlines.stop)
        if services.api is not None:
            stack.callback(services.api.close)
        if "api" in roles:
            await http.start(clear=sockets.get("http", ()), secure=sockets.get("https", ()))
        if "send" in roles:
            listening = [sock.getsockname()[:2] for sock in sockets.get("smtp", ())]
            services.sending = Sending(services.config, services.store, services.outbox, listening, workers)
        for listener in listeners:
            await listener.start()
        async with asyncio.TaskGroup() as tasks:
            helpers = [tasks.create_task(_sample(services))]
            if housekeeper:
                helpers.append(tasks.create_task(housekeeping.run(services.store)))
            ready()
            await stop.wait()
            await _say_goodbye(services, listeners, http)
            await end(helpers)


async def _say_goodbye(services: Services, listeners: Sequence[Listener], http: HttpListener) -> None:
    services.stopping = True
    for listener in listeners:
        listener.close()
    sessions = len(services.deadlines)
    log.info("stopping, %d sessions are open", sessions)
    seconds = services.config.server.shutdown_seconds
    asyncio.get_running_loop().call_later(seconds + LATE_SECONDS, _name_unfinished)
    works = [stop_connections(services.deadlines, seconds), http.close(seconds)]
    if services.sending is not None:
        works.append(services.sending.close(seconds))
    await asyncio.gather(*works)


def _name_unfinished() -> None:
    """The supervisor will soon kill us; this says what it was that did not come to an end."""
    for task in asyncio.all_tasks():
        where: Any = task.get_coro()
        names = []
        while (inner := getattr(where, "cr_await", None)) is not None:
            names.append(where.__qualname__)
            where = inner
        log.warning("not ended in time: %s waits for %r", " > ".join(names) or task.get_name(), where)


async def _sample(services: Services) -> None:
    """Takes over what others count by plain numbers, storage because it knows nothing of metrics, SMTP for speed."""
    committer, receiving = services.store.committer, services.receiving
    taken: dict[Counted, float] = {}
    while True:
        await asyncio.sleep(SAMPLE_SECONDS)
        now = _of_blobs(services.store.blobs.counts)
        now[metrics.delivery_batches] = committer.batches
        now[metrics.delivered_messages] = committer.messages
        if receiving is not None:
            _SMTP_OPEN.set(receiving.connections.open)
            for name in receiving.messages:
                now[metrics.messages_received.labels(name)] = receiving.messages[name]
                now[metrics.octets_received.labels(name)] = receiving.octets[name]
        for counter, count in now.items():
            counter.inc(count - taken.get(counter, 0))
        taken = now


def _of_blobs(counts: BlobCounts) -> dict[Counted, float]:
    kinds: tuple[tuple[Counted, Mapping[str, float]], ...] = (
        (metrics.blob_requests, counts.requests),
        (metrics.blob_errors, counts.errors),
        (metrics.blob_seconds, counts.seconds),
        (metrics.blob_cache, counts.cache),
    )
    return {counter.labels(label): count for counter, counted in kinds for label, count in counted.items()}
