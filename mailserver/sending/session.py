"""One outgoing SMTP connection: opened with a greeting, EHLO, STARTTLS and AUTH; then messages, one after the other.

    try:
        session = await Session.open(target, manner)
    except Unreachable as unreachable:
        ...                                             # another host, or later; unreachable.tls_failed: in clear
    outcomes = await session.send(envelope, octets, lease.has_margin)
    if session.usable:
        ...                                             # another message
    await session.close()

What the server answers is an outcome by its code. Where it answers nothing that can be understood the outcome is
Deferred, and says in which phase of the dialogue that was. Whatever a server does, nothing but `Unreachable` leaves
`open` and nothing leaves `send`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from config.secret import Secret
from mailserver.protocols.smtp.client import (
    TIMEOUTS,
    Cause,
    Client,
    Envelope,
    Failure,
    Lack,
    NotOffered,
    Phase,
    TransactionResult,
)
from mailserver.protocols.smtp.reply import Reply
from mailserver.sending.connection import Connection, tls_context
from mailserver.sending.outcome import Deferred, Failed, Outcome, of_reply
from mailserver.sending.targets import Target

log = logging.getLogger(__name__)

NEVER_ACCEPTS_MAIL = 521  # RFC 7504 §3


@dataclass(frozen=True, slots=True)
class Manner:
    """How we talk to a server. ValueError for what cannot be said, and for a password that may go in clear by chance.

    hello_name: a domain or an address literal. instance: the id in our own greeting, "" for none: a server that greets
    with it is ourselves. tls: STARTTLS; implicit_tls: TLS from the first octet instead. verify: the certificate must be
    good for the target's host. username: "" for no AUTH. sources: local IP addresses; the first of the target's family
    is bound. timeouts: seconds for a step in each phase.
    """

    hello_name: str
    instance: str = ""
    tls: Literal["never", "opportunistic", "required"] = "opportunistic"
    implicit_tls: bool = False
    verify: bool = False
    username: str = ""
    password: Secret = field(default_factory=lambda: Secret(""))
    sources: tuple[str, ...] = ()
    connect_seconds: float = 30.0
    timeouts: Mapping[Phase, float] = field(default_factory=lambda: TIMEOUTS, hash=False, repr=False)

    def __post_init__(self) -> None:
        Client(self.hello_name)
        for source in self.sources:
            ipaddress.ip_address(source)
        if "\0" in self.username + self.password.reveal():
            raise ValueError("NUL in a name or password")
        if self.username and self.tls == "opportunistic" and not self.implicit_tls:
            raise ValueError('AUTH with opportunistic TLS: say tls="required", or "never" where clear text is meant')

    def source(self, address: str) -> tuple[str, int] | None:
        """What to bind for a connection to an IP address."""
        version = ipaddress.ip_address(address).version
        found = (source for source in self.sources if ipaddress.ip_address(source).version == version)
        return next(((source, 0) for source in found), None)


class Unreachable(Exception):
    """A connection that did not come about.

    phase: in words, what was waited for. tls_failed: it was opportunistic TLS that failed; in clear it may work.
    """

    def __init__(self, outcome: Deferred | Failed, phase: str, *, tls_failed: bool = False) -> None:
        super().__init__(f"{outcome.code} {outcome.enhanced} {outcome.text}")
        self.outcome = outcome
        self.phase = phase
        self.tls_failed = tls_failed


class Session:
    """A connection that is ready for messages. One caller at a time."""

    __slots__ = ("_client", "_connection", "_manner", "is_stale", "sent", "target")

    _connection: Connection

    def __init__(self, target: Target, manner: Manner) -> None:
        self.target = target
        self._manner = manner
        self._client = Client(manner.hello_name, secure=manner.implicit_tls)
        self.sent = 0
        """Transactions, whatever came of them."""
        self.is_stale = False
        """The last transaction met a connection that was left open and is dead: nothing was answered to it, so it may
        be sent again at once by a new connection."""

    @property
    def usable(self) -> bool:
        """Whether a message may follow."""
        return self._client.phase is Phase.READY

    @property
    def offers_dsn(self) -> bool:
        """Whether the server reports by itself what NOTIFY asks for (RFC 3461)."""
        extensions = self._client.extensions
        return extensions is not None and extensions.dsn

    @property
    def tls(self) -> str:
        """Version and cipher, as in "TLSv1.3 TLS_AES_256_GCM_SHA384"; "" in clear."""
        return self._connection.tls

    @classmethod
    async def open(cls, target: Target, manner: Manner) -> Session:
        """Unreachable, where it does not come to that."""
        session = cls(target, manner)
        await session._connect()
        try:
            await session._begin()
        except Unreachable as unreachable:
            log.debug("unreachable host=%s phase=%s reason=%s", target.host, unreachable.phase, unreachable)
            await session.close()
            raise
        except BaseException:
            session.abort()
            raise
        log.debug("connected host=%s address=%s tls=%s", target.host, target.address, session.tls or "none")
        return session

    async def send(self, envelope: Envelope, octets: bytes, may_finish: Callable[[], bool]) -> list[Outcome]:
        """One outcome for each recipient of the envelope, in order.

        may_finish: asked just before the end of the message, without which the server cannot accept it; where it says
        False the connection is dropped, and nothing was delivered. Cancelled, this drops the connection, too.
        """
        recipients = range(len(envelope.recipients))
        if not self.usable:
            self.is_stale = self.sent > 0 and self._is_closed_by_peer
            return [self._broken(self._client.failure) for _ in recipients]
        try:
            result = self._client.transaction(envelope, octets)
        except NotOffered as lacking:
            return [self._not_offered(lacking.reason) for _ in recipients]
        await self._connection.settle(may_finish)
        self.is_stale = self.sent > 0 and result.mail is None and self._is_closed_by_peer
        self.sent += 1
        return [self._outcome(result, index) for index in recipients]

    async def close(self) -> None:
        """QUIT, where that can be said, and waits for the end: the seconds of Phase.QUIT and CLOSE_SECONDS at most."""
        try:
            if self.usable:
                self._client.quit()
                await self._connection.settle()
            elif self._client.phase is not Phase.CLOSED:
                self.abort()
            await self._connection.close()
        except asyncio.CancelledError:
            self.abort()
            raise

    def abort(self) -> None:
        """Drops the connection."""
        self._connection.abort()

    @property
    def _is_closed_by_peer(self) -> bool:
        failure = self._client.failure
        return failure is not None and failure.cause in _CLOSED_BY_PEER

    # Opening ----------------------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        target, manner = self.target, self._manner
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(manner.connect_seconds):
                _, self._connection = await loop.create_connection(
                    lambda: Connection(self._client, manner.timeouts),
                    target.address,
                    target.port,
                    local_addr=manner.source(target.address),
                )
        except OSError as error:  # TimeoutError is one
            reason = os.strerror(error.errno) if error.errno else "no answer came in time"
            outcome = Deferred(0, "4.4.1", f"connection to {target.address} port {target.port}: {reason}", target.host)
            log.debug("unreachable host=%s address=%s reason=%s", target.host, target.address, reason)
            raise Unreachable(outcome, "connection") from None

    async def _begin(self) -> None:
        if self._manner.implicit_tls:
            self._start_tls()
        await self._settle()
        self._check_greeting(self._client.greeting)
        self._client.ehlo()
        await self._settle()
        self._check_hello()
        if self._manner.tls != "never" and not self._manner.implicit_tls:
            await self._secure()
        if self._manner.username:
            await self._log_in()

    def _check_greeting(self, greeting: Reply | None) -> None:
        assert greeting is not None  # without one the session is over
        instance, host = self._manner.instance, self.target.host
        if instance and any(instance in line for line in greeting.lines):
            outcome = Failed(554, "5.4.6", f"Mail loop: {host} ({self.target.address}) is this server")
            raise Unreachable(outcome, Phase.GREETING.value)
        if greeting.code == NEVER_ACCEPTS_MAIL:
            outcome = Failed(greeting.code, greeting.enhanced or "5.3.2", greeting.text, host)
            raise Unreachable(outcome, Phase.GREETING.value)
        if not greeting.is_positive:
            raise self._refused(greeting, Phase.GREETING)

    def _check_hello(self) -> None:
        if self._client.extensions is None:
            assert self._client.reply is not None
            raise self._refused(self._client.reply, Phase.EHLO)

    async def _secure(self) -> None:
        """STARTTLS; in clear where the server has or wants none, and that will do."""
        client = self._client
        try:
            client.starttls()
        except NotOffered as lacking:
            if self._manner.tls == "required":
                raise self._not_secure(f"TLS is required, and {lacking}") from None
            return
        may_go_without = self._manner.tls == "opportunistic"
        await self._settle(tls_failed=may_go_without)
        if client.phase is Phase.TLS:
            self._start_tls()
            await self._settle(tls_failed=may_go_without)
            self._check_hello()
        elif not may_go_without:
            assert client.reply is not None
            raise self._not_secure(f"TLS is required, and refused: {client.reply.code} {client.reply.text}")

    def _start_tls(self) -> None:
        """The name is said to the server (SNI), unless it is an address."""
        name = self.target.address if _is_literal(self.target.host) else self.target.host
        self._connection.start_tls(tls_context(self._manner.verify), name)

    async def _log_in(self) -> None:
        """Refused it is a matter of our settings, which may be corrected."""
        try:
            self._client.auth(self._manner.username, self._manner.password.reveal())
        except NotOffered as lacking:
            outcome = Deferred(0, "4.7.4", f"{Phase.AUTH.value}: {lacking}", self.target.host)
            raise Unreachable(outcome, Phase.AUTH.value) from None
        await self._settle()
        reply = self._client.reply
        assert reply is not None
        if not reply.is_positive:
            raise self._refused(reply, Phase.AUTH)

    async def _settle(self, *, tls_failed: bool = False) -> None:
        """Unreachable, where the session does not outlive it."""
        await self._connection.settle()
        failure = self._client.failure
        if failure is None:
            return
        if self._connection.is_shaking_hands:
            failure = failure._replace(phase=Phase.TLS)
        if failure.reply is not None and failure.cause is Cause.SERVICE_CLOSING:
            raise self._refused(failure.reply, failure.phase, tls_failed=tls_failed)
        raise Unreachable(self._broken(failure), failure.phase.value, tls_failed=tls_failed)

    def _refused(self, reply: Reply, phase: Phase, *, tls_failed: bool = False) -> Unreachable:
        """A refusal of the connection, of either class: another host, or this one later, may do better."""
        outcome = of_reply(reply.code, reply.enhanced, f"{phase.value}: {reply.text}", self.target.host)
        enhanced = f"4{outcome.enhanced[1:]}"
        return Unreachable(
            Deferred(outcome.code, enhanced, outcome.text, outcome.host), phase.value, tls_failed=tls_failed
        )

    def _not_secure(self, text: str) -> Unreachable:
        return Unreachable(Deferred(0, "4.7.4", text, self.target.host), Phase.STARTTLS.value)

    # Outcomes ---------------------------------------------------------------------------------------------------------

    def _outcome(self, result: TransactionResult, index: int) -> Outcome:
        phase, reply = result.verdict(index)
        if reply is None:
            return self._broken(result.failure)
        return of_reply(reply.code, reply.enhanced, reply.text, self.target.host, to_rcpt=phase is Phase.RCPT)

    def _broken(self, failure: Failure | None) -> Deferred:
        """The session ended without an answer."""
        if failure is None:
            return Deferred(0, "4.4.2", "the connection is closed", self.target.host)
        phase, cause, reply, detail = failure
        if phase is Phase.COMMIT:
            phase = Phase.CONTENT
        text = f"{phase.value}: {cause.value}"
        if reply is not None:
            detail = f"{reply.code} {reply.text}"
        if detail:
            text += f" ({detail})"
        if phase is Phase.END:
            return Deferred(0, "4.4.2", f"{text}; the message may have been delivered", self.target.host)
        if phase is Phase.TLS:
            return Deferred(0, "4.7.5", text, self.target.host)
        return Deferred(0, _ENHANCED.get(cause, "4.4.2"), text, self.target.host)

    def _not_offered(self, lack: Lack) -> Failed:
        code, enhanced, text = _LACKING[lack]
        return Failed(code, enhanced, text.format(host=self.target.host), self.target.host)


_CLOSED_BY_PEER = (Cause.SERVICE_CLOSING, Cause.EOF, Cause.CONNECTION_LOST)

_ENHANCED = {
    Cause.BAD_REPLY: "4.5.0",
    Cause.UNEXPECTED_REPLY: "4.5.0",
    Cause.EARLY_REFUSAL: "4.5.0",
    Cause.CLEAR_TEXT: "4.7.5",
    Cause.GIVEN_UP: "4.3.0",
}
"""RFC 3463, for what is not a bad connection (4.4.2)."""

# RFC 6152 §3 leaves the choice between this and a conversion, which would break signatures.
_NO_EIGHT_BIT = (
    "The message has 8-bit content, {host} does not take such (it does not offer 8BITMIME), and messages are not "
    "converted on the way"
)
_NO_SMTPUTF8 = (
    "The message or an address of it is internationalized, and {host} does not take such (it does not offer SMTPUTF8)"
)
_TOO_LARGE = "The message is larger than {host} takes (by the SIZE that it offers)"
_LACKING = {
    Lack.EIGHT_BIT: (550, "5.6.3", _NO_EIGHT_BIT),
    Lack.SMTPUTF8: (550, "5.6.7", _NO_SMTPUTF8),
    Lack.SIZE: (552, "5.3.4", _TOO_LARGE),
}


def _is_literal(host: str) -> bool:
    if host.startswith("["):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
