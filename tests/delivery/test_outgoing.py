"""What recipients mean for the queue."""

from __future__ import annotations

import pytest

from mailserver.delivery.outgoing import Recipient, elsewhere, outgoing
from storage import AccountId, Outgoing, OutgoingRecipient

ALICE, BOB = AccountId(1), AccountId(2)


def queued(*recipients: Recipient, sender: str = "me@example.org") -> tuple[OutgoingRecipient, ...] | None:
    found = outgoing(ALICE, sender, recipients, header_prefix=b"")
    return None if found is None else found.recipients


TO_X = OutgoingRecipient("x@remote.test", "remote.test")
TABLE = {
    "one of ours": ([Recipient("bob@example.org", (BOB,))], None),
    "one elsewhere": ([Recipient("x@remote.test", (), ("x@remote.test",))], (TO_X,)),
    "one of each": ([Recipient("bob@x", (BOB,)), Recipient("x@remote.test", (), ("x@remote.test",))], (TO_X,)),
    "the same address twice": (
        [Recipient("x@remote.test", (), ("x@remote.test",)), Recipient("alias@x", (), ("x@REMOTE.test",))],
        (TO_X,),
    ),
    "an alias passes on what was asked": (
        [Recipient("alias@example.org", (), ("x@remote.test",), "SUCCESS,FAILURE", "rfc822;a")],
        (OutgoingRecipient("x@remote.test", "remote.test", "SUCCESS,FAILURE", "rfc822;a"),),
    ),
    "an alias of several is expanded": (
        [Recipient("alias@example.org", (BOB,), ("x@remote.test",), "SUCCESS", "rfc822;a")],
        (
            OutgoingRecipient("x@remote.test", "remote.test", "NEVER", "rfc822;a"),
            OutgoingRecipient("alias@example.org", "example.org", "SUCCESS", "rfc822;a", report="expanded"),
        ),
    ),
    "delivery here is reported": (
        [Recipient("bob@example.org", (BOB,), (), "SUCCESS,DELAY", "rfc822;b")],
        (OutgoingRecipient("bob@example.org", "example.org", "SUCCESS,DELAY", "rfc822;b", report="delivered"),),
    ),
    "to two accounts is an expansion": (
        [Recipient("both@example.org", (ALICE, BOB), (), "SUCCESS")],
        (OutgoingRecipient("both@example.org", "example.org", "SUCCESS", "", report="expanded"),),
    ),
    "delivery here, and not asked for": ([Recipient("bob@example.org", (BOB,), (), "FAILURE,DELAY")], None),
    "postmaster alone": (
        [Recipient("postmaster", (ALICE,), (), "SUCCESS")],
        (OutgoingRecipient("postmaster", "", "SUCCESS", "", report="delivered"),),
    ),
}


@pytest.mark.parametrize(("recipients", "expected"), TABLE.values(), ids=TABLE)
def test_recipients(recipients: list[Recipient], expected: tuple[OutgoingRecipient, ...] | None) -> None:
    assert queued(*recipients) == expected


def test_nobody_hears_of_a_message_from_the_null_reverse_path() -> None:
    assert queued(Recipient("bob@example.org", (BOB,), (), "SUCCESS"), sender="") is None


def test_the_envelope_is_kept() -> None:
    recipients = [Recipient("x@remote.test", (), ("x@remote.test",))]
    found = outgoing(
        *(BOB, "me@example.org", recipients),
        header_prefix=b"Received: x\r\n",
        body="8BITMIME",
        smtputf8=True,
        ret="FULL",
        envid="e",
    )
    assert found == Outgoing(BOB, "me@example.org", (TO_X,), b"Received: x\r\n", "8BITMIME", True, "FULL", "e")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("X.y@Remote.TEST", ("X.y@remote.test", "remote.test")),
        ("a..b@remote.test", ("a..b@remote.test", "remote.test")),
        ('"a b"@remote.test', ('"a b"@remote.test', "remote.test")),
        ("grün@bücher.test", ("grün@xn--bcher-kva.test", "xn--bcher-kva.test")),
        ("x@[192.0.2.1]", ("x@[192.0.2.1]", "[192.0.2.1]")),
    ],
)
def test_how_an_address_goes_out(address: str, expected: tuple[str, str]) -> None:
    assert elsewhere(address) == expected


@pytest.mark.parametrize("address", ["nobody", "x@", "@remote.test", "x@not-.a.domain", "x@[300.1.1.1]"])
def test_no_address_to_send_to(address: str) -> None:
    with pytest.raises(ValueError):
        elsewhere(address)
