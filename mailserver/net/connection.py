"""One accepted connection: a slotted object without a task, which calls its subclass when something happens.

A subclass fills in hooks, all plain methods that must not block:

    admit()          at accept, before TLS: None lets the client in; octets turn it away (sent in clear, then closed)
    opened()         ready to talk, after the handshake where TLS begins at accept: greet now
    received(data)   octets from the peer, decrypted; bytes that the receiver may keep
    secured()        the handshake after start_tls() is done
    eof()            the peer sends no more; it may still read. Default: close
    writable()       the output buffer has drained after `blocked` was true
    timed_out()      `deadline` has passed (see deadlines.py). Default: close
    stopping()       the server stops; say goodbye and close when no command is running. Default: close
    cut_short()      that takes too long; close at once, with a word where it can still be said. Default: abort
    lost()           the connection is gone; called exactly once for each connection that admit() let in

An exception that leaves a hook is a bug: it is logged and the connection is dropped; the loop never sees it.

Input. The loop receives into a buffer of its own and hands over just the octets that came, so an idle connection owns
no memory for input. (asyncio.BufferedProtocol with one shared buffer would do the same, but costs uvloop two more
calls a read and 0.3 KiB more a connection.) After pause() nothing more is read from the socket; what had been read
already has been handed on.

Output. write() never blocks. Above `high_water` octets unsent `blocked` is true: who produces a lot awaits drain(), who
has no task returns and goes on in writable(). A subclass that ignores both is dropped at MAX_BACKLOG octets, so the
buffer is bounded whatever the peer does.

TLS is a MemoryBIO pair over the plain transport, the same for TLS at accept and for STARTTLS. Memory BIOs never shrink:
input is fed in pieces of FEED octets and output leaves record by record, which keeps an idle TLS connection small.
start_tls() is called after the clear answer was written. Whatever the peer sent in clear behind its command came from
anyone: what the subclass still holds of it must be dropped by the subclass (RFC 3207 §4.2), what is still in the socket
is no handshake and ends the connection. TLS answers some things by itself (a key update, a renegotiation that is
refused); a peer that asks for that and says nothing else is dropped at MAX_CHATTER octets of such answers.

The end. close() sends what was written (close_notify under TLS, RFC 8446 §6.1) and closes; close(linger=True) sends it,
shuts the sending side and reads on for a moment without looking, so that the last reply is not destroyed by a reset on
unread input. Both have a deadline of their own, then abort().
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from mailserver.net.deadlines import Deadlines

log = logging.getLogger(__name__)

HIGH_WATER: Final = 256 * 1024
LOW_WATER: Final = 64 * 1024
MAX_BACKLOG: Final = 64 * 1024 * 1024

FEED: Final = 4096
RECORD: Final = 16384  # plain octets of a TLS record, RFC 8446 §5.1
RECORDS_PER_WRITE: Final = 4
MAX_CHATTER: Final = 4096

HANDSHAKE_SECONDS: Final = 30.0
CLOSE_SECONDS: Final = 10.0
LINGER_SECONDS: Final = 2.0

# The life of a connection.
_HANDSHAKE: Final = 0  # TLS at accept, not talking yet
_OPEN: Final = 1
_CLOSING: Final = 2  # flushing, then closed
_LINGERING: Final = 3  # flushing, sending side shut, input discarded
_LOST: Final = 4

Address = tuple[str, int]


class _Tls:
    __slots__ = ("chatter", "incoming", "outgoing", "ready", "session")

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.ready = False
        self.chatter = 0  # octets that TLS has answered by itself since the peer last said something


class Connection(asyncio.Protocol):
    """See the module's text. `context`: TLS begins at accept."""

    __slots__ = (
        "_deadlines",
        "_ended",
        "_leaving",
        "_local",
        "_paused",
        "_state",
        "_tls",
        "_waiters",
        "blocked",
        "deadline",
        "is_closing",
        "peer",
        "transport",
    )

    high_water = HIGH_WATER
    low_water = LOW_WATER

    transport: asyncio.Transport
    peer: Address

    def __init__(self, deadlines: Deadlines, context: ssl.SSLContext | None = None) -> None:
        self._deadlines = deadlines
        self._tls = None if context is None else _Tls(context)
        self._state = _OPEN if context is None else _HANDSHAKE
        self._paused = False
        self._ended = False
        self._leaving = False
        self._local: Address | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self.blocked = False
        self.is_closing = False  # nothing more can be said
        self.deadline = monotonic() + HANDSHAKE_SECONDS

    # Hooks ------------------------------------------------------------------------------------------------------------

    def admit(self) -> bytes | None:
        return None

    def opened(self) -> None: ...

    def received(self, data: bytes) -> None: ...

    def secured(self) -> None: ...

    def eof(self) -> None:
        self.close()

    def writable(self) -> None: ...

    def timed_out(self) -> None:
        self.close()

    def stopping(self) -> None:
        self.close()

    def cut_short(self) -> None:
        self.abort()

    def lost(self) -> None: ...

    # What a subclass uses ---------------------------------------------------------------------------------------------

    @property
    def local(self) -> Address:
        """Our own address and port."""
        if self._local is None:
            self._local = _address(self.transport.get_extra_info("sockname"))
        return self._local

    @property
    def secure(self) -> bool:
        """Is what is said now protected by TLS?"""
        return self._tls is not None and self._tls.ready

    @property
    def tls_version(self) -> str | None:
        return None if self._tls is None else self._tls.session.version()

    @property
    def tls_cipher(self) -> str | None:
        cipher = None if self._tls is None else self._tls.session.cipher()
        return None if cipher is None else cipher[0]

    def allow(self, seconds: float) -> None:
        """Sets the deadline to so many seconds from now."""
        self.deadline = monotonic() + seconds

    def write(self, data: bytes) -> None:
        """Sends, in order; drops the data where the connection is closing."""
        if self.is_closing or not data:
            return
        if self._tls is None:
            self.transport.write(data)
        elif self._tls.ready:
            self._encrypt(data)
        if self.blocked and self.transport.get_write_buffer_size() > MAX_BACKLOG:
            log.warning("dropped a connection that does not read peer=%s", self.peer[0])
            self.abort()

    async def drain(self) -> None:
        """Waits until the peer has read enough; ConnectionResetError where the connection is gone."""
        if self.is_closing:
            raise ConnectionResetError
        if not self.blocked:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(future)
        await future

    def pause(self) -> None:
        """Reads no more from the peer until resume()."""
        if not self._paused and not self.is_closing:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and self._state != _LOST:
            self._paused = False
            self.transport.resume_reading()

    def start_tls(self, context: ssl.SSLContext) -> None:
        """The next octet of the peer begins the handshake; secured() is called when it is done."""
        if self._tls is None and self._state == _OPEN:
            self._tls = _Tls(context)

    def close(self, *, linger: bool = False) -> None:
        """Sends what was written and closes. Nothing is received any more; lost() still follows."""
        if self.is_closing:
            return
        self._say_close_notify()
        self.deadline = monotonic() + (LINGER_SECONDS if linger else CLOSE_SECONDS)
        if not linger or self._ended:
            self._enter(_CLOSING)
            self.transport.close()
            return
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError, NotImplementedError):
            self._enter(_CLOSING)
            self.transport.close()
            return
        self._enter(_LINGERING)
        self.resume()

    def abort(self) -> None:
        """Drops the connection and what was not sent yet."""
        if self._state != _LOST:
            self._enter(_CLOSING)
            self.transport.abort()

    # What the loop and the deadlines call -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.peer = _address(transport.get_extra_info("peername"))
        self.transport.set_write_buffer_limits(self.high_water, self.low_water)
        try:
            refusal = self.admit()
            if refusal is not None:
                self._turn_away(refusal)
                return
            self._deadlines.add(self)
            if self._state == _OPEN:
                self.opened()
        except Exception:
            self._bug()

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        try:
            if self._tls is None:
                self.received(data)
            else:
                self._decrypt(data)
        except Exception:
            self._bug()

    def eof_received(self) -> bool:
        self._ended = True
        if self.is_closing or (self._tls is not None and not self._tls.ready):
            self.transport.close()
            return True
        try:
            self.eof()
        except Exception:
            self._bug()
        return True

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        self._wake(None)
        if self.is_closing:
            return
        try:
            self.writable()
        except Exception:
            self._bug()

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter(_LOST)
        self._tls = None
        self.blocked = False
        self._wake(ConnectionResetError())
        if not self._deadlines.remove(self):
            return  # never let in
        try:
            self.lost()
        except Exception:
            self._bug()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._state != _OPEN or (self._tls is not None and not self._tls.ready):
            self.abort()
            return
        self.deadline = monotonic() + CLOSE_SECONDS
        try:
            self.timed_out()
        except Exception:
            self._bug()

    def stop(self) -> None:
        """The server stops. A handshake that is under way comes to its end first: before it nothing can be said."""
        self._leaving = True
        if self._state == _OPEN:
            try:
                self.stopping()
            except Exception:
                self._bug()

    def cut_off(self) -> None:
        """The server waits no longer."""
        if self._state != _OPEN:
            self.abort()
            return
        try:
            self.cut_short()
        except Exception:
            self._bug()

    # TLS --------------------------------------------------------------------------------------------------------------

    def _decrypt(self, data: bytes) -> None:
        tls = self._tls
        assert tls is not None
        view = memoryview(data)
        plain: list[bytes] = []
        ended = False
        try:
            for start in range(0, len(data), FEED):
                tls.incoming.write(view[start : start + FEED])
                if not tls.ready and not self._shake_hands(tls):
                    continue
                heard = len(plain)
                ended = _read_all(tls, plain)
                if len(plain) > heard:
                    tls.chatter = 0
                if tls.outgoing.pending:
                    self._answer(tls)
                if ended or self.is_closing:
                    break
        except ssl.SSLError as error:
            self._tls_failed(tls, error)
            return
        if plain and not self.is_closing:
            self.received(plain[0] if len(plain) == 1 else b"".join(plain))
        if ended and not self.is_closing:
            self.eof()

    def _answer(self, tls: _Tls) -> None:
        """What TLS says by itself."""
        answer = tls.outgoing.read()
        tls.chatter += len(answer)
        if tls.chatter > MAX_CHATTER:
            log.info("dropped a connection that talks to TLS only peer=%s", self.peer[0])
            self.abort()
        else:
            self.transport.write(answer)

    def _shake_hands(self, tls: _Tls) -> bool:
        try:
            tls.session.do_handshake()
        except ssl.SSLWantReadError:
            self.transport.write(tls.outgoing.read())
            return False
        if tls.outgoing.pending:
            self.transport.write(tls.outgoing.read())
        tls.ready = True
        if self._state == _HANDSHAKE:
            self._state = _OPEN
            self.opened()
            if self._leaving:
                self.stop()
        else:
            self.secured()
        return not self.is_closing

    def _encrypt(self, data: bytes) -> None:
        tls = self._tls
        assert tls is not None
        view = memoryview(data)
        records: list[bytes] = []
        try:
            for start in range(0, len(data), RECORD):
                tls.session.write(view[start : start + RECORD])
                records.append(tls.outgoing.read())
                if len(records) == RECORDS_PER_WRITE:
                    self.transport.write(b"".join(records))
                    records.clear()
        except ssl.SSLError as error:
            self._tls_failed(tls, error)
            return
        if records:
            self.transport.write(records[0] if len(records) == 1 else b"".join(records))

    def _tls_failed(self, tls: _Tls, error: ssl.SSLError) -> None:
        """The peer gets TLS's own alert, if there is one; then the connection ends."""
        log.info("TLS failed peer=%s reason=%s", self.peer[0], error.reason or error)
        if tls.outgoing.pending:
            self.transport.write(tls.outgoing.read())
        tls.ready = False  # no close_notify after a failure
        if not self.is_closing:
            self._enter(_CLOSING)
            self.deadline = monotonic() + CLOSE_SECONDS
            self.transport.close()

    def _say_close_notify(self) -> None:
        tls = self._tls
        if tls is None or not tls.ready:
            return
        try:
            tls.session.unwrap()
        except ssl.SSLError:
            pass  # SSLWantReadError: ours is written, and we do not wait for the peer's (RFC 8446 §6.1)
        if tls.outgoing.pending:
            self.transport.write(tls.outgoing.read())

    # ------------------------------------------------------------------------------------------------------------------

    def _enter(self, state: int) -> None:
        self._state = state
        self.is_closing = True

    def _turn_away(self, refusal: bytes) -> None:
        if self._state == _OPEN:
            self.transport.write(refusal)
        self._enter(_CLOSING)
        self.transport.close()

    def _wake(self, error: Exception | None) -> None:
        waiters, self._waiters = self._waiters, None
        for future in waiters or ():
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _bug(self) -> None:
        log.exception("fault in a connection peer=%s", getattr(self, "peer", ("?", 0))[0])
        self.abort()


def _read_all(tls: _Tls, plain: list[bytes]) -> bool:
    """Appends what can be decrypted; true at the peer's close_notify."""
    session = tls.session
    try:
        while True:
            data = session.read(RECORD)
            if not data:
                return True
            plain.append(data)
            if not tls.incoming.pending and not session.pending():
                return False
    except ssl.SSLWantReadError:
        return False


def _address(name: object) -> Address:
    """Host and port; an IPv4 address that came through an IPv6 socket is written as IPv4, a zone is cut off."""
    if not isinstance(name, tuple):
        return "", 0
    host = str(name[0])
    if ":" in host:
        host = host.partition("%")[0]
        if host.startswith("::ffff:") and "." in host:
            host = host[7:]
    return host, int(name[1])
