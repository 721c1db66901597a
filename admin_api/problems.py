"""What goes wrong, as clients are told (RFC 9457, application/problem+json): one table. The log gets the rest.

`field` names what is wrong in the words of the request; where several fields are, `errors` has all of them. Whatever is
in no table is a fault of ours: the client gets 500 with an id.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web

from mailserver.administration import Refused
from mailserver.administration.registration import Closed, Taken
from mailserver.delivery.submit import RecipientsRefused
from mailserver.login import LoginDisabled, LoginFailed, Throttled
from storage import AlreadyExists, LimitReached, NotAllowed, NotFound, OutcomeUnknown, OverQuota, Unavailable
from storage.errors import Damaged

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5

FieldError = tuple[str, str]
"""The field and what is wrong with it."""


class Problem(Exception):
    """An answer that says why something was not done."""

    def __init__(
        self,
        status: int,
        detail: str,
        field: str = "",
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.field = field or (errors[0][0] if errors else "")
        self.errors = errors
        self.headers = dict(headers or {})


def unauthorized(detail: str) -> Problem:
    """RFC 6750 §3."""
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"})


def later(detail: str, seconds: float = RETRY_SECONDS, status: int = 503) -> Problem:
    return Problem(status, detail, headers={"Retry-After": str(max(1, math.ceil(seconds)))})


def response(problem: Problem) -> web.Response:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
    }
    if problem.field:
        body["field"] = problem.field
    if problem.errors:
        body["errors"] = [{"field": field, "detail": detail} for field, detail in problem.errors]
    return web.Response(
        status=problem.status, body=json.dumps(body).encode(), content_type=MEDIA_TYPE, headers=problem.headers
    )


# Status and detail by error; without a detail the error's own words are said.
_ANSWERS: tuple[tuple[type[Exception], int, str], ...] = (
    (Closed, 403, ""),
    (Taken, 409, ""),
    (Refused, 422, ""),
    (LoginDisabled, 403, "the account is disabled"),
    (NotFound, 404, "there is no such thing, or it is not yours"),
    (AlreadyExists, 409, ""),
    (OverQuota, 422, "there is not enough room in the mailbox"),
    (LimitReached, 422, ""),
    (NotAllowed, 422, ""),
)


def problem_of(error: Exception) -> Problem:
    """What the client is told of an error."""
    match error:
        case Problem():
            return error
        case Throttled():
            return later("too many attempts; try again later", error.retry_after, 429)
        case RecipientsRefused():
            errors = [("recipients", f"{address}: {reason}") for address, reason in error.reasons.items()]
            return Problem(422, "some recipients cannot be sent to", errors=errors)
        case OutcomeUnknown():
            return later("nobody can say whether this was done; look, or repeat it with the same Idempotency-Key")
        case Unavailable():
            log.warning("cannot serve: %s", error)
            return later("the mail store does not answer; try again later")
    for kind, status, detail in _ANSWERS:
        if isinstance(error, kind):
            return Problem(status, detail or str(error), error.field if isinstance(error, Refused) else "")
    if isinstance(error, LoginFailed):
        return unauthorized("wrong name or password")
    return _fault(error)


def _fault(error: Exception) -> Problem:
    incident = secrets.token_hex(4)
    log.error("fault in a request incident=%s", incident, exc_info=error)
    what = "the message is damaged" if isinstance(error, Damaged) else "internal fault"
    return Problem(500, f"{what} ({incident})")
