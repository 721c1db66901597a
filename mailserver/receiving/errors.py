"""What goes wrong inside, as the peer is told: one table. The log gets the rest."""

from __future__ import annotations

import logging
import secrets

from mailserver.login import LoginDisabled, LoginFailed, Throttled
from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.replies import Refused, Reply
from storage import LimitReached, NotFound, OutcomeUnknown, OverQuota, Unavailable

log = logging.getLogger(__name__)

REPLY_FOR: dict[type, Reply] = {
    OverQuota: replies.MAILBOX_FULL,
    NotFound: replies.MAILBOX_GONE,
    LimitReached: replies.MAILBOX_LIMIT,
    Unavailable: replies.TRY_LATER,
    LoginDisabled: replies.LOGIN_DISABLED,
    Throttled: replies.LOGIN_THROTTLED,
    LoginFailed: replies.LOGIN_FAILED,
}


def reply_for(error: BaseException) -> Reply | None:
    """The reply to a command that ended in this error; None: neither yes nor no may be said, close without a reply.

    Whatever is not in the table is our fault, and temporary: a mail server that loses its mind must not lose mail.
    """
    if isinstance(error, Refused):
        return error.reply
    if isinstance(error, OutcomeUnknown):
        return None
    if isinstance(error, OverQuota) and error.never:
        return replies.NEVER_FITS
    reply = next((REPLY_FOR[kind] for kind in type(error).__mro__ if kind in REPLY_FOR), None)
    if reply is None:
        incident = secrets.token_hex(4)
        log.error("fault in an SMTP command incident=%s", incident, exc_info=error)
        return replies.TRY_LATER.saying(f"Internal fault {incident}; try again later")
    if reply is replies.TRY_LATER:
        log.warning("cannot serve: %s", error)
    return reply
