"""Content-Type (RFC 2045 §5.1) and Content-Disposition (RFC 2183 §2) values.

Senders break this grammar in every way, so only what cannot be understood is dropped: comments anywhere, missing
semicolons after the type, unquoted values with spaces, quotes never closed, parameters without a value. Type, subtype
and names of parameters are case-insensitive and come out in lower case; values stay as they were sent, RFC 2231
continuations included (`name*0*=…`): decode.parameter joins them for those who want text.

Bounds: MAX_VALUE octets of a value are looked at, MAX_PARAMETERS parameters read; linear in the value.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from mailserver.message import imap_text

MAX_VALUE = 65_536
MAX_PARAMETERS = 200
_CACHED_VALUE = 120

Parameters = tuple[tuple[bytes, bytes], ...]


class MediaType(NamedTuple):
    """A Content-Type; `imap` is how BODYSTRUCTURE writes that of a leaf: type, subtype and parameter list."""

    type: bytes
    subtype: bytes
    params: Parameters
    imap: bytes


class Disposition(NamedTuple):
    """A Content-Disposition: `attachment` or `inline`, mostly, and its parameters."""

    type: bytes
    params: Parameters


_TOKEN = rb"[ \t\r\n]*([^\x00-\x20()<>@,;:\\\"/\[\]?=]+)"
_TYPE = re.compile(_TOKEN + rb"[ \t\r\n]*/" + _TOKEN)
# What nearly all of them look like: at most one parameter, which needs no second look.
_ONE_PARAMETER = rb'(?:;[ \t]*([A-Za-z-]+)=(?:"([^"\\]*)"|([A-Za-z0-9._+-]+)))?'
_COMMON_TYPE = re.compile(rb"([A-Za-z0-9.+-]+)/([A-Za-z0-9.+-]+)" + _ONE_PARAMETER)
_COMMON_DISPOSITION = re.compile(rb"([A-Za-z]+)" + _ONE_PARAMETER)
_QUOTED = re.compile(rb'[ \t\r\n]*"([^"\\]*(?:\\.[^"\\]*)*)"?', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_NAME = re.compile(rb"[; \t\r\n]*([^=;\"]*)")
_COMMENT_PIECE = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?|\\.|[()]|[^"\\()]+|.', re.DOTALL)


def parse(value: bytes, default: MediaType) -> MediaType:
    """The media type that a Content-Type field's value names; `default` where the value is no media type.

    RFC 2045 §5.2 recommends the default for a syntactically invalid Content-Type. A bare `text`, which old mailers
    send, counts as text/plain.
    """
    if len(value) <= _CACHED_VALUE:
        return _parse_cached(value, default)
    return _parse(value[:MAX_VALUE], default)


def parse_disposition(value: bytes) -> Disposition | None:
    """The disposition that a Content-Disposition field's value names; None for an empty one."""
    value = value[:MAX_VALUE]
    common = _COMMON_DISPOSITION.fullmatch(value)
    if common is not None:
        kind, name, quoted, token = common.groups()
        return Disposition(kind.lower(), _one_parameter(name, quoted, token))
    value = without_comments(value)
    kind, _, rest = value.partition(b";")
    kind = kind.strip()
    if b"=" in kind:  # the type was forgotten; RFC 2183 §2.8 has unknown types treated as attachment
        kind, rest = b"attachment", value
    params = parameters(rest)
    return Disposition(kind.lower(), params) if kind or params else None


def parameters(value: bytes) -> Parameters:
    """`; name=value` pairs in the order sent; of pairs that are repeated the first one is kept."""
    found: dict[bytes, bytes] = {}
    at, size = 0, len(value)
    for _ in range(MAX_PARAMETERS):
        if at >= size:
            break
        name = _NAME.match(value, at)
        if name is None:
            break
        at = name.end()
        if value[at : at + 1] != b"=":  # no value: skip to the next one
            at = _after_semicolon(value, at)
            continue
        key = name[1].strip().lower()
        quoted = _QUOTED.match(value, at + 1)
        if quoted is None:
            end = value.find(b";", at)
            text = value[at + 1 : end if end >= 0 else size].strip()
            at = end + 1 if end >= 0 else size
        else:
            text = _unquote(quoted[1])
            at = _after_quoted(value, quoted.end())
        if key:
            found.setdefault(key, text)
    return tuple(found.items())


def without_comments(value: bytes) -> bytes:
    """The value with RFC 822 comments, nested ones too, replaced by a space each."""
    if b"(" not in value:
        return value
    kept, depth = [], 0
    for piece in _COMMENT_PIECE.findall(value):
        if piece == b"(":
            depth += 1
        elif piece == b")" and depth:
            depth -= 1
            if not depth:
                kept.append(b" ")
        elif not depth:
            kept.append(piece)
    return b"".join(kept)


def imap_parameters(params: Parameters) -> bytes:
    """body-fld-param (RFC 3501 §9): a parenthesized list of pairs, or NIL where there are none."""
    if not params:
        return b"NIL"
    string = imap_text.string
    return b"(" + b" ".join([string(name) + b" " + string(value) for name, value in params]) + b")"


def media_type(type_: bytes, subtype: bytes, params: Parameters = ()) -> MediaType:
    """A MediaType with its IMAP text. RFC 2046 §4.1.2: text/plain without a charset is in US-ASCII."""
    if type_ == b"multipart":
        return MediaType(type_, subtype, params, b"")
    shown = params
    if type_ == b"text" and subtype == b"plain" and not any(name in _CHARSETS for name, _ in params):
        shown = ((b"charset", b"us-ascii"), *params)
    imap = b" ".join((imap_text.string(type_), imap_text.string(subtype), imap_parameters(shown)))
    return MediaType(type_, subtype, params, imap)


_CHARSETS = frozenset((b"charset", b"charset*", b"charset*0", b"charset*0*"))
TEXT_PLAIN = media_type(b"text", b"plain")
MESSAGE_RFC822 = media_type(b"message", b"rfc822")


def _parse(value: bytes, default: MediaType) -> MediaType:
    common = _COMMON_TYPE.fullmatch(value)
    if common is not None:
        type_, subtype, name, quoted, token = common.groups()
        return media_type(type_.lower(), subtype.lower(), _one_parameter(name, quoted, token))
    value = without_comments(value)
    both = _TYPE.match(value)
    if both is None:
        kind, _, rest = value.partition(b";")
        return media_type(b"text", b"plain", parameters(rest)) if kind.strip().lower() == b"text" else default
    return media_type(both[1].lower(), both[2].lower(), parameters(value[both.end() :]))


_parse_cached = lru_cache(maxsize=1024)(_parse)


def _one_parameter(name: bytes | None, quoted: bytes | None, token: bytes | None) -> Parameters:
    if name is None:
        return ()
    return ((name.lower(), (token or b"") if quoted is None else quoted),)


def _unquote(text: bytes) -> bytes:
    return _QUOTED_PAIR.sub(rb"\1", text) if b"\\" in text else text


def _after_quoted(value: bytes, at: int) -> int:
    """Past a quoted value: junk up to the semicolon is skipped, a parameter after mere white space is not."""
    rest = value[at : at + 1]
    if rest in (b"", b";", b" ", b"\t", b"\r", b"\n"):
        return at
    return _after_semicolon(value, at)


def _after_semicolon(value: bytes, at: int) -> int:
    end = value.find(b";", at)
    return end + 1 if end >= 0 else len(value)
