"""Mail that another server brings to port 25."""

from __future__ import annotations

import re
import smtplib
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest
from imapclient import IMAPClient  # type: ignore[import-untyped]

from tests.acceptance.mail import all_octets, deliver, deliver_on, exact, imap, message, status, subjects
from tests.acceptance.server import DOMAIN, HOST, Account, Pillarbox


@pytest.fixture
def mx(server: Pillarbox) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP(HOST, server.port(25), timeout=30, local_hostname="client.example.org") as client:
        client.ehlo()
        yield client


def test_message_is_there_at_once_and_exact(server: Pillarbox, alice: Account) -> None:
    octets = message(alice.address, body="Eight bits: \u00e4\u00f6.\r\n.a dot\r\n..two dots\r\n\r\nno end" + "\r\n")
    deliver(server, octets, alice.address)
    with imap(server, alice) as client:
        (stored,) = all_octets(client)
    assert exact(stored, octets), stored


def test_prefix_names_path_recipient_and_trace(server: Pillarbox, alice: Account) -> None:
    """RFC 5321 §4.4: Return-Path with the reverse-path, Received with from, by, with, id, for and date."""
    reply = deliver(server, message(alice.address), alice.address, sender="back@example.org")
    with imap(server, alice) as client:
        stored = all_octets(client)[0].decode()
    assert "Return-Path: <back@example.org>\r\n" in stored
    assert f"Delivered-To: {alice.address}\r\n" in stored
    received = re.sub(r"\r\n\s+", " ", stored[stored.index("Received:") :]).split("\r\n")[0]
    found = re.match(r"Received: from client\.example\.org .*\[127\.0\.0\.1\].* by \S+ .*with ESMTP id (\S+)", received)
    assert found, received
    assert f"for <{alice.address}>" in received
    assert found[1].rstrip(";") in reply, "250 must carry the id that the trace carries"


def test_swaks(server: Pillarbox, alice: Account, tool: Callable[[str], str]) -> None:
    command = [tool("swaks"), "--server", f"{HOST}:{server.port(25)}", "--from", "someone@example.org"]
    command += ["--to", alice.address, "--header", "Subject: by swaks", "--ehlo", "client.example.org"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    with imap(server, alice) as client:
        assert subjects(client) == ["by swaks"]


@pytest.mark.parametrize("round_", range(6))
def test_idle_session_is_told_at_once(server: Pillarbox, alice: Account, round_: int) -> None:
    """Whichever workers the two connections land on."""
    with IMAPClient("localhost", server.port(993), ssl_context=server.tls(), timeout=30) as client:
        client.login(alice.address, alice.password)
        client.select_folder("INBOX")
        client.idle()
        deliver(server, message(alice.address), alice.address)
        told = client.idle_check(timeout=5)
        client.idle_done()
        assert (1, b"EXISTS") in told, told
        client.logout()


def test_unknown_recipient_is_refused(server: Pillarbox, mx: smtplib.SMTP) -> None:
    mx.mail("someone@example.org")
    code, text = mx.rcpt(f"nobody-of-that-name@{DOMAIN}")
    assert (code, text[:5]) == (550, b"5.1.1"), text


def test_no_relay(mx: smtplib.SMTP) -> None:
    mx.mail("someone@example.org")
    code, text = mx.rcpt("someone@elsewhere.example")
    assert code in (550, 551, 554), text
    assert text.startswith(b"5.7.1"), text


def test_no_relay_for_senders_that_claim_to_be_ours(mx: smtplib.SMTP, alice: Account) -> None:
    mx.mail(alice.address)
    assert mx.rcpt("someone@elsewhere.example")[0] in (550, 551, 554)


def test_good_recipient_stands_beside_bad_ones(server: Pillarbox, mx: smtplib.SMTP, alice: Account) -> None:
    octets = message(alice.address)
    mx.mail("someone@example.org")
    codes = [mx.rcpt(address)[0] for address in (f"nobody@{DOMAIN}", alice.address, "x@elsewhere.example")]
    assert codes[1] == 250 and {codes[0], codes[2]} <= {550, 551, 554}
    assert mx.data(octets)[0] == 250
    with imap(server, alice) as client:
        assert status(client, "INBOX") == 1


def test_several_recipients_get_one_copy_each(
    server: Pillarbox, mx: smtplib.SMTP, alice: Account, bob: Account
) -> None:
    tagged = alice.address.replace("@", "+tag@")
    deliver_on(mx, message(alice.address), alice.address, bob.address, tagged)
    for account in (alice, bob):
        with imap(server, account) as client:
            assert status(client, "INBOX") == 1


def test_bounce_address_is_accepted_as_sender(server: Pillarbox, alice: Account) -> None:
    """RFC 5321 §4.5.5: the null reverse-path must be accepted."""
    deliver(server, message(alice.address), alice.address, sender="")
    with imap(server, alice) as client:
        assert b"Return-Path: <>\r\n" in all_octets(client)[0]


@pytest.mark.parametrize("address", ["postmaster", f"postmaster@{DOMAIN}", f"abuse@{DOMAIN}", f"PostMaster@{DOMAIN}"])
def test_role_addresses_are_accepted(mx: smtplib.SMTP, address: str) -> None:
    """RFC 5321 §4.5.1; RFC 2142."""
    mx.mail("someone@example.org")
    assert mx.rcpt(address)[0] == 250


def test_announced_extensions(mx: smtplib.SMTP) -> None:
    offered = set(mx.esmtp_features)
    assert {
        "pipelining",
        "size",
        "8bitmime",
        "smtputf8",
        "enhancedstatuscodes",
        "starttls",
        "chunking",
        "dsn",
    } <= offered
    assert not {"auth", "binarymime"} & offered, "AUTH is for submission; BINARYMIME is not there"


def test_too_big_is_refused_by_its_size(mx: smtplib.SMTP) -> None:
    """RFC 1870 §6.1."""
    limit = int(mx.esmtp_features["size"])
    code, text = mx.mail("someone@example.org", [f"size={limit + 1}"])
    assert (code, text[:5]) == (552, b"5.3.4"), text


def _dialogue(port: int, *steps: tuple[bytes, bytes]) -> bytes:
    """Send each line and expect each reply's beginning; returns the last reply."""
    with socket.create_connection((HOST, port), timeout=20) as connection, connection.makefile("rb") as replies:
        reply = replies.readline()
        for line, wanted in steps:
            connection.sendall(line)
            reply = replies.readline()
            while reply[3:4] == b"-":
                reply = replies.readline()
            assert reply.startswith(wanted), (line, reply)
        return reply


@pytest.mark.parametrize(
    "end",
    [b"hello\r\n\n.\n", b"hello\n.\r\n", b"hello\r\n.\n", b"hello\r.\r\n"],
    ids=["LF.LF", "LF.CRLF", "CRLF.LF", "CR.CRLF"],
)
def test_wrong_ends_of_data_smuggle_nothing(server: Pillarbox, alice: Account, end: bytes) -> None:
    """A second message hidden behind a wrong end of data must not come into being, and the first is refused."""
    hidden = b"MAIL FROM:<smuggled@example.org>\r\nRCPT TO:<%b>\r\nDATA\r\nhidden\r\n" % alice.address.encode()
    data = b"Subject: smuggler\r\n\r\n" + end + hidden + b".\r\n"
    to = b"RCPT TO:<%b>\r\n" % alice.address.encode()
    begin = [(b"EHLO c.example.org\r\n", b"250"), (b"MAIL FROM:<a@example.org>\r\n", b"250"), (to, b"250")]
    _dialogue(server.port(25), *begin, (b"DATA\r\n", b"354"), (data, b"5"))
    with imap(server, alice) as client:
        assert status(client, "INBOX") == 0


def test_nul_is_refused(server: Pillarbox, alice: Account) -> None:
    with pytest.raises(smtplib.SMTPDataError) as refused:
        deliver(server, message(alice.address, body="a\0b\r\n"), alice.address)
    assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (554, b"5.6.0")


def test_chunking(server: Pillarbox, alice: Account) -> None:
    """RFC 3030 §2: BDAT, several chunks, the last one empty."""
    octets = message(alice.address)
    half = len(octets) // 2
    to = b"RCPT TO:<%b>\r\n" % alice.address.encode()
    _dialogue(
        server.port(25),
        (b"EHLO c.example.org\r\n", b"250"),
        (b"MAIL FROM:<a@example.org>\r\n", b"250"),
        (to, b"250"),
        (b"BDAT %d\r\n%b" % (half, octets[:half]), b"250"),
        (b"BDAT %d\r\n%b" % (len(octets) - half, octets[half:]), b"250"),
        (b"BDAT 0 LAST\r\n", b"250"),
    )
    with imap(server, alice) as client:
        assert exact(all_octets(client)[0], octets)


def test_pipelined_session(server: Pillarbox, alice: Account) -> None:
    """RFC 2920 §3.1: a whole transaction in one write."""
    octets = message(alice.address)
    to = alice.address.encode()
    with socket.create_connection((HOST, server.port(25)), timeout=20) as connection:
        replies = connection.makefile("rb")
        replies.readline()
        connection.sendall(b"EHLO c.example.org\r\n")
        while replies.readline()[3:4] == b"-":
            pass
        connection.sendall(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<%b>\r\nDATA\r\n" % to)
        assert [replies.readline()[:3] for _ in range(3)] == [b"250", b"250", b"354"]
        connection.sendall(octets + b".\r\nQUIT\r\n")
        assert [replies.readline()[:3] for _ in range(2)] == [b"250", b"221"]
    with imap(server, alice) as client:
        assert exact(all_octets(client)[0], octets)


def test_looping_message_is_refused(server: Pillarbox, alice: Account) -> None:
    """RFC 5321 §6.3."""
    hops = b"".join(b"Received: from a.example by b.example; Tue, 24 Nov 2026 10:00:00 +0000\r\n" for _ in range(110))
    with pytest.raises(smtplib.SMTPDataError) as refused:
        deliver(server, hops + message(alice.address), alice.address)
    assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (554, b"5.4.6")
