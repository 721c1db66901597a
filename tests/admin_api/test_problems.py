"""What goes wrong, as clients are told."""

from __future__ import annotations

import json
import logging

import pytest

from admin_api import problems
from admin_api.problems import Problem
from mailserver.administration import Refused
from mailserver.administration.registration import Closed, Taken
from mailserver.delivery.submit import RecipientsRefused
from mailserver.login import LoginDisabled, LoginFailed, Throttled
from storage import AlreadyExists, LimitReached, NotFound, OutcomeUnknown, OverQuota, Unavailable
from storage.errors import BlobsUnavailable, Damaged


@pytest.mark.parametrize(
    ("error", "status", "field"),
    [
        (Problem(418, "x", "y"), 418, "y"),
        (Refused("x", "email"), 422, "email"),
        (Closed("x", "email"), 403, "email"),
        (Taken("x", "username"), 409, "username"),
        (LoginFailed("x"), 401, ""),
        (LoginDisabled("x"), 403, ""),
        (Throttled(2.5), 429, ""),
        (NotFound("account 5"), 404, ""),
        (AlreadyExists("x"), 409, ""),
        (OverQuota(), 422, ""),
        (LimitReached("x"), 422, ""),
        (RecipientsRefused({"a@b": "no"}), 422, "recipients"),
        (Unavailable("host db1"), 503, ""),
        (BlobsUnavailable("disk"), 503, ""),
        (OutcomeUnknown("x"), 503, ""),
        (Damaged("message 5"), 500, ""),
        (ZeroDivisionError("secret"), 500, ""),
    ],
)
def test_table(error: Exception, status: int, field: str) -> None:
    found = problems.problem_of(error)
    assert (found.status, found.field) == (status, field)
    response = problems.response(found)
    assert isinstance(response.body, bytes)
    body = json.loads(response.body)
    assert (body["status"], body.get("field", "")) == (status, field) and body["title"] and body["detail"]
    for secret in (b"db1", b"secret", b"account 5", b"disk"):
        assert secret not in response.body
    assert response.content_type == "application/problem+json"


def test_when_to_come_back() -> None:
    assert problems.problem_of(Throttled(2.5)).headers["Retry-After"] == "3"
    assert "Retry-After" in problems.problem_of(Unavailable()).headers


def test_a_fault_is_logged_under_its_id(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        found = problems.problem_of(ZeroDivisionError("secret"))
    incident = found.detail.rpartition("(")[2].rstrip(")")
    assert incident in caplog.text and "secret" in caplog.text
