"""Mailbox names: tuples of Unicode components inside; on the wire modified UTF-7 (RFC 3501 §5.1.3), or UTF-8 for those
who have enabled it (RFC 6855 §3).

Names are Net-Unicode (RFC 5198 §2): in the normalisation form C, without control characters, no BOM in front. What a
client writes is normalised, so however it spells `é`, it finds the one mailbox of that name.

`decode` is strict where laxness would let one mailbox have two names: a base64 run must be canonical and must not hide
what has to be written directly. A name with octets above 127 is UTF-8 also before that is enabled: modified UTF-7 has
none.

A component may hold the separator character itself (it was made while another separator was set). Towards the client
it is then written so as no client does of its own, and read back so: in modified UTF-7 as a base64 run, in UTF-8 as
the private character 0xF000 above it, which no name may contain otherwise.

INBOX is spelled in any case; as the first component it is always "INBOX" here.

`Pattern` matches LIST's `%` and `*` by running all ways through the pattern at once, as bits of one integer: time is
the name's length, whatever the pattern. Between components both sides hold NUL, which no name contains.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import NamedTuple

Name = tuple[str, ...]

INBOX: Name = ("INBOX",)

MAX_COMPONENT_OCTETS = 255
MAX_NAME_OCTETS = 1000
MAX_DEPTH = 100

_SHIFTED = re.compile(r"&([^&-]*)-")
_UNSAFE = re.compile(r"[^\x20-\x7e]+|&")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]|[\ud800-\udfff]")
_BETWEEN = "\0"
_STAND_INS = {separator: chr(0xF000 + ord(separator)) for separator in "/."}
_RESERVED = re.compile("[" + "".join(_STAND_INS.values()) + "]|\\A\ufeff")


class Wire(NamedTuple):
    """How names are written towards a client: what separates their levels, and whether they are UTF-8."""

    separator: str = "/"
    utf8: bool = False


PLAIN = Wire()


class InvalidName(ValueError):
    """The text names no possible mailbox; the message says why, in words fit for the client."""


def decode(octets: bytes, wire: Wire, *, creating: bool = False) -> Name:
    """The name that a client wrote.

    creating: a separator at the end only says that children are meant to follow, and is dropped (RFC 3501 §6.3.3).
    """
    components = _text(octets, wire).split(_BETWEEN)
    if creating and len(components) > 1 and components[-1] == "":
        components.pop()
    name = normal(tuple(components))
    check(name)
    return name


def _text(octets: bytes, wire: Wire) -> str:
    """Unicode text with NUL for every separator."""
    if not wire.utf8 and octets.isascii():
        return _composed(_unshift(octets, wire.separator))
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise InvalidName("Mailbox name is not UTF-8") from None
    if _BETWEEN in text:
        raise InvalidName("Mailbox name has a control character")
    return _composed(text.replace(wire.separator, _BETWEEN)).replace(_STAND_INS[wire.separator], wire.separator)


def _composed(text: str) -> str:
    """`text` in form C, which never has less than a third of the characters. Its time may grow with their square."""
    if len(text) > 3 * MAX_NAME_OCTETS:
        raise InvalidName("Mailbox name is too long")
    return unicodedata.normalize("NFC", text)


def normal(name: Name) -> Name:
    """`name` with INBOX in its one spelling."""
    if name[0] != "INBOX" and name[0].isascii() and name[0].upper() == "INBOX":
        return ("INBOX", *name[1:])
    return name


def check(name: Name) -> None:
    """Raise InvalidName unless a mailbox may have this name."""
    if not name or "" in name:
        raise InvalidName("Mailbox name has an empty part")
    if len(name) > MAX_DEPTH:
        raise InvalidName("Mailbox name has too many levels")
    lengths = [0 if _CONTROL.search(part) else len(part.encode()) for part in name]
    if 0 in lengths:
        raise InvalidName("Mailbox name has a control character")
    if any(_RESERVED.search(part) for part in name):
        raise InvalidName("Mailbox name has a character that has a meaning of its own here")
    if max(lengths) > MAX_COMPONENT_OCTETS or sum(lengths) + len(name) > MAX_NAME_OCTETS:
        raise InvalidName("Mailbox name is too long")


def encode(name: Name, wire: Wire) -> bytes:
    """`name` as it goes to a client, not yet quoted."""
    separator = wire.separator
    if wire.utf8:
        return separator.join([part.replace(separator, _STAND_INS[separator]) for part in name]).encode()
    return separator.encode().join([_shift_component(part, separator) for part in name])


def _utf7(text: str) -> bytes:
    """`text` in modified UTF-7."""
    return _UNSAFE.sub(lambda run: _shift(run[0]), text).encode("ascii")


def _shift_component(part: str, separator: str) -> bytes:
    if separator not in part:
        return _utf7(part)
    shifted = b"&" + _base64(separator) + b"-"
    return shifted.join(_utf7(piece) for piece in part.split(separator))


def _shift(run: str) -> str:
    return "&-" if run == "&" else "&" + _base64(run).decode() + "-"


def _base64(text: str) -> bytes:
    return b64encode(text.encode("utf-16-be")).rstrip(b"=").replace(b"/", b",")


def _unshift(octets: bytes, separator: str) -> str:
    """Modified UTF-7 as Unicode text with NUL for every separator."""
    text = octets.decode("ascii")
    if _BETWEEN in text:
        raise InvalidName("Mailbox name has a control character")
    if "&" not in text:
        return text.replace(separator, _BETWEEN)
    parts: list[str] = []
    end = 0
    for match in _SHIFTED.finditer(text):
        parts += _direct(text[end : match.start()], separator), _run(match[1], separator)
        end = match.end()
    parts.append(_direct(text[end:], separator))
    return "".join(parts)


def _direct(text: str, separator: str) -> str:
    if "&" in text:
        raise InvalidName("Mailbox name is not modified UTF-7")
    return text.replace(separator, _BETWEEN)


def _run(encoded: str, separator: str) -> str:
    """What one `&…-` stands for."""
    if not encoded:
        return "&"
    octets = encoded.encode().replace(b",", b"/")
    try:
        # "/" was the comma; a slash of the client's own is outside the alphabet.
        if "/" in encoded:
            raise InvalidName("Mailbox name is not modified UTF-7")
        text = b64decode(octets + b"=" * (-len(octets) % 4), validate=True).decode("utf-16-be")
    except (Base64Error, UnicodeDecodeError):
        raise InvalidName("Mailbox name is not modified UTF-7") from None
    if _base64(text).decode() != encoded or (text != separator and any(" " <= char <= "~" for char in text)):
        raise InvalidName("Mailbox name is not modified UTF-7 in its one proper form")
    return text


@dataclass(frozen=True, slots=True)
class Pattern:
    """A LIST pattern, reference in front. text: Unicode, NUL for the separator, wildcards as `%` and `*`."""

    text: str
    _masks: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)
    _stays: tuple[int, int] = field(init=False, repr=False, compare=False, default=(0, 0))
    _wild: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        """Bit i of a state says: the first i characters of the pattern are matched."""
        text = _fewer_wildcards(self.text)
        masks: dict[str, int] = {}
        star = percent = 0
        for at, char in enumerate(text):
            if char == "*":
                star |= 1 << at
            elif char == "%":
                percent |= 1 << at
            else:
                masks[char] = masks.get(char, 0) | 1 << at
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "_masks", masks)
        object.__setattr__(self, "_stays", (star, star | percent))
        object.__setattr__(self, "_wild", star | percent)

    def matches(self, name: Name) -> bool:
        """Whether the pattern matches the whole name."""
        text = self.text
        if text == "*":
            return True
        if text == "%":
            return len(name) == 1
        return self._run(_BETWEEN.join(name), 5 if name[0] == "INBOX" else 0)

    def _run(self, subject: str, caseless: int) -> bool:
        """caseless: how many leading characters, INBOX's, are compared without case."""
        masks, wild = self._masks, self._wild
        star, within = self._stays
        states = _past_wildcards(1, wild)
        for at, char in enumerate(subject):
            step = masks.get(char, 0)
            if at < caseless:
                step |= masks.get(char.lower(), 0)
            states = _past_wildcards((states & step) << 1 | states & (star if char == _BETWEEN else within), wild)
            if not states:
                return False
        return bool(states >> len(self.text) & 1)


def _past_wildcards(states: int, wild: int) -> int:
    """A wildcard may match nothing. No two stand side by side, so one step is enough."""
    return states | (states & wild) << 1


def _fewer_wildcards(text: str) -> str:
    """The same pattern with each run of wildcards made one."""
    return re.sub(r"[%*]{2,}", lambda run: "*" if "*" in run[0] else "%", text)


def pattern(reference: bytes, octets: bytes, wire: Wire) -> Pattern:
    """The pattern that LIST's two arguments make together (RFC 3501 §6.3.8): one put behind the other.

    Text that no mailbox name could hold makes a pattern that matches nothing, rather than an error.
    """
    try:
        return Pattern(_text(reference + octets, wire))
    except InvalidName:
        return Pattern(_BETWEEN + _BETWEEN)
