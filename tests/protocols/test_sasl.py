from __future__ import annotations

import pytest

from mailserver.protocols.sasl import (
    MECHANISMS,
    Challenge,
    Credentials,
    SaslCancelled,
    SaslError,
    Step,
    decode,
    decode_initial,
)


@pytest.mark.parametrize(
    ("mechanism", "responses", "steps"),
    [
        ("PLAIN", [b"\0ann\0secret"], [Credentials("ann", "secret")]),
        ("PLAIN", [None, b"bob\0ann\0secret"], [Challenge(b""), Credentials("ann", "secret", "bob")]),
        ("PLAIN", ["\0änn\0pä".encode()], [Credentials("änn", "pä")]),
        (
            "LOGIN",
            [None, b"ann", b"secret"],
            [Challenge(b"Username:"), Challenge(b"Password:"), Credentials("ann", "secret")],
        ),
        ("LOGIN", [b"ann", b"secret"], [Challenge(b"Password:"), Credentials("ann", "secret")]),
    ],
)
def test_exchange(mechanism: str, responses: list[bytes | None], steps: list[Step]) -> None:
    exchange = MECHANISMS[mechanism]()
    assert [exchange.step(response) for response in responses] == steps


@pytest.mark.parametrize(
    ("mechanism", "responses"),
    [
        ("PLAIN", [b""]),
        ("PLAIN", [b"ann"]),
        ("PLAIN", [b"ann\0secret"]),
        ("PLAIN", [b"\0ann\0"]),
        ("PLAIN", [b"\0\0secret"]),
        ("PLAIN", [b"\0ann\0secret\0"]),
        ("PLAIN", [b"\0ann\0\xff"]),
        ("PLAIN", [b"\0ann\0" + b"x" * 1025]),
        ("LOGIN", [b""]),
        ("LOGIN", [None, None]),
        ("LOGIN", [None, b""]),
        ("LOGIN", [None, b"ann", b""]),
        ("LOGIN", [b"ann", b"a\0b"]),
        ("LOGIN", [b"\xff"]),
        ("LOGIN", [b"x" * 1025]),
    ],
)
def test_rubbish(mechanism: str, responses: list[bytes | None]) -> None:
    exchange = MECHANISMS[mechanism]()
    for response in responses[:-1]:
        exchange.step(response)
    with pytest.raises(SaslError):
        exchange.step(responses[-1])


def test_base64() -> None:
    assert decode(b"AGFubgBzZWNyZXQ=") == b"\0ann\0secret"
    assert decode(b"") == b""
    for line in (b"AGFubg=", b"A", b"AGF ubg==", b"=", b"\xff", b"AGFubg==x"):
        with pytest.raises(SaslError):
            decode(line)
    with pytest.raises(SaslCancelled):
        decode(b"*")


def test_initial_response() -> None:
    assert decode_initial(None) is None
    assert decode_initial(b"=") == b""
    assert decode_initial(b"YQ==") == b"a"


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Credentials("ann", "secret"))


def test_a_challenge_in_base64() -> None:
    assert Challenge(b"Username:").base64() == b"VXNlcm5hbWU6"
