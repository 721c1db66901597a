"""What storage refuses, as the client reads it."""

from __future__ import annotations

import pytest

from mailserver.imap.errors import Refusal, bad, read_only, refusal
from mailserver.imap.view import NoSuchMessage
from storage import errors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.NotFound("a/b"), ("NO", "NONEXISTENT", "No such mailbox")),
        (errors.AlreadyExists("a"), ("NO", "ALREADYEXISTS", "Mailbox already exists")),
        (errors.OverQuota(), ("NO", "OVERQUOTA", "Not enough room: the account would be over its quota")),
        (errors.LimitReached("no room for a keyword"), ("NO", "LIMIT", "No room for a keyword")),
        (errors.NotAllowed("INBOX cannot be deleted"), ("NO", "CANNOT", "INBOX cannot be deleted")),
        (errors.NotAllowed(), ("NO", "CANNOT", "Refused")),
        (errors.Unavailable("x"), ("NO", "UNAVAILABLE", "The mail store does not answer, try again later")),
        (errors.BlobLost("blob 1/aa/…"), ("NO", "CORRUPTION", "The mail that is stored is damaged")),
        (NoSuchMessage(), ("BAD", "", "No such message")),
        (read_only(), ("NO", "READ-ONLY", "Mailbox is read-only")),
        (bad("wrong"), ("BAD", "", "wrong")),
    ],
)
def test_table(error: Exception, expected: tuple[str, str, str]) -> None:
    answer = refusal(error)
    assert isinstance(answer, Refusal)
    assert (answer.condition, answer.code, answer.text) == expected


@pytest.mark.parametrize("error", [RuntimeError(), KeyError(), errors.OutcomeUnknown(), errors.StorageError()])
def test_what_is_not_in_the_table_is_a_fault(error: Exception) -> None:
    assert refusal(error) is None
