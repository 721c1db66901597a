"""Password hashes and password strength.

New hashes are Argon2id with the settings of the configuration. Three kinds that other systems export are verified as
well and replaced at the first login: `{ARGON2ID}`, `{BCRYPT}` and `{SHA512-CRYPT}`, stored without the scheme in
front, since each says what it is (`$argon2id$`, `$2b$`, `$6$`). What is imported is bounded: a hash may not ask for
more memory or time than a login may cost.

Passwords are compared in NFC with non-ASCII spaces as spaces (RFC 8265 §4.2, OpaqueString), so that two keyboards
that compose an é differently agree.

All functions here take a core for tens of milliseconds: they belong in a thread (argon2 and bcrypt release the
interpreter while they work).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import argon2
import bcrypt

MAX_PASSWORD_OCTETS = 1024
BCRYPT_OCTETS = 72
"""bcrypt uses no more of a password."""

GENERATED = "abcdefghijkmnopqrstuvwxyz23456789"
"""Letters and digits that nobody confuses when typing them off."""

_SCHEME = re.compile(r"\{([A-Za-z0-9._-]{1,32})\}(.*)", re.DOTALL)
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}", re.ASCII)
_SHA512 = re.compile(r"\$6\$(?:rounds=([1-9]\d{0,8})\$)?([^$:\s]{0,16})\$[./0-9A-Za-z]{86}", re.ASCII)
_MAX_BCRYPT_COST = 15
_MAX_SHA512_ROUNDS = 1_000_000
_MAX_ARGON2 = (262_144, 32, 16)  # KiB, passes, lanes


class Hasher:
    """Makes and checks hashes. Its settings are those of the `auth` section."""

    def __init__(self, memory_kib: int = 19_456, time_cost: int = 2, min_length: int = 8) -> None:
        self._argon2 = argon2.PasswordHasher(time_cost=time_cost, memory_cost=memory_kib, parallelism=1)
        self._min_length = min_length

    def hash(self, password: str) -> str:
        """A new PHC string. ValueError: too long."""
        if too_long(password):
            raise ValueError(f"a password has at most {MAX_PASSWORD_OCTETS} octets")
        return self._argon2.hash(prepared(password))

    def decoy(self) -> str:
        """A hash that no password has, and that takes as long to find out as a real one."""
        parameters = self._argon2
        shown = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
        salt, digest = (b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (16, 32))
        return f"$argon2id$v=19${shown}${salt}${digest}"

    def needs_rehash(self, stored: str) -> bool:
        """Is this hash of another kind, or made with other settings, than a new one would be?"""
        return not stored.startswith("$argon2id$") or self._argon2.check_needs_rehash(stored)

    def weakness(self, password: str, own: Iterable[str] = ()) -> str | None:
        """Why the password is weak, None where it is not. own: names that belong to the account."""
        if len(password) < self._min_length:
            return f"it has fewer than {self._min_length} characters"
        if password.lower() in _commonest():
            return "it is among the commonest passwords"
        if password.lower() in {name.lower() for name in own}:
            return "it is the account's own name"
        return None


def prepared(password: str) -> bytes:
    """The octets that are hashed."""
    spaced = "".join(" " if unicodedata.category(char) == "Zs" else char for char in password)
    return unicodedata.normalize("NFC", spaced).encode("utf-8", "surrogatepass")


def too_long(password: str) -> bool:
    # Characters first: composing a text that is too long would take its time.
    return len(password) > MAX_PASSWORD_OCTETS or len(prepared(password)) > MAX_PASSWORD_OCTETS


def verify(stored: str, password: str) -> bool:
    """Is this the password? False as well for a hash of a kind that is not known."""
    if too_long(password):
        return False
    octets = prepared(password)
    if stored.startswith("$argon2id$"):
        return _verify_argon2(stored, octets)
    if stored.startswith("$2"):
        return _verify_bcrypt(stored, octets)
    if stored.startswith("$6$"):
        return _verify_sha512(stored, octets)
    return False


def imported(text: str) -> str | None:
    """The hash in a `{SCHEME}…` text as it is stored; None where the text is a password in clear.

    `{PLAIN}` in front makes anything a password in clear. ValueError: a scheme that is not known, or a malformed or
    too costly hash.
    """
    match = _SCHEME.fullmatch(text)
    if match is None or match[1].upper() in ("PLAIN", "CLEAR"):
        return None
    check = _SCHEMES.get(match[1].upper())
    if check is None:
        raise ValueError(f"the password scheme {{{match[1]}}} is not known; write {{PLAIN}} before a password in clear")
    check(match[2])
    return match[2]


def plain(text: str) -> str:
    """The password in clear in a text for which `imported` is None."""
    match = _SCHEME.fullmatch(text)
    return match[2] if match else text


def generate() -> str:
    """A random password of 98 bits that can be read out."""
    return "-".join("".join(secrets.choice(GENERATED) for _ in range(5)) for _ in range(4))


@cache
def _commonest() -> frozenset[str]:
    text = files("mailserver").joinpath("common_passwords.txt").read_text("utf-8")
    return frozenset(line for line in text.splitlines() if not line.startswith("#"))


def _verify_argon2(stored: str, octets: bytes) -> bool:
    try:
        return argon2.PasswordHasher().verify(stored, octets)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _verify_bcrypt(stored: str, octets: bytes) -> bool:
    try:
        return bcrypt.checkpw(octets[:BCRYPT_OCTETS], stored.encode())
    except ValueError:
        return False


def _verify_sha512(stored: str, octets: bytes) -> bool:
    match = _SHA512.fullmatch(stored)
    if match is None:
        return False
    rounds = int(match[1]) if match[1] else None
    return hmac.compare_digest(sha512_crypt(octets, match[2].encode(), rounds), stored)


def _check_argon2(text: str) -> None:
    try:
        found = argon2.extract_parameters(text)
    except argon2.exceptions.InvalidHashError:
        raise ValueError("the {ARGON2ID} hash is malformed") from None
    if found.type is not argon2.Type.ID:
        raise ValueError("the {ARGON2ID} hash is of another kind of Argon2")
    asked = (found.memory_cost, found.time_cost, found.parallelism)
    if any(value > most for value, most in zip(asked, _MAX_ARGON2, strict=True)):
        raise ValueError("the {ARGON2ID} hash asks for too much memory or time")


def _check_bcrypt(text: str) -> None:
    match = _BCRYPT.fullmatch(text)
    if match is None or int(match[1]) < 4:
        raise ValueError("the {BCRYPT} hash is malformed")
    if int(match[1]) > _MAX_BCRYPT_COST:
        raise ValueError("the {BCRYPT} hash asks for too much time")


def _check_sha512(text: str) -> None:
    match = _SHA512.fullmatch(text)
    if match is None:
        raise ValueError("the {SHA512-CRYPT} hash is malformed")
    if match[1] and int(match[1]) > _MAX_SHA512_ROUNDS:
        raise ValueError("the {SHA512-CRYPT} hash asks for too much time")


_SCHEMES = {
    "ARGON2ID": _check_argon2,
    "BCRYPT": _check_bcrypt,
    "BLF-CRYPT": _check_bcrypt,
    "SHA512-CRYPT": _check_sha512,
}


# SHA512-crypt, after Ulrich Drepper's specification "Unix crypt using SHA-256 and SHA-512", whose step numbers follow.

_CRYPT64 = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_DEFAULT_ROUNDS = 5000


def sha512_crypt(password: bytes, salt: bytes, rounds: int | None = None) -> str:
    """The `$6$` string; rounds None: the default, which is not written."""
    salt = salt[:16]
    count = _DEFAULT_ROUNDS if rounds is None else min(max(rounds, 1000), 999_999_999)
    digest = _first_digest(password, salt)
    p = _stretch(hashlib.sha512(password * len(password)).digest(), len(password))  # 13-16
    s = _stretch(hashlib.sha512(salt * (16 + digest[0])).digest(), len(salt))  # 17-20
    digest = _rounds(digest, p, s, count)
    shown = "" if rounds is None else f"rounds={count}$"
    return f"$6${shown}{salt.decode()}${_encode(digest)}"


def _first_digest(password: bytes, salt: bytes) -> bytes:
    b = hashlib.sha512(password + salt + password).digest()  # 4-8
    a = hashlib.sha512(password + salt + _stretch(b, len(password)))  # 1-3, 9-10
    length = len(password)
    while length:  # 11
        a.update(b if length & 1 else password)
        length >>= 1
    return a.digest()  # 12


def _rounds(digest: bytes, p: bytes, s: bytes, count: int) -> bytes:
    """Step 21. What surrounds the digest depends on the round's number modulo 42 alone, so it is joined beforehand."""
    before, after = [], []
    for number in range(42):
        middle = (s if number % 3 else b"") + (p if number % 7 else b"")
        before.append(p + middle if number & 1 else b"")
        after.append(b"" if number & 1 else middle + p)
    sha512 = hashlib.sha512
    for number in range(count):
        turn = number % 42
        digest = sha512(before[turn] + digest + after[turn]).digest()
    return digest


def _stretch(digest: bytes, length: int) -> bytes:
    return (digest * (length // 64 + 1))[:length]


def _encode(digest: bytes) -> str:
    """Step 22: three octets at a time, in an order of its own, as four characters of its own alphabet."""
    text = []
    for index in range(21):
        triple = (index, index + 21, index + 42)
        shift = index % 3
        first, second, third = triple[shift:] + triple[:shift]
        text.append(_four(digest[first] << 16 | digest[second] << 8 | digest[third], 4))
    text.append(_four(digest[63], 2))
    return "".join(text)


def _four(value: int, characters: int) -> str:
    return "".join(_CRYPT64[value >> 6 * place & 63] for place in range(characters))
