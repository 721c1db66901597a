"""The trace fields that a receiving server puts in front of a message (RFC 5321 §4.4), and reading them back.

They are a prefix of their own: the octets that were received are never changed. Whatever a peer said of itself is made
harmless here: anything that could end a token, a comment or a line becomes `?`.
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache

from mailserver.message import dates, headers

MAX_NAME = 255
MAX_PATH = 1_000

_NOT_NAME = re.compile(r"[^\w.:\[\]-]", re.ASCII)
_NOT_PATH = re.compile(r"[\x00-\x20\x7f<>]")
_NOT_TOKEN = re.compile(r"[^\w.+/-]", re.ASCII)


def received(
    *,
    helo: str,
    peer: str,
    by: str,
    protocol: str,
    trace_id: str,
    when: int,
    zone: int = 0,
    peer_name: str | None = None,
    tls: str | None = None,
    recipient: str | None = None,
) -> bytes:
    """A Received field with its line end.

    peer: the client's IP address; peer_name: its verified host name; protocol: RFC 3848's word (ESMTPSA …);
    tls: version and cipher; recipient: only where there is a single one (RFC 5321 §7.2 on what `for` may disclose);
    when, zone: epoch seconds, minutes east of UTC.
    """
    tcp_info = f"{_name(peer_name)} {_literal(peer)}" if peer_name else _literal(peer)
    lines = [
        f"Received: from {_name(helo) or 'unknown'} ({tcp_info})",
        f"by {_name(by)} with {_NOT_TOKEN.sub('?', protocol)} id {_NOT_TOKEN.sub('?', trace_id)}",
    ]
    if tls:
        lines.append(f"({' '.join(_NOT_TOKEN.sub('?', word) for word in tls.split())})")
    if recipient and (recipient.isascii() or protocol.startswith("UTF8")):  # RFC 6531 §3.7.3
        lines.append(f"for <{_path(recipient)}>")
    date = dates.format_rfc5322(when, zone).decode("ascii")
    return ("\r\n\t".join(lines) + f";\r\n\t{date}\r\n").encode()


def return_path(sender: str) -> bytes:
    """A Return-Path field with its line end; an empty sender is the null path."""
    return f"Return-Path: <{_path(sender)}>\r\n".encode()


def delivered_to(address: str) -> bytes:
    """A Delivered-To field with its line end: whose mailbox this copy went to, and how a loop is found."""
    return f"Delivered-To: {_path(address)}\r\n".encode()


def hops(header: bytes) -> int:
    """How many Received fields there are (RFC 5321 §6.3 counts them to find loops)."""
    return sum(1 for _ in headers.named(header, b"received"))


def was_delivered_to(header: bytes, address: str) -> bool:
    """Whether a Delivered-To field names this address, without regard to case."""
    wanted = _path(address).encode().lower()
    return any(value.lower() == wanted for value in headers.values(header, b"delivered-to"))


def _name(name: str | None) -> str:
    return _NOT_NAME.sub("?", (name or "")[:MAX_NAME])


def _path(path: str) -> str:
    return _NOT_PATH.sub("?", path[:MAX_PATH])


@lru_cache(maxsize=256)
def _literal(peer: str) -> str:
    """RFC 5321 §4.1.3: an address literal."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return "[unknown]"
    return f"[IPv6:{address}]" if address.version == 6 else f"[{address}]"
