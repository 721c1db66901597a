"""POST /emails: from what a request says to a message that is stored for all its recipients."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from aiohttp import web

from admin_api import bodies, schemas
from admin_api.form import Form, read_form
from admin_api.memory import Held
from admin_api.problems import Problem
from admin_api.route import Call, json_response
from admin_api.schemas import Sending
from mailserver.delivery import submit
from mailserver.delivery.submit import Envelope, Plan
from mailserver.message import address as address_list
from mailserver.message import compose, decode
from mailserver.message.compose import Attachment, Draft, Mailbox
from storage import AccountId, MessageId, OutcomeUnknown, accounts, addresses, idempotency, object_ids
from storage.batch import new_message_id
from storage.idempotency import Begun, Busy, Differs, Request, Sent

log = logging.getLogger(__name__)

KEY_HEADER = "Idempotency-Key"
_KEY = re.compile(r"[!-~]{1,255}")
_SOON = {"Retry-After": "5"}
_ASIDE_OCTETS = 256 * 1024
"""A message of more is composed in a thread."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A request that has been understood."""

    sending: Sending
    files: Sequence[Attachment]
    sender: Mailbox
    to: list[Mailbox]
    cc: list[Mailbox]
    bcc: list[Mailbox]

    @property
    def recipients(self) -> list[str]:
        return list(dict.fromkeys(mailbox.address for mailbox in (*self.to, *self.cc, *self.bcc)))


async def send(call: Call) -> web.StreamResponse:
    """Answers 202 once the message is durable."""
    key = _key(call.request)
    with Held(call.api.memory) as held:
        wanted = await _understand(call, await _read(call, held))
        if key is None:
            return await _send(call, wanted)
        return await _send_once(call, wanted, key, _digest(wanted))


async def _send(call: Call, wanted: _Wanted) -> web.StreamResponse:
    envelope = await _compose(call, wanted)
    plan = await _plan(call, envelope)
    ids = Begun(MessageId(new_message_id()), _new_trace_id())
    return _accepted(await _commit(call, envelope, plan, ids), ids.trace_id)


async def _send_once(call: Call, wanted: _Wanted, key: str, digest: bytes) -> web.StreamResponse:
    """Sends what was not sent under this key, and answers as at the first time."""
    store, owner = call.api.store, AccountId(call.account_id)
    state: Begun | Sent | Busy | Differs | None = await idempotency.sent(store, owner, key, digest)
    if state is None:
        envelope = await _compose(call, wanted)
        plan = await _plan(call, envelope)
        ids = MessageId(new_message_id()), plan.holder(owner), _new_trace_id()
        state = await idempotency.begin(store, Request(owner, key, digest, *ids))
    match state:
        case Sent(message_id, trace_id):
            return _accepted(message_id, trace_id)
        case Differs():
            raise Problem(422, "the key was used for another request", KEY_HEADER)
        case Busy():
            raise Problem(409, "the first request under this key is not done yet", KEY_HEADER, headers=_SOON)
        case Begun() as begun:
            return await _send_begun(call, envelope, plan, begun, key)


async def _send_begun(call: Call, envelope: Envelope, plan: Plan, begun: Begun, key: str) -> web.StreamResponse:
    store, owner = call.api.store, envelope.account.account_id
    try:
        message_id = await _commit(call, envelope, plan, begun, repeated=True)
    except OutcomeUnknown:
        raise  # a repetition will find out
    except Exception:
        await idempotency.forget(store, owner, key)
        raise
    await idempotency.finish(store, owner, key, message_id)
    return _accepted(message_id, begun.trace_id)


# Reading --------------------------------------------------------------------------------------------------------------


def _key(request: web.Request) -> str | None:
    key = request.headers.get(KEY_HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise Problem(422, "the key is 1 to 255 printable characters of ASCII", KEY_HEADER)
    return key


async def _read(call: Call, held: Held) -> Form:
    settings, request = call.api.config, call.request
    if request.content_type == "multipart/form-data":
        limit = settings.mail.max_message_octets
        return await read_form(request, call.api.store, held, limit, settings.http.body_seconds)
    if request.content_type != "application/json":
        raise Problem(415, "the body must be application/json or multipart/form-data")
    data = await bodies.read_json(request, settings.http.max_json_octets, settings.http.body_seconds)
    if not isinstance(data, dict):
        raise Problem(422, "the body must be an object")
    return Form(data)


async def _understand(call: Call, form: Form) -> _Wanted:
    sending = bodies.fit(Sending, form.fields)
    to, cc, bcc = (_mailboxes(name, getattr(sending, name)) for name in ("recipients", "cc", "bcc"))
    if not to:
        raise Problem(422, "there must be a recipient", "recipients")
    wanted = _Wanted(sending, form.files, await _sender(call, sending), to, cc, bcc)
    most = call.api.config.smtp.max_recipients
    if len(wanted.recipients) > most:
        raise Problem(422, f"a message has at most {most} recipients", "recipients")
    return wanted


async def _sender(call: Call, sending: Sending) -> Mailbox:
    """The account's own address, or another one of its own that the request names."""
    assert call.bearer is not None
    account = call.bearer.account
    sender = Mailbox("", account.primary_address)
    for field, text in (("sender", sending.sender), ("from", sending.from_)):
        if text is None:
            continue
        named = _mailboxes(field, text)
        if len(named) != 1 or not await accounts.owns_address(call.api.store, account.account_id, named[0].address):
            raise Problem(422, "the sender is whose token it is; this is not an address of the account", field)
        sender = named[0]
    return sender


def _mailboxes(field: str, given: list[str] | str) -> list[Mailbox]:
    """The addresses of a field. Problem: 422."""
    found: list[Mailbox] = []
    for text in [given] if isinstance(given, str) else given:
        entries = address_list.parse(text.encode("utf-8", "replace"))
        for entry in entries:
            if not entry.mailbox or not entry.host:
                raise Problem(422, "this is not an address of the form name@domain", field)
            found.append(_mailbox(field, entry.name, entry.mailbox, entry.host))
        if len(found) > schemas.MAX_ADDRESSES:
            raise Problem(422, f"there are more than {schemas.MAX_ADDRESSES} addresses", field)
    return found


def _mailbox(field: str, name: bytes | None, local: bytes, host: bytes) -> Mailbox:
    text = address_list.local_part(local.decode("utf-8", "replace"))
    try:
        address = addresses.spelled(f"{text}@{host.decode('utf-8', 'replace')}")
    except ValueError as error:
        raise Problem(422, str(error), field) from None
    return Mailbox(decode.words(name or b""), address)


# Sending --------------------------------------------------------------------------------------------------------------


async def _compose(call: Call, wanted: _Wanted) -> Envelope:
    assert call.bearer is not None
    hostname = call.api.config.server.hostname
    draft = Draft(
        wanted.sender,
        wanted.to,
        wanted.cc,
        wanted.sending.subject,
        wanted.sending.body,
        wanted.sending.html,
        wanted.files,
        int(time.time()),
        f"<{_new_trace_id()}@{hostname}>",
        secrets.token_hex(12),
    )
    size = sum(len(file.octets) for file in wanted.files)
    size += len(draft.text or "") + len(draft.html or "")
    octets = compose.compose(draft) if size < _ASIDE_OCTETS else await asyncio.to_thread(compose.compose, draft)
    most = call.api.config.mail.max_message_octets
    if len(octets) > most:
        raise bodies.too_large(most)
    return Envelope(
        call.bearer.account,
        wanted.sender.address,
        wanted.recipients,
        octets,
        peer=call.peer,
        hostname=hostname,
        protocol="HTTPS" if call.request.secure else "HTTP",
        smtputf8=compose.needs_smtputf8(octets) or not all(map(str.isascii, wanted.recipients)),
        bcc=compose.address_field("Bcc", wanted.bcc) if wanted.bcc else b"",
        save=wanted.sending.save,
    )


async def _plan(call: Call, envelope: Envelope) -> Plan:
    """Where it goes; LimitReached where too much waits to be sent."""
    plan = await submit.plan(call.api.store, call.api.routes, envelope)
    if plan.outside:
        most = call.api.config.send.max_queued_messages
        await call.api.routes.check_queue(envelope.account.account_id, most)
    return plan


async def _commit(call: Call, envelope: Envelope, plan: Plan, ids: Begun, *, repeated: bool = False) -> MessageId:
    message_id = await submit.commit(
        call.api.store,
        envelope,
        plan,
        message_id=ids.message_id,
        trace_id=ids.trace_id,
        outbox=call.api.outbox,
        repeated=repeated,
    )
    log.info(
        "accepted trace=%s by=api peer=%s from=<%s> to=%s size=%d login=%s",
        ids.trace_id,
        envelope.peer,
        envelope.sender,
        ",".join([f"<{address}>" for address in envelope.recipients[:10]]),
        len(envelope.octets),
        envelope.account.account_id,
    )
    return message_id


def _digest(wanted: _Wanted) -> bytes:
    """SHA-256 of what is asked for."""
    whole = hashlib.sha256(json.dumps(wanted.sending.model_dump(), sort_keys=True).encode())
    for file in wanted.files:
        head = json.dumps([file.filename, file.media_type, hashlib.sha256(file.octets).hexdigest()])
        whole.update(head.encode())
    return whole.digest()


def _accepted(message_id: int, trace_id: UUID) -> web.Response:
    return json_response({"id": object_ids.email_id(message_id), "trace_id": str(trace_id)}, 202)


def _new_trace_id() -> UUID:
    return UUID(bytes=os.urandom(16), version=4)
