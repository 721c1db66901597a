"""Two servers with different domains on one host send each other mail, as any two servers would."""

from __future__ import annotations

import email
import re
import smtplib
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from tests.acceptance.mail import all_octets, deliver, exact, imap, message, submission
from tests.acceptance.server import HOST, Account, Pillarbox, eventually

SECONDS = 30


@pytest.fixture(scope="module")
def pair(program: Path) -> Iterator[tuple[Pillarbox, Pillarbox]]:
    """one.test and two.test, each with a fixed route to the other, and one to itself."""
    one, two = Pillarbox(), Pillarbox()
    while two.offset == one.offset:
        two = Pillarbox()
    routes = {
        one: f"two.test = {HOST}:{two.port(25)}, loop.test = {HOST}:{one.port(25)}, dead.test = {HOST}:{free_port()}",
        two: f"one.test = {HOST}:{one.port(25)}",
    }
    try:
        for server, name in ((one, "one"), (two, "two")):
            server._environment |= {
                "PILLARBOX_SEND__ROUTES": routes[server],
                "PILLARBOX_SERVER__HOSTNAME": f"mail.{name}.test",
                "PILLARBOX_SEND__RETRY_PAUSES_SECONDS": "1",
                "PILLARBOX_SEND__FIRST_BACKOFF_SECONDS": "1",
                "PILLARBOX_SEND__LONGEST_BACKOFF_SECONDS": "2",
                "PILLARBOX_MAIL__FIRST_DOMAIN": f"{name}.test",
            }
            server.start("--workers", "2")
        one.add_accounts([ALICE])
        two.add_accounts([BOB])
        yield one, two
    finally:
        one.end()
        two.end()


def free_port() -> int:
    import socket

    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


ALICE = Account("alice@one.test", "correct horse 1")
BOB = Account("bob@two.test", "correct horse 2")


def wait_for(server: Pillarbox, account: Account, subject: str) -> bytes:
    """The message with this in its Subject, once it is there."""
    found: list[bytes] = []

    def look() -> bool:
        with imap(server, account) as client:
            found[:] = [octets for octets in all_octets(client) if subject in parsed(octets)["Subject"]]
        return bool(found)

    eventually(look, SECONDS, f"{subject!r} in the INBOX of {account.address}", every=0.2)
    return found[0]


def parsed(octets: bytes) -> Message:
    return email.message_from_bytes(octets)


def test_both_ways_over_tls(pair: tuple[Pillarbox, Pillarbox]) -> None:
    one, two = pair
    question = message(BOB.address, "Lunch?", sender=ALICE.address)
    with submission(one, ALICE) as client:
        client.sendmail(ALICE.address, [BOB.address], question)
    stored = wait_for(two, BOB, "Lunch?")
    assert exact(stored, question)
    received = parsed(stored).get_all("Received")
    assert received is not None and len(received) == 2
    assert re.search(r"from mail\.one\.test .*by mail\.two\.test with ESMTPS .*TLSv1\.3", received[0], re.DOTALL)
    assert "with ESMTPSA" in received[1]
    with submission(two, BOB) as client:
        client.sendmail(BOB.address, [ALICE.address], message(ALICE.address, "At noon", sender=BOB.address))
    wait_for(one, ALICE, "At noon")


def test_no_such_user_there_is_told(pair: tuple[Pillarbox, Pillarbox]) -> None:
    one, two = pair
    with submission(one, ALICE) as client:
        refused = client.sendmail(
            ALICE.address, ["nobody@two.test", BOB.address], message(BOB.address, "To two", sender=ALICE.address)
        )
    assert refused == {}
    wait_for(two, BOB, "To two")
    bounce = parsed(wait_for(one, ALICE, "could not be delivered"))
    assert bounce["Return-Path"] == "<>" and bounce.get_content_type() == "multipart/report"
    status = bounce.get_payload()[1]
    assert status.get_content_type() == "message/delivery-status"
    fields = status.get_payload()[1]
    assert fields["Final-Recipient"] == "rfc822;nobody@two.test"
    assert (fields["Action"], fields["Status"]) == ("failed", "5.1.1")


def test_success_is_reported_where_it_is_asked_for(pair: tuple[Pillarbox, Pillarbox]) -> None:
    one, two = pair
    with submission(one, ALICE) as client:
        client.mail(ALICE.address, ["RET=HDRS", "ENVID=q1"])
        for address in (BOB.address, ALICE.address):
            assert client.rcpt(address, ["NOTIFY=SUCCESS", f"ORCPT=rfc822;{address}"])[0] == 250
        assert client.data(message(BOB.address, "Tell me", sender=ALICE.address))[0] == 250
    wait_for(two, BOB, "Tell me")
    told: set[str] = set()

    def both() -> bool:
        with imap(one, ALICE) as client:
            for octets in all_octets(client):
                found = parsed(octets)
                if found.get_content_type() == "multipart/report" and "Original-Envelope-Id: q1" in octets.decode():
                    told.add(found.get_payload()[1].get_payload()[1]["Final-Recipient"])
        return len(told) == 2

    eventually(both, SECONDS, "both reports", every=0.2)
    assert told == {f"rfc822;{ALICE.address}", f"rfc822;{BOB.address}"}


def test_an_alias_leads_to_the_other_server(pair: tuple[Pillarbox, Pillarbox]) -> None:
    one, two = pair
    one.run("admin", "alias", "add", "bob@one.test", BOB.address)
    deliver(one, message("bob@one.test", "Passed on"), "bob@one.test")
    stored = parsed(wait_for(two, BOB, "Passed on"))
    assert stored["Return-Path"] == "<someone@example.org>"


def test_mail_does_not_go_back_to_where_it_is(pair: tuple[Pillarbox, Pillarbox]) -> None:
    one, _ = pair
    with submission(one, ALICE) as client:
        client.sendmail(ALICE.address, ["x@loop.test"], message("x@loop.test", "Round and round", sender=ALICE.address))
    eventually(lambda: "which is this server" in one.log.read_text(), SECONDS, "the loop is found")
    assert one.log.read_text().count("Round and round") == 0


def test_no_relay(pair: tuple[Pillarbox, Pillarbox]) -> None:
    one, _ = pair
    with smtplib.SMTP(HOST, one.port(25), timeout=30) as client:
        client.ehlo()
        client.mail("x@elsewhere.example")
        assert client.rcpt(BOB.address) == (550, b"5.7.1 Relay access denied")


def test_what_could_not_be_sent_goes_out_when_the_other_server_is_back(pair: tuple[Pillarbox, Pillarbox]) -> None:
    one, two = pair
    two.stop()
    with submission(one, ALICE) as client:
        for number in range(3):
            octets = message(BOB.address, f"Waiting {number}", sender=ALICE.address)
            client.sendmail(ALICE.address, [BOB.address], octets)
    eventually(lambda: "deferred" in one.log.read_text(), SECONDS, "an attempt has failed")
    two.start("--workers", "2")
    for number in range(3):
        wait_for(two, BOB, f"Waiting {number}")
