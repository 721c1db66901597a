from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import headers, received
from tests.message.messages import SETTINGS

WHEN = 837_570_605  # 1996-07-17T02:30:05Z


def test_whole_field() -> None:
    field = received.received(
        helo="client.example",
        peer="192.0.2.1",
        peer_name="mx.client.example",
        by="mail.x.example",
        protocol="ESMTPS",
        trace_id="4f2a9c",
        tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
        recipient="user@x.example",
        when=WHEN,
        zone=120,
    )
    assert field == (
        b"Received: from client.example (mx.client.example [192.0.2.1])\r\n"
        b"\tby mail.x.example with ESMTPS id 4f2a9c\r\n"
        b"\t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n"
        b"\tfor <user@x.example>;\r\n"
        b"\tWed, 17 Jul 1996 04:30:05 +0200\r\n"
    )


def test_least_field() -> None:
    field = received.received(helo="", peer="2001:db8::1%eth0", by="x", protocol="SMTP", trace_id="1", when=0)
    assert field == (
        b"Received: from unknown ([IPv6:2001:db8::1])\r\n"
        b"\tby x with SMTP id 1;\r\n"
        b"\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("protocol", "recipient", "shown"),
    [("UTF8SMTP", "jürgen@x.example", True), ("ESMTP", "jürgen@x.example", False), ("ESMTP", None, False)],
)
def test_only_smtputf8_may_name_other_recipients(protocol: str, recipient: str | None, shown: bool) -> None:
    field = received.received(
        helo="h", peer="::1", by="b", protocol=protocol, trace_id="t", when=0, recipient=recipient
    )
    assert ("jürgen".encode() in field) is shown
    assert field.isascii() is not shown


@SETTINGS
@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_nothing_that_a_peer_says_breaks_the_field(helo: str, name: str, tls: str, path: str) -> None:
    field = received.received(
        helo=helo, peer=name, peer_name=name, by="b", protocol="ESMTP", trace_id="t", when=0, tls=tls, recipient=path
    )
    for made in (field, received.return_path(path), received.delivered_to(path)):
        assert len(list(headers.fields(made))) == 1
        assert made.endswith(b"\r\n") and b"\0" not in made and b"\r" not in made.replace(b"\r\n", b"")
    assert field.count(b"(") == field.count(b")") and field.count(b";") == 1


def test_paths() -> None:
    assert received.return_path("") == b"Return-Path: <>\r\n"
    assert received.return_path('"a b"@x.example') == b'Return-Path: <"a?b"@x.example>\r\n'
    assert received.delivered_to("a@x.example") == b"Delivered-To: a@x.example\r\n"


def test_loops_are_seen() -> None:
    header = b"Received: a\r\nReceived : b\r\n\tReceived: c\r\nX-Received: d\r\nDelivered-To: A@x.example\r\n\r\n"
    assert received.hops(header) == 2
    assert received.was_delivered_to(header, "a@X.example")
    assert not received.was_delivered_to(header, "b@x.example")
