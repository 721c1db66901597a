"""The transport of an outgoing SMTP session: moves the octets of a `protocols.smtp.client.Client`, in clear or by TLS.

Replies are fed and what follows is written right where they come in, in the callbacks of the loop. Who waits for the
client to become idle (`settle`) is woken once, so a message costs one future however many steps it takes.

Deadlines. One timer a connection, which is not touched when its deadline moves on: when it fires too early it is set
again. Each step of the client (`Client.steps`) gets the seconds of its phase, and waiting for the transport to drain is
part of a step.

TLS is a MemoryBIO pair over the plain transport, the same for STARTTLS and from the first octet, and on every loop.

Memory. The client hands out pieces of 64 KiB, none above HIGH_WATER octets unsent; what it reads it bounds by itself.
"""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, cast

from mailserver.protocols.smtp.client import Cause, Client, Phase

log = logging.getLogger(__name__)

HIGH_WATER: Final = 256 * 1024
LOW_WATER: Final = 64 * 1024
FEED: Final = 4096
MAX_CHATTER: Final = 4096
"""Octets that TLS may answer by itself (key updates) while the server says nothing."""
BURST: Final = 16
"""Pieces that are sent in one go, before others get the loop."""
READ: Final = 65_536
RECORD: Final = 16_384  # plain octets of a TLS record, RFC 8446 §5.1
CLOSE_SECONDS: Final = 5.0


@lru_cache(maxsize=2)
def tls_context(verify: bool) -> ssl.SSLContext:
    """TLS 1.2 or later. Without `verify` any certificate will do: encryption, if not authentication (RFC 7435)."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION  # RFC 9325 §3.3, §3.4
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _never() -> bool:
    return False


class _Tls:
    __slots__ = ("chatter", "incoming", "outgoing", "ready", "session")

    def __init__(self, context: ssl.SSLContext, name: str) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.ready = False
        self.chatter = 0


class Connection(asyncio.Protocol):
    """timeouts: seconds for a step in a phase; those that are missing count as no limit."""

    __slots__ = (
        "_client",
        "_deadline",
        "_gone",
        "_loop",
        "_may_finish",
        "_paused",
        "_steps",
        "_timeouts",
        "_timer",
        "_tls",
        "_transport",
        "_waiter",
    )

    _transport: asyncio.Transport

    def __init__(self, client: Client, timeouts: Mapping[Phase, float]) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._timeouts = timeouts
        self._tls: _Tls | None = None
        self._paused = False
        self._steps = -1
        self._may_finish = _never
        self._waiter: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None

    # What the session uses --------------------------------------------------------------------------------------------

    @property
    def is_shaking_hands(self) -> bool:
        """TLS has begun, and is not there yet."""
        return self._tls is not None and not self._tls.ready

    @property
    def tls(self) -> str:
        """Version and cipher, as in "TLSv1.3 TLS_AES_256_GCM_SHA384"; "" in clear."""
        if self._tls is None or not self._tls.ready:
            return ""
        cipher = self._tls.session.cipher()
        return f"{self._tls.session.version()} {cipher[0] if cipher else ''}"

    async def settle(self, may_finish: Callable[[], bool] = _never) -> None:
        """Until the client is idle. may_finish: asked before the last octets of a message; False: the session ends.

        Where this is cancelled the connection is dropped.
        """
        self._may_finish = may_finish
        try:
            self._pump()
            if self._is_busy:
                self._waiter = self._loop.create_future()
                await self._waiter
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            self._waiter = None
            self._may_finish = _never

    def start_tls(self, context: ssl.SSLContext, name: str) -> None:
        """Begins the handshake, with a server of that name or IP address; `settle` waits for its end."""
        self._steps = -1
        try:
            self._tls = _Tls(context, name)
            self._shake_hands(self._tls)
        except (ValueError, ssl.SSLError) as error:  # ValueError: the name is none
            self._end(Cause.CONNECTION_LOST, f"TLS: {error}")

    async def close(self) -> None:
        """Of a session that is over: waits until all that was written is sent and the socket gone; CLOSE_SECONDS."""
        if not self._gone.done():
            self._hang_up()
            await self._gone

    def abort(self) -> None:
        """Drops the connection; who waits for it is woken."""
        self._end(Cause.GIVEN_UP)
        self._transport.abort()

    # What the loop calls ----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(HIGH_WATER, LOW_WATER)

    def data_received(self, data: bytes) -> None:
        if self._client.phase is Phase.CLOSED:
            return
        if self._tls is None:
            self._client.feed(data)
        else:
            self._decrypt(data)
        self._pump()

    def eof_received(self) -> None:
        self._end(Cause.EOF)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._gone.done():
            self._gone.set_result(None)
        self._end(Cause.CONNECTION_LOST, getattr(exc, "strerror", None) or str(exc or ""))

    # The dialogue -----------------------------------------------------------------------------------------------------

    @property
    def _is_busy(self) -> bool:
        client = self._client
        return not client.idle or (self.is_shaking_hands and client.phase is not Phase.CLOSED)

    def _pump(self) -> None:
        """Writes what may be written now, then waits, or wakes who does."""
        client = self._client
        for _ in range(BURST):
            if self._paused or self.is_shaking_hands or self._transport.is_closing():
                break
            if octets := client.data_to_send():
                self._write(octets)
            elif client.phase is Phase.COMMIT:
                self._commit()
            else:
                break
        else:
            self._loop.call_soon(self._pump)
        if self._is_busy:
            if client.steps != self._steps:
                self._steps = client.steps
                phase = Phase.TLS if self.is_shaking_hands else client.phase
                self._allow(self._timeouts.get(phase, math.inf))
            return
        if client.phase is Phase.CLOSED:
            self._hang_up()
        else:
            self._deadline = math.inf
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _commit(self) -> None:
        try:
            may = self._may_finish()
        except Exception:
            log.exception("fault in the question whether a message may be finished")
            may = False
        if may:
            self._client.finish()
        else:
            self._client.give_up(Cause.GIVEN_UP)

    def _end(self, cause: Cause, detail: str = "") -> None:
        if self._client.phase is not Phase.CLOSED:
            self._client.give_up(cause, detail)
            self._pump()

    def _hang_up(self) -> None:
        """Politely after QUIT; after a failure nothing more is to be said."""
        if self._transport.is_closing():
            return
        if self._client.failure is not None:
            self._transport.abort()
            return
        if self._tls is not None and self._tls.ready:
            try:
                self._tls.session.unwrap()
            except ssl.SSLError:
                pass  # ours is written, and we do not wait for the peer's (RFC 8446 §6.1)
            self._flush(self._tls)
        self._allow(CLOSE_SECONDS)
        self._transport.close()

    # Deadlines --------------------------------------------------------------------------------------------------------

    def _allow(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        if self._timer is not None and self._deadline < self._timer.when():
            self._timer.cancel()
            self._timer = None
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is None and self._deadline != math.inf:
            self._timer = self._loop.call_at(self._deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline:
            self._set_timer()
        elif self._transport.is_closing():
            self._transport.abort()
        else:
            self._end(Cause.TIMEOUT)

    # TLS --------------------------------------------------------------------------------------------------------------

    def _write(self, octets: bytes) -> None:
        tls = self._tls
        if tls is None:
            self._transport.write(octets)
            return
        view = memoryview(octets)
        try:
            for start in range(0, len(octets), RECORD):
                tls.session.write(view[start : start + RECORD])
        except ssl.SSLError as error:
            self._tls_failed(tls, error)
        else:
            self._flush(tls)

    def _decrypt(self, data: bytes) -> None:
        tls = self._tls
        assert tls is not None
        view = memoryview(data)
        try:
            for start in range(0, len(data), FEED):
                tls.incoming.write(view[start : start + FEED])
                if tls.ready or self._shake_hands(tls):
                    self._read_all(tls)
                if self._client.phase is Phase.CLOSED:
                    break
        except ssl.SSLError as error:
            self._tls_failed(tls, error)

    def _shake_hands(self, tls: _Tls) -> bool:
        """Goes on with the handshake; is it done?"""
        try:
            tls.session.do_handshake()
        except ssl.SSLWantReadError:
            self._flush(tls)
            return False
        self._flush(tls)
        tls.ready = True
        if self._client.phase is Phase.TLS:
            self._client.tls_started()
        return True

    def _read_all(self, tls: _Tls) -> None:
        """Feeds what can be decrypted."""
        try:
            while self._client.phase is not Phase.CLOSED:
                plain = tls.session.read(READ)
                if not plain:
                    self._end(Cause.EOF)
                    return
                tls.chatter = 0
                self._client.feed(plain)
        except ssl.SSLWantReadError:
            pass
        tls.chatter += tls.outgoing.pending
        if tls.chatter > MAX_CHATTER:
            self._end(Cause.CONNECTION_LOST, "TLS: the server talks of keys only")
        else:
            self._flush(tls)

    def _flush(self, tls: _Tls) -> None:
        if tls.outgoing.pending:
            self._transport.write(tls.outgoing.read())

    def _tls_failed(self, tls: _Tls, error: ssl.SSLError) -> None:
        """The peer gets TLS's own alert, if there is one; then the connection ends."""
        self._flush(tls)
        self._transport.close()
        self._allow(CLOSE_SECONDS)
        reason = getattr(error, "verify_message", "") or error.reason or type(error).__name__
        self._client.give_up(Cause.CONNECTION_LOST, f"TLS: {reason}")
