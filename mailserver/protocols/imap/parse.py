"""From a framed command to a typed one (RFC 3501 §9), one small reader a command.

A reader is called with the cursor behind the command's name and returns the command; what it leaves unread is an error.
Names of mailboxes that no mailbox can have are refused with NO, not BAD: the command itself is well-formed.
"""

from __future__ import annotations

from collections.abc import Callable

from mailserver.protocols.imap import commands, mailbox_name
from mailserver.protocols.imap.commands import (
    EXTENSIONS,
    Command,
    Extension,
    Flags,
    Refused,
    SearchReturn,
    StoreMode,
    SystemFlag,
)
from mailserver.protocols.imap.cursor import Cursor
from mailserver.protocols.imap.framing import Framed, tag_of
from mailserver.protocols.imap.mailbox_name import PLAIN, InvalidName, Name, Wire
from mailserver.protocols.imap.parse_date import date_time
from mailserver.protocols.imap.parse_fetch import fetch_items
from mailserver.protocols.imap.parse_list import list_arguments, lsub_arguments, status_items
from mailserver.protocols.imap.parse_search import search_program

MAX_KEYWORD_OCTETS = 128
MAX_ID_PAIRS = 30
"""RFC 2971 §3.3; more are left unread, as nothing depends on them."""

_SYSTEM_FLAGS = {b"\\" + flag.name.encode(): flag for flag in SystemFlag if flag.name}
_SEARCH_RETURNS = {option.value: option for option in SearchReturn}
_USES = {name.upper().encode(): f"\\{name}" for name in ("Archive", "Drafts", "Junk", "Sent", "Trash")}
_STORE_MODES = {b"+": StoreMode.ADD, b"-": StoreMode.REMOVE}


class Reader(Cursor):
    """A cursor that also knows how mailboxes are named here."""

    __slots__ = ("wire",)

    def __init__(self, pieces: tuple[bytes, ...], tag: str, wire: Wire) -> None:
        super().__init__(pieces, tag)
        self.wire = wire

    def mailbox(self, *, creating: bool = False) -> Name:
        octets = self.astring()
        try:
            return mailbox_name.decode(octets, self.wire, creating=creating)
        except InvalidName as error:
            raise Refused(self.tag, "CANNOT", str(error)) from None


def parse(framed: Framed, wire: Wire = PLAIN) -> Command:
    """The command; BadSyntax (answer BAD) or Refused (answer NO) where there is none."""
    first = framed.pieces[0]
    tag = tag_of(first)
    c = Reader(framed.pieces, tag, wire)
    if tag == "*" or not c.accept(tag.encode()):
        c.fail("Invalid tag")
    c.space()
    name = c.word()
    if name == b"UID":
        c.space()
        name = b"UID " + c.word()
    reader = _READERS.get(name)
    if reader is None:
        c.fail("Unknown command")
    command = reader(c)
    c.end()
    return command


# Any state


def _id(c: Reader) -> Command:
    c.space()
    if not c.accept(b"("):
        if not c.accept_word(b"NIL"):
            c.fail("Expected a list or NIL")
        return commands.Id(c.tag)
    c.accept(b" ")  # aioimaplib puts one there, and another at the end
    parameters: dict[str, str | None] = {}
    pairs = 0
    while not c.accept(b")"):
        pairs += 1
        name = c.string()
        c.space()
        value = c.nstring()
        if not c.looking_at(b")"):
            c.space()
        if pairs <= MAX_ID_PAIRS:
            parameters[name.decode(errors="replace").lower()] = (
                None if value is None else value.decode(errors="replace")
            )
    return commands.Id(c.tag, parameters)


# Before login


def _authenticate(c: Reader) -> Command:
    c.space()
    mechanism = c.atom().decode().upper()
    initial = None
    if not c.at_end:
        # RFC 4959 §3: base64, or "=" for an empty response. What is not base64 is the mechanism's matter.
        c.space()
        initial = c.astring()
    return commands.Authenticate(c.tag, mechanism, initial)


def _login(c: Reader) -> Command:
    c.space()
    name = c.text(c.astring())
    c.space()
    return commands.Login(c.tag, name, c.text(c.astring()))


# After login


def _enable(c: Reader) -> Command:
    extensions = Extension(0)
    while True:
        c.space()
        extensions |= EXTENSIONS.get(c.atom().decode().upper(), Extension(0))
        if c.at_end:
            return commands.Enable(c.tag, extensions)


def _select(c: Reader, *, read_only: bool = False) -> Command:
    c.space()
    mailbox = c.mailbox()
    condstore = False
    if c.accept(b" ("):
        # RFC 4466 §2.1: parameters, each once.
        if not c.accept_word(b"CONDSTORE"):
            c.fail("Unknown parameter")
        condstore = True
        c.expect(b")")
    return commands.Select(c.tag, mailbox, read_only, condstore)


def _create(c: Reader) -> Command:
    c.space()
    mailbox = c.mailbox(creating=True)
    uses: tuple[str, ...] = ()
    if c.accept(b" ("):
        # RFC 4466 §2.2: parameters, each once.
        if not c.accept_word(b"USE "):
            c.fail("Unknown parameter")
        uses = _uses(c)
        c.expect(b")")
    return commands.Create(c.tag, mailbox, uses)


def _uses(c: Reader) -> tuple[str, ...]:
    """Attributes of RFC 6154 §2; those that show what is in other mailboxes, and unknown ones, are refused."""
    c.expect(b"(")
    names: dict[bytes, None] = {}
    while not c.accept(b")"):
        if names:
            c.space()
        c.expect(b"\\")
        names[c.atom().upper()] = None
    if not _USES.keys() >= names.keys():
        raise Refused(c.tag, "USEATTR", "No mailbox can be created for this use")
    return tuple([_USES[name] for name in names])


def _delete(c: Reader) -> Command:
    c.space()
    return commands.Delete(c.tag, c.mailbox())


def _rename(c: Reader) -> Command:
    c.space()
    source = c.mailbox()
    c.space()
    return commands.Rename(c.tag, source, c.mailbox(creating=True))


def _subscribe(c: Reader) -> Command:
    c.space()
    return commands.Subscribe(c.tag, c.mailbox())


def _unsubscribe(c: Reader) -> Command:
    c.space()
    return commands.Unsubscribe(c.tag, c.mailbox())


def _list(c: Reader) -> Command:
    return list_arguments(c, c.wire)


def _lsub(c: Reader) -> Command:
    return lsub_arguments(c, c.wire)


def _status(c: Reader) -> Command:
    c.space()
    mailbox = c.mailbox()
    c.space()
    return commands.Status(c.tag, mailbox, status_items(c))


def _append(c: Reader) -> Command:
    c.space()
    mailbox = c.mailbox()
    c.space()
    flags = Flags()
    if c.looking_at(b"("):
        flags = _flag_list(c)
        c.space()
    received = None
    if c.looking_at(b'"'):
        received = date_time(c)
        c.space()
    # RFC 6855 §4: a message with UTF-8 in its header comes as UTF8 (~{n} …).
    utf8 = c.accept_word(b"UTF8 (~")
    message = c.literal_if()
    if message is None:
        c.fail("Expected the message as a literal")
    if utf8:
        c.expect(b")")
    return commands.Append(c.tag, mailbox, message, flags, received)


# With a mailbox selected


def _uid_expunge(c: Reader) -> Command:
    c.space()
    return commands.Expunge(c.tag, c.sequence_set())


def _search(c: Reader, *, by_uid: bool = False) -> Command:
    c.space()
    returns = _search_returns(c) if c.accept_word(b"RETURN ") else None
    return commands.Search(c.tag, search_program(c, utf8=c.wire.utf8), by_uid, returns)


def _search_returns(c: Reader) -> frozenset[SearchReturn]:
    """The options of an extended SEARCH; none of them is the same as ALL (RFC 4731 §3.1)."""
    c.expect(b"(")
    options: set[SearchReturn] = set()
    while not c.accept(b")"):
        if options:
            c.space()
        option = _SEARCH_RETURNS.get(c.word())
        if option is None:
            c.fail("Unknown RETURN option")
        options.add(option)
    c.space()
    return frozenset(options or {SearchReturn.ALL})


def _fetch(c: Reader, *, by_uid: bool = False) -> Command:
    c.space()
    messages = c.sequence_set()
    c.space()
    items = fetch_items(c)
    changedsince = None
    if c.accept(b" ("):
        if not c.accept_word(b"CHANGEDSINCE "):
            c.fail("Unknown FETCH modifier")
        changedsince = c.mod_sequence()  # zero, which RFC 7162 §7 leaves out, is what Thunderbird begins with
        c.expect(b")")
    return commands.Fetch(c.tag, messages, items, by_uid, changedsince)


def _store(c: Reader, *, by_uid: bool = False) -> Command:
    c.space()
    messages = c.sequence_set()
    c.space()
    unchangedsince = None
    if c.accept(b"("):
        if not c.accept_word(b"UNCHANGEDSINCE "):
            c.fail("Unknown STORE modifier")
        unchangedsince = c.mod_sequence()
        c.expect(b") ")
    mode = next((mode for sign, mode in _STORE_MODES.items() if c.accept(sign)), StoreMode.REPLACE)
    item = c.word()
    if item not in (b"FLAGS", b"FLAGS.SILENT"):
        c.fail("Unknown STORE item")
    c.space()
    flags = _flag_list(c) if c.looking_at(b"(") else _bare_flags(c)
    return commands.Store(c.tag, messages, mode, flags, item == b"FLAGS.SILENT", by_uid, unchangedsince)


def _copy(c: Reader, *, by_uid: bool = False) -> Command:
    c.space()
    messages = c.sequence_set()
    c.space()
    return commands.Copy(c.tag, messages, c.mailbox(), by_uid)


def _move(c: Reader, *, by_uid: bool = False) -> Command:
    c.space()
    messages = c.sequence_set()
    c.space()
    return commands.Move(c.tag, messages, c.mailbox(), by_uid)


# Flags


def _flag_list(c: Reader) -> Flags:
    c.expect(b"(")
    if c.accept(b")"):
        return Flags()
    flags = [_flag(c)]
    while not c.accept(b")"):
        c.space()
        flags.append(_flag(c))
    return _flags(flags)


def _bare_flags(c: Reader) -> Flags:
    """STORE's flags without parentheses."""
    flags = [_flag(c)]
    while not c.at_end:
        c.space()
        flags.append(_flag(c))
    return _flags(flags)


def _flag(c: Reader) -> SystemFlag | str | None:
    r"""One flag; None for \Recent, which no client can change (RFC 3501 §2.3.2) but some send back as they got it."""
    if c.accept(b"\\"):
        name = b"\\" + c.atom().upper()
        if name not in _SYSTEM_FLAGS and name != b"\\RECENT":
            c.fail("Unknown system flag")
        return _SYSTEM_FLAGS.get(name)
    keyword = c.atom()
    if len(keyword) > MAX_KEYWORD_OCTETS:
        raise Refused(c.tag, "LIMIT", "Keyword is too long")
    return keyword.decode()


def _flags(flags: list[SystemFlag | str | None]) -> Flags:
    system = 0
    keywords: dict[str, str] = {}
    for flag in flags:
        if isinstance(flag, SystemFlag):
            system |= flag
        elif flag is not None:
            # Flags are the same in any case (RFC 3501 §2.3.2, §9): the first spelling stands.
            keywords.setdefault(flag.lower(), flag)
    return Flags(int(system), tuple(keywords.values()))


def _plain(kind: type[Command]) -> Callable[[Reader], Command]:
    """A command without arguments."""
    return lambda c: kind(c.tag)


_READERS: dict[bytes, Callable[[Reader], Command]] = {
    b"CAPABILITY": _plain(commands.Capability),
    b"NOOP": _plain(commands.Noop),
    b"LOGOUT": _plain(commands.Logout),
    b"ID": _id,
    b"STARTTLS": _plain(commands.StartTls),
    b"AUTHENTICATE": _authenticate,
    b"LOGIN": _login,
    b"ENABLE": _enable,
    b"SELECT": _select,
    b"EXAMINE": lambda c: _select(c, read_only=True),
    b"CREATE": _create,
    b"DELETE": _delete,
    b"RENAME": _rename,
    b"SUBSCRIBE": _subscribe,
    b"UNSUBSCRIBE": _unsubscribe,
    b"LIST": _list,
    b"LSUB": _lsub,
    b"NAMESPACE": _plain(commands.Namespace),
    b"STATUS": _status,
    b"APPEND": _append,
    b"IDLE": _plain(commands.Idle),
    b"CHECK": _plain(commands.Check),
    b"CLOSE": _plain(commands.Close),
    b"UNSELECT": _plain(commands.Unselect),
    b"EXPUNGE": _plain(commands.Expunge),
    b"UID EXPUNGE": _uid_expunge,
    b"SEARCH": _search,
    b"UID SEARCH": lambda c: _search(c, by_uid=True),
    b"FETCH": _fetch,
    b"UID FETCH": lambda c: _fetch(c, by_uid=True),
    b"STORE": _store,
    b"UID STORE": lambda c: _store(c, by_uid=True),
    b"COPY": _copy,
    b"UID COPY": lambda c: _copy(c, by_uid=True),
    b"MOVE": _move,
    b"UID MOVE": lambda c: _move(c, by_uid=True),
}
