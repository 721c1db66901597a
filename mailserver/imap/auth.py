"""Who the client is, and what the server can do: CAPABILITY, ID, STARTTLS, LOGIN, AUTHENTICATE, LOGOUT.

Passwords are taken under TLS only, or from loopback where the setting says so; elsewhere LOGINDISABLED is announced
(RFC 3501 §6.2.3). Whoever names a wrong user or a wrong password hears the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailserver.imap.errors import Done, Refusal, bad
from mailserver.login import LoginDisabled, LoginFailed, Throttled
from mailserver.net.limits import is_loopback
from mailserver.protocols import sasl
from mailserver.protocols.imap import responses

if TYPE_CHECKING:
    from mailserver.imap.session import Session
    from mailserver.protocols.imap import commands
    from storage import Account

ALWAYS = (
    "IMAP4rev1",
    "LITERAL+",  # RFC 7888
    "SASL-IR",  # RFC 4959
    "ID",  # RFC 2971
    "NAMESPACE",  # RFC 2342
    "UNSELECT",  # RFC 3691
    "UIDPLUS",  # RFC 4315
    "MOVE",  # RFC 6851
    "IDLE",  # RFC 2177
    "CHILDREN",  # RFC 3348
    "SPECIAL-USE",  # RFC 6154
    "CREATE-SPECIAL-USE",  # RFC 6154 §3
    "LIST-EXTENDED",  # RFC 5258
    "LIST-STATUS",  # RFC 5819
    "STATUS=SIZE",  # RFC 8438
    "UTF8=ACCEPT",  # RFC 6855
    "ENABLE",  # RFC 5161
    "CONDSTORE",  # RFC 7162
    "ESEARCH",  # RFC 4731
)
_MECHANISMS = tuple(f"AUTH={name}" for name in sasl.MECHANISMS)


def greeting(s: Session) -> bytes:
    return responses.ok("*", "Pillarbox is ready", _code(s))


def capabilities(s: Session) -> tuple[str, ...]:
    """What is true now: what can be used to log in is named only while it can be used."""
    always = (*ALWAYS, f"APPENDLIMIT={s.append_limit}")  # RFC 7889
    if s.account is not None:
        return always
    start_tls = ("STARTTLS",) if s.service.tls is not None and not s.secure else ()
    return always + start_tls + (_MECHANISMS if _may_log_in(s) else ("LOGINDISABLED",))


async def capability(s: Session, cmd: commands.Capability) -> Done:
    s.write(responses.capability(capabilities(s)))
    return Done("CAPABILITY completed")


async def identify(s: Session, cmd: commands.Id) -> Done:
    s.write(responses.id_({"name": "Pillarbox"}))
    return Done("ID completed")


async def logout(s: Session, cmd: commands.Logout) -> None:
    s.deselect()
    s.write(responses.bye("Logging out") + responses.ok(cmd.tag, "LOGOUT completed"))
    s.close()


async def start_tls(s: Session, cmd: commands.StartTls) -> None:
    if s.secure:
        raise bad("TLS is active already")
    if s.service.tls is None:
        raise bad("TLS is not available")
    context = s.service.tls()
    s.write(responses.ok(cmd.tag, "Begin TLS negotiation now"))
    # RFC 3501 §6.2.1: what was received in clear behind the command came from anyone.
    s.framer.clear()
    s.start_tls(context)


async def login(s: Session, cmd: commands.Login) -> Done:
    _refuse_in_clear(s)
    return await _log_in(s, sasl.Credentials(cmd.name, cmd.password), "LOGIN")


async def authenticate(s: Session, cmd: commands.Authenticate) -> Done:
    make = sasl.MECHANISMS.get(cmd.mechanism)
    if make is None:
        raise Refusal("This mechanism is not offered", "CANNOT")
    _refuse_in_clear(s)
    try:
        credentials = await _exchange(s, make(), cmd.initial)
    except sasl.SaslError as error:
        raise bad(str(error)) from None
    return await _log_in(s, credentials, "AUTHENTICATE")


async def _exchange(s: Session, exchange: sasl.Exchange, initial: bytes | None) -> sasl.Credentials:
    step = exchange.step(sasl.decode_initial(initial))
    while isinstance(step, sasl.Challenge):
        s.write(responses.challenge(step.base64()))
        step = exchange.step(sasl.decode(await s.read_line(sasl.MAX_RESPONSE_OCTETS)))
    return step


async def _log_in(s: Session, credentials: sasl.Credentials, command: str) -> Done:
    service = s.service
    mark = service.sessions.mark()
    account = await _check(s, credentials)
    open_sessions = service.sessions.count(account.account_id)
    if open_sessions >= service.config.max_connections_per_account and not service.limits.is_trusted(s.peer[0]):
        raise Refusal("Too many sessions of this account", "LIMIT")
    if not s.log_in(account, mark):
        raise Refusal("Wrong name or password", "AUTHENTICATIONFAILED")
    return Done(f"{command} completed", _code(s))


async def _check(s: Session, credentials: sasl.Credentials) -> Account:
    if credentials.authorize_as not in ("", credentials.name):
        raise Refusal("You may act for yourself only", "AUTHORIZATIONFAILED")
    try:
        return await s.service.logins.check(credentials.name, credentials.password, peer=s.peer[0], service="imap")
    except Throttled as error:
        raise Refusal(f"Too many failed logins, try again in {error.retry_after:.0f} s", "UNAVAILABLE") from None
    except LoginDisabled:
        raise Refusal("The account is disabled", "AUTHORIZATIONFAILED") from None
    except LoginFailed:
        raise Refusal("Wrong name or password", "AUTHENTICATIONFAILED") from None


def _may_log_in(s: Session) -> bool:
    return s.secure or (s.service.loopback_auth and is_loopback(s.peer[0]))


def _refuse_in_clear(s: Session) -> None:
    if not _may_log_in(s):
        raise Refusal("Start TLS first", "PRIVACYREQUIRED")


def _code(s: Session) -> str:
    return "CAPABILITY " + " ".join(capabilities(s))
