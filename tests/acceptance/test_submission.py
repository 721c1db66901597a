"""Mail that our own users send, on ports 587 and 465."""

from __future__ import annotations

import email
import email.policy
import smtplib
import ssl
import subprocess
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import aiosmtplib
import pytest

from tests.acceptance.mail import all_octets, exact, imap, message, status, subjects, submission
from tests.acceptance.server import Account, Pillarbox


def test_to_another_account_and_its_answer_back(server: Pillarbox, alice: Account, bob: Account) -> None:
    question = message(bob.address, "Lunch?", sender=alice.address)
    with submission(server, alice) as client:
        client.sendmail(alice.address, [bob.address], question)
    with imap(server, bob) as client:
        (stored,) = all_octets(client)
    assert exact(stored, question)
    answer = EmailMessage(policy=email.policy.SMTP)
    answer["From"], answer["To"], answer["Subject"] = bob.address, alice.address, "Re: Lunch?"
    answer["In-Reply-To"] = email.message_from_bytes(stored)["Message-ID"]
    answer.set_content("At noon.")
    with submission(server, bob) as client:
        client.send_message(answer)
    with imap(server, alice) as client:
        assert subjects(client) == ["Re: Lunch?"]


def test_port_465(server: Pillarbox, alice: Account, bob: Account) -> None:
    octets = message(bob.address, sender=alice.address)
    with smtplib.SMTP_SSL("localhost", server.port(465), timeout=30, context=server.tls()) as client:
        client.login(alice.username, alice.password)
        client.sendmail(alice.address, [bob.address], octets)
    with imap(server, bob) as client:
        assert status(client, "INBOX") == 1


@pytest.mark.parametrize("mechanism", ["plain", "login"])
def test_mechanisms(server: Pillarbox, alice: Account, mechanism: str) -> None:
    with smtplib.SMTP("localhost", server.port(587), timeout=30) as client:
        client.starttls(context=server.tls())
        client.ehlo()
        client.user, client.password = alice.address, alice.password
        code, _ = client.auth(mechanism.upper(), getattr(client, f"auth_{mechanism}"))
        assert code == 235


def test_no_password_in_clear(server: Pillarbox, alice: Account) -> None:
    with smtplib.SMTP("localhost", server.port(587), timeout=30) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert "starttls" in client.esmtp_features
        code, _ = client.docmd("AUTH PLAIN AGEAYQ==")
        assert code in (530, 538), code
        client.rset()
        code, text = client.mail(alice.address)
        assert code == 530, text


def test_wrong_password(server: Pillarbox, alice: Account) -> None:
    with smtplib.SMTP("localhost", server.port(587), timeout=30) as client:
        client.starttls(context=server.tls())
        with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            client.login(alice.address, "not the password")
    assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (535, b"5.7.8")


def test_login_is_required(server: Pillarbox, bob: Account) -> None:
    with smtplib.SMTP("localhost", server.port(587), timeout=30) as client:
        client.starttls(context=server.tls())
        client.ehlo()
        assert client.mail("someone@example.org")[0] == 530


def test_mail_for_elsewhere_is_taken(server: Pillarbox, alice: Account, bob: Account) -> None:
    """And waits, since no name server answers here; the copy for one of ours does not."""
    with submission(server, alice) as client:
        octets = message(bob.address, sender=alice.address)
        assert client.sendmail(alice.address, ["someone@elsewhere.example", bob.address], octets) == {}
    with imap(server, bob) as client:
        assert status(client, "INBOX") == 1


def test_sender_must_be_ones_own(server: Pillarbox, alice: Account, bob: Account) -> None:
    with submission(server, alice) as client:
        code, text = client.mail(bob.address)
        if code == 250:
            code, text = client.rcpt(bob.address)
    assert code in (550, 553), text
    assert text.startswith(b"5.7.1"), text


def test_from_must_be_ones_own(server: Pillarbox, alice: Account, bob: Account) -> None:
    with submission(server, alice) as client, pytest.raises(smtplib.SMTPDataError) as refused:
        client.sendmail(alice.address, [bob.address], message(bob.address, sender=bob.address))
    assert refused.value.smtp_code in (550, 553, 554)


def test_tagged_sender_is_ones_own(server: Pillarbox, alice: Account, bob: Account) -> None:
    tagged = alice.address.replace("@", "+shop@")
    with submission(server, alice) as client:
        client.sendmail(tagged, [bob.address], message(bob.address, sender=tagged))
    with imap(server, bob) as client:
        assert status(client, "INBOX") == 1


def test_the_one_edit(server: Pillarbox, alice: Account, bob: Account) -> None:
    """Bcc goes; Date, Message-ID and From come where they are missing; nothing else changes."""
    with submission(server, alice) as client:
        client.sendmail(alice.address, [bob.address], f"To: x@y.example\r\nBcc: {bob.address}\r\n\r\nBody\r\n")
    with imap(server, bob) as client:
        stored = email.message_from_bytes(all_octets(client)[0])
    assert stored["Bcc"] is None
    assert stored["Date"] and stored["Message-ID"]
    assert alice.address in stored["From"]
    assert stored["To"] == "x@y.example"
    assert stored.get_payload() == "Body\r\n"


def test_what_came_before_starttls_is_forgotten(server: Pillarbox) -> None:
    """RFC 3207 §4.2: a command pipelined behind STARTTLS in clear is not carried out."""
    with smtplib.SMTP("localhost", server.port(587), timeout=20) as client:
        client.ehlo()
        assert client.sock is not None
        client.sock.sendall(b"STARTTLS\r\nNOOP injected\r\n")
        assert client.getreply()[0] == 220
        client.sock = server.tls().wrap_socket(client.sock, server_hostname="localhost")
        client.file = None
        client.sock.settimeout(3)
        client.sock.sendall(b"EHLO client.example.org\r\n")
        code, text = client.getreply()
        assert code == 250 and b"AUTH" in text.upper(), "the first reply after the handshake must be EHLO's"


async def test_aiosmtplib(server: Pillarbox, alice: Account, bob: Account) -> None:
    for port in (587, 465):
        await aiosmtplib.send(
            message(bob.address, f"port {port}", sender=alice.address),
            sender=alice.address,
            recipients=[bob.address],
            hostname="localhost",
            port=server.port(port),
            username=alice.address,
            password=alice.password,
            tls_context=server.tls(),
            timeout=30,
            start_tls=port == 587,
            use_tls=port == 465,
        )
    with imap(server, bob) as client:
        assert subjects(client) == ["port 587", "port 465"]


@pytest.mark.parametrize(("scheme", "port"), [("smtp", 587), ("smtps", 465)])
def test_curl(
    server: Pillarbox, alice: Account, bob: Account, tool: Callable[[str], str], tmp_path: Path, scheme: str, port: int
) -> None:
    octets = message(bob.address, sender=alice.address)
    (tmp_path / "message").write_bytes(octets)
    command = [tool("curl"), "--silent", "--show-error", "--max-time", "60", "--ssl-reqd"]
    command += ["--cacert", str(server.certificate), "--user", f"{alice.address}:{alice.password}"]
    command += ["--mail-from", alice.address, "--mail-rcpt", bob.address, "--upload-file", str(tmp_path / "message")]
    done = subprocess.run(
        [*command, f"{scheme}://localhost:{server.port(port)}/client.example.org"], capture_output=True, timeout=90
    )
    assert done.returncode == 0, done.stderr.decode()
    with imap(server, bob) as client:
        assert exact(all_octets(client)[0], octets)


def test_swaks(server: Pillarbox, alice: Account, bob: Account, tool: Callable[[str], str]) -> None:
    swaks = tool("swaks")
    if (
        "not available"
        in subprocess.run([swaks, "--support"], capture_output=True, text=True).stdout.split("TLS", 1)[-1][:200]
    ):
        pytest.skip("swaks lacks TLS here")
    command = [swaks, "--server", f"localhost:{server.port(587)}", "--tls", "--auth", "PLAIN"]
    command += ["--auth-user", alice.address, "--auth-password", alice.password, "--from", alice.address]
    command += ["--to", bob.address, "--header", "Subject: submitted by swaks", "--ehlo", "client.example.org"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    with imap(server, bob) as client:
        assert subjects(client) == ["submitted by swaks"]


def test_old_tls_is_refused(server: Pillarbox) -> None:
    context = server.tls()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, OSError)):
        smtplib.SMTP_SSL("localhost", server.port(465), timeout=10, context=context)
