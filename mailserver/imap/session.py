"""One IMAP session: octets in, commands carried out one after another, answers out.

A session is a connection with slots and no task. Octets go to the framer; when it has a whole command a task begins,
carries out what is there in order, and ends. A client that waits, also in IDLE, costs the object alone: what the
mailbox tells it is written by `push` from the loop.

Each command is parsed, checked against the state table, and handled by the function that HANDLERS names. Handlers
write untagged answers themselves and return the tagged one; just before it the session tells what else has changed in
the mailbox (RFC 3501 §5.2), EXPUNGE only where the command allows it (§7.4.1).

Bounds. What arrives while a command runs is read up to READ_AHEAD octets, then the peer has to wait. Messages being
received share the worker's memory for that. Output is bounded by awaiting `breathe` between pieces; it also lets
other sessions run. Deadlines: a time to log in, afterwards a time without a command (RFC 3501 §5.4), while answers
flow a time without progress.

The end comes with BYE in every case but two: the peer is gone, or it does not read. An unknown fault costs its
command a `NO [SERVERBUG]`; a COMMIT whose outcome is unknown ends the session without a tagged line, so that neither
yes nor no is said of it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from mailserver import metrics
from mailserver.imap import (
    append,
    auth,
    copy_move,
    enable,
    expunge,
    fetch,
    idle,
    listing,
    mailboxes,
    search,
    select,
    status,
    store_flags,
)
from mailserver.imap.errors import Done, Goodbye, refusal
from mailserver.net.connection import Connection
from mailserver.protocols.imap import commands, responses
from mailserver.protocols.imap.commands import BadSyntax, Command, Extension, Refused
from mailserver.protocols.imap.framing import Continue, Event, Fatal, Framed, Framer, Line, TooBig, TooLong, tag_of
from mailserver.protocols.imap.mailbox_name import Wire
from mailserver.protocols.imap.parse import parse
from mailserver.protocols.imap.server_states import State, allowed
from storage.errors import OutcomeUnknown

if TYPE_CHECKING:
    import ssl

    from mailserver.imap.selected import Selected
    from mailserver.imap.service import Service
    from storage import Account, AccountId

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

READ_AHEAD: Final = 256 * 1024
FREE_OCTETS: Final = 64 * 1024
"""What a session may hold of unfinished commands without asking for memory."""
PARSED_AT_ONCE: Final = 4096
"""Octets of a command that are parsed in the event loop, some milliseconds of work; a longer one is in a thread."""
TURN_SECONDS: Final = 0.002
"""How long one session works before it lets others run; an idle one waits for the turns of all that work."""
FINISH_SECONDS: Final = 10.0
"""How long commands may go on for a peer that has closed its sending side; it may be gone altogether."""
END_SECONDS: Final = 1.0
"""How long a command that runs may go on when its session has to end at once."""

_NUMBERED = (
    commands.Fetch,
    commands.Store,
    commands.Copy,
    commands.Move,
    commands.Search,
    commands.Expunge,
)
"""Commands that name messages of the selected mailbox."""
_SHUTTING_DOWN = "The server is shutting down"

Handler = Callable[["Session", Any], Awaitable[Done | None]]
"""Answers a command; None: the tagged line was written already, or comes later."""

HANDLERS: Final[dict[type[Command], Handler]] = {
    commands.Capability: auth.capability,
    commands.Id: auth.identify,
    commands.Logout: auth.logout,
    commands.StartTls: auth.start_tls,
    commands.Login: auth.login,
    commands.Authenticate: auth.authenticate,
    commands.Enable: enable.handle,
    commands.Select: select.select,
    commands.Noop: select.noop,
    commands.Check: select.check,
    commands.Close: select.close,
    commands.Unselect: select.unselect,
    commands.Create: mailboxes.create,
    commands.Delete: mailboxes.delete,
    commands.Rename: mailboxes.rename,
    commands.Subscribe: mailboxes.subscribe,
    commands.Unsubscribe: mailboxes.unsubscribe,
    commands.List: listing.list_,
    commands.Lsub: listing.lsub,
    commands.Namespace: mailboxes.namespace,
    commands.Status: status.handle,
    commands.Append: append.handle,
    commands.Fetch: fetch.handle,
    commands.Store: store_flags.handle,
    commands.Search: search.handle,
    commands.Copy: copy_move.copy,
    commands.Move: copy_move.move,
    commands.Expunge: expunge.handle,
    commands.Idle: idle.handle,
}

_ADMITTED = metrics.sessions.labels("imap")
_OPEN = metrics.sessions_open.labels("imap")
_REFUSED = metrics.refused.labels("imap")
_SECONDS = {kind: metrics.command_seconds.labels("imap", kind.__name__.upper()) for kind in HANDLERS}


class Session(Connection):
    """See the module's text. context: TLS begins at accept."""

    __slots__ = (
        "_breath",
        "_doing",
        "_ending",
        "_errors",
        "_finished",
        "_held",
        "_last_command",
        "_more",
        "_task",
        "account",
        "enabled",
        "framer",
        "idling",
        "selected",
        "service",
    )

    def __init__(self, service: Service, context: ssl.SSLContext | None = None) -> None:
        super().__init__(service.deadlines, context)
        self.service = service
        self.framer = Framer(service.before_login)
        self.account: Account | None = None
        self.enabled = Extension(0)
        self.selected: Selected | None = None
        self.idling: idle.Idling | None = None
        self._task: asyncio.Task[None] | None = None
        self._more: asyncio.Future[None] | None = None
        self._ending: str | None = None
        self._finished = False  # the peer sends no more
        self._last_command = False  # the server stops once the command is done that has come in part
        self._errors = 0
        self._held = 0  # octets taken from the worker's memory
        self._doing = 0  # octets of the command that is carried out
        self._breath = 0.0

    @property
    def state(self) -> State:
        if self.account is None:
            return State.NOT_AUTHENTICATED
        return State.AUTHENTICATED if self.selected is None else State.SELECTED

    @property
    def wire(self) -> Wire:
        """How the client reads and writes mailbox names."""
        return Wire(self.service.separator, Extension.UTF8_ACCEPT in self.enabled)

    @property
    def ending(self) -> str | None:
        """Why the session is to end; None: it is not."""
        return self._ending

    @property
    def finished(self) -> bool:
        """The peer sends no more; it may be gone."""
        return self._finished

    @property
    def append_limit(self) -> int:
        """The largest message that APPEND takes from this client, in octets (RFC 7889)."""
        return (self.service.after_login if self.account is None else self.framer.limits).append

    # What the connection calls ----------------------------------------------------------------------------------------

    def admit(self) -> bytes | None:
        if self.service.connections.admit(self.peer[0]):
            _ADMITTED.inc()
            _OPEN.inc()
            return None
        _REFUSED.inc()
        return responses.bye("Too many connections", "UNAVAILABLE")

    def opened(self) -> None:
        backlog = self.service.config.backlog_octets
        self.transport.set_write_buffer_limits(high=backlog, low=backlog // 4)
        self.allow(self.service.config.login_timeout_seconds)
        self.write(auth.greeting(self))

    def received(self, data: bytes) -> None:
        if self._ending is not None:
            return
        self._note_life()
        self.framer.feed(data)
        if not self._take_memory():
            self._stop("Too much mail is being received, try again later")
        elif self._more is not None:
            self._wake_reader()
        elif self._task is None:
            event = self._next()
            if event is not None:
                self._begin(event)
        if self.framer.buffered > READ_AHEAD:
            self.pause()

    def eof(self) -> None:
        """Commands that came whole are still carried out."""
        self._finished = True
        if self._working:
            self.allow(FINISH_SECONDS)
        else:
            self.close()

    def writable(self) -> None:
        self.push()

    def timed_out(self) -> None:
        if self._ending is not None or self._finished or self.blocked:
            self.abort()
        elif self._working:
            self._note_life()  # it is we who are slow
        else:
            self._farewell("Idle for too long" if self.account else "No login in time")

    def stopping(self) -> None:
        """A command that has come in part, a message perhaps, may still be finished."""
        if self.framer.held and not self._working:
            self._last_command = True
        else:
            self._stop(_SHUTTING_DOWN)

    def cut_short(self) -> None:
        if self._working or self.blocked:
            self.abort()  # in the midst of an answer
        else:
            self._farewell(_SHUTTING_DOWN)

    def lost(self) -> None:
        self.service.connections.release(self.peer[0])
        _OPEN.dec()
        if self._task is None:
            self._release()
        else:
            self._task.add_done_callback(lambda _: self._release())
            self._task.cancel()

    # What others call -------------------------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """Says goodbye and closes; a command that runs is given a moment."""
        self._stop(reason)
        if self._ending is not None:
            asyncio.get_running_loop().call_later(END_SECONDS, self.abort)

    def push(self) -> None:
        """The mailbox has changed, or the client has read what it was told: tells it more if it idles."""
        if self.idling is None or self.selected is None or self._task is not None or self.blocked or self.is_closing:
            return
        try:
            if not self.selected.push(self):
                self._begin(None)
        except Goodbye as goodbye:
            self._farewell(goodbye.text, goodbye.code)

    @property
    def account_id(self) -> AccountId:
        """Of the account that the session acts for: it is logged in."""
        assert self.account is not None
        return self.account.account_id

    async def breathe(self) -> None:
        """Waits for a slow reader, and lets others run when this session's turn is over."""
        if self.blocked:
            await self.drain()
            self._note_life()
        elif monotonic() > self._breath:
            await asyncio.sleep(0)
        else:
            return
        self._breath = monotonic() + TURN_SECONDS

    async def in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does what takes long while others are served; one session at a time, by turns.

        The turn lasts as long as the thread works, also for a session that is gone meanwhile.
        """
        await self.service.thread.acquire()
        task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
        task.add_done_callback(self._turn_over)
        return await asyncio.shield(task)

    def _turn_over(self, task: asyncio.Future[Any]) -> None:
        self.service.thread.release()
        if not task.cancelled():
            task.exception()  # the session may be gone, and nobody asks for it

    async def read_line(self, limit: int) -> bytes:
        """The client's next line, which is no command; one that is longer than `limit` comes back empty."""
        self.framer.expect_line(limit)
        while (event := self.framer.next_event()) is None:
            if self._finished:
                raise ConnectionResetError
            self._more = asyncio.get_running_loop().create_future()
            try:
                await self._more
            finally:
                self._more = None
        if isinstance(event, Fatal):
            raise Goodbye(event.text)
        return event.octets if isinstance(event, Line) else b""

    def log_in(self, account: Account, mark: int) -> bool:
        """From now on the session acts for the account; False where its sessions were ended since `mark` was taken."""
        if not self.service.sessions.add(account.account_id, self, since=mark):
            return False
        self.account = account
        self.framer.limits = self.service.after_login
        self._note_life()
        return True

    def deselect(self) -> None:
        selected, self.selected = self.selected, None
        if selected is not None:
            selected.close()

    def refuse(self, tag: str, error: Exception) -> None:
        """Answers a command that was not carried out."""
        answer = refusal(error)
        if answer is None:
            fault = secrets.token_hex(4)
            log.error("fault %s in a command peer=%s", fault, self.peer[0], exc_info=error)
            self.write(responses.no(tag, f"Internal error ({fault})", "SERVERBUG"))
        elif answer.condition == "BAD":
            self._bad(tag, answer.text, answer.code)
        else:
            self.write(responses.no(tag, answer.text, answer.code))

    # Commands ---------------------------------------------------------------------------------------------------------

    def _begin(self, event: Event | None) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work(event))

    @property
    def is_busy(self) -> bool:
        return self._task is not None

    @property
    def _working(self) -> bool:
        return self._task is not None and self._more is None

    async def _work(self, event: Event | None) -> None:
        """Carries out commands until none is whole. Without an event: tells an idle client what push() could not."""
        self._breath = monotonic() + TURN_SECONDS
        try:
            if event is None and self.selected is not None:
                await self.selected.catch_up(self, expunge_ok=True)
                event = self._next()
            while event is not None:
                await self._handle(event)
                event = None  # it may hold a message
                if self._ending is not None or self.is_closing:
                    break
                await self.breathe()
                event = self._next()
        except Goodbye as goodbye:
            self._farewell(goodbye.text, goodbye.code)
        except ConnectionError:
            self.abort()
        except Exception:
            log.exception("fault in a session peer=%s", self.peer[0])
            self._farewell("Internal error", "SERVERBUG")
        finally:
            self._task = None
        self._rest()

    def _next(self) -> Event | None:
        """What the client asks next, if it is there; the peer may send more when there is room for it."""
        event = self.framer.next_event()
        self._doing = sum(map(len, event.pieces)) if isinstance(event, Framed) else 0
        self._take_memory()
        if self.framer.buffered <= READ_AHEAD:
            self.resume()
        return event

    def _rest(self) -> None:
        """The task is over."""
        if self._ending is not None:
            self._farewell(self._ending)
        elif self._last_command and not self.framer.held:
            self._farewell(_SHUTTING_DOWN)
        elif self._finished:
            self.close()
        else:
            self.push()

    async def _handle(self, event: Event) -> None:
        if isinstance(event, Framed):
            await self._command(event)
        elif isinstance(event, Line):
            await idle.line(self, event.octets)
        elif isinstance(event, Continue):
            self._literal(event)
        elif isinstance(event, TooBig):
            self.write(responses.no(event.tag, "Literal is too large", "TOOBIG"))
        elif isinstance(event, TooLong):
            if self.idling is not None:
                await idle.line(self, b"")
            else:
                self._bad(event.tag, "Command is too long")
        else:
            assert isinstance(event, Fatal)
            raise Goodbye(event.text, "TOOBIG")

    def _literal(self, event: Continue) -> None:
        """The client waits for leave to send a literal."""
        octets = event.octets - FREE_OCTETS
        if octets > 0 and not self.service.memory.take(octets):
            self.framer.refuse()
            self.write(responses.no(event.tag, "Too much mail is being received, try again later", "UNAVAILABLE"))
            return
        if octets > 0:
            self.service.memory.give(octets)  # taken for good as it arrives
        self.write(responses.continuation("Ready for literal data"))

    async def _command(self, framed: Framed) -> None:
        try:
            command = await self._parsed(framed)
        except BadSyntax as error:
            self._bad(error.tag, error.text)
        except Refused as error:
            self.write(responses.no(error.tag, error.text, error.code))
        except Exception as error:
            self.refuse(tag_of(framed.pieces[0]), error)
        else:
            if allowed(command, self.state):
                await self._perform(command)
            else:
                self._bad(command.tag, f"Command is not allowed {self.state.value}")

    async def _parsed(self, framed: Framed) -> Command:
        # What stands in literals is not taken apart, so their size makes no work.
        if sum(map(len, framed.pieces[::2])) > PARSED_AT_ONCE:
            return await self.in_thread(parse, framed, self.wire)
        return parse(framed, self.wire)

    async def _perform(self, command: Command) -> None:
        began = monotonic()
        try:
            if self.selected is not None and isinstance(command, _NUMBERED):
                await self.selected.wake()
            done = await HANDLERS[type(command)](self, command)
            if done is None:
                return
            if self.selected is not None:
                await self.selected.catch_up(self, expunge_ok=_expunge_ok(command))
            self.write(responses.ok(command.tag, done.text, done.code))
            self._errors = 0
        except (Goodbye, ConnectionError):
            raise
        except OutcomeUnknown:
            raise Goodbye("The outcome of the command is unknown, look again after logging in") from None
        except Exception as error:
            if self.selected is not None:
                self.selected.check()
            self.refuse(command.tag, error)
        finally:
            _SECONDS[type(command)].observe(monotonic() - began)

    def _bad(self, tag: str, text: str, code: str = "") -> None:
        self.write(responses.bad(tag, text, code))
        self._errors += 1
        if self._errors >= self.service.config.max_errors:
            raise Goodbye("Too many bad commands")

    # ------------------------------------------------------------------------------------------------------------------

    def _note_life(self) -> None:
        if self.account is not None and self._ending is None:
            self.allow(FINISH_SECONDS if self._finished else self.service.config.idle_timeout_seconds)

    def _take_memory(self) -> bool:
        """Has the worker memory for what this session holds of unfinished commands?"""
        held = max(0, self.framer.held + self.framer.buffered + self._doing - FREE_OCTETS)
        if held > self._held and not self.service.memory.take(held - self._held):
            return False
        if held < self._held:
            self.service.memory.give(self._held - held)
        self._held = held
        return True

    def _give_memory(self) -> None:
        self.service.memory.give(self._held)
        self._held = 0

    def _wake_reader(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)

    def _stop(self, text: str) -> None:
        """Ends the session after the command that runs, at once where none does."""
        if self._working:
            self._ending = text
        else:
            self._farewell(text)

    def _farewell(self, text: str, code: str = "") -> None:
        self.write(responses.bye(text, code))
        self.framer.clear()  # nothing more is read, so nothing more is held
        self._give_memory()
        self.close(linger=True)

    def _release(self) -> None:
        """Gives back what the session held of the worker."""
        if self.idling is not None:
            self.idling.stop()
            self.idling = None
        self.deselect()
        if self.account is not None:
            self.service.sessions.remove(self.account.account_id, self)
        self._give_memory()


def _expunge_ok(command: Command) -> bool:
    """RFC 3501 §7.4.1: no EXPUNGE during FETCH, STORE and SEARCH; their UID forms are other commands."""
    return not isinstance(command, (commands.Fetch, commands.Store, commands.Search)) or command.by_uid
