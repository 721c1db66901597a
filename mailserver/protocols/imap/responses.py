r"""Builders of what the server says (RFC 3501 §7). Values in, octets out; nothing that a peer sent can break a line.

Human text may echo anything: control characters become spaces, what is not ASCII a question mark, and a text that looks
like a response code is told apart from one. Strings are quoted where the grammar allows, else literals; one with a NUL
is a literal8 (RFC 3516 §4.3), which is the only form that can hold it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from mailserver.protocols.imap.mailbox_name import Name, Wire, encode
from mailserver.protocols.imap.sequence_set import compact

MAX_TEXT = 400
_MAX_QUOTED = 1000

_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f]+")
_NOT_CODE = re.compile(r"[\x00-\x1f\x7f-\U0010ffff\]]+")
_ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_NOT_QUOTED = re.compile(rb"[\x00\r\n\x80-\xff]")
_TO_ESCAPE = re.compile(rb'(["\\])')


# Status responses (§7.1)


def tagged(tag: str, condition: str, text: str, code: str = "") -> bytes:
    """`a1 OK [CODE] text`. tag "*" makes it untagged."""
    bracketed = f"[{_NOT_CODE.sub(' ', code)}] " if code else ""
    return f"{tag} {condition} {bracketed}{_human(text, code)}\r\n".encode("ascii", "replace")


def ok(tag: str, text: str, code: str = "") -> bytes:
    return tagged(tag, "OK", text, code)


def no(tag: str, text: str, code: str = "") -> bytes:
    return tagged(tag, "NO", text, code)


def bad(tag: str, text: str, code: str = "") -> bytes:
    return tagged(tag, "BAD", text, code)


def bye(text: str, code: str = "") -> bytes:
    return tagged("*", "BYE", text, code)


def continuation(text: str = "OK") -> bytes:
    """`+ text`: go on with the literal, or with IDLE."""
    return f"+ {_human(text, '')}\r\n".encode("ascii", "replace")


def challenge(base64: bytes) -> bytes:
    """`+ base64`: the next step of AUTHENTICATE (§7.5)."""
    return b"+ " + base64 + b"\r\n"


def _human(text: str, code: str) -> str:
    text = _NOT_TEXT.sub(" ", text[:MAX_TEXT]).strip() or "."
    # Without a code before it, text in brackets would be taken for one.
    return text if code or text[0] != "[" else "(" + text[1:]


def append_uid(uidvalidity: int, uids: Iterable[int]) -> str:
    """The code APPENDUID (RFC 4315 §3)."""
    return f"APPENDUID {uidvalidity} {compact(uids).decode()}"


def copy_uid(uidvalidity: int, source: Iterable[int], destination: Iterable[int]) -> str:
    """The code COPYUID (RFC 4315 §3): both sets pair by pair."""
    return f"COPYUID {uidvalidity} {compact(source).decode()} {compact(destination).decode()}"


def modified(numbers: Iterable[int]) -> str:
    """The code MODIFIED (RFC 7162 §3.1.3)."""
    return f"MODIFIED {compact(numbers).decode()}"


# Strings (§4)


def quoted(octets: bytes) -> bytes:
    """A quoted string; the caller knows that `octets` are ASCII without line ends."""
    return b'"' + _TO_ESCAPE.sub(rb"\\\1", octets) + b'"'


def string(octets: bytes) -> bytes:
    if len(octets) > _MAX_QUOTED or _NOT_QUOTED.search(octets):
        return literal(octets)
    return quoted(octets)


def nstring(octets: bytes | None) -> bytes:
    return b"NIL" if octets is None else string(octets)


def astring(octets: bytes) -> bytes:
    """An atom where that is possible. NIL is quoted, as an atom it would be taken for nothing."""
    return octets if _ATOM.fullmatch(octets) and octets.upper() != b"NIL" else string(octets)


def literal(octets: bytes) -> bytes:
    return literal_head(len(octets), binary=b"\0" in octets) + octets


def literal_head(octets: int, *, binary: bool = False) -> bytes:
    """What announces a literal, or with `binary` a literal8; that many octets must follow."""
    return b"~{%d}\r\n" % octets if binary else b"{%d}\r\n" % octets


# Mailboxes (§7.2)


def mailbox(name: Name, wire: Wire) -> bytes:
    octets = encode(name, wire)
    # RFC 6855 §3: UTF-8 goes into quoted strings for those who have enabled it. Names have no line ends.
    return quoted(octets) if wire.utf8 and not octets.isascii() else astring(octets)


def list_entry(
    attributes: Iterable[str], wire: Wire, name: Name, *, word: bytes = b"LIST", childinfo: Iterable[str] = ()
) -> bytes:
    """A LIST or LSUB line. attributes: with their backslash. childinfo: criteria that names below meet (RFC 5258)."""
    criteria = " ".join([f'"{criterion}"' for criterion in childinfo]).encode()
    extended = b' ("CHILDINFO" (%b))' % criteria if criteria else b""
    flags = " ".join(attributes).encode()
    return b"* %b (%b) %b %b%b\r\n" % (word, flags, _separator(wire), mailbox(name, wire), extended)


def list_separator(wire: Wire, *, word: bytes = b"LIST") -> bytes:
    """The answer to LIST or LSUB with an empty pattern: the separator and the root's name (§6.3.8)."""
    return b'* %b (\\Noselect) %b ""\r\n' % (word, _separator(wire))


def namespace(wire: Wire) -> bytes:
    """One personal namespace, without a prefix (RFC 2342)."""
    return b'* NAMESPACE (("" %b)) NIL NIL\r\n' % _separator(wire)


def status(name: Name, wire: Wire, values: Iterable[tuple[bytes, int]]) -> bytes:
    items = b" ".join([b"%b %d" % pair for pair in values])
    return b"* STATUS %b (%b)\r\n" % (mailbox(name, wire), items)


def _separator(wire: Wire) -> bytes:
    return quoted(wire.separator.encode())


def flags(text: bytes) -> bytes:
    """text: the flags with spaces between."""
    return b"* FLAGS (%b)\r\n" % text


def exists(count: int) -> bytes:
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    return b"* %d RECENT\r\n" % count


# Server (§7.2.1, RFC 2971)


def capability(names: Iterable[str]) -> bytes:
    return b"* CAPABILITY " + " ".join(names).encode() + b"\r\n"


def enabled(names: Iterable[str]) -> bytes:
    """RFC 5161 §3.2; it may be empty."""
    return " ".join(["* ENABLED", *names]).encode() + b"\r\n"


def id_(parameters: Mapping[str, str | None]) -> bytes:
    """RFC 2971 §3.2; no parameters are NIL."""
    pairs = [
        string(name.encode()) + b" " + nstring(None if value is None else value.encode())
        for name, value in parameters.items()
    ]
    return b"* ID " + (b"(" + b" ".join(pairs) + b")" if pairs else b"NIL") + b"\r\n"
