"""SMTP replies as values, and the ones that we give by name.

Every reply but the greeting, those to HELO and EHLO, and 3xx carries an enhanced status code (RFC 2034 §4, RFC 3463,
registry of RFC 5248). The octets of a reply are made once, when the value is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_LINE = 512  # RFC 5321 §4.5.3.1.5

_NOT_PLAIN = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class Reply:
    """A code, an enhanced status code or "", and text; each "\\n" in the text begins a line."""

    code: int
    enhanced: str
    text: str
    octets: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.enhanced and self.enhanced[0] != str(self.code)[0]:
            raise ValueError("the classes of both codes must agree (RFC 2034 §4)")
        start = f" {self.enhanced} " if self.enhanced else " "
        lines = [_plain(start + line).rstrip() for line in self.text.split("\n")]
        last = len(lines) - 1
        octets = "".join(f"{self.code}{line if i == last else '-' + line[1:]}\r\n" for i, line in enumerate(lines))
        object.__setattr__(self, "octets", octets.encode("ascii"))

    @property
    def is_refusal(self) -> bool:
        return self.code >= 400

    def saying(self, text: str) -> Reply:
        """The same codes with another text."""
        return Reply(self.code, self.enhanced, text)

    def __str__(self) -> str:
        return self.octets.decode("ascii").strip()


class Refused(Exception):
    """Ends a command with a reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


def _plain(text: str) -> str:
    """One line of printable ASCII: what a peer sent may stand in it, and must not break it."""
    return _NOT_PLAIN.sub("?", text)[: MAX_LINE - 5]


# Success
OK = Reply(250, "2.0.0", "OK")
SENDER_OK = Reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient OK")
BYE = Reply(221, "2.0.0", "Bye")
READY_FOR_TLS = Reply(220, "2.0.0", "Ready to start TLS")
SEND_DATA = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
WILL_TRY = Reply(252, "2.5.0", "Cannot verify an address; send mail to it and see")

# The command is wrong
UNKNOWN_COMMAND = Reply(500, "5.5.1", "Command not recognized")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
BAD_LINE = Reply(500, "5.5.2", "A command is one line of text that ends in CR LF")
AUTH_LINE_TOO_LONG = Reply(500, "5.5.6", "Authentication exchange line is too long")
SYNTAX = Reply(501, "5.5.4", "Syntax error in parameters")
BAD_SENDER = Reply(501, "5.1.7", "Bad sender address; syntax: MAIL FROM:<address> [parameters]")
BAD_RECIPIENT = Reply(501, "5.1.3", "Bad recipient address; syntax: RCPT TO:<address>")
BAD_BASE64 = Reply(501, "5.5.2", "Cannot decode this response")
NOT_HERE = Reply(502, "5.5.1", "Command not implemented")
BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter not recognized or not implemented")
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "A non-ASCII address needs SMTPUTF8")

# Login
LOGIN_NEEDED = Reply(530, "5.7.0", "Authentication required")
TLS_NEEDED = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
TLS_UNAVAILABLE = Reply(454, "4.7.0", "TLS not available for the moment")
LOGIN_FAILED = Reply(535, "5.7.8", "Authentication credentials invalid")
LOGIN_DISABLED = Reply(535, "5.7.13", "This account is disabled")
LOGIN_THROTTLED = Reply(454, "4.7.0", "Too many failed logins; try again later")

# Addresses
NO_SUCH_USER = Reply(550, "5.1.1", "No such user here")
NO_RELAY = Reply(550, "5.7.1", "Relay access denied")
NOT_YOUR_ADDRESS = Reply(550, "5.7.1", "This sender address is not yours")
NOT_YOUR_FROM = Reply(550, "5.7.1", "An address in the From field of the message is not yours")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients; send the rest in another transaction")
NO_VALID_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
MISCONFIGURED_ALIAS = Reply(451, "4.3.5", "Aliases behind this address are nested too deep")

# Messages
TOO_BIG = Reply(552, "5.3.4", "Message exceeds the fixed maximum size")
HEADER_TOO_BIG = Reply(552, "5.3.4", "Header of the message is too large")
TOO_MANY_FIELDS = Reply(554, "5.6.0", "Header of the message has too many fields")
MESSAGE_LINE_TOO_LONG = Reply(554, "5.6.0", "A line of the message is too long")
HAS_NUL = Reply(554, "5.6.0", "NUL in a message is not allowed")
BARE_NEWLINE = Reply(550, "5.6.0", "Lines of a message end in CR LF; a bare CR or LF is not allowed")
LOOP = Reply(554, "5.4.6", "Too many hops: this message seems to loop")
OUT_OF_MEMORY = Reply(452, "4.3.1", "Too many messages are being received; try again later")
QUEUE_FULL = Reply(452, "4.3.1", "Too many messages wait to be sent; try again later")
MAILBOX_FULL = Reply(452, "4.2.2", "Mailbox is full")
NEVER_FITS = Reply(552, "5.2.2", "Message is larger than the mailbox may be")
MAILBOX_GONE = Reply(450, "4.2.0", "A mailbox has just been removed; try again")
MAILBOX_LIMIT = Reply(452, "4.2.2", "Mailbox cannot take more messages")
TRY_LATER = Reply(451, "4.3.0", "Temporary failure; try again later")

# The end of a connection
TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors; closing")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands; closing")
BAD_CHUNK = Reply(421, "4.5.4", "Syntax: BDAT size [LAST]; closing, because the size of this chunk is not known")
TIMEOUT = Reply(421, "4.4.2", "Timeout; closing")
END_OF_INPUT = Reply(421, "4.4.2", "Connection ended without QUIT; closing")
SHUTTING_DOWN = Reply(421, "4.3.2", "Service is shutting down")
SESSION_ENDED = Reply(421, "4.7.0", "Session ended by the administrator")
