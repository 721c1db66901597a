from __future__ import annotations

import pytest

from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.replies import Reply


@pytest.mark.parametrize(
    ("reply", "octets"),
    [
        (Reply(250, "2.0.0", "OK"), b"250 2.0.0 OK\r\n"),
        (Reply(354, "", "Go on"), b"354 Go on\r\n"),
        (Reply(250, "", "host\nSIZE 1\nHELP"), b"250-host\r\n250-SIZE 1\r\n250 HELP\r\n"),
        (Reply(214, "2.0.0", "a\nb"), b"214-2.0.0 a\r\n214 2.0.0 b\r\n"),
        (Reply(334, "", ""), b"334\r\n"),
        (Reply(550, "5.1.1", "no\rsuch\x00usér"), b"550 5.1.1 no?such?us?r\r\n"),
    ],
)
def test_octets(reply: Reply, octets: bytes) -> None:
    assert reply.octets == octets


def test_what_a_peer_sent_cannot_break_a_reply() -> None:
    reply = replies.SYNTAX.saying("\r\n250 2.0.0 OK".replace("\n", "\x0b"))
    assert reply.octets.count(b"\r\n") == 1


def test_lines_are_short() -> None:
    assert all(len(line) <= 512 for line in replies.SYNTAX.saying("x" * 5000).octets.splitlines(keepends=True))


def test_classes_agree() -> None:
    with pytest.raises(ValueError):
        Reply(450, "5.1.1", "no")


NAMED = {name: value for name, value in vars(replies).items() if isinstance(value, Reply)}


@pytest.mark.parametrize("name", NAMED)
def test_named_replies_have_enhanced_codes(name: str) -> None:
    """RFC 2034 §4: all but 3xx."""
    reply = NAMED[name]
    assert bool(reply.enhanced) == (reply.code // 100 != 3)
    assert reply.is_refusal == (reply.code >= 400)
