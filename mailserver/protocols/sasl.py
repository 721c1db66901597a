"""SASL mechanisms as step functions, for IMAP and submission alike: a client's response in, what comes next out.

An exchange begins with the initial response, or None where the client sent none, and each answer is one of
`Challenge` (send it, in base64, and step again with the response) and `Credentials` (check them: the exchange is over).
`SaslError` is the client's fault. Nothing here knows how a line is framed; `decode` takes base64 off one.

Offered: PLAIN (RFC 4616) and LOGIN (never standardised; two prompts, the name and the password). Another mechanism is
another entry of `MECHANISMS`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

MAX_RESPONSE_OCTETS = 12_288
"""The longest line that a client may send in an exchange (RFC 4954 §4)."""
MAX_CREDENTIAL_OCTETS = 1024


class SaslError(ValueError):
    """The client's response is not one of this mechanism."""


class SaslCancelled(SaslError):
    """The client sent `*` to end the exchange."""


@dataclass(frozen=True, slots=True)
class Challenge:
    octets: bytes

    def base64(self) -> bytes:
        return b64encode(self.octets)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A name and a password to be checked. authorize_as: whom to act as, "" for the name itself."""

    name: str
    password: str = field(repr=False)
    authorize_as: str = ""


Step = Challenge | Credentials


class Exchange(Protocol):
    """One attempt to log in. `step` is called once for the initial response and then for each challenge's answer."""

    def step(self, response: bytes | None) -> Step: ...


class Plain:
    """RFC 4616: whom to act as, name and password in one response, NUL between them."""

    __slots__ = ()

    def step(self, response: bytes | None) -> Step:
        if response is None:
            return Challenge(b"")
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise SaslError("Invalid PLAIN response")
        authorize_as, name, password = map(_text, parts)
        return Credentials(name, password, authorize_as)


class Login:
    """Name, then password. An initial response is the name."""

    __slots__ = ("_asked", "_name")

    def __init__(self) -> None:
        self._asked = False
        self._name = ""

    def step(self, response: bytes | None) -> Step:
        if response is None and not self._asked:
            self._asked = True
            return Challenge(b"Username:")
        if not response or b"\0" in response:
            raise SaslError("Invalid LOGIN response")
        self._asked = True
        if not self._name:
            self._name = _text(response)
            return Challenge(b"Password:")
        return Credentials(self._name, _text(response))


MECHANISMS: Mapping[str, Callable[[], Exchange]] = {"PLAIN": Plain, "LOGIN": Login}


def decode(line: bytes) -> bytes:
    """The response that a line holds in base64; `*` is SaslCancelled."""
    if line == b"*":
        raise SaslCancelled("Authentication cancelled")
    try:
        return b64decode(line, validate=True)
    except Base64Error:
        raise SaslError("Invalid base64") from None


def decode_initial(argument: bytes | None) -> bytes | None:
    """The initial response: None where there is none, empty for `=` (RFC 4959 §3, RFC 4954 §4)."""
    if argument is None:
        return None
    return b"" if argument == b"=" else decode(argument)


def _text(octets: bytes) -> str:
    if len(octets) > MAX_CREDENTIAL_OCTETS:
        raise SaslError("Response is too long")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise SaslError("Response is not UTF-8") from None
