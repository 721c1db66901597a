"""What counts as the same address. Pure; every address that enters a directory table passes here first.

The canonical form of an address folds what no mail system tells apart: the domain becomes lower-case A-labels (IDNA
2008 with the UTS 46 mapping, RFC 5891, RFC 5890), the local part is put in NFC and lower case (RFC 5321 §2.4 leaves
the local part to its host, and this host ignores case; RFC 6532 §3.1 asks for NFC), and quotes go where they are not
needed (RFC 5321 §4.1.2: `"alice"@example.org` is `alice@example.org`). A `+tag` stays: it is removed when an address
is looked up, not when it is stored. Outside addresses are kept by `spelled`, because their case belongs to another
host.

A catch-all is written `@domain` and is no address: `pattern` accepts it beside addresses.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata

import idna

MAX_LOCAL_OCTETS = 256
"""Longer than RFC 5321 §4.5.3.1.1 asks for (64): return paths of forwarders and list servers are."""

MAX_DOMAIN_OCTETS = 253
MAX_USERNAME_OCTETS = 128

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_ATOM_ASCII = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~")
_NOT_TEXT = ("Cc", "Cs", "Zl", "Zp")


def canonical(address: str) -> str:
    """The one form of an address that is stored and compared; ValueError where it is none."""
    local, name = split(address)
    return f"{_quoted_if_needed(_fold(_content(local)))}@{domain(name)}"


def spelled(address: str) -> str:
    """The form for another host: the domain folded, the local part's case left alone; ValueError."""
    local, name = split(address)
    return f"{_quoted_if_needed(unicodedata.normalize('NFC', _content(local)))}@{domain(name)}"


def pattern(address: str) -> str:
    """The canonical form of an address, or of a catch-all `@domain`; ValueError."""
    if address.startswith("@"):
        return catch_all(domain(address[1:]))
    return canonical(address)


def catch_all(name: str) -> str:
    return f"@{name}"


def split(address: str) -> tuple[str, str]:
    """Local part and domain as they are spelled; ValueError where one is missing."""
    local, at, name = address.rpartition("@")
    if not (local and at and name):
        raise ValueError(f"{_shown(address)} is not an address of the form name@domain")
    return local, name


def domain_of(address: str) -> str:
    """The domain of a canonical address or catch-all."""
    return address.rpartition("@")[2]


def local_text(address: str) -> str:
    """The local part of a canonical address without quotes."""
    return _content(address.rpartition("@")[0])


def without_tag(address: str) -> str:
    """A canonical address without its `+tag`; itself where it has none."""
    local, _, name = address.rpartition("@")
    if "+" not in local:
        return address
    content = _content(local)
    end = content.find("+", 1)
    return address if end < 0 else f"{_quoted_if_needed(content[:end])}@{name}"


def domain(name: str) -> str:
    """A domain name or address literal in the form that is stored and compared; ValueError."""
    if name.startswith("["):
        return _literal(name)
    if len(name) > MAX_DOMAIN_OCTETS:
        raise ValueError(f"{_shown(name)} is too long for a domain")
    folded = (name if name.isascii() else _to_ascii(name)).lower().removesuffix(".")
    if len(folded) > MAX_DOMAIN_OCTETS or not all(_LABEL.fullmatch(label) for label in folded.split(".")):
        raise ValueError(f"{_shown(name)} is not a domain name")
    return folded


def readable_domain(name: str) -> str:
    """A stored domain as people write it: U-labels where the A-labels are valid."""
    try:
        return idna.decode(name) if "xn--" in name else name
    except UnicodeError:
        return name


def username(name: str) -> str:
    """The stored form of a user name; ValueError.

    RFC 8265 §3.3 (UsernameCaseMapped) in short: lower case, NFC, no spaces, no controls. A name with `@` must be an
    address, and the account's own: storage.accounts checks that.
    """
    if "@" in name:
        return canonical(name)
    folded = _fold(name[: MAX_USERNAME_OCTETS + 1])
    if not _is_dot_string(folded) or len(folded.encode()) > MAX_USERNAME_OCTETS:
        raise ValueError(f"{_shown(name)} cannot be a user name: use letters, digits, dots, - and _")
    return folded


def _to_ascii(name: str) -> str:
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except UnicodeError as error:
        raise ValueError(f"{_shown(name)} is not a domain name: {error}") from error


def _literal(name: str) -> str:
    """RFC 5321 §4.1.3: `[192.0.2.1]` or `[IPv6:2001:db8::1]`."""
    inner = name[1:-1]
    try:
        if not name.endswith("]") or len(name) > 60:
            raise ValueError
        if inner[:5].lower() == "ipv6:":
            return f"[ipv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError:
        raise ValueError(f"{_shown(name)} is not an address literal") from None


def _content(local: str) -> str:
    """The text of a local part: a dot-string as it is, a quoted string without its quotes (RFC 5321 §4.1.2)."""
    if len(local.encode("utf-8", "surrogatepass")) > MAX_LOCAL_OCTETS:
        raise ValueError("the part before the @ is too long")
    if _is_dot_string(local):
        return local
    if len(local) >= 2 and local[0] == local[-1] == '"':
        return _unquote(local)
    raise ValueError(f"{_shown(local)} is not the part of an address before the @")


def _unquote(local: str) -> str:
    content, escaped = [], False
    for char in local[1:-1]:
        if not escaped and char == "\\":
            escaped = True
            continue
        if not _is_text(char) or (char == '"' and not escaped):
            raise ValueError(f"{_shown(local)} is not a quoted string")
        content.append(char)
        escaped = False
    if escaped:
        raise ValueError(f"{_shown(local)} is not a quoted string")
    return "".join(content)


def _quoted_if_needed(content: str) -> str:
    if _is_dot_string(content):
        return content
    escaped = content.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _is_dot_string(text: str) -> bool:
    return all(atom and all(_is_atom(char) for char in atom) for atom in text.split("."))


def _is_atom(char: str) -> bool:
    return char in _ATOM_ASCII if char.isascii() else _is_text(char)  # RFC 6531 §3.3 adds all of UTF8-non-ascii


def _is_text(char: str) -> bool:
    return unicodedata.category(char) not in _NOT_TEXT


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _shown(text: str) -> str:
    """Text in an error message: short, and harmless on a terminal."""
    return ascii(text if len(text) <= 80 else text[:77] + "...") if not text.isprintable() or len(text) > 80 else text
