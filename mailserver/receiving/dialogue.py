"""The machine under an SMTP dialogue: aiosmtpd's, without its stream, its task and its timers.

aiosmtpd's own way costs an introspection of all methods for each connection, and a task switch, a timer and
formatting for a log for each command. Here

- the constructor copies the state of one prepared instance instead of running aiosmtpd's. What introspection found
  there is bound to that instance, so a subclass looks commands and mechanisms up in tables of plain functions and calls
  them with the server at hand;
- input is one bytearray. Commands are stepped by hand (stepping.py); while one waits, input waits in the bytearray,
  which is bounded by not reading the connection;
- replies to commands that came in one piece leave in one piece (PIPELINING, RFC 2920 §3.2), and no command is begun
  while the peer does not read its replies;
- a deadline is a time that one sweep a second looks at (net/deadlines.py), not a timer.

After many commands at once the loop gets its turn, so that nobody's pipeline keeps others waiting.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Coroutine
from typing import Any, Self

from aiosmtpd.smtp import SMTP

from mailserver.net.connection import Connection
from mailserver.protocols import sasl
from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.data import ChunkedBody, DataBody
from mailserver.protocols.smtp.replies import Refused, Reply
from mailserver.receiving.errors import reply_for
from mailserver.receiving.session import Policy, Receiving, Session
from mailserver.receiving.stepping import resume

log = logging.getLogger(__name__)

MAX_LINE = sasl.MAX_RESPONSE_OCTETS
MAX_INPUT = 64 * 1024
"""Input that may wait while a command runs; then the connection is not read."""

COMMANDS_AT_ONCE = 25
"""Commands of one connection before the loop has its turn."""

DRIP_OCTETS = 16 * 1024
"""A message may take smtp.data_timeout_seconds, and a second more for each so many octets."""

LOGGED = 300
"""Octets of a refused command that the log shows."""


class Dialogue(SMTP):
    """What happens between octets and commands; a subclass knows the commands."""

    session: Session

    # What a new dialogue begins with.
    _gathering = False
    _scheduled = False
    _ended = False
    _running: asyncio.Task[None] | None = None
    _wanted: asyncio.Future[bytes] | None = None  # the line that a running command waits for
    _body: DataBody | ChunkedBody | None = None
    _body_by = 0.0
    _errors = 0
    _commands = 0
    _command_line = b""  # for the log
    _last_words: Reply | None = None

    def __init__(self, connection: Connection, receiving: Receiving, policy: Policy) -> None:
        self.__dict__.update(receiving.prepared)
        self.transport = connection.transport
        self.connection = connection
        self.receiving = receiving
        self.policy = policy
        self._input = bytearray()
        self._output: list[bytes] = []
        self._deadlines = receiving.deadlines
        self._deadline_set = 0.0
        self._waiting_since = receiving.deadlines.now
        self._login_by = receiving.deadlines.now + receiving.smtp.login_timeout_seconds

    def __del__(self) -> None:
        """aiosmtpd's looks at a future that only the prepared instance has."""

    @abstractmethod
    def _command(self, line: bytes) -> None:
        """Begins the command of a line, its end included. Of a line above MAX_LINE octets only that much is there."""

    @abstractmethod
    def _read_body(self, data: bytes) -> None:
        """Takes in octets of the message that is being received."""

    # What the connection tells ----------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        if self._running is None and not self._input:
            if self._body is not None:
                self._read_body(data)
            elif data.find(b"\n") == len(data) - 1 <= MAX_LINE and not self.connection.blocked:
                # One whole command, as most clients send them: it needs no buffer.
                self._waiting_since = self._deadlines.now
                self._command(data)
            else:
                self._input += data
        else:
            self._input += data
        if self._input or self._ended or self._last_words:
            self.work()
        elif self._deadline_set != self._deadlines.now:
            self._set_deadline()

    def ended(self) -> None:
        """The peer sends no more. What it has sent is answered."""
        self._ended = True
        if self._wanted is not None:
            self._hand_over(ConnectionResetError())
        self.work()

    def timed_out(self) -> None:
        if self._running is not None and self._wanted is None:
            self.connection.close()  # in the midst of a commit: neither yes nor no
            return
        self._say(replies.TIMEOUT)
        self._close()

    def leave(self, last_words: Reply) -> None:
        """Says goodbye, at once or after what is running or being received."""
        self._last_words = last_words
        busy = self._body is not None or (self._running is not None and self._wanted is None)
        if not busy and not self.connection.is_closing:
            self._say(last_words)
            self._close()

    def cut_short(self, last_words: Reply) -> None:
        """There is no more time: a message that is half received is refused, one whose commit runs gets no answer."""
        if self._running is None and not self.connection.is_closing:
            self._say(last_words)
            self._close()
        else:
            self.connection.abort()

    # Input ------------------------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Runs what has arrived, up to a command that has to wait."""
        self._gathering = True
        out_of_input = self._run_what_arrived()
        self._gathering = False
        self._flush()
        if out_of_input and self._ended:
            self._send(replies.END_OF_INPUT.octets)
            self._close()
        elif self._last_words is not None:
            self.leave(self._last_words)
        self._steer()

    def _run_what_arrived(self) -> bool:
        """False where something is left that will be done later, by itself."""
        for _ in range(COMMANDS_AT_ONCE):
            if self._running is not None:
                self._hand_line_over()
                return False
            if self.connection.blocked or self.connection.is_closing:
                return False
            if self._body is not None:
                if not self._input:
                    return True
                data = bytes(self._input[: self._body.most])
                del self._input[: self._body.most]
                self._read_body(data)
            elif self._last_words is not None:
                return False
            else:
                line = self._take_line()
                if line is None:
                    return True
                self._command(line)
        self._schedule()
        return False

    def _take_line(self) -> bytes | None:
        """The next line, with its end; the beginning of one that was too long; None where no end has come."""
        end = self._input.find(b"\n")
        if end < 0:
            # So much of a line that is too long tells that it is; the rest is forgotten as it comes.
            del self._input[MAX_LINE + 1 :]
            return None
        line = bytes(self._input[: min(end, MAX_LINE) + 1])
        del self._input[: end + 1]
        self._waiting_since = self._deadlines.now
        return line

    async def readline(self) -> bytes:
        """The next line, for a command that is running: aiosmtpd's challenge_auth."""
        if self.connection.is_closing:
            raise ConnectionResetError
        line = self._take_line()
        if line is None and self._ended:
            raise ConnectionResetError
        if line is None:
            self._wanted = self.loop.create_future()
            line = await self._wanted
        if len(line) > MAX_LINE:
            raise Refused(replies.AUTH_LINE_TOO_LONG)  # RFC 4954 §4
        if not line.endswith(b"\r\n"):
            raise Refused(replies.BAD_LINE)
        return line

    @property
    def _reader(self) -> Self:  # type: ignore[override]
        """Where aiosmtpd expects its stream."""
        return self

    def _hand_line_over(self) -> None:
        if self._wanted is not None:
            line = self._take_line()
            if line is not None:
                self._hand_over(line)

    def _hand_over(self, line: bytes | Exception) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is None or wanted.done():
            return
        if isinstance(line, Exception):
            wanted.set_exception(line)
        else:
            wanted.set_result(line)

    def _steer(self) -> None:
        """Reads the connection or not, and sets its deadline."""
        if self.connection.is_closing:
            return
        if len(self._input) > MAX_INPUT or self.connection.blocked:
            self.connection.pause()
        else:
            self.connection.resume()
        if self._deadline_set != self._deadlines.now:
            self._set_deadline()

    def _set_deadline(self) -> None:
        """Once a second is enough for a client that keeps talking; and where what it is waited for changes.

        The time for a command runs until all of its line is there: part of one buys none.
        """
        now = self._deadline_set = self._deadlines.now
        smtp = self.receiving.smtp
        if self._body is not None:
            deadline = self._body_by + self._body.received / DRIP_OCTETS
        elif self._running is not None and self._wanted is None:
            deadline = now + smtp.data_timeout_seconds
        else:
            deadline = self._waiting_since + smtp.command_timeout_seconds
            if self.policy.login and self.session.account is None:
                deadline = min(deadline, self._login_by)
        self.connection.deadline = deadline

    # Commands that run ------------------------------------------------------------------------------------------------

    def _step(self, command: Coroutine[Any, Any, None]) -> None:
        """Runs a command up to its end, or up to where it has to wait."""
        try:
            awaited = command.send(None)
        except StopIteration:
            return
        except Exception as error:
            self._fault(error)
            return
        self._run(resume(command, awaited))

    def _run(self, command: Coroutine[Any, Any, None]) -> None:
        self._running = self.loop.create_task(command)
        self._running.add_done_callback(self._done)
        self._set_deadline()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running = None
        self._waiting_since = self._deadlines.now
        try:
            if task.cancelled():
                self.connection.close()
                return
            error = task.exception()
            if error is not None:
                self._fault(error)
            self._set_deadline()
            if self._input or self._ended or self._last_words:
                self.work()
        except Exception:
            log.exception("fault in an SMTP session peer=%s", self.session.peer)
            self.connection.abort()

    def _fault(self, error: BaseException) -> None:
        """A command has ended in an error."""
        if isinstance(error, ConnectionError) and (self._ended or self.connection.is_closing):
            self._send(replies.END_OF_INPUT.octets)
            self._close()
            return
        reply = reply_for(error)
        if reply is None:
            log.warning("closed without a reply peer=%s: %s", self.session.peer, error)
            self.connection.close()
        else:
            self._say(reply)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        try:
            self.work()
        except Exception:
            log.exception("fault in an SMTP session peer=%s", self.session.peer)
            self.connection.abort()

    # Output -----------------------------------------------------------------------------------------------------------

    def _say(self, reply: Reply) -> None:
        self._send(reply.octets)
        if not reply.is_refusal:
            return
        log.info(
            "refused by=%s peer=%s to=%r: %s", self.policy.name, self.session.peer, self._command_line[:LOGGED], reply
        )
        if reply is replies.TOO_MANY_RECIPIENTS:
            return  # no mistake (RFC 5321 §4.5.3.1.10), and smtp.max_commands is a bound
        self._errors += 1
        if self._errors >= self.receiving.smtp.max_errors and reply.code != 421:
            self._send(replies.TOO_MANY_ERRORS.octets)
            self._close()

    def _send(self, octets: bytes) -> None:
        if self._gathering:
            self._output.append(octets)
        else:
            self.connection.write(octets)

    def _flush(self) -> None:
        output = self._output
        if output:
            self.connection.write(output[0] if len(output) == 1 else b"".join(output))
            output.clear()

    def _close(self) -> None:
        """The last reply has been given. Input that nobody will read must not destroy it on its way."""
        self._flush()
        self.connection.close(linger=True)
