r"""Delivery reports: bounces, notices of delay and of success, as messages (RFC 6522, RFC 3464, RFC 3461 §6).

A report has three parts: words for people, fields for programs, and the message that it is about or its header. It is
an automatic reply (RFC 3834) to the reverse-path of that message, and travels from the null reverse-path (RFC 3461
§6.1), which is the caller's matter, as is how many recipients are in one report.

Nothing here needs SMTPUTF8, unless the reverse-path does. Only then may the return path be trusted with it, and fields
and header are in UTF-8 where they have to be (message/global-delivery-status and its kin, RFC 6533 §4). Else addresses
are written in ASCII (utf-8-addr-xtext, RFC 6533 §3), and a returned header that is not ASCII is encoded (§4.5). A
report holds octets above 127 only there, and where a returned message does: that may not be encoded (RFC 2046 §5.2.1).

What others said, servers and senders, is cut to size and made harmless: it cannot begin a line, a field or a part.
"""

from __future__ import annotations

import base64
import binascii
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple

from mailserver.message import dates, headers, structure

MAX_TEXT: Final = 800
"""Octets of another server's words, or of an address, that are shown: with a field's name they fit one line."""

MAX_LINE: Final = 998
"""RFC 5322 §2.1.1, in octets without the line end."""

_WIDTH = 76
_MSG_ID = re.compile(rb"<[!-;=?-~]{1,500}>")
_STATUS = re.compile(r"[245]\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2})", re.ASCII)
_NOT_NAME = re.compile(r"[^\w.:\[\]-]", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONG_LINE = re.compile(rb"\n[^\r\n]{%d}" % (MAX_LINE + 1))


class Action(StrEnum):
    """RFC 3464 §2.3.3. The first that a report has gives it its subject."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"
    EXPANDED = "expanded"
    DELIVERED = "delivered"


@dataclass(frozen=True, slots=True)
class ReportedRecipient:
    """What became of one recipient. Times are epoch seconds.

    address: as it was in the envelope when we took the message. original_recipient: `type;address` of ORCPT, see
    protocols.smtp.dsn.original_recipient; "" where there was none. status: RFC 3463; what is no status counts as the
    one that says nothing. code, text: the reply that decided, 0 where there was none, and text is our own reason then.
    host: the server that said so, "" for none. will_retry_until: of a delayed one.
    """

    address: str
    action: Action
    status: str
    original_recipient: str = ""
    code: int = 0
    text: str = ""
    host: str = ""
    last_attempt: int | None = None
    will_retry_until: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A report and the message that it is about. Times are epoch seconds, zone is minutes east of UTC.

    hostname: ours. reverse_path: of that message, not "". message_id: of the report, with its brackets. original: that
    message, or its header alone. envelope_id: ENVID with its xtext undone, "" for none. ret: FULL, HDRS, or "" for
    none, which is as FULL (RFC 6522 §3). max_returned: octets of the original, or of its header, that may be returned.
    ValueError where there is nobody to write to or to write about, or message_id is none.
    """

    hostname: str
    reverse_path: str
    recipients: tuple[ReportedRecipient, ...]
    message_id: str
    date: int
    original: bytes
    max_returned: int
    arrival: int | None = None
    envelope_id: str = ""
    ret: str = ""
    zone: int = 0

    def __post_init__(self) -> None:
        if not self.reverse_path or not self.recipients or not _MSG_ID.fullmatch(self.message_id.encode()):
            raise ValueError("a report needs a reverse-path, a recipient and a Message-ID")

    @property
    def action(self) -> Action:
        """The most important one of its recipients."""
        actions = {recipient.action for recipient in self.recipients}
        return next(action for action in Action if action in actions)

    @property
    def smtputf8(self) -> bool:
        """Whether the report must be sent with it (RFC 6531 §3.4)."""
        return not self.reverse_path.isascii()


class _Part(NamedTuple):
    media_type: str
    encoding: str
    octets: bytes


def build(report: Report) -> bytes:
    """The report as a message. It is 8BITMIME where its octets are not ASCII; lines and header are always legal."""
    returned = _returned(report)
    status = _status(report)
    parts = (_text(report, returned), status, returned)
    boundary = _boundary(report.message_id, parts)
    pieces = [_header(report, status.media_type.partition("/")[2], boundary)]
    for part in parts:
        head = f"--{boundary}\r\nContent-Type: {part.media_type}\r\nContent-Transfer-Encoding: {part.encoding}\r\n\r\n"
        pieces += [head.encode(), part.octets, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces)


def _header(report: Report, report_type: str, boundary: str) -> bytes:
    lines = [
        f"From: Mail Delivery System <mailer-daemon@{_name(report.hostname)}>",
        f"To: <{_address(report.reverse_path)}>",
        f"Subject: {_WORDS[report.action].subject}",
        f"Date: {_date(report.date, report.zone)}",
        f"Message-ID: {report.message_id}",
    ]
    parent = headers.value(_header_of(report.original), b"message-id")
    if parent and _MSG_ID.fullmatch(parent):
        lines += [f"In-Reply-To: {parent.decode()}", f"References: {parent.decode()}"]
    lines += [
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type={report_type};\r\n boundary="{boundary}"',
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _boundary(message_id: str, parts: tuple[_Part, ...]) -> str:
    """A boundary that no part holds. Should one hold the first, the next is a hash of them all: none can hold that."""
    digest = blake2b(message_id.encode(), digest_size=16)
    while True:
        boundary = f"=_{digest.hexdigest()}"
        if not any(boundary.encode() in part.octets for part in parts):
            return boundary
        for part in parts:
            digest.update(part.octets)


# Words for people -----------------------------------------------------------------------------------------------------


class _Words(NamedTuple):
    subject: str
    heading: str
    meaning: str


_WORDS = {
    Action.FAILED: _Words(
        "Your message could not be delivered",
        "Your message could not be delivered to:",
        "No further attempt will be made for what is listed here.",
    ),
    Action.DELAYED: _Words(
        "Your message is delayed",
        "Your message could not be delivered yet to:",
        "You need not do anything, and should not send the message again: further attempts will be made.",
    ),
    Action.RELAYED: _Words(
        "Your message was passed on",
        "Your message was passed on to the next server on the way to:",
        "That server gives no notice of a delivery, so this is the last one of success that you get. Should the "
        "delivery fail after all, you may still be told.",
    ),
    Action.EXPANDED: _Words(
        "Your message was passed on",
        "Your message was accepted, and passed on to the addresses behind:",
        "You get no notice of success for each of those. Should the delivery to one of them fail, you may be told.",
    ),
    Action.DELIVERED: _Words(
        "Your message was delivered",
        "Your message was delivered to the mailbox of:",
        "This does not say that anybody has read it.",
    ),
}

_ADVICE = {
    "1.1": "There is no such mailbox. Check the address for mistakes, and send the message again to the right one.",
    "1.2": "The part of the address behind the @ is not known. Check it for mistakes.",
    "1.6": "The mailbox has moved. Ask the recipient for the new address.",
    "1.10": "The part of the address behind the @ takes no mail at all. Check it for mistakes.",
    "1": "The address was not accepted. Check it for mistakes.",
    "2.2": "The mailbox is full. Send the message again later, or reach the recipient in another way.",
    "2.3": "The message is too large for this mailbox. Send a smaller one, perhaps with a link to its attachments.",
    "2": "The mailbox takes no messages. Reach the recipient in another way.",
    "3.4": "The message is too large. Send a smaller one, perhaps with a link to its attachments.",
    "4.6": "The message went round in circles. The administrators of the recipient's servers have to mend that.",
    "4": "The recipient's server could not be reached, or did not take the message. Check the address for mistakes; "
    "if it is right, send the message again later, or reach the recipient in another way.",
    "6.7": "The recipient's server takes no addresses with letters like these. Use another address, if there is one.",
    "6": "The recipient's server takes no messages of this kind. Send it in a simpler form.",
    "7": "The recipient's server refused the message by its rules. What it answered may say what to change; "
    "otherwise reach the recipient in another way.",
}
"""What to do, by subject and detail of the status (RFC 3463 §3), or by its subject."""

_NO_ADVICE = "Check the address for mistakes. If it is right, reach the recipient in another way."


def _text(report: Report, returned: _Part) -> _Part:
    text = "\r\n".join(_paragraphs(report, returned)).encode()
    if text.isascii():
        return _Part("text/plain; charset=utf-8", "7bit", text)
    return _Part("text/plain; charset=utf-8", "quoted-printable", _quoted_printable(text))


def _paragraphs(report: Report, returned: _Part) -> Iterator[str]:
    name = _name(report.hostname)
    of = "" if report.arrival is None else f" of {_date(report.arrival, report.zone)}"
    yield _filled(f"This is the mail server {name}, about your message{of}.")
    for action, words in _WORDS.items():
        recipients = [recipient for recipient in report.recipients if recipient.action is action]
        if recipients:
            yield _filled(words.heading)
            for recipient in recipients:
                yield "".join(_about(recipient, report.zone))
            yield _filled(words.meaning)
    if report.action is Action.FAILED:
        yield _filled(f"If you need help, write to postmaster@{name} and send this report along.")
    yield _filled("Your message follows." if _is_full(returned) else "The header of your message follows.")


def _about(recipient: ReportedRecipient, zone: int) -> Iterator[str]:
    yield f"  {_address(recipient.address)}\r\n"
    original = utf8_address(_address(recipient.original_recipient.partition(";")[2]))
    if original and original.lower() != recipient.address.lower():
        yield f"    (sent to {original})\r\n"
    if recipient.action not in (Action.FAILED, Action.DELAYED):
        return
    if recipient.text or recipient.code:
        yield _filled(_who_said(recipient), 4)
        yield _filled(f"{recipient.code or ''} {_plain(recipient.text)}", 6)
    if recipient.action is Action.DELAYED:
        if recipient.will_retry_until is not None:
            yield _filled(f"Further attempts are made until {_date(recipient.will_retry_until, zone)}.", 4)
        return
    status = _code(recipient)
    if status.startswith("4"):
        yield _filled("It was tried again and again, and is given up now.", 4)
    _, subject, detail = status.split(".")
    yield _filled(_ADVICE.get(f"{subject}.{detail}") or _ADVICE.get(subject, _NO_ADVICE), 4)


def _who_said(recipient: ReportedRecipient) -> str:
    host = _name(recipient.host)
    if not host:
        return "Reason:"
    return f"{host} answered:" if recipient.code else f"Reason ({host}):"


def _filled(text: str, indent: int = 0) -> str:
    """A paragraph in lines with their ends. Long words, such as URLs, stay whole."""
    blank = " " * indent
    wrapped = textwrap.wrap(
        text.strip(),
        _WIDTH,
        initial_indent=blank,
        subsequent_indent=blank,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "".join(f"{line}\r\n" for line in wrapped)


# Fields for programs --------------------------------------------------------------------------------------------------


def _status(report: Report) -> _Part:
    """RFC 3464 §2; in UTF-8 (RFC 6533 §4.1) where the reverse-path shows that this is understood."""
    groups = [_message_fields(report)]
    groups += [_recipient_fields(recipient, report) for recipient in report.recipients]
    octets = "\r\n".join("".join(f"{name}: {value}\r\n" for name, value in group) for group in groups).encode()
    if octets.isascii():
        return _Part("message/delivery-status", "7bit", octets)
    return _Part("message/global-delivery-status", "8bit", octets)


def _message_fields(report: Report) -> Iterator[tuple[str, str]]:
    if report.envelope_id:
        yield "Original-Envelope-Id", _ascii(_address(report.envelope_id))
    yield "Reporting-MTA", f"dns; {_name(report.hostname)}"
    if report.arrival is not None:
        yield "Arrival-Date", _date(report.arrival, report.zone)


def _recipient_fields(recipient: ReportedRecipient, report: Report) -> Iterator[tuple[str, str]]:
    if recipient.original_recipient:
        yield "Original-Recipient", _original(recipient.original_recipient, report.smtputf8)
    yield "Final-Recipient", _final(recipient.address, report.smtputf8)
    yield "Action", recipient.action
    yield "Status", _code(recipient)
    if recipient.host:
        yield "Remote-MTA", f"dns; {_name(recipient.host)}"
    if recipient.code or recipient.text:
        yield "Diagnostic-Code", _diagnostic(recipient, report.smtputf8)
    if recipient.last_attempt is not None:
        yield "Last-Attempt-Date", _date(recipient.last_attempt, report.zone)
    if recipient.will_retry_until is not None and recipient.action is Action.DELAYED:
        yield "Will-Retry-Until", _date(recipient.will_retry_until, report.zone)


def _original(said: str, smtputf8: bool) -> str:
    addr_type, _, address = said.partition(";")
    addr_type = re.sub(r"[^\w-]", "?", addr_type[:60], flags=re.ASCII)
    address = _address(address)
    if addr_type.lower() != "utf-8":
        return f"{addr_type};{_ascii(address)}"
    return f"{addr_type};{utf8_address(address) if smtputf8 else _cut(ascii_form(address))}"


def _final(address: str, smtputf8: bool) -> str:
    address = _address(address)
    if address.isascii():
        return f"rfc822;{address}"
    return f"utf-8;{address if smtputf8 else _cut(utf8_addr_xtext(address))}"


def _code(recipient: ReportedRecipient) -> str:
    if _STATUS.fullmatch(recipient.status):
        return recipient.status
    return {Action.FAILED: "5.0.0", Action.DELAYED: "4.0.0"}.get(recipient.action, "2.0.0")


def _diagnostic(recipient: ReportedRecipient, smtputf8: bool) -> str:
    """A reply is one of SMTP (RFC 3461 §9.2); a reason without a reply is of our own kind."""
    text = _plain(recipient.text)
    text = f"smtp; {recipient.code} {text}" if recipient.code else f"x-pillarbox; {text}"
    return _filled(text if smtputf8 else _ascii(text)).rstrip().replace("\r\n", "\r\n ")


# What is returned -----------------------------------------------------------------------------------------------------


def _returned(report: Report) -> _Part:
    """The message where it may be, and a recipient has failed (RFC 3461 §4.3); else its header."""
    original = report.original
    if report.ret == "HDRS" or report.action is not Action.FAILED or len(original) > report.max_returned:
        return _returned_header(report)
    if not _has_legal_lines(original):
        return _returned_header(report)
    if not _is_utf8(_header_of(original)):
        return _Part("message/rfc822", "7bit" if original.isascii() else "8bit", original)
    if report.smtputf8:
        return _Part("message/global", "8bit", original)
    return _Part("message/global", "base64", base64.encodebytes(original).replace(b"\n", b"\r\n"))


def _returned_header(report: Report) -> _Part:
    """Whole fields only; what is not legal as it is gets encoded, as both types allow."""
    header = _header_of(report.original)
    end = 0
    for _, _, stop in headers.fields(header):
        if stop > report.max_returned:
            break
        end = stop
    header = header[:end]
    is_utf8 = _is_utf8(header)
    media_type = "message/global-headers" if is_utf8 else "text/rfc822-headers"
    if not _has_legal_lines(header) or not (header.isascii() or (is_utf8 and report.smtputf8)):
        return _Part(media_type, "quoted-printable", _quoted_printable(header))
    return _Part(media_type, "8bit" if is_utf8 else "7bit", header)


def _is_full(returned: _Part) -> bool:
    return returned.media_type in ("message/rfc822", "message/global")


def _header_of(message: bytes) -> bytes:
    return message[: structure.end_of_header(message, 0, len(message))]


def _is_utf8(header: bytes) -> bool:
    """Whether it is internationalized (RFC 6532), which neither ASCII is nor what is in another charset."""
    if header.isascii():
        return False
    try:
        header.decode()
    except UnicodeDecodeError:
        return False
    return True


def _has_legal_lines(octets: bytes) -> bool:
    """What 7bit and 8bit ask for (RFC 2045 §2.7, §2.8): no NUL, CR and LF together only, lines of 998 octets."""
    ends = octets.count(b"\r\n")
    if b"\0" in octets or octets.count(b"\r") != ends or octets.count(b"\n") != ends:
        return False
    return _LONG_LINE.search(b"\n" + octets) is None


def _quoted_printable(octets: bytes) -> bytes:
    lines = re.split(rb"\r?\n", octets)
    return b"\r\n".join(binascii.b2a_qp(line, istext=False).replace(b"\n", b"\r\n") for line in lines)


# Addresses of the type utf-8 (RFC 6533 §3) ----------------------------------------------------------------------------

_EMBEDDED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_UTF8_ENC_ADDR = re.compile(r"(?:[!-*,-<>-\[\]-~]|\\x\{[0-9A-Fa-f]{2,6}\}|[^\x00-\x7f])+")
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")


def utf8_addr_xtext(address: str) -> str:
    r"""An address in ASCII: `gr\x{FC}n@example.org`."""
    return _NOT_QCHAR.sub(lambda char: f"\\x{{{ord(char[0]):02X}}}", address)


def utf8_address(encoded: str) -> str:
    """The address that is encoded, in any of the three forms; what is none of them, or not fit to be seen, stays."""
    if not _UTF8_ENC_ADDR.fullmatch(encoded):
        return encoded
    try:
        address = _EMBEDDED.sub(lambda code: chr(int(code[1], 16)), encoded)
    except ValueError:
        return encoded
    return encoded if _CONTROL.search(address) else address


def ascii_form(encoded: str) -> str:
    """The utf-8-addr-xtext of an encoded address: what is ASCII in it is encoded already."""
    return "".join(char if char.isascii() else f"\\x{{{ord(char):X}}}" for char in encoded)


# Foreign text ---------------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """On one line, printable, and not too long: spaces for white space, `?` for what cannot be seen."""
    text = " ".join(text[: 4 * MAX_TEXT].split())
    if not text.isprintable():
        text = "".join(char if char.isprintable() else "?" for char in text)
    return _cut(text)


def _address(address: str) -> str:
    """As it is (RFC 3464 §2.3.2), but for what would break a line."""
    return _cut(_CONTROL.sub("?", address[:MAX_TEXT]))


def _cut(text: str) -> str:
    octets = text.encode()
    return text if len(octets) <= MAX_TEXT else octets[: MAX_TEXT - 3].decode(errors="ignore") + "..."


def _name(name: str) -> str:
    return _NOT_NAME.sub("?", name[:255])


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _date(epoch: int, zone: int) -> str:
    return dates.format_rfc5322(epoch, zone).decode()
