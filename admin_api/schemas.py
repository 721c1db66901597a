"""The documents of the API, as it takes and gives them. The OpenAPI document is made of these.

What is taken refuses unknown fields and converts nothing. Texts of one line have no control characters, so that they
can neither begin a header field nor a line of a log.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from mailserver.passwords import MAX_PASSWORD_OCTETS
from storage import addresses

ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
NO_NUL = r"^[^\x00]*$"
EMAIL_ID = r"^M[a-z2-7]{13}$"
CONTACT_ID = r"^C[a-z2-7]{13}$"
PART = r"^[1-9][0-9]{0,4}(\.[1-9][0-9]{0,4}){0,99}$"
MAX_PAGE = 100
MAX_ADDRESSES = 1000


def _address(text: str) -> str:
    try:
        addresses.spelled(text)
    except ValueError as error:
        raise ValueError(str(error)) from None
    return text


def _date(text: str) -> str:
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError("there is no such day") from None
    return text


Line = Annotated[str, StringConstraints(pattern=ONE_LINE, max_length=500)]
Subject = Annotated[str, StringConstraints(pattern=ONE_LINE, max_length=5000)]
Text = Annotated[str, StringConstraints(pattern=NO_NUL)]
Name = Annotated[str, StringConstraints(pattern=ONE_LINE, min_length=1, max_length=200)]
EmailAddress = Annotated[
    str,
    StringConstraints(pattern=ONE_LINE, min_length=3, max_length=600),
    AfterValidator(_address),
    Field(json_schema_extra={"format": "email"}),
]
Addresses = Annotated[str, StringConstraints(pattern=ONE_LINE, max_length=100_000)]
Birthday = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    AfterValidator(_date),
    Field(json_schema_extra={"format": "date"}),
]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-25T10:00:00Z"])]


class Taken(BaseModel):
    """What clients send."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Given(BaseModel):
    """What clients get."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Errors ---------------------------------------------------------------------------------------------------------------


class FieldProblem(Given):
    field: str = Field(description="Name of the field, with dots between levels.")
    detail: str


class ProblemDocument(Given):
    """Why something was not done (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str = Field(description="A sentence for people.")
    field: str | None = Field(default=None, description="The field of the request that is wrong.")
    errors: list[FieldProblem] | None = Field(default=None, description="All that is wrong, field by field.")


# Accounts -------------------------------------------------------------------------------------------------------------


class Registration(Taken):
    """An account that somebody makes for themselves."""

    username: Name = Field(description="Name for logging in.", examples=["alice"])
    email: EmailAddress = Field(description="The address, in a domain open for registration.", examples=["a@open.test"])
    password: str = Field(min_length=1, max_length=MAX_PASSWORD_OCTETS, examples=["correct horse battery"])


class AccountDocument(Given):
    username: str
    email: str


class Credentials(Taken):
    username: str = Field(min_length=1, max_length=600, description="User name, or any address of the account.")
    password: str = Field(max_length=4 * MAX_PASSWORD_OCTETS)


class Token(Given):
    token: str = Field(description="To be sent as `Authorization: Bearer …`.")
    token_type: Literal["Bearer"]
    expires_in: int = Field(description="Seconds.")


# Messages -------------------------------------------------------------------------------------------------------------

Recipients = Annotated[
    list[Addresses] | Addresses,
    Field(
        description="A list, or one text with commas between addresses; each is `a@b` or `Name <a@b>`.",
        examples=[["bob@example.org"], "bob@example.org, Carol <carol@example.org>"],
    ),
]


class Sending(Taken):
    """A message to be sent, in plain text, HTML or both. Its sender is whose token it is."""

    recipients: Recipients
    cc: Recipients = []
    bcc: Recipients = []
    subject: Subject = ""
    body: Text | None = Field(default=None, description="Plain text.")
    html: Text | None = Field(default=None, description="The same in HTML, or instead.")
    save: bool = Field(default=True, description="Keep a copy in the mailbox for sent mail.")
    sender: Addresses | None = Field(default=None, description="If it is there: an address of the account itself.")
    from_: Addresses | None = Field(default=None, alias="from", description="The same as `sender`.")


class SendingForm(Sending):
    """The same with files. Recipients may be repeated."""

    attachments: list[Annotated[bytes, Field(json_schema_extra={"format": "binary"})]] = []


class Accepted(Given):
    id: str = Field(description="The message's id (EMAILID).", pattern=EMAIL_ID)
    trace_id: str = Field(description="Names this delivery in logs and in Received: fields.")


class PersonDocument(Given):
    name: str
    email: str


class ListedEmail(Given):
    id: str = Field(pattern=EMAIL_ID)
    thread_id: str
    from_: list[PersonDocument] = Field(alias="from")
    to: list[PersonDocument]
    subject: str
    date: Moment = Field(description="What its Date: field says; else when it came.")
    received: Moment = Field(description="When it came into the mailbox.")
    preview: str
    size: int = Field(description="Octets of the whole message.")
    flags: list[str] = Field(description="As in IMAP: \\Seen, \\Answered, \\Flagged, \\Deleted, \\Draft, keywords.")
    attachments: list[str] = Field(description="Names of the attachments.")


class Inbox(Given):
    """A page of the INBOX, newest message first."""

    items: list[ListedEmail]
    next_cursor: str | None = Field(description="Gives the next page; null: this is the last one.")
    total: int = Field(description="Messages in the mailbox.")
    unseen: int


class AttachmentDocument(Given):
    part: str = Field(description="Number of the part, for fetching it.", pattern=PART)
    filename: str
    content_type: str
    size: int = Field(description="Octets as they are encoded in the message.")
    inline: bool
    content_id: str


class MembershipDocument(Given):
    id: str = Field(description="MAILBOXID.")
    name: list[str] = Field(description="The mailbox's name, level by level.")
    uid: int
    flags: list[str]
    modseq: int


class Email(Given):
    """A message."""

    id: str = Field(pattern=EMAIL_ID)
    thread_id: str
    trace_id: str
    message_id: str = Field(description="Its Message-ID: field.")
    in_reply_to: str
    from_: list[PersonDocument] = Field(alias="from")
    reply_to: list[PersonDocument]
    to: list[PersonDocument]
    cc: list[PersonDocument]
    bcc: list[PersonDocument]
    subject: str
    date: Moment
    received: Moment
    preview: str
    size: int
    body: str = Field(description="The plain text; empty where there is none.")
    html: str | None
    truncated: bool = Field(description="Is the text or HTML longer than is shown here?")
    attachments: list[AttachmentDocument]
    mailboxes: list[MembershipDocument]


Flag = Annotated[str, StringConstraints(pattern=r"^\\?[!#$&'+,./0-9:;<=>?@A-Z^_`a-z|}~-]{1,127}$")]


class FlagsChange(Taken):
    """System flags and keywords, as in IMAP."""

    add: Annotated[list[Flag], Field(max_length=100)] = []
    remove: Annotated[list[Flag], Field(max_length=100)] = []


class EmailChange(Taken):
    flags: FlagsChange
    mailbox: str | None = Field(
        default=None, max_length=100, description="The mailbox (MAILBOXID) whose flags change; without it, all."
    )


class Memberships(Given):
    id: str = Field(pattern=EMAIL_ID)
    mailboxes: list[MembershipDocument]


class InboxQuery(Taken):
    limit: int = Field(default=25, ge=1, le=MAX_PAGE, description="Messages on a page.")
    cursor: str | None = Field(
        default=None,
        pattern=r"^[0-9]{1,10}\.[0-9]{1,10}$",
        description="`next_cursor` of the page before.",
    )


# Contacts -------------------------------------------------------------------------------------------------------------


class ContactDetails(Taken):
    phone: Line | None = None
    organization: Line | None = None
    title: Line | None = None
    address: Annotated[str, StringConstraints(pattern=NO_NUL, max_length=2000)] | None = None
    website: Line | None = None
    birthday: Birthday | None = None
    note: Annotated[str, StringConstraints(pattern=NO_NUL, max_length=10_000)] | None = None


class NewContact(ContactDetails):
    name: Name
    email: EmailAddress


class ContactChange(ContactDetails):
    """What is named is changed; null takes a detail away."""

    name: Name = ""
    email: EmailAddress = ""


class Contact(Given):
    id: str = Field(pattern=CONTACT_ID)
    name: str
    email: str
    phone: str | None
    organization: str | None
    title: str | None
    address: str | None
    website: str | None
    birthday: str | None
    note: str | None
    created_at: Moment
    updated_at: Moment


DETAILS = tuple(ContactDetails.model_fields)


class Contacts(Given):
    """A page of contacts, in the order of their names."""

    items: list[Contact]
    next_cursor: str | None
    total: int


class ContactsQuery(Taken):
    limit: int = Field(default=50, ge=1, le=MAX_PAGE, description="Contacts on a page.")
    cursor: str | None = Field(
        default=None, max_length=800, pattern=r"^[A-Za-z0-9_-]+$", description="`next_cursor` of the page before."
    )


def document(model: BaseModel) -> dict[str, Any]:
    """A model as it is sent."""
    return model.model_dump(by_alias=True, mode="json")
