"""An SMTP session as the client sees it (RFC 5321): replies in, commands and messages out, without I/O.

The driver starts one thing at a time, moves octets until the client is idle again, and then looks at what came of it:
at `reply`, at `extensions`, at the result of a transaction. The greeting is what a session begins with.

    async def settle(client):
        steps = -1
        while not client.idle:
            if client.steps != steps:                       # one wait, however slowly the octets of a reply drip
                steps, deadline = client.steps, now() + TIMEOUTS[client.phase]
            async with timeout_at(deadline):
                if octets := client.data_to_send():
                    await write_and_drain(octets)
                elif client.phase is Phase.COMMIT:
                    client.finish() if lease.has_margin() else client.give_up(Cause.GIVEN_UP)
                elif received := await read():
                    client.feed(received)
                else:
                    client.eof()

    await settle(client)                                    # the greeting
    client.ehlo()
    await settle(client)
    result = client.transaction(envelope, octets)
    await settle(client)
    result.verdict(0)                                       # of the first recipient: a reply, and to what

Nothing that a server does raises out of `feed`. What ends a session too early is its `failure`, and says in which phase
it came; a transaction that it cut short keeps the replies that came before. Replies are matched with what was asked by
counting (RFC 2920 §3.1), and one that nobody asked for ends the session, as 421 does at any moment (RFC 5321 §3.8).

A message is handed out in pieces of about 64 KiB, so a driver that waits after each for its transport to drain holds
little, whatever the size. The last piece, without which the server cannot accept the message, waits for `finish`:
between Phase.COMMIT and that call the driver makes sure that the message is still its to send.

Each dialogue with the server is a generator: it says commands, yields what it waits for, and is sent the reply.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from mailserver.protocols.smtp.extensions import Extensions
from mailserver.protocols.smtp.reply import BadReply, Reply, ReplyReader

PIECE = 65_536
CHUNK = 1 << 20
"""Octets of a BDAT chunk (RFC 3030 §2). A smaller message is one chunk."""
WINDOW = 2
"""Chunks whose replies are missing while the next one is sent, where PIPELINING is offered."""
GROUP = 100
"""Commands that are sent together where PIPELINING is offered: their replies fit into any buffer on the way."""
MAX_COMMAND = 510  # RFC 5321 §4.5.3.1.4, without the line's end


class Phase(Enum):
    """What is being waited for; the value says it in words."""

    GREETING = "greeting"
    EHLO = "EHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    TLS = "TLS handshake"
    """The driver's turn: wrap the transport and call `tls_started`."""
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    CONTENT = "message content"
    """Octets of the message are to be sent, or the reply to a chunk that is not the last one is to come."""
    COMMIT = "commit"
    """The driver's turn: call `finish`, or `give_up`."""
    END = "end of message"
    """The reply that decides. A session that fails here may have delivered the message."""
    RSET = "RSET"
    QUIT = "QUIT"
    READY = "next command"
    CLOSED = "closed"


TIMEOUTS: Mapping[Phase, float] = MappingProxyType(
    {
        Phase.GREETING: 300.0,
        Phase.EHLO: 300.0,
        Phase.HELO: 300.0,
        Phase.STARTTLS: 300.0,
        Phase.TLS: 300.0,
        Phase.AUTH: 300.0,
        Phase.MAIL: 300.0,
        Phase.RCPT: 300.0,
        Phase.DATA: 120.0,
        Phase.CONTENT: 180.0,
        Phase.COMMIT: 180.0,
        Phase.END: 600.0,
        Phase.RSET: 300.0,
        Phase.QUIT: 10.0,
    }
)
"""Seconds for a step in a phase (RFC 5321 §4.5.3.2), from the one before. Nobody needs to wait long after QUIT."""

_IDLE = frozenset((Phase.READY, Phase.TLS, Phase.CLOSED))
_SENDING = frozenset((Phase.CONTENT, Phase.COMMIT, Phase.END))
_GOOD = {Phase.DATA: (3,), Phase.AUTH: (2, 3), Phase.QUIT: (2, 3)}
_NO_EHLO = frozenset((500, 501, 502, 504, 550))
"""RFC 5321 §3.2, §4.1.4: what a server says to EHLO that may yet understand HELO."""


class Cause(Enum):
    """Why a session ended before its time, in words."""

    SERVICE_CLOSING = "the server closed the session"  # by 421
    EOF = "the connection was closed without a reply"
    CONNECTION_LOST = "the connection was lost"
    TIMEOUT = "no reply came in time"
    BAD_REPLY = "what came is no SMTP reply"
    UNEXPECTED_REPLY = "the reply is none to what was asked"
    EARLY_REFUSAL = "the message was refused before all of it was sent"
    CLEAR_TEXT = "octets in clear came behind the reply to STARTTLS"
    GIVEN_UP = "the client gave up"


class Failure(NamedTuple):
    """phase: what was waited for. reply: the one that ended the session, where one did. detail: more, or ""."""

    phase: Phase
    cause: Cause
    reply: Reply | None = None
    detail: str = ""


class Lack(Enum):
    """What a server does not offer, in words."""

    EIGHT_BIT = "8-bit messages (8BITMIME)"
    SMTPUTF8 = "internationalized mail (SMTPUTF8)"
    SIZE = "messages of this size"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH PLAIN or LOGIN"


class NotOffered(Exception):
    """The server does not offer what is needed; nothing was said, and the session goes on."""

    def __init__(self, reason: Lack) -> None:
        super().__init__(f"the server does not take {reason.value}")
        self.reason = reason


# Envelopes

_BAD = r"\x00-\x1f\x7f\ud800-\udfff"
_ADDRESS = re.compile(rf'(?:"(?:[^{_BAD}"\\]|\\[^{_BAD}])*"|[^{_BAD} <>"]+)@[^{_BAD} <>"]+')
_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+"
_ENVID = re.compile(_XTEXT)
_ORCPT = re.compile(rf"[!-*,-:<>-~]+;{_XTEXT}")
_NOTIFY = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}")
_HELLO = re.compile(r"[A-Za-z0-9.:_-]+|\[[A-Za-z0-9.:]+\]")


@dataclass(frozen=True, slots=True)
class Recipient:
    """address: with a domain, or `postmaster`. notify, orcpt: the values of RFC 3461 as they are said, "" for none.

    ValueError where a value would not be one argument on the wire.
    """

    address: str
    notify: str = ""
    orcpt: str = ""

    def __post_init__(self) -> None:
        if self.address.lower() != "postmaster":
            _check(_ADDRESS, self.address)
        _check(_NOTIFY, self.notify or "NEVER")
        _check(_ORCPT, self.orcpt or "rfc822;x")


@dataclass(frozen=True, slots=True)
class Envelope:
    """reverse_path: "" is the null one. body: as the sender declared it, "7BIT" or "8BITMIME".

    smtputf8: the message is internationalized (RFC 6531 §3.4); that an address is, shows. ret, envid: the values of RFC
    3461 as they are said, "" for none.
    ValueError where a value would not be one argument on the wire.
    """

    reverse_path: str
    recipients: tuple[Recipient, ...]
    body: str = "7BIT"
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""

    def __post_init__(self) -> None:
        if self.reverse_path:
            _check(_ADDRESS, self.reverse_path)
        _check(_ENVID, self.envid or "x")
        if not self.recipients or self.body not in ("7BIT", "8BITMIME") or self.ret not in ("", "FULL", "HDRS"):
            raise ValueError("an envelope has recipients, BODY is 7BIT or 8BITMIME, RET is FULL or HDRS")

    @property
    def needs_smtputf8(self) -> bool:
        paths = (self.reverse_path, *(recipient.address for recipient in self.recipients))
        return self.smtputf8 or not all(map(str.isascii, paths))


def _check(pattern: re.Pattern[str], text: str) -> None:
    if not pattern.fullmatch(text):
        raise ValueError(f"not an argument of SMTP: {text!r}")


# Results


class Verdict(NamedTuple):
    """What became of a recipient: the reply that decides, None where none came, and the phase."""

    phase: Phase
    reply: Reply | None

    @property
    def is_delivered(self) -> bool:
        """Whether the server has taken the message for the recipient."""
        return self.phase is Phase.END and self.reply is not None and self.reply.is_positive


@dataclass(slots=True)
class TransactionResult:
    """The replies of a transaction: filled as they come, complete once the client is idle.

    recipients: one for each RCPT that was answered, in their order. data: that to the message, or to DATA where it was
    refused there; data_phase says which. failure: what cut the transaction short.
    """

    mail: Reply | None = None
    recipients: list[Reply] = field(default_factory=list)
    data: Reply | None = None
    data_phase: Phase = Phase.DATA
    failure: Failure | None = None

    def verdict(self, index: int) -> Verdict:
        """That of a recipient, by its place in the envelope.

        Where the session failed before one came it has the 421, if that was how, and the phase; by RFC 5321 §3.8 that
        is as good as a 451.
        """
        if self.mail is not None and not self.mail.is_positive:
            return Verdict(Phase.MAIL, self.mail)
        if index < len(self.recipients) and not self.recipients[index].is_positive:
            return Verdict(Phase.RCPT, self.recipients[index])
        if self.data is not None:
            return Verdict(self.data_phase, self.data)
        if self.failure is not None:
            closing = self.failure.cause is Cause.SERVICE_CLOSING
            return Verdict(self.failure.phase, self.failure.reply if closing else None)
        raise RuntimeError("the transaction is not over")

    @property
    def has_recipients(self) -> bool:
        """Whether the server took the sender and a recipient, and so may be given a message."""
        return self.mail is not None and self.mail.is_positive and any(reply.is_positive for reply in self.recipients)

    def note_recipient(self, reply: Reply) -> None:
        """A 552 for too many recipients becomes the 452 that it should have been (RFC 5321 §4.5.3.1.10).

        For too many it is where others were taken before; a 552 that has another enhanced code, as of a mailbox that is
        full or a message too large for it (RFC 1870 §6.4), is meant.
        """
        if reply.code == 552 and reply.enhanced in ("", "5.5.3") and self.has_recipients:
            reply = Reply(452, tuple(re.sub(r"\A5(?=\.5\.3)", "4", line) for line in reply.lines))
        self.recipients.append(reply)


# The session

Dialogue = Generator[Phase, Reply, None]


class Client:
    """A session that begins with the server's greeting.

    hello_name: how the client names itself, a domain or an address literal. secure: the connection began with TLS.
    Calls that the phase does not allow raise RuntimeError.
    """

    def __init__(self, hello_name: str, *, secure: bool = False) -> None:
        _check(_HELLO, hello_name)
        self._hello_name = hello_name
        self._reader = ReplyReader()
        self._out: list[bytes] = []
        self._owed = 1  # replies that are to come
        self._open = False  # the server may hold a transaction that did not end well
        self._held: _Piece | None = None  # the next of the message
        self._pieces: Iterator[_Piece] = iter(())
        self._in_chunk = False  # some of it was handed out, and the server waits for the rest
        self._result: TransactionResult | None = None
        self.steps = 0
        """Counts replies that came and octets handed out: another number, another wait."""
        self.secure = secure
        self.greeting: Reply | None = None
        self.reply: Reply | None = None
        """The last that came."""
        self.extensions: Extensions | None = None
        """None while EHLO or HELO was not accepted."""
        self.failure: Failure | None = None
        self._waiting = Phase.GREETING
        self._rest = Phase.READY  # where the dialogue leads
        self._dialogue = self._greeting()
        next(self._dialogue)

    # What the driver asks

    @property
    def phase(self) -> Phase:
        if self._held is None:
            return self._waiting
        return Phase.COMMIT if self._held.last and not self._owed else Phase.CONTENT

    @property
    def idle(self) -> bool:
        """Whether nothing is to be sent or to come: READY for more, CLOSED, or TLS, the driver's turn."""
        return self._waiting in _IDLE

    def data_to_send(self) -> bytes:
        """The next octets for the server; empty where a reply has to come first, or `finish`."""
        if self._out:
            self.steps += 1
            data = b"".join(self._out)
            self._out.clear()
            return data
        held = self._held
        if held is None or held.last or self._owed >= self._window:
            return b""
        self._held = next(self._pieces)
        self._in_chunk = not held.ends_chunk
        self._owed += held.ends_chunk
        self.steps += 1
        return held.octets

    # What the driver tells

    def feed(self, data: bytes) -> None:
        """Octets that came. Those that come when the session is over are dropped."""
        if self._waiting is Phase.CLOSED:
            return
        detail = ""
        try:
            replies = self._reader.feed(data)
        except BadReply as bad:
            replies, detail = bad.replies, str(bad)
        for reply in replies:
            self._take(reply)
        if self._waiting is Phase.TLS and (detail or self._reader.pending):
            self.give_up(Cause.CLEAR_TEXT)
        elif detail:
            self.give_up(Cause.BAD_REPLY, detail)

    def eof(self) -> None:
        """The server closed the connection."""
        self.give_up(Cause.EOF)

    def give_up(self, cause: Cause, detail: str = "") -> None:
        """The session is over, because of the driver or the connection; nothing more is to be sent."""
        if self._waiting is not Phase.CLOSED:
            self._close(Failure(self.phase, cause, detail=detail))

    def finish(self) -> None:
        """In Phase.COMMIT: the last piece of the message may go."""
        if self._held is None or self.phase is not Phase.COMMIT:
            raise RuntimeError(f"nothing to finish: {self.phase}")
        self._out.append(self._held.octets)
        self._owed += 1
        self._drop_content()

    def tls_started(self) -> None:
        """The transport is wrapped: what the server said in clear is forgotten, and EHLO is said (RFC 3207 §4.2)."""
        if self._waiting is not Phase.TLS:
            raise RuntimeError(f"not about to start TLS: {self.phase}")
        self.secure = True
        self.extensions = None
        self._reader = ReplyReader()
        self._waiting = Phase.READY
        self.ehlo()

    # What the driver starts, in Phase.READY

    def ehlo(self) -> None:
        """Says EHLO, and HELO if the server does not know that; then there are `extensions`, unless it refuses both."""
        self._start(self._hello())

    def starttls(self) -> None:
        """Leads to Phase.TLS, or back to READY where the server refuses. Raises NotOffered."""
        if self.secure:
            raise RuntimeError("TLS is active already")  # RFC 3207 §4.2
        if not self._offered().starttls:
            raise NotOffered(Lack.STARTTLS)
        self._start(self._starttls())

    def auth(self, name: str, password: str) -> None:
        """Logs in by PLAIN or, where only that is offered, LOGIN; `reply` says whether. Raises NotOffered."""
        if "\0" in name + password:
            raise ValueError("NUL in a name or password")
        offered = self._offered().auth
        words = [name.encode(), password.encode()]
        if "PLAIN" in offered:
            self._start(self._plain(b"\0" + b"\0".join(words)))
        elif "LOGIN" in offered:
            self._start(self._exchange(b"AUTH LOGIN", words))
        else:
            raise NotOffered(Lack.AUTH)

    def transaction(self, envelope: Envelope, octets: bytes) -> TransactionResult:
        """Sends a message, its lines ended by CR LF; one that is missing at its end is added. Raises NotOffered.

        Parameters are said where the server knows them. RSET goes before where the last transaction did not end well.
        """
        if not octets.endswith(b"\r\n"):
            octets += b"\r\n"
        commands = _commands(envelope, octets, self._offered())
        result = TransactionResult()
        self._start(self._transaction(commands, octets, result))
        self._result = result
        return result

    def reset(self) -> None:
        """RSET: shows that the connection is alive."""
        self._start(self._reset())

    def quit(self) -> None:
        """QUIT, and Phase.CLOSED without a failure whatever comes."""
        self._start(self._quit())

    # Dialogues

    def _start(self, dialogue: Dialogue) -> None:
        if self._waiting is not Phase.READY:
            raise RuntimeError(f"not ready for a command: {self.phase}")
        self._result = None
        self._rest = Phase.READY
        self._dialogue = dialogue
        self._waiting = next(dialogue)

    def _offered(self) -> Extensions:
        if self.extensions is None:
            raise RuntimeError("EHLO comes first")
        return self.extensions

    def _say(self, *lines: bytes) -> None:
        self._out.extend(line + b"\r\n" for line in lines)
        self._owed += len(lines)

    def _greeting(self) -> Dialogue:
        self.greeting = yield Phase.GREETING

    def _hello(self) -> Dialogue:
        name = self._hello_name.encode("ascii")
        self._say(b"EHLO " + name)
        reply = yield Phase.EHLO
        if reply.is_positive:
            self.extensions = Extensions.from_ehlo(reply)
        elif reply.code in _NO_EHLO:
            self._say(b"HELO " + name)
            reply = yield Phase.HELO
            if reply.is_positive:
                self.extensions = Extensions.from_helo(reply)
        if reply.is_positive:
            self._open = False  # RFC 5321 §4.1.4

    def _starttls(self) -> Dialogue:
        self._say(b"STARTTLS")
        reply = yield Phase.STARTTLS
        if reply.is_positive:
            self._rest = Phase.TLS

    def _plain(self, response: bytes) -> Dialogue:
        """RFC 4954 §4: an initial response that would make the command too long waits for a challenge."""
        command = b"AUTH PLAIN " + b64encode(response)
        if len(command) <= MAX_COMMAND:
            return self._exchange(command, [])
        return self._exchange(b"AUTH PLAIN", [response])

    def _exchange(self, command: bytes, responses: list[bytes]) -> Dialogue:
        self._say(command)
        reply = yield Phase.AUTH
        for response in responses:
            if reply.is_intermediate:
                self._say(b64encode(response))
                reply = yield Phase.AUTH
        if reply.is_intermediate:
            self._say(b"*")
            yield Phase.AUTH

    def _reset(self) -> Dialogue:
        self._say(b"RSET")
        yield Phase.RSET
        self._open = False

    def _quit(self) -> Dialogue:
        self._rest = Phase.CLOSED
        self._say(b"QUIT")
        yield Phase.QUIT

    def _transaction(self, commands: list[_Command], octets: bytes, result: TransactionResult) -> Dialogue:
        """RFC 2920 §3.1: MAIL, every RCPT and DATA in one go, DATA the last of a group. BDAT has no leave to wait for.

        RFC 3030 §2: a chunk is sent only when the replies to MAIL and RCPT are there.
        """
        offered = self._offered()
        if self._open:
            commands.insert(0, _Command(Phase.RSET, b"RSET"))
        self._open = True
        size = GROUP if offered.pipelining else 1
        if not offered.chunking:
            commands.append(_Command(Phase.DATA, b"DATA"))
        for start in range(0, len(commands), size):
            group = commands[start : start + size]
            refused = result.mail is not None and not result.mail.is_positive
            if refused or (group[0].phase is Phase.DATA and not result.has_recipients):
                return
            yield from self._group(group, result)
        if offered.chunking and result.has_recipients:
            yield from self._chunks(octets, result)
        elif result.data is not None and result.data.is_intermediate:
            result.data = None
            yield from self._data(octets, result)

    def _group(self, group: list[_Command], result: TransactionResult) -> Dialogue:
        self._say(*(command.line for command in group))
        for phase, _ in group:
            reply = yield phase
            if phase is Phase.MAIL:
                result.mail = reply
            elif phase is Phase.RCPT:
                result.note_recipient(reply)
            elif phase is Phase.DATA:
                result.data = reply

    def _data(self, octets: bytes, result: TransactionResult) -> Dialogue:
        if not result.has_recipients:
            # RFC 2920 §3.1: leave to send, and nobody to send to. What is answered to the lone dot is no success.
            self._say(b".")
            yield Phase.END
            return
        self._hold(_dotted(octets))
        result.data = yield Phase.END
        result.data_phase = Phase.END
        self._open = not result.data.is_positive

    def _chunks(self, octets: bytes, result: TransactionResult) -> Dialogue:
        self._hold(_chunked(octets))
        for end in range(CHUNK, len(octets) + CHUNK, CHUNK):
            phase = Phase.CONTENT if end < len(octets) else Phase.END
            reply = yield phase
            if not reply.is_positive or phase is Phase.END:
                result.data, result.data_phase = reply, phase
                break
        self._open = not reply.is_positive
        if self._in_chunk:
            self._close(Failure(Phase.CONTENT, Cause.EARLY_REFUSAL, reply))
            return
        # RFC 3030 §2: no chunk is sent behind one that was refused, and what is answered to those under way is nothing.
        self._drop_content()
        while self._owed:
            yield Phase.CONTENT

    # What came

    def _take(self, reply: Reply) -> None:
        phase = self.phase
        if phase is Phase.CLOSED:
            return
        self.reply = reply
        self.steps += 1
        if phase is Phase.TLS:
            self._close(Failure(phase, Cause.CLEAR_TEXT, reply))
        elif reply.code == 421:
            self._close(Failure(phase, Cause.SERVICE_CLOSING, reply))
        elif self._owed and not self._out and _is_answer(reply, phase):
            self._owed -= 1
            self._resume(reply)
        elif self._result is not None and phase in _SENDING and reply.code >= 400:
            # Too early. The server may take what would follow for commands, so nothing follows.
            self._result.data, self._result.data_phase = reply, Phase.CONTENT
            self._close(Failure(phase, Cause.EARLY_REFUSAL, reply))
        else:
            self._close(Failure(phase, Cause.UNEXPECTED_REPLY, reply))

    def _resume(self, reply: Reply) -> None:
        try:
            waiting = self._dialogue.send(reply)
        except StopIteration:
            waiting = self._rest
            self._result = None
        if self._waiting is not Phase.CLOSED:
            self._waiting = waiting

    def _close(self, failure: Failure) -> None:
        if self._waiting is not Phase.QUIT:
            self.failure = failure
            if self._result is not None:
                self._result.failure = failure
        self._waiting = Phase.CLOSED
        self._out.clear()
        self._drop_content()

    # The message

    @property
    def _window(self) -> int:
        return WINDOW if self._offered().pipelining else 1

    def _hold(self, pieces: Iterator[_Piece]) -> None:
        self._held = next(pieces)
        self._pieces = pieces
        self._in_chunk = False

    def _drop_content(self) -> None:
        self._held = None
        self._pieces = iter(())
        self._in_chunk = False


def _is_answer(reply: Reply, phase: Phase) -> bool:
    """Whether the reply's class is one that the command may get (RFC 5321 §4.3.2). RSET is never refused."""
    if reply.code >= 400:
        return phase is not Phase.RSET
    return reply.code // 100 in _GOOD.get(phase, (2,))


class _Command(NamedTuple):
    phase: Phase
    line: bytes


def _commands(envelope: Envelope, octets: bytes, offered: Extensions) -> list[_Command]:
    """MAIL and each RCPT, with the parameters that the server knows."""
    smtputf8 = envelope.needs_smtputf8
    eight_bit = not octets.isascii()
    if eight_bit and not offered.eight_bit:
        raise NotOffered(Lack.EIGHT_BIT)
    if smtputf8 and not offered.smtputf8:
        raise NotOffered(Lack.SMTPUTF8)
    if offered.size and len(octets) > offered.size:
        raise NotOffered(Lack.SIZE)
    mail = [f"MAIL FROM:<{envelope.reverse_path}>"]
    if offered.size is not None:
        mail.append(f"SIZE={len(octets)}")
    if offered.eight_bit and (eight_bit or envelope.body == "8BITMIME"):
        mail.append("BODY=8BITMIME")
    if smtputf8:
        mail.append("SMTPUTF8")
    if offered.dsn and envelope.ret:
        mail.append(f"RET={envelope.ret}")
    if offered.dsn and envelope.envid:
        mail.append(f"ENVID={envelope.envid}")
    commands = [_Command(Phase.MAIL, " ".join(mail).encode())]
    commands.extend(_Command(Phase.RCPT, _rcpt(recipient, dsn=offered.dsn)) for recipient in envelope.recipients)
    return commands


def _rcpt(recipient: Recipient, *, dsn: bool) -> bytes:
    words = [f"RCPT TO:<{recipient.address}>"]
    if dsn and recipient.notify:
        words.append(f"NOTIFY={recipient.notify}")
    if dsn and recipient.orcpt:
        words.append(f"ORCPT={recipient.orcpt}")
    return " ".join(words).encode()


class _Piece(NamedTuple):
    """ends_chunk: a reply comes to what ends here. last: nothing follows."""

    octets: bytes
    ends_chunk: bool
    last: bool


def _dotted(octets: bytes) -> Iterator[_Piece]:
    """The message as DATA wants it, with its end (RFC 5321 §4.5.2). No piece ends between a CR and its LF."""
    start, end = 0, len(octets)
    while start < end:
        stop = min(start + PIECE, end)
        if octets[stop - 1 : stop + 1] == b"\r\n":
            stop += 1
        piece = octets[start:stop].replace(b"\r\n.", b"\r\n..")
        if piece.startswith(b".") and octets[max(start - 2, 0) : start] in (b"", b"\r\n"):
            piece = b"." + piece
        last = stop == end
        yield _Piece(piece + b".\r\n" if last else piece, ends_chunk=last, last=last)
        start = stop


def _chunked(octets: bytes) -> Iterator[_Piece]:
    """The message in chunks, the command with the first octets of each (RFC 3030 §2)."""
    for start in range(0, len(octets), CHUNK):
        stop = min(start + CHUNK, len(octets))
        last = stop == len(octets)
        command = b"BDAT %d%b\r\n" % (stop - start, b" LAST" if last else b"")
        for at in range(start, stop, PIECE):
            ends_chunk = at + PIECE >= stop
            yield _Piece(command + octets[at : min(at + PIECE, stop)], ends_chunk, last and ends_chunk)
            command = b""
