from __future__ import annotations

import pytest

from mailserver.login import LoginDisabled, LoginFailed, Throttled
from mailserver.protocols.smtp import replies
from mailserver.protocols.smtp.replies import Refused, Reply
from mailserver.receiving.errors import reply_for
from storage import AlreadyExists, LimitReached, NotFound, OutcomeUnknown, OverQuota, Unavailable


class Closer(Unavailable):
    """A kind of an error that has its reply."""


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (Refused(replies.NO_RELAY), replies.NO_RELAY),
        (OverQuota(), replies.MAILBOX_FULL),
        (OverQuota(never=True), replies.NEVER_FITS),
        (NotFound("mailbox"), replies.MAILBOX_GONE),
        (LimitReached("uids"), replies.MAILBOX_LIMIT),
        (Unavailable("gone"), replies.TRY_LATER),
        (Closer("gone"), replies.TRY_LATER),
        (LoginFailed("no"), replies.LOGIN_FAILED),
        (LoginDisabled("no"), replies.LOGIN_DISABLED),
        (Throttled(5), replies.LOGIN_THROTTLED),
        (OutcomeUnknown("lost"), None),
    ],
)
def test_table(error: Exception, reply: Reply | None) -> None:
    assert reply_for(error) is reply


@pytest.mark.parametrize("error", [ValueError("x"), AlreadyExists("x"), KeyError(), TimeoutError(), MemoryError()])
def test_anything_else_is_our_fault_and_temporary(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    reply = reply_for(error)
    assert reply is not None
    assert (reply.code, reply.enhanced) == (451, "4.3.0")
    [incident] = [record.getMessage().partition("incident=")[2] for record in caplog.records]
    assert incident in reply.text
    assert caplog.records[0].exc_info
