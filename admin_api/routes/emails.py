"""Sending and reading messages."""

from __future__ import annotations

from aiohttp import web

from admin_api import changing, reading, schemas, sending
from admin_api.problems import Problem
from admin_api.route import Answer, Call, Route, json_response
from storage import INBOX, AccountId, NotFound, inbox, object_ids

_NEWEST = 1 << 31
_ID = {"id": schemas.EMAIL_ID}
_OCTETS_HEADERS = {"Content-Disposition": "Always `attachment`, with the file's name."}


async def get_inbox(call: Call) -> web.StreamResponse:
    store, account_id = call.api.store, AccountId(call.account_id)
    uidvalidity, before = 0, _NEWEST
    if call.query.cursor is not None:
        uidvalidity, before = map(int, call.query.cursor.split("."))
    listed = await inbox.page(store, account_id, INBOX, min(before, _NEWEST), call.query.limit)
    if uidvalidity not in (0, listed.uidvalidity):
        raise Problem(422, "the mailbox was made anew since; begin again without a cursor", "cursor")
    overviews = await inbox.overviews(store, account_id, [entry.message_id for entry in listed.entries])
    return json_response(reading.page(listed, overviews))


async def get_email(call: Call) -> web.StreamResponse:
    return json_response(await reading.email(call.api.store, AccountId(call.account_id), _message_id(call)))


async def patch_email(call: Call) -> web.StreamResponse:
    account_id = AccountId(call.account_id)
    return json_response(await changing.change(call.api.store, account_id, _message_id(call), call.body))


async def get_attachment(call: Call) -> web.StreamResponse:
    return await reading.part(call, _message_id(call), call.path("part"))


async def get_raw(call: Call) -> web.StreamResponse:
    return await reading.raw(call, _message_id(call))


def _message_id(call: Call) -> int:
    """NotFound for what is no id as well."""
    found = object_ids.number_of(call.path("id"), "M")
    if found is None:
        raise NotFound("the message")
    return found


ROUTES = [
    Route(
        "POST",
        "/emails",
        "sendEmail",
        "Send a message",
        sending.send,
        {202: Answer("The message is stored and on its way.", schemas.Accepted)},
        "emails",
        body=schemas.Sending,
        form=schemas.SendingForm,
        problems={
            409: "A request under the same Idempotency-Key is not done yet.",
            413: "The message is too large.",
        },
        headers={
            sending.KEY_HEADER: "1 to 255 printable characters, new for each message: a request that is repeated "
            "within a day sends once."
        },
        description="As JSON, or as multipart/form-data with any number of files named `attachments`. A copy, marked "
        "as read, is kept in the mailbox for sent mail unless `save` is false. Bcc recipients stand in it alone.",
    ),
    Route(
        "GET",
        "/emails/inbox",
        "getInbox",
        "The INBOX, newest message first",
        get_inbox,
        {200: Answer("A page of the INBOX.", schemas.Inbox)},
        "emails",
        query=schemas.InboxQuery,
        description="Pages follow each other by `next_cursor`. What comes or goes meanwhile neither repeats nor hides "
        "other messages.",
    ),
    Route(
        "GET",
        "/emails/{id}",
        "getEmail",
        "A message",
        get_email,
        {200: Answer("The message, and the mailboxes that it is in.", schemas.Email)},
        "emails",
        parameters=_ID,
        problems={404: "There is no such message in any mailbox of the account."},
        description="Reading it does not set \\\\Seen.",
    ),
    Route(
        "PATCH",
        "/emails/{id}",
        "changeEmail",
        "Change a message's flags",
        patch_email,
        {200: Answer("The mailboxes that it is in, with its flags there.", schemas.Memberships)},
        "emails",
        body=schemas.EmailChange,
        parameters=_ID,
        problems={404: "There is no such message in any mailbox of the account."},
        description="In the named mailbox, or in all that it is in.",
    ),
    Route(
        "GET",
        "/emails/{id}/attachments/{part}",
        "getAttachment",
        "A part of a message",
        get_attachment,
        {200: Answer("The part's octets, decoded.", media="*/*", headers=_OCTETS_HEADERS)},
        "emails",
        parameters={**_ID, "part": schemas.PART},
        problems={404: "There is no such message, or no such part in it."},
    ),
    Route(
        "GET",
        "/emails/{id}/raw",
        "getRawEmail",
        "A message as it came",
        get_raw,
        {200: Answer("The message's octets.", media="message/rfc822", headers=_OCTETS_HEADERS)},
        "emails",
        parameters=_ID,
        problems={404: "There is no such message in any mailbox of the account."},
    ),
]
