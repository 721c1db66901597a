"""What a client can ask of an IMAP server, as values that cannot be wrong.

`parse.parse` makes these from framed octets; after it nobody splits strings. Every command carries its tag. Mailbox
names are tuples of Unicode components (`mailbox_name`), sets of messages are `SequenceSet`s, and everything else is a
number, a text or one of the small records below. A message set's numbers are UIDs where `by_uid` is true (the command
was `UID …`) and message sequence numbers elsewhere.

An extension adds fields with defaults to its command, or a command of its own; handlers written before go on working.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import Enum, IntFlag

from mailserver.protocols.imap.mailbox_name import Name, Pattern
from mailserver.protocols.imap.sequence_set import SequenceSet


@dataclass(frozen=True, slots=True)
class Command:
    """Base of all commands."""

    tag: str


# Flags


class SystemFlag(IntFlag):
    """RFC 3501 §2.3.2; the bits are the ones that storage keeps. \\Recent is no flag that a client can set."""

    SEEN = 1
    ANSWERED = 2
    FLAGGED = 4
    DELETED = 8
    DRAFT = 16


@dataclass(frozen=True, slots=True)
class Flags:
    """A flag list: system flags as bits, keywords in the client's spelling, each once."""

    system: int = 0
    keywords: tuple[str, ...] = ()


# What a client has to ask for


class Extension(IntFlag):
    """What a server does only for a client that has asked for it (RFC 5161)."""

    CONDSTORE = 1
    """RFC 7162 §3.1: mod-sequences in all that is told of flags."""
    UTF8_ACCEPT = 2
    """RFC 6855."""


EXTENSIONS: Mapping[str, Extension] = {"CONDSTORE": Extension.CONDSTORE, "UTF8=ACCEPT": Extension.UTF8_ACCEPT}
"""By the name that ENABLE takes."""


# FETCH


class Attribute(Enum):
    """FETCH items without arguments; the value is the item's name in the response."""

    UID = b"UID"
    FLAGS = b"FLAGS"
    INTERNALDATE = b"INTERNALDATE"
    SIZE = b"RFC822.SIZE"
    ENVELOPE = b"ENVELOPE"
    BODY = b"BODY"
    """BODYSTRUCTURE without extension data."""
    BODYSTRUCTURE = b"BODYSTRUCTURE"
    MODSEQ = b"MODSEQ"


@dataclass(frozen=True, slots=True)
class BodySection:
    """BODY[…], BODY.PEEK[…] and the RFC822 family.

    part: numbers of the part, () for the message. kind: "" (everything), "HEADER", "HEADER.FIELDS",
    "HEADER.FIELDS.NOT", "TEXT" or "MIME". fields: header names in lower case, for the two FIELDS kinds.
    partial: first octet and how many, RFC 3501 §6.4.5. label: the item's name in the response, `<origin>` included.
    """

    label: bytes
    part: tuple[int, ...] = ()
    kind: str = ""
    fields: frozenset[bytes] = frozenset()
    partial: tuple[int, int] | None = None
    peek: bool = False


FetchItem = Attribute | BodySection


# SEARCH. Texts are decoded to Unicode by the command's CHARSET; folding is the evaluator's matter.


class Compare(Enum):
    """How a day is compared: strictly earlier, the same, the same or later (RFC 3501 §6.4.4)."""

    BEFORE = "BEFORE"
    ON = "ON"
    SINCE = "SINCE"


@dataclass(frozen=True, slots=True)
class Everything:
    """ALL."""


@dataclass(frozen=True, slots=True)
class And:
    """All of these; at least two, none of them an And."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of these; at least two, none of them an Or."""

    keys: tuple[SearchKey, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Never a Not of a Not."""

    key: SearchKey


@dataclass(frozen=True, slots=True)
class InSet:
    """Messages by sequence number, or by UID."""

    numbers: SequenceSet
    by_uid: bool


@dataclass(frozen=True, slots=True)
class HasFlag:
    """ANSWERED, DELETED, DRAFT, FLAGGED, SEEN; the UN… keys are a Not of it."""

    flag: SystemFlag


@dataclass(frozen=True, slots=True)
class HasKeyword:
    """KEYWORD; compared without case."""

    keyword: str


@dataclass(frozen=True, slots=True)
class IsRecent:
    """RECENT; OLD is a Not of it, NEW an And with a Not of SEEN."""


@dataclass(frozen=True, slots=True)
class Larger:
    """RFC822.SIZE greater than this."""

    octets: int


@dataclass(frozen=True, slots=True)
class Smaller:
    """RFC822.SIZE less than this."""

    octets: int


@dataclass(frozen=True, slots=True)
class Received:
    """BEFORE, ON, SINCE: the internal date, its day as INTERNALDATE shows it."""

    compare: Compare
    day: date


@dataclass(frozen=True, slots=True)
class Sent:
    """SENTBEFORE, SENTON, SENTSINCE: the day in the Date: field, disregarding time and zone."""

    compare: Compare
    day: date


@dataclass(frozen=True, slots=True)
class ModSeq:
    """MODSEQ: the message's mod-sequence is this or greater (RFC 7162 §3.1.5)."""

    value: int


@dataclass(frozen=True, slots=True)
class HeaderHas:
    """HEADER, and BCC CC FROM SUBJECT TO: field name in lower case, text; an empty text asks for presence."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class BodyHas:
    """BODY: the text is somewhere in the message's body."""

    text: str


@dataclass(frozen=True, slots=True)
class TextHas:
    """TEXT: the text is somewhere in the message's header or body."""

    text: str


SearchKey = (
    Everything
    | And
    | Or
    | Not
    | InSet
    | HasFlag
    | HasKeyword
    | IsRecent
    | Larger
    | Smaller
    | Received
    | Sent
    | ModSeq
    | HeaderHas
    | BodyHas
    | TextHas
)


# Any state


@dataclass(frozen=True, slots=True)
class Capability(Command):
    pass


@dataclass(frozen=True, slots=True)
class Noop(Command):
    pass


@dataclass(frozen=True, slots=True)
class Logout(Command):
    pass


@dataclass(frozen=True, slots=True)
class Id(Command):
    """RFC 2971. parameters: names in lower case; a value is None where the client sent NIL."""

    parameters: Mapping[str, str | None] = field(default_factory=dict)


# Before login


@dataclass(frozen=True, slots=True)
class StartTls(Command):
    pass


@dataclass(frozen=True, slots=True)
class Authenticate(Command):
    """mechanism: upper case. initial: the base64 text of the initial response (RFC 4959), `=` being empty, or None."""

    mechanism: str
    initial: bytes | None = None


@dataclass(frozen=True, slots=True)
class Login(Command):
    name: str
    password: str = field(repr=False)


# After login


@dataclass(frozen=True, slots=True)
class Enable(Command):
    """RFC 5161; names that nobody knows are left out."""

    extensions: Extension


@dataclass(frozen=True, slots=True)
class Select(Command):
    """SELECT, or EXAMINE where read_only. condstore: the parameter of RFC 7162 §3.1.8."""

    mailbox: Name
    read_only: bool = False
    condstore: bool = False


@dataclass(frozen=True, slots=True)
class Create(Command):
    """uses: special-use attributes with their backslash (RFC 6154 §3), each once, such as a mailbox can be given."""

    mailbox: Name
    uses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete(Command):
    mailbox: Name


@dataclass(frozen=True, slots=True)
class Rename(Command):
    source: Name
    target: Name


@dataclass(frozen=True, slots=True)
class Subscribe(Command):
    mailbox: Name


@dataclass(frozen=True, slots=True)
class Unsubscribe(Command):
    mailbox: Name


class ListOption(IntFlag):
    """Options of an extended LIST (RFC 5258 §3.1, §3.2, RFC 6154 §2). REMOTE adds none: all mailboxes are here."""

    NONE = 0
    SUBSCRIBED = 1
    SPECIAL_USE = 2
    REMOTE = 4
    RECURSIVEMATCH = 8
    CHILDREN = 16


@dataclass(frozen=True, slots=True)
class List(Command):
    """patterns: the reference is already put in front; without any, a plain LIST asks for the separator (LIST "" "").

    only: what the names must be; show: what is told of them; status: STATUS items to tell of each (RFC 5819).
    """

    patterns: tuple[Pattern, ...]
    extended: bool = False
    only: ListOption = ListOption.NONE
    show: ListOption = ListOption.NONE
    status: tuple[StatusItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Lsub(Command):
    """As a plain List, for subscribed names (RFC 3501 §6.3.9)."""

    patterns: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Namespace(Command):
    pass


class StatusItem(Enum):
    """The value is the item's name on the wire."""

    MESSAGES = b"MESSAGES"
    RECENT = b"RECENT"
    UIDNEXT = b"UIDNEXT"
    UIDVALIDITY = b"UIDVALIDITY"
    UNSEEN = b"UNSEEN"
    HIGHESTMODSEQ = b"HIGHESTMODSEQ"
    SIZE = b"SIZE"
    APPENDLIMIT = b"APPENDLIMIT"


@dataclass(frozen=True, slots=True)
class Status(Command):
    """items: each once, in the client's order."""

    mailbox: Name
    items: tuple[StatusItem, ...]


@dataclass(frozen=True, slots=True)
class Append(Command):
    """received: INTERNALDATE asked for, epoch seconds, or None. message: octets as sent, NUL allowed."""

    mailbox: Name
    message: bytes = field(repr=False)
    flags: Flags = Flags()
    received: int | None = None


@dataclass(frozen=True, slots=True)
class Idle(Command):
    """RFC 2177; the client's DONE is read as a bare line, see framing.Framer.expect_line."""


# With a mailbox selected


@dataclass(frozen=True, slots=True)
class Check(Command):
    pass


@dataclass(frozen=True, slots=True)
class Close(Command):
    pass


@dataclass(frozen=True, slots=True)
class Unselect(Command):
    pass


@dataclass(frozen=True, slots=True)
class Expunge(Command):
    """uids: None for EXPUNGE, the set of UID EXPUNGE (RFC 4315)."""

    uids: SequenceSet | None = None


class SearchReturn(Enum):
    """What an extended SEARCH tells of what it found (RFC 4731 §3.1)."""

    MIN = b"MIN"
    MAX = b"MAX"
    ALL = b"ALL"
    COUNT = b"COUNT"


@dataclass(frozen=True, slots=True)
class Search(Command):
    """returns: None for a plain SEARCH, else what the ESEARCH response shall hold."""

    key: SearchKey
    by_uid: bool = False
    returns: frozenset[SearchReturn] | None = None


@dataclass(frozen=True, slots=True)
class Fetch(Command):
    """items: each once; macros are expanded. With by_uid the response must hold UID, asked for or not.

    changedsince: only messages with a greater mod-sequence, and MODSEQ in the response (RFC 7162 §3.1.4.1).
    """

    messages: SequenceSet
    items: tuple[FetchItem, ...]
    by_uid: bool = False
    changedsince: int | None = None

    @property
    def sets_seen(self) -> bool:
        """Whether an item asks for \\Seen to be set (RFC 3501 §6.4.5)."""
        return any(isinstance(item, BodySection) and not item.peek for item in self.items)


class StoreMode(Enum):
    """The value is the operator as storage's FlagChange spells it."""

    ADD = "+"
    REMOVE = "-"
    REPLACE = "="


@dataclass(frozen=True, slots=True)
class Store(Command):
    """unchangedsince: leave messages with a greater mod-sequence as they are (RFC 7162 §3.1.3)."""

    messages: SequenceSet
    mode: StoreMode
    flags: Flags
    silent: bool = False
    by_uid: bool = False
    unchangedsince: int | None = None


@dataclass(frozen=True, slots=True)
class Copy(Command):
    messages: SequenceSet
    mailbox: Name
    by_uid: bool = False


@dataclass(frozen=True, slots=True)
class Move(Command):
    """RFC 6851."""

    messages: SequenceSet
    mailbox: Name
    by_uid: bool = False


# What is wrong with a command


class CommandError(Exception):
    """Base of what `parse` raises. tag is "*" where the client's own could not be read."""

    def __init__(self, tag: str, text: str) -> None:
        super().__init__(text)
        self.tag = tag
        self.text = text


class BadSyntax(CommandError):
    """The client broke the grammar, or named a command that does not exist: answer BAD."""


class Refused(CommandError):
    """The grammar holds but the value cannot be accepted: answer NO. code: a response code's text, such as CANNOT."""

    def __init__(self, tag: str, code: str, text: str) -> None:
        super().__init__(tag, text)
        self.code = code
