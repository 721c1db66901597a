from __future__ import annotations

import re
import time
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.message import report, structure
from mailserver.message.report import Action, Report, ReportedRecipient
from tests.message.messages import SETTINGS, soup

ORIGINAL = b"Received: x\r\nMessage-ID: <1@x.example>\r\nSubject: s\r\n\r\nThe body.\r\n"
HEADER = ORIGINAL[: -len(b"\r\nThe body.\r\n")]
BOB = ReportedRecipient("bob@example.com", Action.FAILED, "5.1.1")
REPORT = Report(
    hostname="mail.example.org",
    reverse_path="alice@example.org",
    recipients=(BOB,),
    message_id="<r1@mail.example.org>",
    date=86_400,
    original=ORIGINAL,
    max_returned=100_000,
)


def about(*recipients: ReportedRecipient, **changes: Any) -> Report:
    return replace(REPORT, recipients=recipients or (BOB,), **changes)


def parsed(report_: Report) -> EmailMessage:
    """The report as the standard library sees it; that ours sees the same parts is checked."""
    octets = report.build(report_)
    _check_legal(octets, report_)
    message = message_from_bytes(octets, policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert message.get_content_type() == "multipart/report"
    parts = list(message.iter_parts())
    tree = structure.parse(octets)
    assert [part.get_content_type() for part in parts] == [
        f"{child.type.decode()}/{child.subtype.decode()}".lower() for child in tree.children
    ]
    assert message.get_param("report-type") == parts[1].get_content_subtype()
    assert len(parts) == 3
    return message


def _check_legal(octets: bytes, report_: Report) -> None:
    assert b"\0" not in octets
    assert octets.count(b"\n") == octets.count(b"\r") == octets.count(b"\r\n")
    assert max(map(len, octets.split(b"\r\n"))) <= report.MAX_LINE
    head = octets[: octets.index(b"\r\n\r\n")]
    assert head.isascii() is report_.reverse_path.isascii()
    assert octets.isascii() or report_.smtputf8 or b"\r\nContent-Transfer-Encoding: 8bit\r\n" in octets


def part(message: EmailMessage, number: int) -> Message:
    found = list(message.iter_parts())[number]
    assert isinstance(found, Message)
    return found


def words(report_: Report) -> str:
    text = part(parsed(report_), 0)
    assert text.get_content_type() == "text/plain"
    assert text.get_content_charset() == "utf-8"
    payload = text.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def fields(report_: Report) -> list[dict[str, str]]:
    """The groups of fields, unfolded, read without any parser of addresses or of encodings."""
    octets = report.build(report_)
    child = structure.parse(octets).children[1]
    groups = octets[child.header_end : child.end].decode().removesuffix("\r\n").split("\r\n\r\n")
    return [dict(_field(line) for line in group.replace("\r\n ", " ").split("\r\n")) for group in groups]


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(": ")
    return name, value


def returned(report_: Report) -> tuple[str, str, bytes]:
    """Type, encoding, and the octets with their encoding undone."""
    octets = report.build(report_)
    parsed(report_)
    child = structure.parse(octets).children[2]
    raw = octets[child.header_end : child.end]
    if child.encoding in (b"quoted-printable", b"base64"):
        carrier = message_from_bytes(b"Content-Transfer-Encoding: " + child.encoding + b"\r\n\r\n" + raw)
        decoded = carrier.get_payload(decode=True)
        assert isinstance(decoded, bytes)
        raw = decoded
    return f"{child.type.decode()}/{child.subtype.decode()}", child.encoding.decode(), raw


# The header -----------------------------------------------------------------------------------------------------------


def test_header() -> None:
    message = parsed(REPORT)
    assert message.items() == [
        ("From", "Mail Delivery System <mailer-daemon@mail.example.org>"),
        ("To", "alice@example.org"),
        ("Subject", "Your message could not be delivered"),
        ("Date", "Fri, 02 Jan 1970 00:00:00 +0000"),
        ("Message-ID", "<r1@mail.example.org>"),
        ("In-Reply-To", "<1@x.example>"),
        ("References", "<1@x.example>"),
        ("Auto-Submitted", "auto-replied"),
        ("MIME-Version", "1.0"),
        ("Content-Type", message["Content-Type"]),
    ]
    assert not message.defects and not message["From"].defects and not message["Content-Type"].defects
    assert message["To"].addresses[0].addr_spec == "alice@example.org"


@pytest.mark.parametrize(
    ("actions", "subject"),
    [
        ("failed", "Your message could not be delivered"),
        ("delayed", "Your message is delayed"),
        ("relayed", "Your message was passed on"),
        ("expanded", "Your message was passed on"),
        ("delivered", "Your message was delivered"),
        ("delivered delayed failed relayed", "Your message could not be delivered"),
        ("delivered relayed", "Your message was passed on"),
    ],
)
def test_the_subject_names_what_matters_most(actions: str, subject: str) -> None:
    recipients = [ReportedRecipient(f"{name}@x", Action(name), "") for name in actions.split()]
    assert parsed(about(*recipients))["Subject"] == subject


@pytest.mark.parametrize(
    ("line", "parent"),
    [
        (b"", None),
        (b"Message-ID:\r\n <2@x>\r\n", "<2@x>"),
        (b"message-id : <2@x>\r\n", "<2@x>"),
        (b"Message-ID: <2@x> <3@x>\r\n", None),
        (b"Message-ID: no brackets\r\n", None),
        (b"Message-ID: <a\tb@x>\r\n", None),
        (b"Message-ID: <\xfc@x>\r\n", None),
        (b"Message-ID: <2@x>\rBcc: evil@x\r\n", None),
        (b"Message-ID: <%b@x>\r\n" % (b"2" * 600), None),
    ],
)
def test_the_original_is_referred_to(line: bytes, parent: str | None) -> None:
    message = parsed(about(original=line + b"Subject: s\r\n\r\nMessage-ID: <body@x>\r\n"))
    assert (message["In-Reply-To"], message["References"], message["Bcc"]) == (parent, parent, None)


@pytest.mark.parametrize("wrong", [{"reverse_path": ""}, {"recipients": ()}, {"message_id": "<a\r\nb@x>"}])
def test_a_report_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        replace(REPORT, **wrong)


# Fields for programs --------------------------------------------------------------------------------------------------


def test_fields_of_a_failure() -> None:
    bob = ReportedRecipient(
        address="bob@example.com",
        action=Action.FAILED,
        status="5.1.1",
        original_recipient="rfc822;Sales+x@example.org",
        code=550,
        text="5.1.1 No such user",
        host="mx.example.com",
        last_attempt=3600,
        will_retry_until=7200,
    )
    assert fields(about(bob, arrival=60, zone=60, envelope_id="QQ=3 14")) == [
        {
            "Original-Envelope-Id": "QQ=3 14",
            "Reporting-MTA": "dns; mail.example.org",
            "Arrival-Date": "Thu, 01 Jan 1970 01:01:00 +0100",
        },
        {
            "Original-Recipient": "rfc822;Sales+x@example.org",
            "Final-Recipient": "rfc822;bob@example.com",
            "Action": "failed",
            "Status": "5.1.1",
            "Remote-MTA": "dns; mx.example.com",
            "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
            "Last-Attempt-Date": "Thu, 01 Jan 1970 02:00:00 +0100",
        },
    ]


def test_fields_where_little_is_known() -> None:
    assert fields(REPORT) == [
        {"Reporting-MTA": "dns; mail.example.org"},
        {"Final-Recipient": "rfc822;bob@example.com", "Action": "failed", "Status": "5.1.1"},
    ]


def test_several_recipients_as_the_standard_library_reads_them() -> None:
    recipients = [
        ReportedRecipient("a@x", Action.DELAYED, "4.4.1", text="Connection timed out", will_retry_until=86_400),
        ReportedRecipient("b@x", Action.RELAYED, "2.1.9", code=250, text="OK", host="mx.x", will_retry_until=1),
        ReportedRecipient("c@x", Action.EXPANDED, "2.1.5"),
        ReportedRecipient("d@x", Action.DELIVERED, "2.1.5"),
    ]
    status = part(parsed(about(*recipients)), 1)
    blocks: Any = status.get_payload()
    assert [block["Action"] for block in blocks] == [None, "delayed", "relayed", "expanded", "delivered"]
    assert [block["Status"] for block in blocks] == [None, "4.4.1", "2.1.9", "2.1.5", "2.1.5"]
    assert [block["Final-Recipient"] for block in blocks[1:]] == [f"rfc822;{name}@x" for name in "abcd"]
    assert [block["Will-Retry-Until"] is not None for block in blocks[1:]] == [True, False, False, False]
    assert blocks[1]["Diagnostic-Code"] == "x-pillarbox; Connection timed out"
    assert blocks[2]["Diagnostic-Code"] == "smtp; 250 OK"


@pytest.mark.parametrize(
    ("action", "status", "shown"),
    [
        (Action.FAILED, "5.1.10", "5.1.10"),
        (Action.FAILED, "4.4.7", "4.4.7"),
        (Action.FAILED, "", "5.0.0"),
        (Action.DELAYED, "4.01.1", "4.0.0"),
        (Action.DELAYED, "4.1.1000", "4.0.0"),
        (Action.RELAYED, "2.0.0\r\nX: y", "2.0.0"),
        (Action.EXPANDED, "3.1.1", "2.0.0"),
        (Action.DELIVERED, "2.1.\u0665", "2.0.0"),
    ],
)
def test_status(action: Action, status: str, shown: str) -> None:
    assert fields(about(ReportedRecipient("a@x", action, status)))[1]["Status"] == shown


def test_long_words_of_a_server_are_folded() -> None:
    text = "word " * 100 + "https://x.example/" + "y" * 200
    bob = replace(BOB, code=550, text=text)
    assert fields(about(bob))[1]["Diagnostic-Code"] == f"smtp; 550 {text}"
    assert "      https://x.example/" + "y" * 200 + "\r\n" in words(about(bob))


# Words for people -----------------------------------------------------------------------------------------------------


def test_words_of_a_failure() -> None:
    bob = replace(BOB, original_recipient="rfc822;sales@example.org", code=550, text="No such user", host="mx.x")
    assert words(about(bob, arrival=0)) == (
        "This is the mail server mail.example.org, about your message of Thu, 01 Jan\r\n"
        "1970 00:00:00 +0000.\r\n"
        "\r\n"
        "Your message could not be delivered to:\r\n"
        "\r\n"
        "  bob@example.com\r\n"
        "    (sent to sales@example.org)\r\n"
        "    mx.x answered:\r\n"
        "      550 No such user\r\n"
        "    There is no such mailbox. Check the address for mistakes, and send the\r\n"
        "    message again to the right one.\r\n"
        "\r\n"
        "No further attempt will be made for what is listed here.\r\n"
        "\r\n"
        "If you need help, write to postmaster@mail.example.org and send this report\r\n"
        "along.\r\n"
        "\r\n"
        "Your message follows.\r\n"
    )


def test_words_of_a_delay() -> None:
    bob = ReportedRecipient("b@x", Action.DELAYED, "4.4.1", text="It timed out", host="mx.x", will_retry_until=3600)
    text = words(about(bob))
    assert "could not be delivered yet to:\r\n\r\n  b@x\r\n    Reason (mx.x):\r\n      It timed out\r\n" in text
    assert "Further attempts are made until Thu, 01 Jan 1970 01:00:00 +0000." in text
    assert "should not send the message again" in text
    assert text.endswith("The header of your message follows.\r\n")
    assert "postmaster" not in text


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Action.DELIVERED, "delivered to the mailbox of:\r\n\r\n  b@x\r\n\r\nThis does not say that anybody has read"),
        (Action.RELAYED, "passed on to the next server on the way to:\r\n\r\n  b@x\r\n\r\nThat server gives no notice"),
        (Action.EXPANDED, "passed on to the addresses behind:\r\n\r\n  b@x\r\n\r\nYou get no notice of success"),
    ],
)
def test_words_of_success(action: Action, said: str) -> None:
    text = words(about(ReportedRecipient("b@x", action, "2.0.0", code=250, text="Fine, queued", host="mx.x")))
    assert said in text
    assert "Fine" not in text


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("5.1.1", "There is no such mailbox."),
        ("5.1.10", "takes no mail at all"),
        ("5.1.3", "The address was not accepted."),
        ("5.2.2", "The mailbox is full."),
        ("4.2.2", "given up now.\r\n    The mailbox is full."),
        ("5.3.4", "The message is too large."),
        ("5.3.0", "Check the address for mistakes. If it is right"),
        ("4.4.7", "could not be reached"),
        ("5.4.6", "in circles"),
        ("5.7.1", "by its rules"),
        ("5.0.0", "Check the address for mistakes. If it is right"),
        ("nonsense", "Check the address for mistakes. If it is right"),
    ],
)
def test_advice(status: str, advice: str) -> None:
    assert advice in words(about(replace(BOB, status=status)))


def test_every_kind_of_status_has_words() -> None:
    for subject in range(10):
        for detail in range(12):
            assert len(words(about(replace(BOB, status=f"5.{subject}.{detail}"))).split("\r\n")) > 8


# What is returned -----------------------------------------------------------------------------------------------------

EIGHT_BIT = ORIGINAL + b"\xff"
UTF8 = b"Subject: gr\xc3\xbcn\r\n" + ORIGINAL
LATIN1 = b"Subject: gr\xfcn\r\n" + ORIGINAL
LONG = ORIGINAL + b"x" * 999
FULL, HDRS = "message/rfc822", "text/rfc822-headers"
GLOBAL, GLOBAL_HDRS = "message/global", "message/global-headers"


@pytest.mark.parametrize(
    ("changes", "media_type", "encoding", "octets"),
    [
        ({}, FULL, "7bit", ORIGINAL),
        ({"ret": "FULL"}, FULL, "7bit", ORIGINAL),
        ({"ret": "HDRS"}, HDRS, "7bit", HEADER),
        ({"original": ORIGINAL[:-2]}, FULL, "7bit", ORIGINAL[:-2]),
        ({"max_returned": len(ORIGINAL)}, FULL, "7bit", ORIGINAL),
        ({"max_returned": len(ORIGINAL) - 1}, HDRS, "7bit", HEADER),
        ({"max_returned": len(HEADER)}, HDRS, "7bit", HEADER),
        ({"max_returned": len(HEADER) - 1}, HDRS, "7bit", HEADER[: HEADER.index(b"Subject")]),
        ({"max_returned": 1}, HDRS, "7bit", b""),
        ({"original": HEADER, "ret": "HDRS"}, HDRS, "7bit", HEADER),
        ({"original": b"\r\nbody", "ret": "HDRS"}, HDRS, "7bit", b""),
        ({"original": b""}, FULL, "7bit", b""),
        ({"original": EIGHT_BIT}, FULL, "8bit", EIGHT_BIT),
        ({"original": EIGHT_BIT, "ret": "HDRS"}, HDRS, "7bit", HEADER),
        ({"original": LATIN1}, FULL, "8bit", LATIN1),
        ({"original": LATIN1, "ret": "HDRS"}, HDRS, "quoted-printable", b"Subject: gr\xfcn\r\n" + HEADER),
        ({"original": UTF8}, GLOBAL, "base64", UTF8),
        ({"original": UTF8, "ret": "HDRS"}, GLOBAL_HDRS, "quoted-printable", "Subject: grün\r\n".encode() + HEADER),
        # Neither 7bit nor 8bit may be said of these.
        ({"original": LONG}, HDRS, "7bit", HEADER),
        ({"original": LONG[:-1]}, FULL, "7bit", LONG[:-1]),
        ({"original": LONG[:-1] + b"\r\n"}, FULL, "7bit", LONG[:-1] + b"\r\n"),
        ({"original": ORIGINAL + b"\0"}, HDRS, "7bit", HEADER),
        ({"original": ORIGINAL + b"a\nb"}, HDRS, "7bit", HEADER),
        ({"original": ORIGINAL + b"a\rb"}, HDRS, "7bit", HEADER),
        ({"original": ORIGINAL + b"\n\r"}, HDRS, "7bit", HEADER),
        ({"original": b"A: b\rc\nD: \0 \n\nbody"}, HDRS, "quoted-printable", b"A: b\rc\r\nD: \0 \r\n"),
        ({"original": b"A: " + b"x" * 999}, HDRS, "quoted-printable", b"A: " + b"x" * 999),
    ],
)
def test_what_is_returned(changes: dict[str, Any], media_type: str, encoding: str, octets: bytes) -> None:
    report_ = about(**changes)
    assert returned(report_) == (media_type, encoding, octets)
    full = media_type in (FULL, GLOBAL)
    assert words(report_).endswith("Your message follows.\r\n" if full else "The header of your message follows.\r\n")


@pytest.mark.parametrize("action", [action for action in Action if action is not Action.FAILED])
def test_only_a_failure_returns_the_message(action: Action) -> None:
    """RFC 3461 §4.3."""
    recipient = ReportedRecipient("a@x", action, "")
    assert returned(about(recipient, ret="FULL")) == (HDRS, "7bit", HEADER)
    assert returned(about(recipient, BOB, ret="FULL")) == (FULL, "7bit", ORIGINAL)


# Internationalized addresses ------------------------------------------------------------------------------------------

WIDE = replace(
    BOB,
    address="grün+x@bücher.example",
    original_recipient=r"utf-8;用\x{6237}\x{2B}@x",
    code=550,
    text="für uns unbekannt",
)


def test_a_reverse_path_in_ascii_gets_a_report_in_ascii() -> None:
    report_ = about(WIDE, original=UTF8)
    assert report.build(report_).isascii() and not report_.smtputf8
    assert parsed(report_).get_param("report-type") == "delivery-status"
    recipient = fields(report_)[1]
    assert recipient["Original-Recipient"] == r"utf-8;\x{7528}\x{6237}\x{2B}@x"
    assert recipient["Final-Recipient"] == r"utf-8;gr\x{FC}n\x{2B}x@b\x{FC}cher.example"
    assert recipient["Diagnostic-Code"] == "smtp; 550 f?r uns unbekannt"
    assert "\r\n  grün+x@bücher.example\r\n    (sent to 用户+@x)\r\n" in words(report_)
    assert "550 für uns unbekannt" in words(report_)


def test_a_reverse_path_in_utf8_gets_one_in_utf8() -> None:
    report_ = about(WIDE, original=UTF8, reverse_path="jürgen@x.example")
    assert report_.smtputf8
    assert "\r\nTo: <jürgen@x.example>\r\n".encode() in report.build(report_)
    assert parsed(report_).get_param("report-type") == "global-delivery-status"
    recipient = fields(report_)[1]
    assert recipient["Original-Recipient"] == "utf-8;用户+@x"
    assert recipient["Final-Recipient"] == "utf-8;grün+x@bücher.example"
    assert recipient["Diagnostic-Code"] == "smtp; 550 für uns unbekannt"
    assert returned(report_) == (GLOBAL, "8bit", UTF8)
    assert returned(replace(report_, ret="HDRS")) == (GLOBAL_HDRS, "8bit", "Subject: grün\r\n".encode() + HEADER)
    assert returned(replace(report_, ret="HDRS", original=LATIN1))[:2] == (HDRS, "quoted-printable")


def test_what_is_in_ascii_needs_no_new_types() -> None:
    """RFC 6533 §4.4."""
    report_ = about(reverse_path="jürgen@x.example")
    assert parsed(report_).get_param("report-type") == "delivery-status"
    assert returned(report_) == (FULL, "7bit", ORIGINAL)


@pytest.mark.parametrize(
    ("encoded", "address"),
    [
        (r"gr\x{FC}n@x", "grün@x"),
        (r"gr\x{fc}n\x{2B}\x{5C}@x", "grün+\\@x"),
        (r"\x{1F600}\x{10FFFF}", "😀\U0010ffff"),
        ("grün@x", "grün@x"),
        ("a@x", "a@x"),
        # What is not in one of the forms is not altered (RFC 6533 §3), nor what would be no line of text.
        (r"a+2B\x{FC}", r"a+2B\x{FC}"),
        (r"\x{FC", r"\x{FC"),
        (r"\x{110000}\x{FC}", r"\x{110000}\x{FC}"),
        (r"\x{D800}", r"\x{D800}"),
        (r"a\x{0D}\x{0A}b", r"a\x{0D}\x{0A}b"),
        (r"\x{85}\x{FC}", r"\x{85}\x{FC}"),
        ("", ""),
    ],
)
def test_utf8_address(encoded: str, address: str) -> None:
    assert report.utf8_address(encoded) == address


# Foreign text ---------------------------------------------------------------------------------------------------------

HOSTILE = [
    "a\r\nBcc: evil@x",
    "a\n\nX-Evil: y",
    "a\r\r\n\r\n--b\r\n\r\n",
    "\0\x01\x07\x1b[31m\x7f",
    "\x85X-Evil: y\u2028X-Evil: y\u2029",
    "x" * 10_240,
    "x " * 5_120,
    "\u202e" * 2_000,
    "😀" * 2_000,
    "ü\udc80\ud800" * 500,
    "-" * 10_240,
    "\t" * 10_240,
    " ",
    ';;;"\\()<>@,:[]=?utf-8?q?=0D=0AX-Evil:_y?=',
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("reverse_path", ["alice@example.org", "jürgen@x.example"])
@pytest.mark.parametrize("action", [Action.FAILED, Action.DELAYED])
def test_foreign_text_is_harmless(text: str, reverse_path: str, action: Action) -> None:
    names = ["Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code"]
    recipients = [ReportedRecipient(text, action, text, f"{text};{text}", code, text, text) for code in (0, 550)] + [
        ReportedRecipient("a@x", action, "", f"utf-8;{text}")
    ]
    begun = time.perf_counter()
    report_ = about(*recipients, reverse_path=reverse_path, hostname=text, envelope_id=text)
    message = parsed(report_)
    groups = fields(report_)
    assert time.perf_counter() - begun < 1
    assert len(report.build(report_)) < 30_000
    assert [list(group) for group in groups] == [
        ["Original-Envelope-Id", "Reporting-MTA"],
        names,
        names,
        ["Original-Recipient", "Final-Recipient", "Action", "Status"],
    ]
    assert set(message.keys()) == set(parsed(REPORT).keys())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_reverse_path_adds_no_field(text: str) -> None:
    octets = report.build(about(reverse_path=f"a{text}@x"))
    head = octets[: octets.index(b"\r\n\r\n")].decode()
    assert re.findall(r"^[\w-]+(?=:)", head, re.MULTILINE) == list(parsed(REPORT).keys())


def test_a_boundary_in_the_message_is_avoided() -> None:
    """Whoever knows the Message-ID of the report to come can know its first boundary, and no other."""
    first = _boundary(REPORT)
    hostile = about(original=ORIGINAL + f"--{first}--\r\n--{first}\r\n\r\nevil\r\n".encode())
    second = _boundary(hostile)
    again = about(original=hostile.original + f"--{second}\r\n".encode())
    assert len({first, second, _boundary(again)}) == 3
    assert second != _boundary(replace(hostile, original=hostile.original + b"x"))
    assert returned(again) == (FULL, "7bit", again.original)


@pytest.mark.parametrize("where", ["text", "address", "original_recipient"])
def test_a_boundary_in_other_places_is_avoided(where: str) -> None:
    first = _boundary(REPORT)
    changes: dict[str, Any] = {where: f"rfc822;--{first}"}
    hostile = about(replace(BOB, code=550, **changes))
    assert _boundary(hostile) != first
    parsed(hostile)


def _boundary(report_: Report) -> str:
    boundary = parsed(report_).get_boundary()
    assert boundary is not None
    return boundary


@SETTINGS
@given(soup, st.sampled_from(["", "HDRS"]), st.sampled_from(["a@x", "ü@x"]))
def test_any_message_can_be_returned(original: bytes, ret: str, reverse_path: str) -> None:
    media_type, encoding, octets = returned(about(original=original, ret=ret, reverse_path=reverse_path))
    if media_type in (FULL, GLOBAL):
        assert octets == original
    elif encoding != "quoted-printable":
        assert original.startswith(octets)


@SETTINGS
@given(st.text(), st.text(), st.text(), st.text(), st.sampled_from(Action))
def test_any_text_can_be_told(address: str, text: str, host: str, original: str, action: Action) -> None:
    recipient = ReportedRecipient(address, action, text, original, 450, text, host, 0, 0)
    for reverse_path in ("a@x", "ü@x"):
        report_ = about(recipient, BOB, reverse_path=reverse_path, envelope_id=text)
        parsed(report_)
        assert len(fields(report_)) == 3


def test_a_large_message_is_returned_in_linear_time() -> None:
    line = b"x" * 76 + b"\r\n"
    original = ORIGINAL + line * 400_000
    begun = time.perf_counter()
    assert len(report.build(about(original=original, max_returned=len(original)))) > len(original)
    assert time.perf_counter() - begun < 2
