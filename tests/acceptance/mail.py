"""Messages and sessions for the acceptance tests, by the standard library's clients."""

from __future__ import annotations

import imaplib
import re
import smtplib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.acceptance.server import HOST, Account, Pillarbox

imaplib._MAXLINE = 10_000_000  # type: ignore[attr-defined]  # a SEARCH answer is one line


def message(to: str, subject: str = "", body: str = "Hello.\r\n", sender: str = "someone@example.org") -> bytes:
    """A message that nothing has to be added to, with a Message-ID of its own."""
    return (
        f"From: {sender}\r\nTo: {to}\r\nSubject: {subject or uuid.uuid4().hex}\r\n"
        f"Date: Tue, 24 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{uuid.uuid4().hex}@example.org>\r\n\r\n{body}"
    ).encode()


def deliver(server: Pillarbox, octets: bytes, *to: str, sender: str = "someone@example.org") -> str:
    """As another mail server would, on port 25; the text of the last reply."""
    with smtplib.SMTP(HOST, server.port(25), timeout=30, local_hostname="client.example.org") as client:
        return deliver_on(client, octets, *to, sender=sender)


def deliver_on(client: smtplib.SMTP, octets: bytes, *to: str, sender: str = "someone@example.org") -> str:
    """One message on this connection; raises smtplib's exceptions when it is refused."""
    client.ehlo_or_helo_if_needed()
    _must_accept(client.mail(sender, [f"size={len(octets)}"]))
    for address in to:
        _must_accept(client.rcpt(address))
    code, reply = client.data(octets)
    if code != 250:
        raise smtplib.SMTPDataError(code, reply)
    return reply.decode()


def _must_accept(answer: tuple[int, bytes]) -> None:
    if answer[0] != 250:
        raise smtplib.SMTPResponseException(*answer)


@contextmanager
def submission(server: Pillarbox, account: Account) -> Iterator[smtplib.SMTP]:
    """Logged in on port 587 after STARTTLS."""
    with smtplib.SMTP("localhost", server.port(587), timeout=60, local_hostname="client.example.org") as client:
        client.starttls(context=server.tls())
        client.login(account.address, account.password)
        yield client


@contextmanager
def imap(server: Pillarbox, account: Account) -> Iterator[imaplib.IMAP4]:
    """Logged in on port 993."""
    client = imaplib.IMAP4_SSL("localhost", server.port(993), ssl_context=server.tls(), timeout=60)
    try:
        client.login(account.address, account.password)
        yield client
    finally:
        try:
            client.logout()
        except (OSError, imaplib.IMAP4.abort):
            pass


def ok(answer: tuple[str, Any]) -> list[Any]:
    """The data of an answer that must be OK."""
    assert answer[0] == "OK", answer
    data: list[Any] = answer[1]
    return data


def octets_of(client: imaplib.IMAP4, number: int | str, uid: bool = False) -> bytes:
    """One whole message; the mailbox must be selected."""
    name = str(number)
    data = ok(client.uid("FETCH", name, "(BODY.PEEK[])") if uid else client.fetch(name, "(BODY.PEEK[])"))
    octets: bytes = next(item[1] for item in data if isinstance(item, tuple))
    return octets


def all_octets(client: imaplib.IMAP4, mailbox: str = "INBOX") -> list[bytes]:
    """Every message of a mailbox, by its UIDs in order."""
    count = int(ok(client.select(mailbox, readonly=True))[0])
    if not count:
        return []
    data = ok(client.fetch("1:*", "(BODY.PEEK[])"))
    return [item[1] for item in data if isinstance(item, tuple)]


def subjects(client: imaplib.IMAP4, mailbox: str = "INBOX") -> list[str]:
    """The subjects of a mailbox's messages."""
    return [_subject(octets) for octets in all_octets(client, mailbox)]


def _subject(octets: bytes) -> str:
    found = re.search(rb"(?mi)^Subject: (.*?)\r?$", octets)
    return found[1].decode() if found else ""


def status(client: imaplib.IMAP4, mailbox: str, item: str = "MESSAGES") -> int:
    data = ok(client.status(f'"{mailbox}"', f"({item})"))
    found = re.search(item + r" (\d+)", str(data[0]))
    assert found, data
    return int(found[1])


def exact(stored: bytes, sent: bytes) -> bool:
    """Is it what was sent, behind a prefix of our own header fields?"""
    prefix = stored[: len(stored) - len(sent)]
    fields = re.sub(rb"\r\n[ \t]", b" ", prefix).split(b"\r\n")[:-1] if prefix else []
    return stored.endswith(sent) and all(
        field.partition(b":")[0].lower() in (b"return-path", b"delivered-to", b"received") for field in fields
    )
