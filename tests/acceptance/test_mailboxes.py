"""What a mail client does all day, by the standard library's IMAP client."""

from __future__ import annotations

import email
import email.policy
import imaplib
import os
import re
import smtplib
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage

import pytest

from tests.acceptance.mail import (
    all_octets,
    deliver,
    exact,
    imap,
    message,
    octets_of,
    ok,
    status,
    subjects,
    submission,
)
from tests.acceptance.server import HOST, Account, Pillarbox

MIB = 1024 * 1024


@pytest.fixture
def client(server: Pillarbox, alice: Account) -> Iterator[imaplib.IMAP4]:
    with imap(server, alice) as connection:
        yield connection


def _listed(client: imaplib.IMAP4, pattern: str = "*") -> dict[str, str]:
    """Name -> attributes."""
    found = {}
    for line in ok(client.list('""', pattern)):
        if isinstance(line, bytes):
            attributes, _, rest = line.decode().partition(")")
            found[rest.split(" ", 2)[2].strip('"')] = attributes.strip("(")
    return found


def test_special_folders_are_there_and_subscribed(client: imaplib.IMAP4) -> None:
    """RFC 6154 §2: special uses stand in the plain LIST too."""
    listed = _listed(client)
    for name in ("Drafts", "Sent", "Junk", "Trash", "Archive"):
        assert f"\\{name}" in listed[name], listed
    subscribed = {line.decode().rpartition(" ")[2].strip('"') for line in ok(client.lsub('""', "*"))}
    assert {"Drafts", "Sent", "Junk", "Trash", "Archive"} <= subscribed
    assert "INBOX" in listed


def test_deleted_special_folder_stays_deleted(server: Pillarbox, alice: Account) -> None:
    with imap(server, alice) as client:
        ok(client.delete("Archive"))
    with imap(server, alice) as client:
        assert "Archive" not in _listed(client)


def test_folders(client: imaplib.IMAP4) -> None:
    ok(client.create("Work/2026/November"))
    assert {"Work", "Work/2026", "Work/2026/November"} <= set(_listed(client))
    assert "\\HasChildren" in _listed(client)["Work"]
    ok(client.rename("Work", "Play"))
    assert {"Play", "Play/2026", "Play/2026/November"} <= set(_listed(client))
    assert not [name for name in _listed(client) if name.startswith("Work")]
    assert client.create("Play")[0] == "NO"
    ok(client.delete("Play/2026/November"))
    assert "Play/2026/November" not in _listed(client)
    ok(client.subscribe("Play"))
    assert "Play" in str(client.lsub('""', "*"))
    ok(client.unsubscribe("Play"))
    assert "Play" not in str(client.lsub('""', "*"))


def test_unicode_folder(client: imaplib.IMAP4) -> None:
    """RFC 3501 §5.1.3: the wire form comes back as it went."""
    ok(client.create('"Entw&APw-rfe &- mehr"'))
    assert "Entw&APw-rfe &- mehr" in _listed(client)
    assert client.create('"bad &encoding"')[0] in ("NO", "BAD")


def test_flags(server: Pillarbox, alice: Account, client: imaplib.IMAP4) -> None:
    for _ in range(3):
        deliver(server, message(alice.address), alice.address)
    assert status(client, "INBOX", "UNSEEN") == 3
    ok(client.select("INBOX"))
    assert b"\\Seen" not in ok(client.fetch("1", "(FLAGS)"))[0]
    ok(client.fetch("1", "(BODY[TEXT])"))
    assert b"\\Seen" in ok(client.fetch("1", "(FLAGS)"))[0]
    ok(client.store("2:3", "+FLAGS", "(\\Flagged $Forwarded)"))
    ok(client.store("3", "-FLAGS", "(\\Flagged)"))
    assert ok(client.search(None, "FLAGGED")) == [b"2"]
    assert ok(client.search(None, "KEYWORD", "$Forwarded")) == [b"2 3"]
    with imap(server, alice) as other:
        ok(other.select("INBOX"))
        assert ok(other.search(None, "FLAGGED")) == [b"2"]


def test_delete_and_expunge(server: Pillarbox, alice: Account, client: imaplib.IMAP4) -> None:
    for number in range(4):
        deliver(server, message(alice.address, f"number {number}"), alice.address)
    ok(client.select("INBOX"))
    ok(client.store("2,4", "+FLAGS", "\\Deleted"))
    assert ok(client.expunge()) in ([b"2", b"3"], [b"4", b"2"])
    assert subjects(client) == ["number 0", "number 2"]


def test_copy_and_move(server: Pillarbox, alice: Account, client: imaplib.IMAP4) -> None:
    octets = message(alice.address)
    deliver(server, octets, alice.address)
    ok(client.select("INBOX"))
    ok(client.copy("1", "Archive"))
    code, _ = client._simple_command("MOVE", "1", "Trash")
    assert code == "OK"
    assert [status(client, name) for name in ("INBOX", "Archive", "Trash")] == [0, 1, 1]
    assert exact(all_octets(client, "Trash")[0], octets)


def test_move_into_nowhere(server: Pillarbox, alice: Account, client: imaplib.IMAP4) -> None:
    """RFC 3501 §6.4.7: NO [TRYCREATE], and nothing has changed."""
    deliver(server, message(alice.address), alice.address)
    ok(client.select("INBOX"))
    code, text = client.copy("1", "Nowhere")
    assert code == "NO" and b"[TRYCREATE]" in text[0]
    assert status(client, "INBOX") == 1


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("SUBJECT budget", "1"),
        ('SUBJECT "quarterly budget"', "1"),
        ("FROM carol@example.org", "2"),
        ("BODY unicorn", "2"),
        ("TEXT budget", "1 3"),
        ("BODY BUDGET", "3"),
        ("NOT TEXT unicorn", "1 3"),
        ("OR SUBJECT budget BODY unicorn", "1 2"),
        ("SENTSINCE 1-Nov-2026 SENTBEFORE 30-Nov-2026", "1 2 3"),
        ("SENTON 1-Jan-2020", ""),
        ("LARGER 100000", ""),
        ("HEADER Message-ID example.org", "1 2 3"),
        ("UNSEEN UNDELETED", "1 2 3"),
        ("2:3 SMALLER 100000", "2 3"),
    ],
)
def test_search(searched: imaplib.IMAP4, keys: str, found: str) -> None:
    assert ok(searched.search(None, keys)) == [found.encode()]


@pytest.fixture(scope="module")
def searched(server: Pillarbox, _pool: Iterator[Account]) -> Iterator[imaplib.IMAP4]:
    """A mailbox with three messages, selected."""
    account = next(_pool)
    deliver(server, message(account.address, "Quarterly budget"), account.address)
    deliver(server, message(account.address, "Hello", "A unicorn.\r\n", "carol@example.org"), account.address)
    deliver(server, message(account.address, "Numbers", "the Budget\r\n"), account.address)
    with imap(server, account) as client:
        ok(client.select("INBOX", readonly=True))
        yield client


def test_search_with_charset(server: Pillarbox, alice: Account, client: imaplib.IMAP4) -> None:
    deliver(server, message(alice.address, "=?utf-8?q?Gr=C3=BC=C3=9Fe?="), alice.address)
    ok(client.select("INBOX"))
    client.literal = "Grüße".encode()  # type: ignore[assignment]
    assert ok(client.search("UTF-8", "SUBJECT")) == [b"1"]


def test_append_comes_back_exact(client: imaplib.IMAP4) -> None:
    """Octets from APPEND are never changed, not even a missing last line end; flags and date are taken over."""
    octets = message("x@example.org", body="bare\nline\rends, no end of line")
    client.literal = octets  # type: ignore[assignment]  # its own append() would repair the line ends
    code, text = client._simple_command("APPEND", "Drafts", "(\\Draft \\Seen)", '"03-Feb-2020 04:05:06 +0000"')
    assert code == "OK" and b"[APPENDUID " in text[0], text
    ok(client.select("Drafts"))
    assert octets_of(client, 1) == octets
    data = ok(client.fetch("1", "(FLAGS INTERNALDATE RFC822.SIZE)"))[0]
    assert isinstance(data, bytes)
    assert b"\\Draft" in data and b"\\Seen" in data and b"RFC822.SIZE %d" % len(octets) in data
    assert re.search(rb'INTERNALDATE "[ 0]3-Feb-2020 04:05:06 \+0000"', data), data  # RFC 3501: date-day-fixed


def test_append_to_nowhere(client: imaplib.IMAP4) -> None:
    code, text = client.append("Nowhere", "", None, message("x@example.org"))
    assert code == "NO" and b"[TRYCREATE]" in text[0]


def _with_attachment(sender: str, to: str, attachment: bytes) -> bytes:
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"], mail["Subject"] = sender, to, "Big one"
    mail["Date"], mail["Message-ID"] = "Tue, 24 Nov 2026 10:00:00 +0000", "<big@example.test>"
    mail.set_content("See the attachment.")
    mail.add_attachment(attachment, maintype="application", subtype="octet-stream", filename="big.bin")
    return mail.as_bytes()


def test_twenty_megabytes_both_ways(server: Pillarbox, alice: Account, bob: Account) -> None:
    """One there by submission and one back by APPEND into Sent; all octets, and the part that a client downloads."""
    attachment = os.urandom(20 * 1000 * 1000)
    octets = _with_attachment(alice.address, bob.address, attachment)
    with submission(server, alice) as client:
        client.sendmail(alice.address, [bob.address], octets)
    with imap(server, alice) as mailbox:
        ok(mailbox.append("Sent", "(\\Seen)", None, octets))
        assert all_octets(mailbox, "Sent") == [octets]
    with imap(server, bob) as mailbox:
        ok(mailbox.select("INBOX"))
        assert exact(octets_of(mailbox, 1), octets)
        structure = ok(mailbox.fetch("1", "(BODYSTRUCTURE)"))[0]
        assert isinstance(structure, bytes) and b'"big.bin"' in structure
        data = ok(mailbox.fetch("1", "(BODY.PEEK[2])"))
    part = next(item[1] for item in data if isinstance(item, tuple))
    assert (
        email.message_from_bytes(b"Content-Transfer-Encoding: base64\r\n\r\n" + part).get_payload(decode=True)
        == attachment
    )


def test_quota_refuses_append(server: Pillarbox, limited_accounts: Iterator[Account]) -> None:
    account = next(limited_accounts)
    with imap(server, account) as client:
        ok(client.append("INBOX", "", None, message("x@example.org", body="x" * 700_000)))
        code, text = client.append("INBOX", "", None, message("x@example.org", body="x" * 700_000))
        assert code == "NO" and b"[OVERQUOTA]" in text[0], text
        assert status(client, "INBOX") == 1


def test_quota_refuses_mail(server: Pillarbox, limited_accounts: Iterator[Account]) -> None:
    """What does not fit now is refused for now, at RCPT when SIZE tells, at the end of data when not."""
    account = next(limited_accounts)
    octets = message(account.address, body=("x" * 70 + "\r\n") * 10_000)
    deliver(server, octets, account.address)
    with smtplib.SMTP(HOST, server.port(25), timeout=30) as client:
        client.ehlo()
        client.mail("someone@example.org", [f"size={len(octets)}"])
        code, text = client.rcpt(account.address)
        assert (code, text[:5]) == (452, b"4.2.2"), text
        client.rset()
        client.mail("someone@example.org")
        assert client.rcpt(account.address)[0] == 250
        code, text = client.data(octets)
        assert (code, text[:5]) == (452, b"4.2.2"), text
    with imap(server, account) as mailbox:
        assert status(mailbox, "INBOX") == 1


def test_quota_refuses_for_good_what_never_fits(server: Pillarbox, limited_accounts: Iterator[Account]) -> None:
    account = next(limited_accounts)
    with pytest.raises(smtplib.SMTPResponseException) as refused:
        deliver(server, message(account.address, body=("x" * 70 + "\r\n") * 20_000), account.address)
    assert (refused.value.smtp_code, refused.value.smtp_error[:5]) == (552, b"5.2.2")


def test_full_recipient_shares_what_others_have_room_for(
    server: Pillarbox, alice: Account, limited_accounts: Iterator[Account]
) -> None:
    """Nobody loses a message, and no sender has to send it twice, because one of the recipients is full."""
    full = next(limited_accounts)
    octets = message(alice.address, body=("x" * 70 + "\r\n") * 10_000)
    deliver(server, octets, full.address)
    with smtplib.SMTP(HOST, server.port(25), timeout=30) as client:
        client.ehlo()
        client.mail("someone@example.org")  # the size is not known before the end of data
        assert [client.rcpt(account.address)[0] for account in (full, alice)] == [250, 250]
        assert client.data(octets)[0] == 250
    for account, count in ((alice, 1), (full, 2)):
        with imap(server, account) as mailbox:
            assert status(mailbox, "INBOX") == count


def test_no_password_in_clear(server: Pillarbox, alice: Account) -> None:
    client = imaplib.IMAP4("localhost", server.port(143), timeout=20)
    assert "LOGINDISABLED" in client.capabilities
    assert not [word for word in client.capabilities if word.startswith("AUTH=")]
    with pytest.raises(imaplib.IMAP4.error):
        client.login(alice.address, alice.password)
    client.starttls(ssl_context=server.tls())
    assert "LOGINDISABLED" not in client.capabilities
    client.login(alice.address, alice.password)
    client.logout()


@pytest.mark.parametrize("name", ["address", "username"])
def test_login_by_address_or_username(server: Pillarbox, alice: Account, name: str) -> None:
    client = imaplib.IMAP4_SSL("localhost", server.port(993), ssl_context=server.tls(), timeout=20)
    client.login(getattr(alice, name).upper() if name == "address" else alice.username, alice.password)
    client.logout()


def test_authenticate_plain(server: Pillarbox, alice: Account) -> None:
    client = imaplib.IMAP4_SSL("localhost", server.port(993), ssl_context=server.tls(), timeout=20)
    ok(client.authenticate("PLAIN", lambda _: f"\0{alice.address}\0{alice.password}".encode()))
    client.logout()


@pytest.mark.parametrize("password", ["wrong", "", "correct horse"])
def test_wrong_password(server: Pillarbox, alice: Account, password: str) -> None:
    client = imaplib.IMAP4_SSL("localhost", server.port(993), ssl_context=server.tls(), timeout=20)
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        client.login(alice.address, password)
    client.shutdown()


def test_bad_syntax_leaves_the_session_in_step(client: imaplib.IMAP4) -> None:
    with pytest.raises(imaplib.IMAP4.error, match="BAD"):
        client._simple_command("NOOP", "too", "much")
    ok(client.noop())


def test_two_sessions_see_each_others_changes(
    server: Pillarbox, alice: Account, new_account: Callable[[], Account]
) -> None:
    deliver(server, message(alice.address), alice.address)
    deliver(server, message(alice.address), alice.address)
    with imap(server, alice) as one, imap(server, alice) as other:
        ok(one.select("INBOX"))
        ok(other.select("INBOX"))
        ok(one.store("1", "+FLAGS", "(\\Deleted)"))
        ok(one.expunge())
        time.sleep(0.5)
        other.noop()
        assert other.response("EXPUNGE")[1] == [b"1"]
        assert other.response("EXISTS")[1][-1] in (b"1", None, b"2")
        assert ok(other.search(None, "ALL")) == [b"1"]
