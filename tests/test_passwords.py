"""Password hashes against published vectors, and what counts as weak."""

from __future__ import annotations

import re

import pytest

from mailserver import passwords
from mailserver.passwords import Hasher

LONG = "a very much longer text to encrypt.  This one even stretches over morethan one line."

# Those of Ulrich Drepper's "Unix crypt using SHA-256 and SHA-512".
SHA512_VECTORS = [
    (
        "Hello world!",
        "saltstring",
        None,
        "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
    ),
    (
        "Hello world!",
        "saltstringsaltstring",
        10000,
        (
            "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/"
            "y3RnOaw5v."
        ),
    ),
    (
        "This is just a test",
        "toolongsaltstring",
        5000,
        (
            "$6$rounds=5000$toolongsaltstrin$lQ8jolhgVRVhY4b5pZKaysCLi0QBxGoNeKQzQ3glMhwllF7oGDZxUhx1yxdYcz/e1JSbq3y6JMxxl8"
            "audkUEm0"
        ),
    ),
    (
        LONG,
        "anotherlongsaltstring",
        1400,
        (
            "$6$rounds=1400$anotherlongsalts$POfYwTEok97VWcjxIiSOjiykti.o/pQs.wPvMxQ6Fm7I6IoYN3CmLs66x9t0oSwbtEW7o7UmJEiDwG"
            "qd8p4ur1"
        ),
    ),
    (
        "we have a short salt string but not a short password",
        "short",
        77777,
        "$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0",
    ),
    (
        "a short string",
        "asaltof16chars..",
        123456,
        (
            "$6$rounds=123456$asaltof16chars..$BtCwjqMJGx5hrJhZywWvt0RLE8uZ4oPwcelCjmw2kSYu.Ec6ycULevoBK25fs2xXgMNrCzIMVcgE"
            "JAstJeonj1"
        ),
    ),
    (
        "the minimum number is still observed",
        "roundstoolow",
        10,
        (
            "$6$rounds=1000$roundstoolow$kUMsbe306n21p9R.FRkW3IGn.S9NPN0x50YhH1xhLsPuWGsUSklZt58jaTfF4ZEQpyUNGc0dqbpBYYBaHH"
            "rsX."
        ),
    ),
]

# Those of crypt_blowfish (Openwall).
BCRYPT_VECTORS = [
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("U*U*", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.VGOzA784oUp/Z0DY336zx7pLYAy0lwK"),
    ("", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.7uG0VCzI2bS7j6ymqJi9CdcdxiRTWNy"),
    (
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789chars after 72 are ignored",
        "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui",
    ),
    ("U*U", "$2b$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("U*U", "$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
]

# That of the Argon2 reference code (test.c): "password", "somesalt", t=2, m=2^16, p=1.
ARGON2_VECTOR = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"


@pytest.fixture(scope="module")
def hasher() -> Hasher:
    return Hasher(memory_kib=64, time_cost=1)


@pytest.mark.parametrize(("password", "salt", "rounds", "stored"), SHA512_VECTORS)
def test_sha512_crypt(password: str, salt: str, rounds: int | None, stored: str) -> None:
    assert passwords.sha512_crypt(password.encode(), salt.encode(), rounds) == stored
    assert passwords.verify(stored, password)
    assert not passwords.verify(stored, password + "x")
    assert passwords.imported("{SHA512-CRYPT}" + stored) == stored


@pytest.mark.parametrize(
    ("length", "stored"),
    [
        (0, "$6$abcdefgh$v7sYNA18/BerGOYQLppYLyjH4yJilp8kqe/ef3KYMK9hOIdzH1yzcmP74Ay.m51y1jP3QqxM7Jl75S4CxDhBq."),
        (200, "$6$abcdefgh$tpP3/LI4wMLKhgKp8bTwVQweEEM46u1QVpxJ4s7//kd/n92pnKvxNc51RM.csWa9OlZn10Z4pRopwomQmhBXx1"),
    ],
)
def test_sha512_crypt_of_empty_and_long_passwords(length: int, stored: str) -> None:
    assert passwords.sha512_crypt(b"x" * length, b"abcdefgh") == stored


@pytest.mark.parametrize(("password", "stored"), BCRYPT_VECTORS)
def test_bcrypt(password: str, stored: str) -> None:
    assert passwords.verify(stored, password)
    assert not passwords.verify(stored, "x" + password)
    assert passwords.imported("{bcrypt}" + stored) == stored


def test_argon2id() -> None:
    assert passwords.verify(ARGON2_VECTOR, "password")
    assert not passwords.verify(ARGON2_VECTOR, "passwore")
    assert passwords.imported("{ARGON2ID}" + ARGON2_VECTOR) == ARGON2_VECTOR


def test_own_hashes(hasher: Hasher) -> None:
    stored = hasher.hash("s3cret pass")
    assert stored.startswith("$argon2id$v=19$m=64,t=1,p=1$")
    assert stored != hasher.hash("s3cret pass")
    assert passwords.verify(stored, "s3cret pass")
    assert not passwords.verify(stored, "s3cret Pass")
    assert not hasher.needs_rehash(stored)
    assert Hasher(memory_kib=128, time_cost=1).needs_rehash(stored)
    for foreign in (BCRYPT_VECTORS[0][1], SHA512_VECTORS[0][3]):
        assert hasher.needs_rehash(foreign)


def test_the_default_costs_what_it_should() -> None:
    assert Hasher().hash("x").startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_decoy_is_a_real_hash_of_no_password(hasher: Hasher) -> None:
    decoy = hasher.decoy()
    assert passwords.imported("{ARGON2ID}" + decoy) == decoy
    assert not hasher.needs_rehash(decoy)
    assert not passwords.verify(decoy, "")


def test_keyboards_agree(hasher: Hasher) -> None:
    assert passwords.verify(hasher.hash("jos\u00e9\u00a0x"), "jose\u0301 x")


@pytest.mark.parametrize("stored", ["", "x", "$1$a$b", "$2b$", "$2b$99$" + "a" * 53, "$6$", "$argon2id$", "$argon2i$x"])
def test_what_is_no_hash_has_no_password(stored: str) -> None:
    assert not passwords.verify(stored, "")
    assert not passwords.verify(stored, stored)


def test_too_long_passwords(hasher: Hasher) -> None:
    longest = "é" * 512
    assert passwords.verify(hasher.hash(longest), longest)
    with pytest.raises(ValueError):
        hasher.hash(longest + "x")
    assert not passwords.verify(hasher.hash("x"), "x" * 1_000_000)
    assert not passwords.verify(BCRYPT_VECTORS[0][1], "U*U\0")


@pytest.mark.parametrize(
    ("text", "clear"),
    [("secret", "secret"), ("{PLAIN}{MD5}x", "{MD5}x"), ("{plain}x", "x"), ("{a b}x", "{a b}x"), ("x{MD5}", "x{MD5}")],
)
def test_passwords_in_clear(text: str, clear: str) -> None:
    assert passwords.imported(text) is None
    assert passwords.plain(text) == clear


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{MD5}abc", "not known"),
        ("{ARGON2ID}abc", "malformed"),
        ("{ARGON2ID}" + ARGON2_VECTOR.replace("argon2id", "argon2i"), "another kind"),
        ("{ARGON2ID}" + ARGON2_VECTOR.replace("m=65536", "m=4194304"), "too much"),
        ("{ARGON2ID}" + ARGON2_VECTOR.replace("t=2", "t=2000"), "too much"),
        ("{BCRYPT}" + BCRYPT_VECTORS[0][1][:-1], "malformed"),
        ("{BCRYPT}" + BCRYPT_VECTORS[0][1].replace("$05$", "$31$"), "too much"),
        ("{BCRYPT}" + BCRYPT_VECTORS[0][1].replace("$05$", "$03$"), "malformed"),
        ("{BCRYPT}" + BCRYPT_VECTORS[0][1].replace("$2a$", "$2x$"), "malformed"),
        ("{SHA512-CRYPT}$6$salt$abc", "malformed"),
        ("{SHA512-CRYPT}" + SHA512_VECTORS[1][3].replace("10000", "999999999"), "too much"),
    ],
)
def test_refused_hashes(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        passwords.imported(text)


@pytest.mark.parametrize(
    ("password", "weak"),
    [
        ("short", True),
        ("Password", True),
        ("12345678", True),
        ("qwertyuiop", True),
        ("alice@example.org", True),
        ("correct horse battery", False),
        ("пароль-длинный", False),
    ],
)
def test_strength(hasher: Hasher, password: str, weak: bool) -> None:
    assert (hasher.weakness(password, ["Alice@example.org"]) is not None) is weak


def test_the_shortest_is_a_setting() -> None:
    assert Hasher(min_length=12).weakness("elevenchars") is not None


def test_generated_passwords(hasher: Hasher) -> None:
    made = {passwords.generate() for _ in range(100)}
    assert len(made) == 100
    for password in made:
        assert re.fullmatch(r"([a-kmnp-z2-9o]{5}-){3}[a-kmnp-z2-9o]{5}", password)
        assert hasher.weakness(password) is None
