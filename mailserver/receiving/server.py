"""The SMTP server: what each command does (RFC 5321), on the machine of dialogue.py.

aiosmtpd's smtp_AUTH and challenge_auth are used as they are; the other commands are our own, because they answer with
enhanced codes (RFC 2034), read messages in bulk, and know PIPELINING and CHUNKING. STARTTLS is the connection's
matter; what the client has sent in clear behind it is dropped, and all that was known of the client is forgotten (RFC
3207 §4.2).

EHLO says what is true at that moment: STARTTLS before TLS only, AUTH where a login would be taken. BINARYMIME is not
offered, and refused.
"""

# The names of commands are aiosmtpd's:
# ruff: noqa: N802

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from aiosmtpd.smtp import MISSING, SMTP, AuthResult, _AuthMechAttr

from mailserver.net.connection import Connection
from mailserver.net.limits import is_loopback
from mailserver.net.tls import CertificateError
from mailserver.protocols import sasl
from mailserver.protocols.smtp import parse, replies
from mailserver.protocols.smtp.data import ChunkedBody, DataBody
from mailserver.protocols.smtp.replies import Refused, Reply
from mailserver.receiving.dialogue import MAX_LINE, Dialogue
from mailserver.receiving.session import Policy, Receiving, Session, Transaction
from mailserver.receiving.stepping import in_task

log = logging.getLogger(__name__)

MAX_COMMAND = 4096
"""RFC 5321 §4.5.3.1.4 asks for 512, and every extension adds some."""

# The blanks are possessive: with those that could be given back, a line of them would cost the square of its length.
_LINE = re.compile(rb"([^\x00-\x20\x7f]++)(?: ++(?:([^\x00-\x1f\x7f]*[^\x00-\x20\x7f]) *)?)?\r\n")
_BDAT = re.compile(rb"[\x00-\x20]*BDAT(?![!-~])", re.IGNORECASE)
_AUTH = re.compile(rb"[\x00-\x20]*AUTH", re.IGNORECASE)
_CODED = re.compile(r"\d{3} (\d\.\d{1,3}\.\d{1,3}) (.*)", re.DOTALL)
_CODE_FOR = {"500": "5.5.1", "501": "5.5.4", "503": "5.5.1"}


class SmtpConnection(Connection):
    """A socket and the dialogue on it. tls: from the first octet on."""

    __slots__ = ("_policy", "_receiving", "smtp")

    # Replies are short: who has so many of them unread gets no more.
    high_water = 32 * 1024
    low_water = 8 * 1024

    smtp: SmtpServer

    def __init__(self, receiving: Receiving, policy: Policy, *, tls: bool = False) -> None:
        super().__init__(receiving.deadlines, receiving.certificates.server_context() if tls else None)
        self._receiving = receiving
        self._policy = policy

    def admit(self) -> bytes | None:
        if self._receiving.connections.admit(self.peer[0]):
            return None
        log.info("too many connections by=%s peer=%s", self._policy.name, self.peer[0])
        return replies.TOO_MANY_CONNECTIONS.octets

    def opened(self) -> None:
        self.smtp = SmtpServer(self, self._receiving, self._policy)
        self.smtp.greet()

    def received(self, data: bytes) -> None:
        self.smtp.received(data)

    def secured(self) -> None:
        self.smtp.secured()

    def eof(self) -> None:
        self.smtp.ended()

    def writable(self) -> None:
        self.smtp.work()

    def timed_out(self) -> None:
        self.smtp.timed_out()

    def stopping(self) -> None:
        self.smtp.leave(replies.SHUTTING_DOWN)

    def cut_short(self) -> None:
        self.smtp.cut_short(replies.SHUTTING_DOWN)

    def lost(self) -> None:
        self._receiving.connections.release(self.peer[0])
        if hasattr(self, "smtp"):  # the handshake may have failed
            self.smtp.lost()
            del self.smtp  # the two hold each other


class SmtpServer(Dialogue):
    """One dialogue."""

    transaction: Transaction | None = None
    _chunks: ChunkedBody | None = None
    _last_chunk = False
    _held = 0
    _secrets_may_come = False  # a client may send a password although AUTH was refused

    def __init__(self, connection: Connection, receiving: Receiving, policy: Policy) -> None:
        if not receiving.prepared:
            receiving.prepared.update(_prepare(receiving))
        super().__init__(connection, receiving, policy)
        self._forget_peer()

    def greet(self) -> None:
        self.connection.write(self.receiving.greeting)
        self._set_deadline()

    def secured(self) -> None:
        """TLS is up: the dialogue begins anew, without another greeting."""
        self._forget_peer()
        self._waiting_since = self._deadlines.now
        self._set_deadline()

    def end(self, reason: str) -> None:
        """The account may not go on (net/sessions.py). A message that has been received whole is still answered."""
        log.info("session ended peer=%s reason=%s", self.session.peer, reason)
        self._log_out()
        self._body = None
        self.leave(replies.SESSION_ENDED)

    def lost(self) -> None:
        """What runs goes on to its end: a message whose COMMIT is under way is not called back, and is still held."""
        self._hand_over(ConnectionResetError())
        if self._running is None:
            self._release()
        else:
            self._running.add_done_callback(lambda _: self._release())
        self._log_out()

    def _command(self, line: bytes) -> None:
        self._commands += 1
        self._command_line = line
        if self._commands > self.receiving.smtp.max_commands:
            self._say(replies.TOO_MANY_COMMANDS)
            self._close()
            return
        try:
            method, argument = _parse(line)
        except Refused as refused:
            self._refuse_line(line, refused.reply)
        else:
            self._step(method(self, argument))

    def _refuse_line(self, line: bytes, reply: Reply) -> None:
        if self._secrets_may_come or _AUTH.match(line):
            self._command_line = b"?"  # the log learns no passwords
        if _BDAT.match(line):
            # A chunk may follow, and nobody knows how long it is.
            self._say(replies.BAD_CHUNK)
            self._close()
        else:
            self._say(reply)

    async def push(self, status: str | bytes) -> None:
        """A reply of aiosmtpd's own, with the enhanced code that some of them lack."""
        text = status if isinstance(status, str) else status.decode("ascii")
        if text.startswith("334 "):
            self._send(f"{text}\r\n".encode("ascii"))  # the blank stays, whatever follows (RFC 4954 §4)
            return
        coded = _CODED.match(text)
        if coded:
            self._say(Reply(int(text[:3]), coded[1], coded[2]))
        else:
            self._say(Reply(int(text[:3]), _CODE_FOR.get(text[:3], ""), text[4:]))

    # The peer and its transaction -------------------------------------------------------------------------------------

    def _forget_peer(self) -> None:
        self._log_out()
        self.session = Session(self.loop, self.connection.peer[0])
        if self.connection.secure:
            self.session.tls = f"{self.connection.tls_version} {self.connection.tls_cipher}"
        self._tls_protocol = self.connection if self.session.tls else None  # type: ignore[assignment]
        self._auth_require_tls = not (
            self.receiving.config.server.insecure_loopback_auth and is_loopback(self.connection.peer[0])
        )
        self._end_transaction()

    def _log_out(self) -> None:
        if self.session is not None and self.session.account is not None:
            self.receiving.sessions.remove(self.session.account.account_id, self)

    @property
    def _login_possible(self) -> bool:
        return self.policy.login and (self.session.tls is not None or not self._auth_require_tls)

    def _end_transaction(self) -> None:
        """Also what RSET, EHLO and HELO do (RFC 5321 §4.1.1.5, §4.1.4)."""
        self.transaction = self._chunks = None
        if self._held:
            self._release()

    async def check_helo_needed(self, helo: str = "EHLO") -> bool:
        """For aiosmtpd's smtp_AUTH."""
        if self.session.host_name:
            return False
        self._say(replies.BAD_SEQUENCE.saying(f"Send {helo} first"))
        return True

    # Commands ---------------------------------------------------------------------------------------------------------

    async def smtp_HELO(self, hostname: str | None) -> None:
        if self._hello(hostname, extended=False):
            self._send(f"250 {self.receiving.hostname}\r\n".encode("ascii"))

    async def smtp_EHLO(self, hostname: str | None) -> None:
        if not self._hello(hostname, extended=True):
            return
        lines = [self.receiving.hostname, "PIPELINING", f"SIZE {self.receiving.bounds.message_octets}"]
        if not self.session.tls:
            lines.append("STARTTLS")
        if self._login_possible:
            lines.append("AUTH " + " ".join(sasl.MECHANISMS))
        lines += ["ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "DSN"]
        self._send(("".join([f"250-{line}\r\n" for line in lines]) + "250 CHUNKING\r\n").encode("ascii"))

    def _hello(self, hostname: str | None, *, extended: bool) -> bool:
        if not hostname or len(hostname) > parse.MAX_DOMAIN_OCTETS or " " in hostname:
            self._say(replies.SYNTAX.saying("Say the name of your host"))
            return False
        self._end_transaction()
        self.session.host_name = hostname
        self.session.extended_smtp = extended
        return True

    async def smtp_MAIL(self, arg: str | None) -> None:
        if not self.session.host_name:
            raise Refused(replies.BAD_SEQUENCE.saying("Send EHLO first"))
        if self.policy.login and self.session.account is None:
            raise Refused(replies.LOGIN_NEEDED if self._login_possible else replies.TLS_NEEDED)
        if self.transaction is not None or self._chunks is not None:
            raise Refused(replies.BAD_SEQUENCE.saying("A transaction is under way; RSET ends it"))
        transaction = Transaction(self.receiving, self.policy, self.session)
        await transaction.mail(parse.mail(arg or "", login_offered=self.policy.login, dsn_offered=True))
        self.transaction = transaction
        self._send(replies.SENDER_OK.octets)

    async def smtp_RCPT(self, arg: str | None) -> None:
        transaction = self.transaction
        if transaction is None or self._chunks is not None:
            raise Refused(replies.BAD_SEQUENCE.saying("RCPT follows MAIL"))
        await transaction.rcpt(parse.rcpt(arg or "", smtputf8=transaction.smtputf8, dsn_offered=True))
        self._send(replies.RECIPIENT_OK.octets)

    async def smtp_DATA(self, arg: str | None) -> None:
        if arg:
            raise Refused(replies.SYNTAX.saying("DATA takes no parameters"))
        self._check_ready_for_message()
        if self._chunks is not None:
            raise Refused(replies.BAD_SEQUENCE.saying("DATA and BDAT do not mix"))
        self._receive(DataBody(self.receiving.bounds))
        self._send(replies.SEND_DATA.octets)

    async def smtp_BDAT(self, arg: str | None) -> None:
        """RFC 3030 §2. The octets of the chunk follow, whatever we think of the command."""
        chunk, right = parse.bdat(arg or "")
        if chunk is None:
            self._say(replies.BAD_CHUNK)
            self._close()
            return
        body = self._chunks = self._chunks or ChunkedBody(self.receiving.bounds)
        self._last_chunk = chunk.last
        try:
            if not right:
                raise Refused(replies.SYNTAX.saying("Syntax: BDAT size [LAST]"))
            self._check_ready_for_message()
        except Refused as refused:
            body.refuse(refused.reply)
        body.begin(chunk.size)
        self._receive(body)
        if not chunk.size:
            self._read_body(b"")

    async def smtp_RSET(self, arg: str | None) -> None:
        if arg:
            raise Refused(replies.SYNTAX.saying("RSET takes no parameters"))
        self._end_transaction()
        self._send(replies.OK.octets)

    async def smtp_NOOP(self, arg: str | None) -> None:
        self._send(replies.OK.octets)

    async def smtp_QUIT(self, arg: str | None) -> None:
        if arg:
            raise Refused(replies.SYNTAX.saying("QUIT takes no parameters"))
        self._send(replies.BYE.octets)
        self._flush()
        self.connection.close(linger=bool(self._input))

    async def smtp_VRFY(self, arg: str | None) -> None:
        """Tells nothing (RFC 5321 §3.5.3, §7.3)."""
        if not arg:
            raise Refused(replies.SYNTAX.saying("Syntax: VRFY address"))
        self._send(replies.WILL_TRY.octets)

    async def smtp_EXPN(self, arg: str | None) -> None:
        raise Refused(replies.NOT_HERE)

    async def smtp_HELP(self, arg: str | None) -> None:
        names = sorted(name.decode() for name in _COMMANDS if name != b"AUTH" or self.policy.login)
        self._send(Reply(214, "2.0.0", f"Commands: {' '.join(names)}\nThey are explained in RFC 5321").octets)

    async def smtp_STARTTLS(self, arg: str | None) -> None:
        if arg:
            raise Refused(replies.SYNTAX.saying("STARTTLS takes no parameters"))
        if self.session.tls:
            raise Refused(replies.BAD_SEQUENCE.saying("TLS is active"))
        try:
            context = self.receiving.certificates.server_context()
        except CertificateError as error:
            log.warning("no TLS: %s", error)
            raise Refused(replies.TLS_UNAVAILABLE) from None
        # Whatever stands behind STARTTLS came in clear, from anyone: forget it (RFC 3207 §4.2).
        self._input.clear()
        self._send(replies.READY_FOR_TLS.octets)
        self._flush()
        self.connection.start_tls(context)

    # Login ------------------------------------------------------------------------------------------------------------

    async def smtp_AUTH(self, arg: str | None) -> None:
        self._command_line = b"AUTH"
        self._secrets_may_come = True
        if not self.policy.login:
            raise Refused(replies.NOT_HERE)
        if arg and not arg.isascii():
            raise Refused(replies.SYNTAX)
        if self.transaction is not None:
            raise Refused(replies.BAD_SEQUENCE.saying("AUTH is not allowed in a transaction"))  # RFC 4954 §4
        mechanism, _, rest = (arg or "").partition(" ")
        await super().smtp_AUTH(f"{mechanism.upper()} {rest}".strip())

    async def log_in(self, mechanism: str, initial: str | None) -> AuthResult:
        """One exchange of a mechanism. A refusal has been answered when this returns, or is raised."""
        exchange = sasl.MECHANISMS[mechanism]()
        try:
            step = exchange.step(sasl.decode_initial(None if initial is None else initial.encode()))
            while isinstance(step, sasl.Challenge):
                response = await self.challenge_auth(step.octets)
                if response is MISSING:
                    return AuthResult(success=False)
                assert isinstance(response, bytes)
                step = exchange.step(response)
        except sasl.SaslError:
            raise Refused(replies.BAD_BASE64) from None
        if step.authorize_as not in ("", step.name):
            raise Refused(replies.LOGIN_FAILED)
        await self._check_password(step)
        return AuthResult(success=True)

    async def _check_password(self, credentials: sasl.Credentials) -> None:
        await in_task()
        sessions = self.receiving.sessions
        mark = sessions.mark()
        account = await self.receiving.logins.check(
            credentials.name, credentials.password, peer=self.connection.peer[0], service=self.policy.name
        )
        if self.connection.is_closing:
            raise ConnectionResetError
        if not sessions.add(account.account_id, self, since=mark):
            raise Refused(replies.LOGIN_FAILED)
        self.session.account = account

    # Messages ---------------------------------------------------------------------------------------------------------

    def _check_ready_for_message(self) -> None:
        transaction = self.transaction
        if transaction is None or not transaction.recipients:
            if transaction is not None and transaction.refused_recipients:
                raise Refused(replies.NO_VALID_RECIPIENTS)
            raise Refused(replies.BAD_SEQUENCE.saying("MAIL and RCPT come first"))
        if not self.receiving.memory.has_room(max(transaction.size, 1) - self._held):
            raise Refused(replies.OUT_OF_MEMORY)

    def _receive(self, body: DataBody | ChunkedBody) -> None:
        self._body = body
        self._body_by = self._deadlines.now + self.receiving.smtp.data_timeout_seconds
        self._set_deadline()

    def _read_body(self, data: bytes) -> None:
        body = self._body
        assert body is not None
        rest = body.feed(data)
        self._hold(body)
        if rest is None:
            return
        self._body = None
        self._waiting_since = self._deadlines.now
        self._input += rest
        if isinstance(body, ChunkedBody):
            self._end_of_chunk(body)
        else:
            self._run(self._end_of_message(body))

    def _end_of_chunk(self, body: ChunkedBody) -> None:
        if body.fault is not None:
            # The transaction has failed; chunks that still come find none (RFC 3030 §2).
            self._end_transaction()
            self._say(body.fault)
        elif self._last_chunk:
            body.finish()
            self._run(self._end_of_message(body))
        else:
            self._send(replies.OK.saying(f"{body.received} octets received").octets)

    async def _end_of_message(self, body: DataBody | ChunkedBody) -> None:
        transaction = self.transaction
        assert transaction is not None
        try:
            message = body.message()
            if isinstance(message, Reply):
                raise Refused(message)
            trace_id = await transaction.commit(message)
        finally:
            self._end_transaction()
        self._send(f"250 2.0.0 OK {trace_id}\r\n".encode("ascii"))

    def _hold(self, body: DataBody | ChunkedBody) -> None:
        """Counts what is held against the worker's budget for messages being received."""
        memory = self.receiving.memory
        memory.used += body.held - self._held
        self._held = body.held
        if memory.used > memory.limit:
            body.refuse(replies.OUT_OF_MEMORY)
            self._release()

    def _release(self) -> None:
        self.receiving.memory.used -= self._held
        self._held = 0


def _prepare(receiving: Receiving) -> dict[str, Any]:
    """The state that aiosmtpd's own constructor gives; what is bound to that instance is left out or replaced."""
    instance = SMTP(
        object(),
        data_size_limit=receiving.bounds.message_octets,
        enable_SMTPUTF8=True,
        hostname=receiving.hostname,
        loop=receiving.loop,
    )
    state = dict(vars(instance))
    for name in ("_client_connected_cb", "_closed", "_smtp_methods", "_source_traceback", "_stream_reader_wr"):
        state.pop(name, None)
    state["_auth_methods"] = {name: _AuthMechAttr(_mechanism(name), True) for name in sasl.MECHANISMS}
    return state


def _parse(line: bytes) -> tuple[Command, str | None]:
    """The command of a line and its argument."""
    parsed = _LINE.fullmatch(line) if len(line) <= MAX_LINE else None
    if parsed is None:
        raise Refused(replies.BAD_LINE if len(line) <= MAX_LINE else replies.LINE_TOO_LONG)
    verb, argument = parsed.groups()
    method = _COMMANDS.get(verb.upper())
    if method is None:
        raise Refused(replies.UNKNOWN_COMMAND)
    if len(line) > MAX_COMMAND and method is not SmtpServer.smtp_AUTH:
        raise Refused(replies.LINE_TOO_LONG)
    try:
        return method, argument.decode() if argument else None
    except UnicodeDecodeError:
        raise Refused(replies.BAD_LINE) from None


def _mechanism(name: str) -> Callable[[SMTP, list[str]], Awaitable[AuthResult]]:
    """What aiosmtpd's smtp_AUTH calls, with the server of the connection at hand."""

    async def mechanism(server: SMTP, args: list[str]) -> AuthResult:
        assert isinstance(server, SmtpServer)
        return await server.log_in(name, args[1] if len(args) > 1 else None)

    return mechanism


Command = Callable[[SmtpServer, str | None], Coroutine[Any, Any, None]]

_COMMANDS: Final[dict[bytes, Command]] = {
    name.removeprefix("smtp_").encode(): getattr(SmtpServer, name)
    for name in dir(SmtpServer)
    if name.startswith("smtp_")
}
