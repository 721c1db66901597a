"""The contacts of an account."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

from aiohttp import web

from admin_api import schemas
from admin_api.problems import Problem
from admin_api.reading import moment
from admin_api.route import PREFIX, Answer, Call, Route, json_response
from storage import NotFound, contacts, object_ids
from storage.contacts import BEGINNING, Contact, Place

_ID = {"id": schemas.CONTACT_ID}
_GONE = {404: "There is no such contact."}


async def get_contacts(call: Call) -> web.StreamResponse:
    store, account_id, limit = call.api.store, call.account_id, call.query.limit
    after = BEGINNING if call.query.cursor is None else _place(call.query.cursor)
    found = await contacts.page(store, account_id, after, limit + 1)
    document = {
        "items": list(map(_document, found[:limit])),
        "next_cursor": _cursor(found[limit - 1].place) if len(found) > limit else None,
        "total": await contacts.count(store, account_id),
    }
    return json_response(document)


async def post_contact(call: Call) -> web.StreamResponse:
    details = {name: value for name in schemas.DETAILS if (value := getattr(call.body, name)) is not None}
    made = await contacts.add(call.api.store, call.account_id, call.body.name, call.body.email, details)
    document = _document(made)
    return json_response(document, 201, {"Location": f"{PREFIX}/contacts/{document['id']}"})


async def get_contact(call: Call) -> web.StreamResponse:
    return json_response(_document(await contacts.get(call.api.store, call.account_id, _contact_id(call))))


async def patch_contact(call: Call) -> web.StreamResponse:
    named = {name: getattr(call.body, name) for name in call.body.model_fields_set}
    return json_response(_document(await contacts.change(call.api.store, call.account_id, _contact_id(call), named)))


async def delete_contact(call: Call) -> web.StreamResponse:
    await contacts.remove(call.api.store, call.account_id, _contact_id(call))
    return web.Response(status=204)


def _contact_id(call: Call) -> int:
    """NotFound for what is no id as well."""
    found = object_ids.number_of(call.path("id"), "C")
    if found is None:
        raise NotFound("the contact")
    return found


def _document(contact: Contact) -> dict[str, Any]:
    return {
        "id": object_ids.contact_id(contact.contact_id),
        "name": contact.name,
        "email": contact.email,
        **{name: contact.details.get(name) for name in schemas.DETAILS},
        "created_at": moment(contact.created_at.timestamp()),
        "updated_at": moment(contact.updated_at.timestamp()),
    }


def _cursor(place: Place) -> str:
    text = f"{object_ids.contact_id(place.contact_id)}{place.sort_key}"
    return urlsafe_b64encode(text.encode()).decode("ascii").rstrip("=")


def _place(cursor: str) -> Place:
    """Problem: 422 where it is none of ours."""
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    number = object_ids.number_of(text[:14], "C")
    if number is None or "\0" in text:
        raise Problem(422, "this is no cursor of this list", "cursor")
    return Place(text[14:], number)


ROUTES = [
    Route(
        "GET",
        "/contacts",
        "listContacts",
        "The contacts, in the order of their names",
        get_contacts,
        {200: Answer("A page of contacts.", schemas.Contacts)},
        "contacts",
        query=schemas.ContactsQuery,
    ),
    Route(
        "POST",
        "/contacts",
        "addContact",
        "Add a contact",
        post_contact,
        {201: Answer("The contact is there.", schemas.Contact, headers={"Location": "Where it is."})},
        "contacts",
        body=schemas.NewContact,
    ),
    Route(
        "GET",
        "/contacts/{id}",
        "getContact",
        "A contact",
        get_contact,
        {200: Answer("The contact.", schemas.Contact)},
        "contacts",
        parameters=_ID,
        problems=_GONE,
    ),
    Route(
        "PATCH",
        "/contacts/{id}",
        "changeContact",
        "Change a contact",
        patch_contact,
        {200: Answer("The contact as it is now.", schemas.Contact)},
        "contacts",
        body=schemas.ContactChange,
        parameters=_ID,
        problems=_GONE,
        description="What is named is changed; null takes a detail away.",
    ),
    Route(
        "DELETE",
        "/contacts/{id}",
        "removeContact",
        "Remove a contact",
        delete_contact,
        {204: Answer("The contact is gone.")},
        "contacts",
        parameters=_ID,
        problems=_GONE,
    ),
]
